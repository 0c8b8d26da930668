"""Where curves end: all lanes of an experiment at the same point, whatever was trained before."""

from pathlib import Path

import pytest
from finished_study import LAPTOP, finish, plan_of

from icl_transience import load
from icl_transience.planning import ends
from icl_transience.store import tables_file

HEAD = LAPTOP.partition("experiments:")[0]
# Between two snapshots, 1,024 and 1,536.
SHORT = HEAD.replace("1536", "1248") + "experiments: {transience: {}}\n"
LONG = HEAD.replace("1536", "2048") + "experiments: {transience: {}}\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def last_points(plan) -> dict[str, int]:
    """Return seed -> the last sequences seen of its curve."""
    table = tables_file.read_csv(Path(plan.paths.experiment_folder("transience"), "curves.csv"))
    return table.groupby("seed")["sequences_seen"].max().to_dict()


def said(plan) -> list[str]:
    # What is planned by is what tables are made by.
    record = plan.records.experiment("transience", figures=False)
    assert plan.circuits.at_horizon["transience"] == record.horizon_is_end
    return list(ends.in_words(plan.study, plan.circuits.at_horizon))


def test_training_that_ends_between_snapshots_has_a_point_there_and_keeps_it(here):
    short = plan_of(here, SHORT)
    finish(short)
    assert last_points(short) == {"0": 1248, "1": 1248}
    assert said(short) == []
    # Trained further, segments meet there.
    finish(plan_of(here, LONG))
    again = plan_of(here, SHORT)
    assert said(again) == []
    assert again.records.experiment("transience", figures=False) == short.records.experiment(
        "transience", figures=False
    )


def test_where_a_lane_was_trained_further_and_has_no_snapshot_no_other_lane_is_read_later(here):
    finish(plan_of(here, LONG))
    more = plan_of(here, SHORT.replace("[0, 1]", "[0, 1, 2]"))
    (line,) = said(more)
    assert line == (
        "experiment transience: some of its lanes were trained beyond its horizon of 1,248, where its schedule has no "
        "snapshot: its curves end at the one before, at 1,024 sequences seen of run baseline, in all lanes. A horizon "
        "of 1,024 or 1,536 has one"
    )
    assert not more.records.experiment("transience", figures=False).horizon_is_end
    finish(more)
    # Seed 2 was trained to 1,248.
    assert {pack.boundaries[-1] for pack in more.packs.values()} == {1248, 2048}
    assert last_points(more) == {"0": 1024, "1": 1024, "2": 1024}
    # In Python, too, though seed 2 has a checkpoint of 1,248.
    study = load("laptop", results=here / "results")
    for seed in (0, 1, 2):
        lane = study.lane("transience", seed=seed)
        assert lane.at("end").sequences_seen == max(lane.snapshots) == 1024


def test_a_horizon_that_is_a_snapshot_is_read_wherever_segments_end(here):
    finish(plan_of(here, LONG))
    plan = plan_of(here, LAPTOP.partition("  l2:")[0].replace("[0, 1]", "[0, 1, 2]"))
    assert said(plan) == []
    finish(plan)
    assert last_points(plan) == {"0": 1536, "1": 1536, "2": 1536}
