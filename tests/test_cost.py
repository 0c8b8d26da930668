"""What a study costs, against counts by hand, real files, and rates that somebody measured."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import TINY_RUN, TINY_SET, changed, lane, pack
from hypothesis import given
from hypothesis import strategies as st
from pipeline import ROOT

from icl_transience.banks import bank as banks_bank
from icl_transience.engines import select
from icl_transience.planning import benchmark_shapes, modelled, rates, resources
from icl_transience.planning.plan import Plan
from icl_transience.results import cost, waiting
from icl_transience.results.cost import Cost
from icl_transience.sequences import frozen
from icl_transience.specs.code_digest import training_code
from icl_transience.specs.compute import MOST_PRODUCTS, lane_bytes, training_flop
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import PackSpec
from icl_transience.store import layout
from icl_transience.system.formatting import format_duration, format_scientific
from icl_transience.training import segments

# `again` shares a run with `first`, trains it twice as far, and has one of its own.
STUDY = """
defaults:
  bank: {source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2, dim: 4}}
  recipe: {context: 8, burstiness: 3}
  model: {depth: 2, width: 16, heads: 2, mlp_ratio: 0}
  batch_size: 32
  snapshots: {first: 256, per_doubling: 1, every: 512}
  evaluation: {evaluators: [icl, iwl], sequences: 64}
  seeds: [0, 1]
experiments:
  first: {horizon: 1024}
  again: {horizon: 2048, axes: {optimizer.l2.strength: [0, 1.0e-3]}}
"""
# 8 pairs are 17 tokens: embedder; first block; last block; 40 labels.
FORWARD = 2 * 9 * 4 * 16 + (17 * 8 * 16**2 + 2 * 16 * 17 * 18) + (4 * 17 + 4) * 16**2 + 4 * 16 * 17 + 2 * 16 * 40
TRAINING = 3 * FORWARD
# A snapshot answers 64 sequences of two evaluators.
SNAPSHOT = 2 * 64 * FORWARD
# Embedder, label embeddings, two blocks (norm, attention), norm, unembedding; in float32.
STATE = 4 * ((4 * 16 + 16) + 40 * 16 + 2 * (2 * 16 + 4 * 16 * 16) + 2 * 16 + (16 * 40 + 40))


def case(flop: float, gflops: float, **other) -> dict:
    """A case as the benchmark records it. flop: of training on one sequence."""
    plain = {"shape": "a", "lanes": 1, "jobs": 1, "numerics": "float32", "engine": "native"}
    return plain | {"flops": gflops * 1e9, "rate": gflops * 1e9 / flop} | other


def machine(*cases: dict, name: str = "a machine", **other) -> dict:
    return {"machine": name, "date": "2026-01-01", "cases": list(cases)} | other


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    """A workflow in the working folder, with nothing measured."""
    (tmp_path / "workflow/studies").mkdir(parents=True)
    shutil.copytree(ROOT / "workflow/schemas", tmp_path / "workflow/schemas")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(base: Path, study: str = STUDY, *machines: dict, **config) -> Plan:
    """Segments end at 1024 and 2048."""
    (base / "workflow/studies/small.yaml").write_text(study)
    if machines:
        (base / "benchmarks").mkdir(exist_ok=True)
        (base / rates.MEASURED).write_text(json.dumps(machines))
    settings = {"study": "small", "lanes_per_pack": 8, "segment_sequences": 1024}
    return Plan(settings | config, base, cores=2)


def rates_used(base: Path, *machines: dict, study: str = STUDY, **config) -> set[float]:
    """GFLOP/s that are used, None for those that were not measured."""
    found = cost.count(planned(base, study, *machines, **config)).rates
    return {None if math.isnan(rate.flops) else rate.flops / 1e9 for rate in found}


def row(text: str, name: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.split()[:1] == [name])
    return line.split()[1:]


# What is counted.


def test_an_experiment_costs_what_a_count_by_hand_gives(base):
    first = cost.count(planned(base, gflops=1)).experiments["first"]
    # Snapshots at 0, 256, 512 and 1024; a checkpoint is three states.
    flop = 2 * 1024 * TRAINING + 2 * 4 * SNAPSHOT
    assert first == Cost(
        runs=1,
        lanes=2,
        sequences=2 * 1024,
        flop=flop,
        segments=2 * (4 + 3) * STATE,
        banks=50 * 5 * 4 * 4,
        sets=2 * 64 * 9 * (4 + 3) * 4,
        hours=pytest.approx(flop / 1e9 / 3600),
    )


def test_what_experiments_share_is_counted_in_the_first_of_them(base):
    counted = cost.count(planned(base, gflops=1))
    again = counted.experiments["again"]
    assert (again.runs, again.lanes, again.banks, again.sets) == (1, 2, 0, 0)
    # The lanes that `first` has trained halfway go on from there, with snapshots at 1536 and 2048.
    assert again.sequences == 2 * 2048 + 2 * 1024
    assert again.flop == again.sequences * TRAINING + 2 * (6 + 2) * SNAPSHOT
    assert again.segments == 2 * ((6 + 2 * 3) + (2 + 3)) * STATE
    assert replace(counted.along, hours=0) == Cost()
    assert (counted.total.runs, counted.total.lanes, counted.total.sequences) == (2, 4, 4 * 2048)
    assert counted.total.flop == 4 * 2048 * TRAINING + 4 * 6 * SNAPSHOT


def test_a_second_set_of_evaluators_costs_its_evaluation_and_nothing_else(base):
    more = STUDY + "  more: {horizon: 1024, evaluation: {evaluators: [icl], sequences: 32}}\n"
    counted = cost.count(planned(base, more, gflops=1))
    evaluation_alone = 2 * 4 * 32 * FORWARD
    hours = pytest.approx(evaluation_alone / 1e9 / 3600)
    assert counted.experiments["more"] == Cost(flop=evaluation_alone, sets=32 * 9 * 7 * 4, hours=hours)
    assert counted.total.flop == 4 * 2048 * TRAINING + 4 * 6 * SNAPSHOT + evaluation_alone


def test_lanes_that_train_along_with_others_are_told_apart(base):
    study = STUDY.replace("[0, 1.0e-3]", "[1.0e-3]")
    # They are a pack since both went as far.
    planned(base, study.replace("2048", "1024"), packing="shape").register()
    counted = cost.count(planned(base, study, packing="shape"))
    assert [one.sequences for one in counted.experiments.values()] == [2 * 1024, 2 * 2048]
    # All four are one pack: the two of `first` train on, and are evaluated, to the horizon of `again`.
    assert counted.along.sequences == 2 * 1024
    assert counted.along.flop == 2 * 1024 * TRAINING + 2 * 2 * SNAPSHOT
    assert (counted.along.lanes, counted.along.segments) == (0, 2 * (2 + 3) * STATE)
    assert counted.total.sequences == 4 * 2048
    assert row(cost.table(planned(base, study, packing="shape")), "along")[0] == "2.05k"
    shutil.rmtree("results")
    for packing in ("run", "shape"):
        assert "along" not in cost.table(planned(base, study, packing=packing))


def test_files_are_as_large_as_is_said(tmp_path):
    """But for what their formulas leave out: HDF5's own, losses, a bank's quality card."""
    bank = changed(TINY_RUN.bank, {"gaussian.classes": 400, "gaussian.exemplars": 8, "gaussian.dim": 64})
    run = changed(TINY_RUN, {"bank": bank, "model.width": 64})
    spec, exemplars = pack(run, run), banks_bank.build(bank, [])
    segment, sequences, bank_file = (tmp_path / name for name in ("segment-0.h5", "sequences.h5", "bank.h5"))
    segments.run_segment(segments.SegmentJob(segment, spec, exemplars.embeddings, None, 0, 32))
    # 0, 8, 16 and 32.
    assert 1 < segment.stat().st_size / (2 * lane_bytes(run, 4)) < 1.05
    sequence_set = changed(TINY_SET, {"bank": bank, "sequences": 1000})
    frozen.write_sequences(sequences, sequence_set, exemplars.embeddings)
    assert 1 < sequences.stat().st_size / resources.sequences_bytes(sequence_set) < 1.05
    banks_bank.save(exemplars, bank_file, bank)
    assert 1 < bank_file.stat().st_size / resources.bank_bytes(bank) < 1.05


# What is done.


def finish(pack_id: str, name: str) -> Path:
    path = Path("results/packs", pack_id, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_finished_segments_and_their_metrics_are_done_and_the_rest_is_left(base):
    plan = planned(base, gflops=1)
    assert cost.count(plan).done == Cost()
    assert not Path("results").exists()
    (shared, own), (set_id,) = plan.packs, plan.sets
    finish(shared, layout.segment_name(0, 1024))
    finish(f"{own}/.kept", layout.segment_name(0, 1024))
    done = cost.count(plan).done
    assert (done.sequences, done.flop) == (4 * 1024, 4 * 1024 * TRAINING)
    finish(shared, layout.metrics_name(set_id, 0, 1024))
    done = cost.count(plan).done
    assert done.flop == 4 * 1024 * TRAINING + 2 * 4 * SNAPSHOT
    assert done.hours == pytest.approx(done.flop / 1e9 / 3600)
    text = cost.table(plan)
    assert row(text, "done")[0] == row(text, "left")[0] == "4.10k"
    assert row(text, "total")[2] == "8.19k"


def test_a_segment_after_one_that_is_missing_is_not_done(base):
    plan = planned(base)
    (shared, _) = plan.packs
    finish(shared, layout.segment_name(1024, 2048))
    assert cost.count(plan).done.sequences == 0


def test_what_is_trained_beyond_the_horizon_is_not_done_twice(base):
    plan = planned(base)
    plan.register()
    for pack_id, of_pack in plan.packs.items():
        for segment in of_pack.segments(2048):
            finish(pack_id, layout.segment_name(*segment))
    shorter = cost.count(planned(base, STUDY.replace("2048", "1024")))
    assert shorter.done.sequences == shorter.total.sequences == 4 * 1024


# Hours.


def test_given_gflops_count_whatever_was_measured(base):
    measured = machine(case(TRAINING, 70))
    counted = cost.count(planned(base, STUDY, measured, gflops=50))
    assert counted.total.hours == pytest.approx(counted.total.flop / 50e9 / 3600)
    assert "core-hours: 50 GFLOP/s, `gflops` in config.yaml" in cost.table(planned(base, STUDY, measured, gflops=50))


def test_the_hours_of_a_gpu_that_nobody_measured_are_modelled_and_said_to_be(base):
    plan = planned(base, STUDY, machine(case(TRAINING, 70)), device="cuda:1")
    batches, (pack,) = 1024 / 32, [one for one in plan.packs.values() if not one.spec.run.optimizer.l2.strength][:1]
    first = cost.count(plan).experiments["first"]
    share = 2 * 1024 * TRAINING / first.flop
    assert share * first.hours == pytest.approx(batches * modelled.step_seconds(pack.spec, "graph") / 3600)
    text = cost.table(plan)
    assert text.splitlines()[0].endswith("GPU-hours, modelled")
    assert "Device cuda:1, engine graph assumed." in text
    assert text.count("modelled with graph, float32, for an NVIDIA H100: step = max(kernels x launch") == 1
    command = "python benchmarks/throughput.py --device cuda --shapes abcd --record --lanes 1 4 16 64 --engine graph"
    assert f"`{command}` measures it; or set `gflops`" in text
    assert "1 GPU " in text
    measured = machine(case(TRAINING, 9, engine="graph"), device="cuda")
    assert "GPU-hours, modelled" not in cost.table(planned(base, STUDY, measured, device="cuda"))


@pytest.mark.parametrize(
    ("times", "lanes", "said"), [(1, 1, "measured"), (1, 2, "measured"), (5, 2, "modelled as the")]
)
def test_a_gpus_step_is_the_nearest_that_was_measured_times_the_ratio_of_modelled_ones(times, lanes, said, base):
    near = case(times * TRAINING, 9, engine="graph", lanes=lanes)
    far = case(times * TRAINING, 1, engine="graph", lanes=64)
    plan = planned(base, STUDY, machine(near, far, device="cuda"), device="cuda")
    of_case = benchmark_shapes.pack_of(benchmark_shapes.SHAPES["a"], lanes, "float32")
    for one in plan.packs.values():
        rate = plan.rates.of(one.spec)
        step = 2 * 32 * TRAINING / rate.flops
        ratio = modelled.step_seconds(one.spec, "graph") / modelled.step_seconds(of_case, "graph")
        assert step == pytest.approx(32 * lanes / near["rate"] * ratio)
        assert rate.source.startswith(f"{said}")
        assert rate.is_modelled == (times > 4)


def test_two_lanes_take_a_gpu_no_longer_than_three():
    """As by the rates that are recorded: with one and with four, a step of (a) takes about the same."""
    known = rates.Rates({"device": "cuda", "engine": "auto", "gflops": None}, ROOT)
    steps = []
    for lanes in (1, 2, 3, 4):
        spec = benchmark_shapes.pack_of(benchmark_shapes.SHAPES["a"], lanes, "float32")
        steps.append(lanes * 32 * benchmark_shapes.SHAPES["a"].flop() / known.of(spec).flops)
    assert steps == sorted(steps)
    assert steps[3] < 1.5 * steps[0]


def test_the_engine_of_a_pack_can_compute_all_its_lanes():
    known = rates.Rates({"device": "cuda", "engine": "auto"}, ROOT)
    plain = changed(TINY_RUN, {"model.width": 64})
    dropout = changed(plain, {"model.dropout": 0.1})
    assert known.engine(pack(plain, plain)) == "triton"
    assert known.engine(pack(plain, dropout)) == known.engine(pack(dropout)) == "eager"


def test_one_experiment_without_a_rate_leaves_the_others_theirs(base):
    study = STUDY + "  exact: {horizon: 1024, runs: {exact: {numerics: float64}}}\n"
    text = cost.table(planned(base, study, machine(case(TRAINING, 70))))
    assert row(text, "first")[-1] == "0.00"
    assert row(text, "exact")[-2:] == row(text, "total")[-2:] == ["not", "measured"]
    assert "--device cpu --shapes abcd --record --numerics float64 --engine eager" in text


def test_graph_is_no_engine_of_a_pack_with_more_attention_patterns_than_it_can_multiply():
    known, run = rates.Rates({"device": "cuda", "engine": "auto"}, ROOT), changed(TINY_RUN, {"batch_size": 32})
    most = MOST_PRODUCTS // (32 * run.model.heads)
    assert known.engine(PackSpec(lanes=tuple(lane(run, seed) for seed in range(most)))) == "graph"
    assert known.engine(PackSpec(lanes=tuple(lane(run, seed) for seed in range(most + 1)))) == "eager"


@pytest.mark.parametrize(
    ("machines", "said"),
    [
        (None, "it is no list of machines"),
        ([1], "it is no list of machines"),
        ([{"machine": "a", "date": "b"}], "machine 'a' has no name, date or list of cases"),
        ([machine({"shape": "a"})], "machine 'a machine': a case has no engine"),
        ([machine([])], r"a case is \[\]"),
        ([machine(case(TRAINING, 1, shape="g"))], "a case is of shape 'g', expected one of a, b, c"),
        ([machine(case(TRAINING, 1, rate=0))], "a case has rate 0, expected a number above 0"),
        ([machine(case(TRAINING, 1, flops=math.nan))], "a case has flops nan"),
        ([machine(case(TRAINING, 1, lanes=0.5))], "a case has lanes 0.5"),
    ],
)
def test_measurements_that_nothing_recorded_are_refused_with_what_is_wrong(base, machines, said):
    (base / "benchmarks").mkdir()
    (base / rates.MEASURED).write_text(json.dumps(machines))
    with pytest.raises(StudyError, match=rf"measured\.json: cannot be read \(.*{said}.*restore it, or move it away"):
        cost.count(planned(base))


def test_a_rate_of_code_that_has_changed_says_so(base):
    for code, changed_since in ((training_code("native"), False), ("of yore", True), (None, False)):
        found = cost.count(planned(base, STUDY, machine(case(TRAINING, 1, code=code)))).rates
        assert all(("native (its code has changed since), float32" in rate.source) == changed_since for rate in found)


def test_no_file_of_measurements_is_no_measurement(base):
    assert rates_used(base) == {None}


def test_the_rate_is_that_of_the_nearest_shape_and_pack(base):
    alike = [case(TRAINING / 3, 1), case(2 * TRAINING, 2), case(2 * TRAINING, 4, lanes=4), case(1e9, 5)]
    others = [
        case(TRAINING, 6, numerics="bfloat16"),
        case(TRAINING, 7, engine="eager"),
        case(TRAINING, 8, jobs=2),
    ]
    on_gpu = machine(case(TRAINING, 9, engine="graph"), device="cuda")
    # A third is further away than the double; packs have two lanes.
    assert rates_used(base, machine(*alike, *others), on_gpu) == {2}
    study = STUDY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]")
    assert rates_used(base, machine(*alike, *others), on_gpu, study=study) == {4}
    sources = {rate.source for rate in cost.count(planned(base, study, on_gpu, device="cuda")).rates}
    assert all("shape (a), graph, float32, lanes a pack: 1" in source for source in sources)


def test_the_table_says_where_the_rate_was_measured(base):
    text = cost.table(planned(base, STUDY, machine(case(TRAINING, 70), name="a fast one")))
    assert (
        "core-hours: 70 GFLOP/s, measured on a fast one, 2026-01-01: shape (a), native, float32, lanes a pack: 1"
        in text
    )


@pytest.mark.parametrize(("times", "modelled"), [(3.9, False), (4.1, True), (1 / 3.9, False), (1 / 4.1, True)])
def test_a_cpus_rate_with_a_model_of_another_size_is_said_to_be_modelled(times, modelled, base):
    """As on a GPU: within four times the FLOP of a sequence it is what was measured."""
    text = cost.table(planned(base, STUDY, machine(case(times * TRAINING, 70))))
    assert text.splitlines()[0].endswith("core-hours, modelled" if modelled else "core-hours")
    how = "modelled as the nearest shape that was measured," if modelled else "measured"
    assert f"core-hours: 70 GFLOP/s, {how} on " in text
    note = "Modelled is what nobody has measured. `gflops` in config.yaml says what you have measured."
    assert (note in text) == modelled
    # What was measured counts before what is modelled, on whatever machine.
    assert rates_used(base, machine(case(TRAINING, 1)), machine(case(times * TRAINING, 2))) == {1 if modelled else 2}


def test_of_several_machines_the_one_recorded_last_that_has_such_a_case_counts(base):
    first, last = machine(case(TRAINING, 1)), machine(case(2 * TRAINING, 2), device="cpu")
    unlike = machine(case(TRAINING, 3, numerics="bfloat16"))
    assert rates_used(base, first, last, unlike) == {2}


def test_where_no_machine_has_measured_such_a_model_the_nearest_shape_of_all_counts(base):
    near, far = machine(case(5 * TRAINING, 1)), machine(case(50 * TRAINING, 2))
    assert rates_used(base, near, far) == {1}
    assert rates_used(base, far, near) == {1}


@pytest.mark.parametrize(
    ("changes", "engine"),
    [
        ({}, "auto"),
        ({"model.dropout": 0.1}, "auto"),
        ({"model.positions.kind": "rotary"}, "auto"),
        ({"numerics": "float64"}, "auto"),
        ({}, "eager"),
    ],
)
def test_the_rate_is_that_of_the_engine_that_will_train(changes, engine, tmp_path):
    spec = pack(changed(TINY_RUN, changes))
    flop = training_flop(TINY_RUN)
    cases = [case(flop, 1, engine=name, numerics=spec.run.numerics) for name in ("eager", "native")]
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / rates.MEASURED).write_text(json.dumps([machine(*cases)]))
    rate = rates.Rates({"device": "cpu", "engine": engine, "gflops": None}, tmp_path).of(spec)
    assert f", {select.chosen(engine, spec.run, torch.device('cpu'))}, " in rate.source


def test_what_the_benchmark_has_recorded_is_found(base):
    """Of the checkout's own measurements, on CPUs."""
    machines = json.loads((ROOT / rates.MEASURED).read_text())
    known = {case["flops"] / 1e9 for one in machines for case in one["cases"] if one.get("device", "cpu") == "cpu"}
    assert rates_used(base, *machines) < known


# How long it takes.


def test_where_a_segment_ends_without_a_snapshot_it_is_evaluated_as_well(base):
    # Segments end at 800, 1600 and 2048, which alone is a snapshot; `first` asks for all of the second one's 1024.
    counted = cost.count(planned(base, gflops=1, segment_sequences=800))
    assert counted.experiments["first"].flop == 2 * 1024 * TRAINING + 2 * (4 + 1) * SNAPSHOT
    assert counted.total.flop == 4 * 2048 * TRAINING + 4 * (6 + 2) * SNAPSHOT


@pytest.mark.parametrize(
    ("chains", "workers", "expected"),
    [
        ([[3, 1], [2]], 1, 6),
        ([[3, 1], [2]], 2, 4),
        ([[3, 1], [2]], 9, 4),
        # Three equal ones on two workers: the third waits for one of the others.
        ([[2], [2], [2]], 2, 4),
        # Cut into segments, it does not wait for the end of one.
        ([[1, 1], [1, 1], [1, 1]], 2, 3),
        ([[], []], 3, 0),
    ],
)
def test_workers_take_segments_as_they_come_one_of_a_pack_at_a_time(chains, workers, expected):
    assert waiting.wall_time(chains, workers) == expected


@given(
    chains=st.lists(st.lists(st.integers(1, 20), max_size=6), min_size=1, max_size=8),
    workers=st.integers(1, 9),
)
def test_no_time_is_shorter_than_its_work_allows_or_longer_than_by_the_longest_chain(chains, workers):
    work, longest = sum(map(sum, chains)), max(map(sum, chains))
    found = waiting.wall_time(chains, workers)
    assert max(work / workers, longest) <= found <= work / workers + longest


def test_the_critical_path_is_the_longest_lane_and_shrinks_with_what_is_done(base):
    # The L2 of `again` alone has a pack that trains as far; both have the same segments.
    plan = planned(base, gflops=1e-3)
    counted, (shared, own), (set_id,) = cost.count(plan), plan.packs, plan.sets
    of_segments = [(2 * 1024 * TRAINING + 2 * points * SNAPSHOT) / 1e6 / 3600 for points in (4, 2)]
    assert counted.chains == {shared: pytest.approx(of_segments), own: pytest.approx(of_segments)}
    assert counted.jobs == 4
    finish(shared, layout.segment_name(0, 1024))
    finish(shared, layout.metrics_name(set_id, 0, 1024))
    left = cost.count(plan)
    assert left.chains == {shared: pytest.approx(of_segments[1:]), own: pytest.approx(of_segments)}
    text = cost.table(plan, 3)
    total, longest = sum(map(sum, left.chains.values())), sum(of_segments)
    workers = r"^ +1 core +3 cores \(here\) +8 cores +64 cores\n"
    (times,) = re.findall(workers + "wall time of what is left +(.*)$", text, re.MULTILINE)
    assert times.split("  ")[0] == format_duration(3600 * total)
    assert times.endswith(format_duration(3600 * longest))
    assert f"2 packs in 4 segments; critical path {format_duration(3600 * longest)}, the segments of one lane" in text
    assert "(again, l2.strength=0.001, seed 0)" in text


# In words.


def test_flop_are_powers_of_ten_and_the_table_says_on_what_it_would_run(base):
    text = cost.table(planned(base, gflops=1))
    assert row(text, "total")[3] == format_scientific(4 * 2048 * TRAINING + 4 * 6 * SNAPSHOT)
    assert "\nDevice cpu, engine native.\n" in text
    on_cuda = cost.table(planned(base, gflops=1, device="cuda:1"))
    assert "\nDevice cuda:1, engine graph assumed.\n" in on_cuda
    assert "1 GPU  8 GPUs  64 GPUs" in on_cuda


def test_what_is_left_out_for_one_reason_is_said_once(base):
    lacking = "{optional: true, bank: {source: tokens, tokens: {file: %s}}}"
    study = STUDY + "".join(f"  {name}: {lacking % name}\n" for name in ("small", "large"))
    study += "  drawn: {optional: true, bank: {source: imported, imported: {file: none.h5, scale: raw}}}\n"
    (base / "nothing").mkdir()
    lines = cost.table(planned(base, study, tokens=str(base / "nothing"))).splitlines()
    left_out = [line for line in lines if "left out" in line]
    assert len(left_out) == 2
    assert left_out[0].startswith("experiments small, large are left out: experiments.small (run baseline): `bank.")
    assert left_out[1].startswith("experiment drawn is left out: experiments.drawn")
