"""What a plan does by default: how many lanes train together, and how long segments are, so that all cores work."""

import itertools
from pathlib import Path

import pytest
from builders import lane, pack, tiny_run
from hypothesis import given
from hypothesis import strategies as st
from pipeline import ROOT, TINY

from icl_transience.planning import benchmark_shapes, jobs, resources
from icl_transience.planning.jobs import Pace
from icl_transience.planning.plan import Plan
from icl_transience.planning.rates import Rates
from icl_transience.specs.compute import training_flop
from icl_transience.specs.identity import round_up
from icl_transience.study.experiments import Study

RUN = tiny_run(**{"batch_size": 32, "snapshots.every": 64_000})
FLOP = training_flop(RUN)
CONFIG = {
    "device": "cpu",
    "engine": "auto",
    "gflops": 1.0,
    "lanes_per_pack": None,
    "gpu_memory": 16_000,
    "segment_sequences": None,
    "segment_minutes": None,
    "time_limit": None,
}


def pace(rate: float = 1000, cores: int = 2, **config) -> Pace:
    """rate: sequences a second that one lane of RUN trains on."""
    study = Study(name="none", description="", experiments={}, left_out={})
    settings = CONFIG | {"gflops": rate * FLOP / 1e9} | config
    return Pace(settings, study, Rates(settings, Path("nowhere")), cores)


def planned(study: str, folder: Path, cores: int = 2, **config) -> Plan:
    return Plan({"study": study, "results": str(folder / "results"), "memory": 64_000} | config, ROOT, cores)


def written(folder: Path, old: str = "", new: str = "") -> str:
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace(old, new))
    return str(path)


# How many lanes train together.


def lanes_a_pack(seconds: float, *, seeds: int, lanes: int, cores: int) -> int:
    """Of a run whose lanes take so many seconds each, in a study with so many lanes."""
    horizon = 64_000
    group = [lane(RUN, seed) for seed in range(seeds)]
    return pace(horizon / seconds, cores).lanes_per_pack(group, horizon, lanes)


@pytest.mark.parametrize("seconds", [1, 30, 119, 121, 1e6])
def test_where_there_are_as_many_cores_as_lanes_each_has_its_own(seconds):
    assert lanes_a_pack(seconds, seeds=4, lanes=16, cores=16) == 1


def test_lanes_of_two_minutes_and_more_have_a_core_each_however_few_cores_there_are():
    assert lanes_a_pack(121, seeds=11, lanes=1000, cores=1) == 1


def test_short_lanes_are_seeds_of_one_pack_while_no_core_goes_without():
    # Four packs of 3 leave none of 4 cores without work; there are no more than 4 seeds; 2 minutes are 2 of 50 seconds.
    assert lanes_a_pack(5, seeds=4, lanes=12, cores=4) == 2
    assert lanes_a_pack(5, seeds=4, lanes=12, cores=2) == 4
    assert lanes_a_pack(5, seeds=3, lanes=12, cores=4) == 3
    assert lanes_a_pack(50, seeds=4, lanes=12, cores=1) == 2


def test_all_cores_share_a_run_s_seeds_where_a_start_is_little_beside_them():
    # In packs of 3 the first experiment's seeds would train on one core, and another's on the other.
    assert lanes_a_pack(40, seeds=3, lanes=6, cores=2) == 2
    assert lanes_a_pack(10, seeds=3, lanes=6, cores=2) == 3


def test_packs_of_a_run_are_as_equal_as_can_be():
    # Ten would be 10 and 1.
    assert lanes_a_pack(12, seeds=11, lanes=1000, cores=2) == 6


@given(
    seconds=st.floats(0.5, 1000),
    seeds=st.integers(1, 12),
    runs=st.integers(1, 12),
    cores=st.integers(1, 64),
)
def test_by_default_no_core_goes_without_a_pack_and_no_pack_of_several_lanes_is_long(seconds, seeds, runs, cores):
    size = lanes_a_pack(seconds, seeds=seeds, lanes=seeds * runs, cores=cores)
    packs = runs * -(-seeds // size)
    assert packs >= min(cores, seeds * runs)
    assert size == 1 or size * seconds <= 120


def test_on_cuda_all_seeds_of_a_run_are_a_pack():
    group = [lane(RUN, seed) for seed in range(11)]
    assert pace(device="cuda:1").lanes_per_pack(group, 10**12, 1000) == 11


def test_on_cuda_packs_are_as_large_as_half_of_its_memory_and_as_equal_as_can_be():
    group = [lane(RUN, seed) for seed in range(11)]
    one, two = (resources.training_megabytes(pack(*[RUN] * lanes)) for lanes in (1, 2))
    assert two > one
    room_for_four = 2 * (one + 3 * (two - one))
    assert pace(device="cuda", gpu_memory=room_for_four).lanes_per_pack(group, 10**12, 1000) == 4
    assert pace(device="cuda", gpu_memory=1).lanes_per_pack(group, 10**12, 1000) == 1
    # Five would be 5, 5 and 1.
    assert pace(device="cuda", gpu_memory=room_for_four + 2 * (two - one)).lanes_per_pack(group, 10**12, 1000) == 4


def test_on_cuda_packs_multiply_no_more_attention_patterns_than_a_call_can():
    run = tiny_run(**{"batch_size": 32, "model.heads": 8})
    group = [lane(run, seed) for seed in range(300)]
    size = pace(device="cuda", gpu_memory=10**9).lanes_per_pack(group, 10**12, 1000)
    assert size == 150
    assert resources.lanes_on_gpu(pack(run), 10**9) == 255


def test_training_that_waits_for_the_host_shares_a_gpu_and_a_graph_has_one_of_its_own():
    on_cuda = pace(device="cuda")
    assert on_cuda.rates.engine(pack(RUN)) == "graph"
    assert on_cuda.percent(pack(RUN)) == 100
    eager = pace(device="cuda", engine="eager")
    assert eager.percent(pack(RUN)) == 25
    # What needs more than a quarter of the memory leaves no three others beside it.
    needed = resources.training_megabytes(pack(RUN))
    assert pace(device="cuda", engine="eager", gpu_memory=2 * needed).percent(pack(RUN)) == 50
    assert pace(device="cuda", engine="eager", gpu_memory=needed).percent(pack(RUN)) == 100


def test_an_image_encoder_has_a_gpu_of_its_own():
    """What it takes of one is not in the model of a step."""
    of_images = benchmark_shapes.pack_of(benchmark_shapes.SHAPES["e"], 1, "float32")
    assert of_images.run.model.encodes_images
    assert pace(device="cuda", engine="eager").percent(of_images) == 100


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_number_of_lanes_that_is_given_holds(device):
    group = [lane(RUN, seed) for seed in range(11)]
    assert pace(device=device, lanes_per_pack=3).lanes_per_pack(group, 10**12, 1000) == 3


@pytest.mark.parametrize("study", ["laptop", "omniglot"])
def test_a_study_of_minutes_keeps_sixteen_cores_busy_as_far_as_it_has_lanes(study, tmp_path, request):
    if study == "omniglot":
        request.getfixturevalue("omniglot_folder")
    on_many = planned(study, tmp_path, cores=16)
    lanes = {one for pack in on_many.packs.values() for one in pack.spec.lanes}
    assert len(on_many.packs) >= min(16, len(lanes))
    on_two = planned(study, tmp_path, cores=2)
    assert len(on_two.packs) >= 2
    on_cuda = planned(study, tmp_path, device="cuda")
    runs = {run.run.id for experiment in on_cuda.study.experiments.values() for run in experiment.runs}
    assert len(on_cuda.packs) == len(runs)


# How long segments are.


def boundaries(horizon: int, *, lanes: int = 1, start: tuple[int, ...] = (0,), **settings) -> list[int]:
    spec, found = pack(*[RUN] * lanes), list(start)
    end_after = pace(**settings).segment_end(spec, horizon)
    while found[-1] < horizon:
        found.append(round_up(min(end_after(found[-1]), horizon), 32))
    return found


@given(rate=st.floats(10, 1e6), lanes=st.integers(1, 12))
def test_a_segment_takes_ten_to_fifteen_minutes_where_a_lane_has_few(rate, lanes):
    # As many as eight segments of fifteen minutes.
    horizon = int(rate * 900 * 8 / lanes)
    first = boundaries(horizon, rate=rate, lanes=lanes)[1]
    assert 10 <= lanes * first / rate / 60 <= 15 + lanes * 32 / rate / 60


@given(rate=st.floats(1, 1e6), horizon=st.integers(1, 10**10))
def test_a_lane_has_at_most_24_segments_up_to_its_horizon(rate, horizon):
    assert len(boundaries(horizon, rate=rate)) - 1 <= jobs.MOST_SEGMENTS_OF_A_LANE


def test_a_rate_that_differs_a_little_moves_no_end():
    same = {tuple(boundaries(20_000_000, rate=rate)) for rate in range(1740, 2260, 20)}
    assert len(same) == 1
    assert boundaries(20_000_000, rate=2000)[:3] == [0, 1_536_000, 3_072_000]


def test_ends_of_long_segments_are_snapshots_where_they_are_whole_powers_of_their_distance():
    ends = boundaries(64_000 * 96, rate=100)
    assert ends[1:] == list(range(4 * 64_000, 64_000 * 96 + 1, 4 * 64_000))
    assert resources.ends_without_snapshot(RUN, ends[1:]) == 0


@pytest.mark.parametrize("short", [1, 640_000, 5_000_000])
def test_a_longer_horizon_keeps_the_segments_and_adds_at_most_24(short):
    first = boundaries(short, rate=10)
    longer = boundaries(10**9, rate=10, start=tuple(first))
    assert longer[: len(first)] == first
    assert len(longer) - len(first) <= 24


def test_a_length_that_is_given_holds_however_many_segments_that_makes():
    assert len(boundaries(3200, segment_sequences=64)) == 51
    assert len(boundaries(32_000, rate=100, segment_minutes=0.01)) > 30


def test_segments_fit_a_queues_time_limit_with_their_evaluation(tmp_path):
    settings = {"gflops": 0.005, "time_limit": 60}
    study = written(tmp_path, "horizon: 2048", "horizon: 640000")
    plan = planned(study, tmp_path, **settings)
    (set_id,) = plan.sets
    for pack_id, of_pack in plan.packs.items():
        segments = of_pack.segments(640_000)
        # Without a limit they would be 24 at most.
        assert len(segments) > 24
        for start, end in segments:
            asked = plan.jobs.train(pack_id, start, end), plan.jobs.evaluate(pack_id, set_id, start, end)
            # The minutes of each are whole.
            assert sum(job.minutes for job in asked) <= 60 + len(asked)


# Registered packs.


def test_what_is_registered_stays_whatever_the_machine_and_its_defaults(tmp_path):
    study = written(tmp_path)
    before = planned(study, tmp_path, lanes_per_pack=2, segment_sequences=1024)
    before.register()
    for cores, device in itertools.product((1, 64), ("cpu", "cuda")):
        assert planned(study, tmp_path, cores, device=device).packs == before.packs
    # A longer horizon goes on from there.
    longer = planned(written(tmp_path, "horizon: 2048", "horizon: 4096"), tmp_path)
    assert longer.packs.keys() == before.packs.keys()
    for pack_id, of_pack in before.packs.items():
        assert of_pack.boundaries == (0, 1024, 2048)
        assert longer.packs[pack_id].boundaries == (0, 1024, 2048, 4096)
    # So do new seeds, which form packs of their own.
    more = planned(written(tmp_path, "seeds: [0, 1]", "seeds: [0, 1, 2, 3]"), tmp_path, cores=64)
    assert before.packs.items() <= more.packs.items()
    assert sorted(len(of_pack.spec.lanes) for of_pack in more.packs.values()) == [1, 1, 1, 1, 2, 2]
