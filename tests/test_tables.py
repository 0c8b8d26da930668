"""Tables of an experiment, from curves that are made up, and what they say in words."""

import numpy as np
import pandas as pd
import pytest
from made_up import RISES_AND_FALLS, SEEN, STAYS, at_other_contexts, make_curves, make_report

from icl_transience.analysis import summaries, words
from icl_transience.store import checksums, tables_file


@pytest.fixture
def report() -> dict:
    return make_report({"none": {"optimizer.l2.strength": 0.0}, "some": {"optimizer.l2.strength": 1e-5}})


@pytest.fixture
def curves(report) -> pd.DataFrame:
    return make_curves(report, {"none": RISES_AND_FALLS, "some": STAYS})


def write(folder, report, curves, diverged=()) -> tuple[pd.DataFrame, pd.DataFrame]:
    summaries.write_summaries(folder, report, curves, diverged)
    return pd.read_csv(folder / "transience.csv"), pd.read_csv(folder / "runs.csv")


def test_there_is_a_row_a_lane_and_a_row_a_run_with_the_runs_place_on_the_axes(tmp_path, report, curves):
    lanes, runs = write(tmp_path, report, curves)
    assert lanes[["run", "seed"]].to_numpy().tolist() == [[run, s] for run in ("none", "some") for s in (0, 1, 2)]
    assert runs["optimizer.l2.strength"].tolist() == [0, 1e-5]
    assert lanes["outcome"].tolist() == ["transient"] * 3 + ["persistent"] * 3
    assert runs["outcome"].tolist() == ["transient", "persistent"]


def test_a_run_reports_the_peak_and_the_end_of_the_curve_averaged_over_seeds(tmp_path, report, curves):
    _, runs = write(tmp_path, report, curves)
    assert runs[["curve_peak", "curve_peak_at", "curve_final"]].to_numpy()[0] == pytest.approx([0.9, 4000, 0.6])
    # The lanes' own peaks are 0.89, 0.90 and 0.91.
    assert runs["peak"][0] == pytest.approx(0.9)
    assert runs["peak_lower"][0] < 0.89 < 0.91 < runs["peak_upper"][0]


def test_the_ends_of_the_other_curves_stand_beside(tmp_path, report, curves):
    lanes, runs = write(tmp_path, report, curves)
    assert runs["final_flip"].tolist() == [0.3, 0.3]
    assert lanes["final_training_loss"][0] == pytest.approx(5 / 7)


def test_what_stopping_at_the_peak_would_have_left_stands_beside_what_is_left(tmp_path, report, curves):
    flip = curves["evaluator"] == "flip"
    curves.loc[flip, "value"] = 1 - curves.loc[flip, "sequences_seen"] / SEEN[-1]
    lanes, runs = write(tmp_path, report, curves)
    assert lanes["at_peak_icl"].tolist() == lanes["peak"].tolist()
    # All lanes peak at 4,000, the fourth snapshot.
    assert lanes["at_peak_flip"].tolist() == [1 - 4 / 32] * 6
    assert lanes["at_peak_training_loss"].tolist() == [5 / 4] * 6
    assert runs["at_peak_flip"].tolist() == [1 - 4 / 32] * 2
    assert runs["final_flip"].tolist() == [0.0] * 2


def test_levels_at_the_peak_are_smoothed_as_the_peak_is(tmp_path, report, curves):
    report["statistics"]["smoothing"] = 3
    lanes, _ = write(tmp_path, report, curves)
    assert lanes["at_peak_icl"].to_numpy() == pytest.approx(lanes["peak"].to_numpy())
    assert lanes["at_peak_training_loss"][0] == pytest.approx((5 / 3 + 5 / 4 + 5 / 5) / 3)


def test_without_a_peak_there_is_nothing_to_report_at_it(tmp_path, report, curves):
    flat = (curves["evaluator"] == "icl") & (curves["run"] == "some")
    curves.loc[flat, "value"] = 0.5
    lanes, runs = write(tmp_path, report, curves)
    assert runs["outcome"].tolist() == ["transient", "never"]
    of_some = lanes[lanes["run"] == "some"]
    assert of_some[["at_peak_icl", "at_peak_flip", "at_peak_training_loss"]].isna().all(axis=None)
    assert of_some["final_flip"].notna().all()
    assert runs["at_peak_flip"].isna().tolist() == [False, True]


def test_the_ends_at_other_contexts_stand_beside_too_and_change_no_summary(tmp_path, report, curves):
    (_, plain), (_, runs) = (write(tmp_path, report, table) for table in (curves, at_other_contexts(curves)))
    assert runs["final_icl@16"].to_numpy() == pytest.approx(runs["final_icl"] - 0.1)
    assert runs["final_icl@4"].to_numpy() == pytest.approx(runs["final_icl"] - 0.2)
    pd.testing.assert_frame_equal(runs[plain.columns], plain)


def test_no_number_in_the_table_of_runs_is_missing_when_icl_appears(tmp_path, report, curves):
    _, runs = write(tmp_path, report, curves)
    assert runs.notna().all(axis=None)


def test_a_diverged_lane_is_counted_and_enters_no_mean(tmp_path, report, curves):
    curves.loc[(curves["run"] == "none") & (curves["seed"] == "1") & (curves["sequences_seen"] > 4000), "value"] = (
        np.nan
    )
    curves.loc[(curves["run"] == "none") & (curves["seed"] == "1"), "value"] -= 0.3
    lanes, runs = write(tmp_path, report, curves, {("none", "1")})
    assert lanes["outcome"].tolist()[:3] == ["transient", "diverged", "transient"]
    assert runs["n_diverged"].tolist() == [1, 0]
    # The two others peak at 0.89 and 0.91.
    assert runs[["curve_peak", "curve_final"]].to_numpy()[0] == pytest.approx([0.9, 0.6])


def test_a_run_all_of_whose_lanes_diverged_has_no_curve(tmp_path, report, curves):
    _, runs = write(tmp_path, report, curves, {("none", seed) for seed in "012"})
    assert runs["outcome"].tolist() == ["diverged", "persistent"]
    assert runs["curve_peak"].isna().tolist() == [True, False]


def test_tables_say_in_words_when_icl_peaked_and_what_is_left(tmp_path, report, curves):
    curves.to_csv(tmp_path / "curves.csv", index=False)
    write(tmp_path, report, curves)
    checksums.write_checksums(tmp_path, tables_file.TABLES)
    first, second = words.experiment_in_words(tmp_path)
    assert "peaks at 0.90 after 4k sequences and falls to 0.60 at 32k (mean of 3 seeds, 3 transient" in first
    assert "peaks at 0.90 after 4k sequences and stays, with 0.90 at 32k" in second
    assert second.endswith(f"figure: {tmp_path / 'curves.svg'}")


def test_a_run_named_like_a_missing_value_keeps_its_name(tmp_path, report, curves):
    report["runs"][0]["name"] = "NA"
    curves = curves.replace({"run": {"none": "NA"}})
    curves.to_csv(tmp_path / "curves.csv", index=False)
    write(tmp_path, report, curves)
    checksums.write_checksums(tmp_path, tables_file.TABLES)
    assert set(tables_file.read_curves(tmp_path)["run"]) == {"NA", "some"}
    assert next(words.experiment_in_words(tmp_path)).startswith(f"{tmp_path.name}, NA: icl")
