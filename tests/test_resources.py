"""What jobs ask for: memory, time, GPUs; and segments as long as a queue allows."""

import itertools
import re
from pathlib import Path

import pytest
from builders import OMNIGLOT_BANK, TINY_SET, changed, pack, tiny_run
from pipeline import TINY, Clone

from icl_transience.planning import resources
from icl_transience.planning.plan import Plan
from icl_transience.planning.resources import Job
from icl_transience.specs.compute import training_flop
from icl_transience.specs.image_sources import Trained

ROOT = Path(__file__).parents[1]

# Wide enough for FLOP to count beside what a batch costs anyway.
RUN = tiny_run(**{"model.width": 512, "batch_size": 32, "snapshots.first": 3200, "snapshots.every": 3200})
PACK = pack(RUN)


# What is asked for.


def test_a_job_asks_for_more_than_is_expected_and_for_more_still_when_it_is_tried_again():
    job = Job(megabytes=1000, seconds=600)
    assert [job.mem_mb(attempt) for attempt in (1, 2, 3)] == [1300, 2600, 3900]
    assert [job.runtime(attempt) for attempt in (1, 2, 3)] == [40, 80, 120]


def test_no_attempt_asks_for_more_than_the_limits():
    job = Job(megabytes=1000, seconds=600, memory=3000, time_limit=60)
    assert [job.mem_mb(attempt) for attempt in (1, 2, 3)] == [1300, 2600, 3000]
    assert [job.runtime(attempt) for attempt in (1, 2, 3)] == [40, 60, 60]


@pytest.mark.parametrize("attempt", [1, 2, 3])
@pytest.mark.parametrize("limit", [20, 55, 100, 10_000])
def test_jobs_of_one_cluster_job_stay_within_its_limit_together(limit, attempt):
    one = Job(megabytes=0, seconds=600, time_limit=limit, others=17)
    other = Job(megabytes=0, seconds=139, time_limit=limit, others=40)
    asked = one.runtime(attempt) + other.runtime(attempt)
    assert asked <= limit
    assert asked >= min(limit - 2, attempt * 57)


@pytest.mark.parametrize("attempt", [1, 2, 4])
@pytest.mark.parametrize("limit", [700, 1500, 4000, 100_000])
def test_jobs_that_run_at_the_same_time_in_one_cluster_job_stay_within_its_memory_together(limit, attempt):
    """Slurm's plugin adds up what they ask for."""
    one, other = 667 + resources.SNAKEMAKE_MB, 100 + resources.SNAKEMAKE_MB
    asked = [
        Job(megabytes=own - resources.SNAKEMAKE_MB, seconds=1, memory=limit, beside=beside).mem_mb(attempt)
        for own, beside in ((one, other), (other, one))
    ]
    assert sum(asked) <= limit
    assert sum(asked) >= min(limit - 2, attempt * (one + other))


def test_time_is_flop_over_the_rate_and_a_little_a_batch():
    batches, overhead = 100, 100 * 3 * resources.OVERHEAD_SECONDS["cpu"]
    flop = batches * 32 * training_flop(RUN)
    for device, gflops, rate in (("cpu", None, 20e9), ("cpu", 50, 50e9)):
        seconds = resources.train(PACK, 0, 3200, device, gflops).seconds
        assert seconds == pytest.approx(flop / rate + overhead)
    # A GPU's rate, measured or modelled, has what batches cost.
    assert resources.train(PACK, 0, 3200, "cuda:1", 50).seconds == pytest.approx(flop / 50e9)


def test_twice_the_lanes_or_the_sequences_take_twice_the_time():
    def flop_seconds(lanes: int, end: int) -> float:
        job = resources.train(pack(*[RUN] * lanes), 0, end)
        return job.seconds - end / 32 * 3 * resources.OVERHEAD_SECONDS["cpu"]

    assert flop_seconds(2, 3200) == pytest.approx(2 * flop_seconds(1, 3200))
    assert flop_seconds(1, 6400) == pytest.approx(2 * flop_seconds(1, 3200))


def test_evaluation_takes_its_snapshots_evaluators_and_sequences():
    def seconds(end: int = 3200, **changes) -> float:
        return resources.evaluate(PACK, changed(TINY_SET, changes), 0, end).seconds

    # Snapshots at 0 and 3200; then one more.
    assert seconds(6400) == pytest.approx(1.5 * seconds(3200))
    assert seconds(sequences=32) > 1.5 * seconds(sequences=16)
    assert seconds(evaluators=("train", "icl", "iwl", "flip")) == pytest.approx(2 * seconds())
    assert seconds(evaluators=("train", "icl@8")) > seconds()


def test_only_training_and_evaluation_on_cuda_take_a_gpu():
    for job in (resources.train(PACK, 0, 3200, "cuda"), resources.evaluate(PACK, TINY_SET, 0, 3200, "cuda:0")):
        assert job.gpu == 1
    for job in (resources.train(PACK, 0, 3200), resources.bank(RUN.bank), resources.sequences(TINY_SET)):
        assert job.gpu == 0


DRAWINGS = changed(OMNIGLOT_BANK, {"omniglot.zips": ("images_background_small1.zip",)})


def test_a_large_network_over_many_drawings_asks_for_cores_and_time():
    small, large = (
        resources.bank(changed(DRAWINGS, {"omniglot.encoder": encoder, "omniglot.characters": 200}))
        for encoder in ("pixels", "resnet18")
    )
    assert small.cpus == 1
    assert large.cpus > 1
    assert large.seconds > 100 * small.seconds


def test_a_trained_encoder_takes_as_long_as_it_has_epochs():
    def seconds(epochs: int) -> float:
        trained = Trained(epochs=epochs, batch_size=32, learning_rate=1e-3)
        return resources.encoder(
            changed(DRAWINGS, {"omniglot.encoder": "trained", "omniglot.trained": trained})
        ).seconds

    assert seconds(8) == pytest.approx(4 * seconds(2))


# Segments as long as a queue allows.


def lengths(minutes: float, horizon_batches: int = 1000, **rate) -> list[int]:
    boundaries = [0]
    while boundaries[-1] < 32 * horizon_batches:
        settings = {"device": "cpu", "gflops": None} | rate
        boundaries.append(resources.segment_end(PACK, [TINY_SET], boundaries[-1], minutes, **settings))
    return boundaries


@pytest.mark.parametrize("minutes", [0.05, 0.2, 1])
def test_a_segment_takes_as_long_as_it_may_and_a_batch_more_would_be_too_much(minutes):
    boundaries = lengths(minutes)

    def expected(start: int, end: int) -> float:
        return resources.train(PACK, start, end).seconds + resources.evaluate(PACK, TINY_SET, start, end).seconds

    for start, end in itertools.pairwise(boundaries):
        assert (end - start) % 32 == 0
        assert expected(start, end) <= 60 * minutes < expected(start, end + 32)


def test_a_segment_has_one_batch_at_least():
    assert lengths(1e-9, horizon_batches=3) == [0, 32, 64, 96]


def test_a_faster_device_has_longer_segments():
    slow, fast = (lengths(0.2, gflops=rate)[1] for rate in (5, 50))
    assert fast > 2 * slow


def plan(folder: Path, **config) -> Plan:
    study = folder / "tiny.yaml"
    study.write_text(TINY)
    return Plan({"study": str(study), "results": str(folder / "results"), "lanes_per_pack": 8} | config, ROOT)


def test_a_plan_cuts_new_packs_by_minutes_where_they_are_given(tmp_path):
    (by_sequences, *_) = plan(tmp_path, segment_sequences=1024).packs.values()
    assert by_sequences.boundaries == (0, 1024, 2048)
    (by_minutes, *_) = plan(tmp_path, segment_minutes=0.002).packs.values()
    assert len(by_minutes.boundaries) > 3
    assert by_minutes.boundaries[-1] == 2048
    (long, *_) = plan(tmp_path, segment_minutes=60).packs.values()
    assert long.boundaries == (0, 2048)


def test_training_and_evaluation_of_a_segment_share_the_time_limit(tmp_path):
    planned = plan(tmp_path, time_limit=15, memory=2000)
    (pack_id, *_), (set_id, *_) = planned.packs, planned.sets
    jobs = planned.jobs.train(pack_id, "0000", "2048"), planned.jobs.evaluate(pack_id, set_id, 0, 2048)
    assert 13 <= sum(job.runtime() for job in jobs) <= 15
    assert all(job.mem_mb(attempt=9) == 2000 for job in jobs)


# In the workflow.

TABLES = "results/studies/tiny/transience/curves.csv"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Clone:
    clone = Clone.make(tmp_path_factory.mktemp("resources") / "clone", TINY.replace("[0, 1]", "[0]"))
    clone.build(TABLES)
    return clone


def test_segments_cut_by_minutes_run_nothing_again_and_shape_what_comes(finished, tmp_path):
    clone = finished.copy(tmp_path / "clone")
    minutes = ("segment_minutes=0.002", "gflops=20", "time_limit=30")
    assert clone.would_run(TABLES, config=minutes) == {}
    clone.change("horizon: 2048", "horizon: 4096")
    by_sequences = clone.would_run(TABLES)
    by_minutes = clone.would_run(TABLES, config=minutes)
    assert by_sequences["train"] == 2
    assert by_minutes["train"] > 2
    output = clone.build("-n", TABLES, config=minutes)
    assert "segment-000000001024-000000002048.h5" in output, "the first new segment begins where the last one ended"


def test_packs_of_another_default_stay_and_train_nothing_again(finished, tmp_path):
    """Made with eight lanes a pack and segments of 1,024; then what is null in config.yaml holds."""
    clone = finished.copy(tmp_path / "clone")
    clone.settings = ()
    assert clone.would_run(TABLES) == {}
    clone.change("horizon: 2048", "horizon: 4096")
    jobs = clone.would_run(TABLES)
    assert (jobs["train"], jobs["evaluate"]) == (1, 1)
    clone.build(TABLES)
    assert clone.would_run(TABLES) == {}
    ends = [int(path.stem[-12:]) for path in sorted(clone.folder.glob("results/packs/*/segment-*.h5"))]
    assert ends == [1024, 2048, 4096]


def asked(clone: Clone, *arguments: str, config: tuple[str, ...] = ()) -> dict[str, str]:
    """Rule -> the resources of one of its jobs, in Snakemake's words."""
    output = clone.build("-n", *arguments, config=config)
    return dict(re.findall(r"^ *rule (\w+):\n.*?^ +resources: (.*?)$", output, re.MULTILINE | re.DOTALL))


def test_a_profile_can_set_any_resource(tmp_path):
    clone = Clone.make(tmp_path / "clone")
    own = asked(clone)
    for rule in ("bank", "sequences", "train", "evaluate"):
        assert re.search(r"runtime=\d+", own[rule])
        assert re.search(r"mem_mb=\d+", own[rule])
    profile = clone.folder / "profiles/default/config.yaml"
    profile.write_text(
        profile.read_text() + "set-resources: {train: {mem_mb: 77 * attempt, runtime: 5, gpu_model: a1}}"
    )
    changed = asked(clone)
    assert "mem_mb=77," in changed["train"]
    assert "runtime=5," in changed["train"]
    assert "gpu_model=a1" in changed["train"]
    assert changed["evaluate"] == own["evaluate"]
