"""Circuits that a study declares: what is refused, what a segment's job measures, and the tables of it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from finished_study import finish, plan_of
from pipeline import ROOT

from icl_transience.analysis import curves, heads, peaks
from icl_transience.evaluation import inside
from icl_transience.planning.plan import Plan
from icl_transience.specs.circuits import CircuitsSpec, is_intervened
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import METRICS
from icl_transience.specs.identity import from_values, identity_values
from icl_transience.specs.measures import HEAD_MEASURES
from icl_transience.store import circuits_file, hdf5, tables_file

STUDY = """
defaults:
  bank: {source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2, dim: 4}}
  model: {width: 16, heads: 2}
  snapshots: {first: 256, every: 512}
  evaluation: {sequences: 64, evaluators: [icl, ciwl, iwl]}
  horizon: 1536
  seeds: [0, 1]
experiments:
  transience:
    circuits: CIRCUITS
"""
INTERVENTIONS = "{no_layer0: {ablate: block0.*}, nothing: {ablate: {place: block0.*, strength: 0}}}"
GRAFTS = "{itself: {graft: {place: residual0, from: end}}, old: {graft: {place: residual0, from: 256}}}"


def planned(folder: Path, circuits: str):
    return plan_of(folder, STUDY.replace("CIRCUITS", circuits))


def measure(plan) -> list[dict[str, int]]:
    """Make the files of circuits that are not there, as their jobs do; what they say they measured, each once."""
    done = []
    for pack_id, pack in plan.packs.items():
        for start, end in pack.segments(pack.boundaries[-1]):
            for spec in plan.circuits.of_segment(pack_id, start):
                path = Path(plan.paths.circuits(pack_id, spec.id, start, end))
                lanes = len(pack.spec.lanes)
                at = {other.name: [other.at] * lanes for other in spec.others}
                others = map(Path, plan.circuits.other_segments(pack_id, spec.id))
                job = inside.CircuitsJob(
                    pack=pack.spec,
                    spec=from_values(CircuitsSpec, identity_values(spec)),
                    segment=Path(plan.paths.segment(pack_id, start, end)),
                    sequences=Path(plan.paths.sequences(spec.set)),
                    others=inside.other_snapshots(pack.spec, at, others),
                )
                if not path.exists():
                    done.append(inside.write_circuits(path, job))
    return [one for number, one in enumerate(done) if one not in done[:number]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    finish(planned(folder, "{measures: []}"))
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    shutil.copytree(trained / "results", tmp_path / "results")
    return tmp_path


def tables(plan) -> tuple[tables_file.Tables, tables_file.CircuitsTables]:
    record = plan.records.experiment("transience", figures=False)
    folder = Path(plan.paths.experiment_folder("transience"))
    curves.write_tables(folder, record, Path(plan.paths.packs))
    lanes = tables_file.read_lanes(folder)
    heads.write_circuits_tables(folder / "circuits", record, Path(plan.paths.packs), lanes)
    return tables_file.read_tables(folder), tables_file.read_circuits_tables(folder)


def test_a_study_without_the_section_has_no_circuits(tmp_path):
    plan = plan_of(tmp_path, STUDY.replace("    circuits: CIRCUITS", "    question: what?"))
    assert plan.study.experiments["transience"].circuits is None
    assert not plan.circuits.specs
    assert not [path for path in plan.targets.all() if "circuits" in path]


@pytest.mark.parametrize("said", ["{}", "{measures: default}"])
def test_an_empty_section_asks_for_the_default_measures_on_icl_and_ciwl(tmp_path, said):
    asked = planned(tmp_path, said).study.experiments["transience"].circuits
    assert asked
    assert set(HEAD_MEASURES) < set(asked.measures)
    assert asked.evaluators == ("icl", "ciwl")


def test_the_section_enters_no_identity(tmp_path):
    with_it = planned(tmp_path, "{}")
    assert (
        with_it.packs.keys()
        == plan_of(tmp_path, STUDY.replace("    circuits: CIRCUITS", "    optional: false")).packs.keys()
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{measures: [inductoin]}", "inductoin"),
        ("{evaluators: [flip]}", r"`experiments.transience.circuits.evaluators` has 'flip'.*icl, ciwl, iwl|'flip'"),
        ("{interventions: {a: {ablate: block7.*}}}", r"interventions.a.ablate.*block0 … block1"),
        ("{interventions: {a: {ablat: block0.*}}}", "ablat"),
        ("{interventions: {a: {only: block0.head5}}}", r"head0 … head1.*run baseline"),
        ("{interventions: {a: {graft: {place: residual0, from: peek}}}}", "start, peak, end or a number"),
        ("{interventions: {a: {graft: {place: residual0, from: 300}}}}", "the nearest is at 256"),
        ("{interventions: {A: {ablate: block0.*}}}", "does not match"),
    ],
)
def test_what_no_model_can_have_is_refused_while_planning(tmp_path, said, message):
    with pytest.raises(StudyError, match=message):
        planned(tmp_path, said)


def test_a_new_measure_or_intervention_measures_what_is_new_alone(folder):
    first = measure(planned(folder, "{measures: [induction]}"))
    # On two evaluators in every segment.
    assert first == [{"measured": 2, "taken": 0}]
    assert measure(planned(folder, "{measures: [induction, self]}")) == [{"measured": 2, "taken": 2}]
    renamed = "{measures: [self], interventions: {no_layer0: {ablate: block0.*}}}"
    assert measure(planned(folder, renamed)) == [{"measured": 2, "taken": 2}]
    # The same intervention under another name, or another one under the same name.
    renamed = "{measures: [self], interventions: {cut: {ablate: block0.*}}}"
    assert measure(planned(folder, renamed)) == [{"measured": 0, "taken": 4}]
    renamed = "{measures: [self], interventions: {cut: {ablate: block1.*}}}"
    assert measure(planned(folder, renamed)) == [{"measured": 2, "taken": 2}]


def test_a_damaged_file_is_passed_over_and_its_measures_made_again(folder):
    plan = planned(folder, "{measures: [induction]}")
    measure(plan)
    for path in folder.glob("results/packs/*/**/circuits-*.h5"):
        path.write_bytes(path.read_bytes()[:-100])
    assert measure(planned(folder, "{measures: [induction, self]}")) == [{"measured": 4, "taken": 0}]


def test_metrics_under_an_intervention_of_strength_0_are_those_without(folder):
    plan = planned(folder, f"{{measures: [], interventions: {INTERVENTIONS}}}")
    measure(plan)
    found, _ = tables(plan)
    by_name = found.curves.set_index("evaluator")
    assert set(by_name.index) == {
        *("icl", "ciwl", "iwl", "training"),
        *(f"{name}|{how}" for name in ("icl", "ciwl") for how in ("no_layer0", "nothing")),
    }
    for name in ("icl", "ciwl"):
        plain, same, cut = (
            by_name.loc[key, "value"].to_numpy() for key in (name, f"{name}|nothing", f"{name}|no_layer0")
        )
        # The native engine's float32 against the eager one's: accuracies of 64 sequences move by steps of 1/64.
        assert np.abs(plain - same).max() < 1.5 / 64
        assert np.abs(plain - cut).max() > 1e-3
    assert {"at_peak_icl|no_layer0", "final_icl|no_layer0"} <= set(found.lanes.columns)


def test_every_job_of_a_segment_takes_the_share_of_a_gpu_that_its_training_takes(folder):
    """One that asked for more would wait until all training is done."""
    given = planned(folder, f"{{measures: [], interventions: {GRAFTS}}}")
    config = {"study": str(given.study_path), "results": str(folder / "results"), "device": "cuda", "engine": "eager"}
    plan = Plan(config | {"segment_sequences": 1024}, ROOT)
    (pack_id, pack), *_ = plan.packs.items()
    start, end = pack.segments(pack.boundaries[-1])[0]
    (spec,) = [one for one in plan.circuits.of_segment(pack_id, start) if one.others]
    train = plan.jobs.train(pack_id, start, end)
    assert train.gpu_percent == 25
    assert plan.jobs.circuits(pack_id, spec.id, start, end).gpu_percent == 25
    assert plan.jobs.evaluate(pack_id, spec.set, start, end).gpu_percent == 25


def test_a_graft_from_the_end_is_the_model_itself_at_the_end(folder):
    plan = planned(folder, f"{{measures: [], interventions: {GRAFTS}}}")
    measure(plan)
    found, _ = tables(plan)
    last = found.curves.loc[found.curves["sequences_seen"] == 1536].set_index(["evaluator", "seed", "metric"])["value"]
    for seed in ("0", "1"):
        for metric in METRICS:
            assert last["icl|itself", seed, metric] == pytest.approx(last["icl", seed, metric], abs=1.5 / 64)
    assert not np.allclose(last["icl|old"], last["icl|itself"])


def test_heads_has_every_head_and_snapshot_and_attention_sums_to_1(folder):
    plan = planned(folder, "{}")
    measure(plan)
    found, of_circuits = tables(plan)
    seen = sorted(found.curves["sequences_seen"].unique())
    table = of_circuits.heads
    for measure_name in (*HEAD_MEASURES, "attribution"):
        rows = table.loc[(table["measure"] == measure_name) & (table["evaluator"] == "icl")]
        # Two seeds, two layers, two heads.
        assert len(rows) == 2 * 2 * 2 * len(seen)
        assert sorted(rows["sequences_seen"].unique()) == seen
    assert len(of_circuits.composition) == 2 * len(seen) * 3 * 4
    rows = of_circuits.attention.groupby(["snapshot", "layer", "head", "token"])["value"].sum()
    # float16 has 11 bits, and the table four digits.
    assert np.abs(np.asarray(rows, dtype=float) - 1).max() < 2e-3


def test_attribution_is_kept_part_by_part(folder):
    plan = planned(folder, "{measures: [attribution]}")
    measure(plan)
    (path, *_) = folder.glob("results/packs/*/circuits-*.h5")
    with hdf5.reading(path, "circuits") as file:
        identity = str(file.attrs["identity"])
    found = circuits_file.read_circuits(path, identity)
    parts = {name for evaluator, name in found.measures if evaluator == "icl"}
    assert {"attribution/block0.head0", "attribution/embedding", "attribution/bias"} <= parts


def test_peaks_are_those_of_the_table_of_lanes(folder):
    plan = planned(folder, "{measures: [], interventions: {old: {graft: {place: residual0, from: peak}}}}")
    (spec,) = plan.circuits.specs.values()
    assert spec.statistics
    # Anything counts as a rise, so that there are peaks.
    spec = dataclasses.replace(spec, statistics=dataclasses.replace(spec.statistics, min_effect=0.0, smoothing=1))
    (asked,) = plan.circuits.specs
    found: list[int | None] = []
    for pack_id, pack in plan.packs.items():
        path = Path(plan.paths.peaks(pack_id, spec.id))
        peaks.write_peaks(path, pack.spec, spec, plan.circuits.boundaries(pack_id, asked))
        found += json.loads(path.read_text())
    record = dataclasses.replace(plan.records.experiment("transience", figures=False), statistics=spec.statistics)
    without = tuple(
        dataclasses.replace(run, lanes=tuple(dataclasses.replace(lane, circuits=()) for lane in run.lanes))
        for run in record.runs
    )
    curves.write_tables(folder, dataclasses.replace(record, runs=without), Path(plan.paths.packs))
    lanes = tables_file.read_lanes(folder)
    expected = [None if np.isnan(peak) else int(peak) for peak in lanes["peak_at"]]
    assert found == expected


def test_names_under_interventions_are_told_from_evaluators():
    assert is_intervened("icl@16|no_layer0")
    assert not is_intervened("icl@16")
