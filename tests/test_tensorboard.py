"""Event files of running jobs: what stands in them, and that results know nothing of them."""

import json
from pathlib import Path

import pytest
from finished_study import finish, plan_of
from pipeline import TINY

from icl_transience.__main__ import main
from icl_transience.planning.plan import Plan
from icl_transience.specs.errors import StudyError
from icl_transience.store import hdf5, layout
from icl_transience.system import tensorboard

ROOT = Path(__file__).parents[1]


@pytest.fixture
def plan(tmp_path) -> Plan:
    made = plan_of(tmp_path, TINY)
    finish(made)
    return made


def train(plan: Plan, *more: str) -> Path:
    """Train the first segment of the pack of both experiments again, and evaluate it, as the rules do."""
    pack_id, pack = next((name, one) for name, one in plan.packs.items() if not one.spec.run.optimizer.l2.strength)
    paths, (start, end) = plan.paths, pack.segments(1024)[0]
    segment = Path(paths.segment(pack_id, start, end))
    (set_id,) = plan.sets
    metrics = Path(paths.metrics(pack_id, set_id, start, end))
    for path in (segment, metrics):
        path.unlink()
        layout.kept_name(path).unlink()
    spec, bank = ["--spec", pack.spec.json], Path(paths.bank(pack.spec.run.bank.id))
    ends = ["--from", str(start), "--to", str(end)]
    assert main(["train", *spec, "--bank", str(bank), *ends, "--output", str(segment), *more]) == 0
    sequences = ["--set", plan.sets[set_id].json, "--sequences", paths.sequences(set_id)]
    assert main(["evaluate", *spec, *sequences, "--segment", str(segment), "--output", str(metrics), *more]) == 0
    return segment


def test_loss_and_metrics_stand_under_the_names_of_the_study(plan, monkeypatch):
    pytest.importorskip("tensorboard", reason="optional: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(tensorboard, "SECONDS", 0.0)
    segment = train(plan, "--tensorboard", "1")
    folder = Path(plan.paths.root, "tensorboard")
    found = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("events.*"))
    # Twice each: training and evaluation are two jobs. The lanes are both experiments'; `l2` comes first.
    lanes = [f"laptop/l2/l2.strength=0/seed {seed}" for seed in (0, 1)]
    assert sorted(set(found)) == lanes
    with hdf5.reading(segment, "segment") as file:
        seen = hdf5.array(file, "train_loss/sequences_seen")
        loss = hdf5.array(file, "train_loss/value")
        snapshots = hdf5.array(file, "snapshots/sequences_seen")
    for number, lane in enumerate(lanes):
        events = EventAccumulator(str(folder / lane))
        events.Reload()
        recorded = events.Scalars("training/loss")
        assert [point.step for point in recorded] == seen.tolist()
        assert [point.value for point in recorded] == pytest.approx(loss[:, number].tolist(), rel=1e-6)
        assert set(snapshots.tolist()) <= {point.step for point in events.Scalars("icl/accuracy")}


def test_results_are_the_same_without_them(plan, monkeypatch):
    pytest.importorskip("tensorboard", reason="optional: pip install tensorboard")

    def content(path: Path) -> str:
        with hdf5.reading(path, "segment") as file:
            return str(file.attrs["checksum"])

    before = content(train(plan))
    assert not Path(plan.paths.root, "tensorboard").exists()
    assert content(train(plan, "--tensorboard", "1")) == before


def test_a_lane_that_no_experiment_has_is_named_by_its_pack(plan):
    (pack_id, pack), *_ = plan.packs.items()
    folder = Path(plan.paths.packs, pack_id)
    for path in Path(plan.paths.root).glob("studies/*/*/experiment.json"):
        path.unlink()
    folders = tensorboard.lane_folders(folder, pack.spec)
    assert [path.relative_to(plan.paths.root).as_posix() for path in folders] == [
        f"tensorboard/{pack_id}/{place}" for place in range(len(pack.spec.lanes))
    ]


def test_it_is_refused_where_the_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    (tmp_path / "tiny.yaml").write_text(TINY)
    settings = {"study": str(tmp_path / "tiny.yaml"), "results": str(tmp_path / "results")}
    with pytest.raises(StudyError, match="the Python package tensorboard is not installed: `pip install"):
        Plan(settings | {"tensorboard": True}, ROOT)
    Plan(settings, ROOT)


def test_it_is_part_of_no_identity(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: True)
    (tmp_path / "tiny.yaml").write_text(TINY)
    settings = {"study": str(tmp_path / "tiny.yaml"), "results": str(tmp_path / "results")}
    # As config.yaml and as `--config tensorboard=true` have it.
    plans = [Plan(settings | {"tensorboard": wanted}, ROOT) for wanted in (False, "true")]
    assert [plan.config["tensorboard"] for plan in plans] == [False, True]
    assert json.dumps(sorted(plans[0].packs)) == json.dumps(sorted(plans[1].packs))
    assert plans[0].targets.all() == plans[1].targets.all()
