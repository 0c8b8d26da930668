"""Tables of an experiment, from curves that are made up, and what they say in words."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from factories import RISES_AND_FALLS, SEEN, STAYS, at_other_contexts, make_curves, make_record

from icl_transience.analysis import summaries, words
from icl_transience.analysis.curves import JoinedMetrics
from icl_transience.specs.evaluators import METRICS
from icl_transience.specs.experiment import QUANTITIES, TIMES
from icl_transience.specs.records import ExperimentRecord
from icl_transience.store import checksums, tables_file


@pytest.fixture
def record() -> ExperimentRecord:
    return make_record({"none": {"optimizer.l2.strength": 0.0}, "some": {"optimizer.l2.strength": 1e-5}})


@pytest.fixture
def curves(record) -> pd.DataFrame:
    return make_curves(record, {"none": RISES_AND_FALLS, "some": STAYS})


def write(folder, record, curves, diverged=()) -> tuple[pd.DataFrame, pd.DataFrame]:
    summaries.write_summaries(folder, record, curves, diverged)
    return pd.read_csv(folder / "transience.csv"), pd.read_csv(folder / "runs.csv")


def test_there_is_a_row_a_lane_and_a_row_a_run_with_the_runs_place_on_the_axes(tmp_path, record, curves):
    lanes, runs = write(tmp_path, record, curves)
    assert lanes[["run", "seed"]].to_numpy().tolist() == [[run, s] for run in ("none", "some") for s in (0, 1, 2)]
    assert runs["optimizer.l2.strength"].tolist() == [0, 1e-5]
    assert lanes["outcome"].tolist() == ["transient"] * 3 + ["persistent"] * 3
    assert runs["outcome"].tolist() == ["transient", "persistent"]


def test_a_run_reports_the_mean_of_its_lanes_peaks_and_ends(tmp_path, record, curves):
    _, runs = write(tmp_path, record, curves)
    assert runs[["peak", "peak_at", "final"]].to_numpy()[0] == pytest.approx([0.9, 4000, 0.6])
    # The lanes' own peaks are 0.89, 0.90 and 0.91.
    assert runs["peak_lower"][0] < 0.89 < 0.91 < runs["peak_upper"][0]


def test_the_ends_of_the_other_curves_stand_beside(tmp_path, record, curves):
    lanes, runs = write(tmp_path, record, curves)
    assert runs["final_flip"].tolist() == [0.3, 0.3]
    assert lanes["final_training_loss"][0] == pytest.approx(5 / 7)


def test_what_stopping_at_the_peak_would_have_left_stands_beside_what_is_left(tmp_path, record, curves):
    flip = curves["evaluator"] == "flip"
    curves.loc[flip, "value"] = 1 - curves.loc[flip, "sequences_seen"] / SEEN[-1]
    lanes, runs = write(tmp_path, record, curves)
    assert lanes["at_peak_icl"].tolist() == lanes["peak"].tolist()
    # All lanes peak at 4,000, the fourth snapshot.
    assert lanes["at_peak_flip"].tolist() == [1 - 4 / 32] * 6
    assert lanes["at_peak_training_loss"].tolist() == [5 / 4] * 6
    assert runs["at_peak_flip"].tolist() == [1 - 4 / 32] * 2
    assert runs["final_flip"].tolist() == [0.0] * 2


def test_levels_at_the_peak_are_smoothed_as_the_peak_is(tmp_path, record, curves):
    record = replace(record, statistics=replace(record.statistics, smoothing=3))
    lanes, _ = write(tmp_path, record, curves)
    assert lanes["at_peak_icl"].to_numpy() == pytest.approx(lanes["peak"].to_numpy())
    assert lanes["at_peak_training_loss"][0] == pytest.approx((5 / 3 + 5 / 4 + 5 / 5) / 3)


def test_without_a_peak_there_is_nothing_to_report_at_it(tmp_path, record, curves):
    flat = (curves["evaluator"] == "icl") & (curves["run"] == "some")
    curves.loc[flat, "value"] = 0.5
    lanes, runs = write(tmp_path, record, curves)
    assert runs["outcome"].tolist() == ["transient", "never"]
    of_some = lanes[lanes["run"] == "some"]
    assert of_some[["at_peak_icl", "at_peak_flip", "at_peak_training_loss"]].isna().all(axis=None)
    assert of_some["final_flip"].notna().all()
    assert runs["at_peak_flip"].isna().tolist() == [False, True]


def test_the_ends_at_other_contexts_stand_beside_too_and_change_no_summary(tmp_path, record, curves):
    (_, plain), (_, runs) = (write(tmp_path, record, table) for table in (curves, at_other_contexts(curves)))
    assert runs["final_icl@16"].to_numpy() == pytest.approx(runs["final_icl"] - 0.1)
    assert runs["final_icl@4"].to_numpy() == pytest.approx(runs["final_icl"] - 0.2)
    pd.testing.assert_frame_equal(runs[plain.columns], plain)


def test_no_number_in_the_table_of_runs_is_missing_when_icl_appears_but_ends_of_few_times(tmp_path, record, curves):
    _, runs = write(tmp_path, record, curves)
    ends = [f"{name}_{end}" for name in TIMES for end in ("lower", "upper")]
    assert runs[ends].isna().all(axis=None)
    assert runs.drop(columns=ends).notna().all(axis=None)


def test_a_median_that_is_not_reached_is_read_back_as_infinite_and_so_taken_for_no_number_of_sequences(
    tmp_path, record, curves
):
    _, runs = write(tmp_path, record, curves)
    assert runs["half_life"].tolist() == [pytest.approx(12_000, abs=4000), np.inf]
    assert runs["half_life"].mean() == np.inf
    assert runs["n_half_life_censored"].tolist() == [0, 3]


def test_lanes_that_never_rose_stand_in_the_table_with_their_bound(tmp_path, record, curves):
    flat = (curves["evaluator"] == "icl") & (curves["run"] == "some") & (curves["seed"] != "0")
    curves.loc[flat, "value"] = 0.5
    lanes, runs = write(tmp_path, record, curves)
    of_some = lanes[lanes["run"] == "some"]
    assert of_some["emergence"].tolist()[1:] == [SEEN[-1]] * 2
    assert of_some["emergence_censored"].tolist() == [False, True, True]
    assert of_some["half_life"].isna().tolist() == [False, True, True]
    row = runs.set_index("run").loc["some"]
    assert row[["emergence", "n_emergence", "n_emergence_censored", "n_half_life"]].tolist() == [np.inf, 3, 2, 1]


def test_a_diverged_lane_is_counted_and_enters_no_mean(tmp_path, record, curves):
    curves.loc[(curves["run"] == "none") & (curves["seed"] == "1") & (curves["sequences_seen"] > 4000), "value"] = (
        np.nan
    )
    curves.loc[(curves["run"] == "none") & (curves["seed"] == "1"), "value"] -= 0.3
    lanes, runs = write(tmp_path, record, curves, {("none", "1")})
    assert lanes["outcome"].tolist()[:3] == ["transient", "diverged", "transient"]
    assert runs["n_diverged"].tolist() == [1, 0]
    # The two others peak at 0.89 and 0.91.
    assert runs[["peak", "final"]].to_numpy()[0] == pytest.approx([0.9, 0.6])


@pytest.mark.parametrize(
    ("loss", "horizon", "diverged"), [(2.0, 512, False), (np.nan, 512, True), (np.nan, 256, False)]
)
def test_a_loss_that_is_no_number_at_a_snapshot_is_a_lane_that_diverged(loss, horizon, diverged):
    """Training takes a mean of its loss every 1,024 sequences, say: of what diverges later it says nothing."""
    mean = np.full((3, 2, len(METRICS)), 2.0)
    mean[2, 1, METRICS.index("loss")] = loss
    joined = object.__new__(JoinedMetrics)
    part = {"diverged_at": [-1, -1], "sequences_seen": np.array([0, 256, 512]), "values": {"icl": (mean, mean)}}
    joined.parts, joined.horizon = [SimpleNamespace(**part)], horizon
    assert [joined.diverged(place) for place in (0, 1)] == [False, diverged]


def test_a_run_all_of_whose_lanes_diverged_has_no_curve(tmp_path, record, curves):
    _, runs = write(tmp_path, record, curves, {("none", seed) for seed in "012"})
    assert runs["outcome"].tolist() == ["diverged", "persistent"]
    assert runs["peak"].isna().tolist() == runs["emergence"].isna().tolist() == [True, False]


def test_tables_say_in_words_when_icl_peaked_and_what_is_left(tmp_path, record, curves):
    curves.to_csv(tmp_path / "curves.csv", index=False)
    write(tmp_path, record, curves)
    checksums.write_checksums(tmp_path, tables_file.TABLES)
    first, second = words.experiment_in_words(tmp_path)
    assert "peaks at 0.90 after 4k sequences and falls to 0.60 at 32k, half-life 12k (levels: mean, times" in first
    assert "times: median of 3 seeds; 3 transient)" in first
    assert "peaks at 0.90 after 4k sequences and stays, with 0.90 at 32k, half-life not reached (by 3 of 3" in second
    assert second.endswith(f"figure: {tmp_path / 'curves.svg'}")


def row_of_a_run(**changes) -> dict:
    row = {"seeds": 2, "outcome": "persistent", "evaluator": "icl", "metric": "in_context_accuracy", "chance": 0.5}
    row |= {"peak": 0.9, "final": 0.9, "emergence": 2000.0, "peak_at": 4000.0, "half_life": 8000.0, "index": 0.0}
    row |= {f"{name}_{end}": np.nan for name in QUANTITIES for end in ("lower", "upper")}
    row |= {f"n_{name}": 2 for name in QUANTITIES} | {f"n_{name}_censored": 0 for name in TIMES}
    row |= {"n_emergence_left_censored": 0, "n_never": 0, "n_transient": 0, "n_persistent": 2, "n_diverged": 0}
    return row | changes


@pytest.mark.parametrize(
    ("final", "said"),
    [(0.849, "and falls, not beyond noise, to 0.85"), (0.851, "and stays, with 0.85"), (0.899, "and stays, with 0.90")],
)
def test_a_fall_within_noise_is_named_where_it_is_more_than_a_twentieth(final, said):
    assert said in words.run_in_words(row_of_a_run(final=final), 32_000)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"half_life": np.inf, "n_half_life_censored": 2}, "half-life not reached (by 2 of 2 lanes) ("),
        ({"n_half_life_censored": 1}, "half-life 8k (not reached by 1 of 2 lanes) ("),
        ({"peak_at": np.inf, "n_peak_at_censored": 2}, "peaks at 0.90 not before 32k sequences"),
        (
            {"seeds": 4, "n_peak": 3, "n_emergence": 3, "n_never": 1, "n_diverged": 1},
            "(levels: mean, times: median of 4 seeds; place and half-life of 2 of 4 lanes, 1 never rose, 1 diverged; "
            "1 never, 2 persistent, 1 diverged)",
        ),
        ({"seeds": 1, "n_peak_at": 1, "n_half_life": 1, "n_persistent": 1}, "half-life 8k (1 seed; 1 persistent)"),
    ],
)
def test_a_sentence_says_what_is_open_and_how_many_lanes_are_left_out(changes, said):
    assert said in words.run_in_words(row_of_a_run(**changes), 32_000)


def test_lanes_that_end_at_different_points_are_not_said_to_end_at_one(tmp_path):
    rows = [("a", 0, 16), ("a", 0, 28_000), ("a", 1, 32_000), ("b", 0, 24_000)]
    table = pd.DataFrame(rows, columns=["run", "seed", "sequences_seen"])
    table.to_csv(tmp_path / "curves.csv", index=False)
    assert words.last_points(tmp_path) == {"a": (32_000, 28_000), "b": (24_000, 24_000)}
    assert "at 28k to 32k" in words.run_in_words(row_of_a_run(), *words.last_points(tmp_path)["a"])
    assert " at 24k" in words.run_in_words(row_of_a_run(), *words.last_points(tmp_path)["b"])


@pytest.mark.parametrize(
    ("row", "name", "said"),
    [
        (row_of_a_run(), "emergence", "2k"),
        (row_of_a_run(n_emergence_left_censored=1), "emergence", "≤ 2k"),
        (row_of_a_run(seeds=3, n_emergence=3, n_emergence_left_censored=1), "emergence", "2k"),
        (row_of_a_run(half_life=np.inf, n_half_life_censored=2), "half_life", "not reached (2 censored)"),
        (row_of_a_run(seeds=3), "half_life", "8k (2 of 3 seeds)"),
        (row_of_a_run(half_life_lower=4000, half_life_upper=np.inf), "half_life", "8k (4k to not reached)"),
        (row_of_a_run(peak_lower=0.8, peak_upper=0.95, seeds=3), "peak", "0.90 (0.80 to 0.95, 2 of 3 seeds)"),
        (row_of_a_run(index=np.nan, n_index=0), "index", "– (0 of 2 seeds)"),
        ({"seed": "0", "half_life": 8000, "half_life_censored": True}, "half_life", "≥ 8k"),
        ({"seed": "0", "half_life": 8000, "half_life_censored": "False"}, "half_life", "8k"),
        ({"seed": "0", "emergence": 512, "emergence_left_censored": "True"}, "emergence", "≤ 512"),
        ({"seed": "0", "index": np.nan}, "index", "–"),
    ],
)
def test_a_quantity_in_words_says_what_is_a_bound_and_of_how_many_lanes_it_is(row, name, said):
    assert words.quantity_in_words(row, name) == said


def test_a_run_named_like_a_missing_value_keeps_its_name(tmp_path, record, curves):
    record = replace(record, runs=(replace(record.runs[0], name="NA"), *record.runs[1:]))
    curves = curves.replace({"run": {"none": "NA"}})
    curves.to_csv(tmp_path / "curves.csv", index=False)
    write(tmp_path, record, curves)
    checksums.write_checksums(tmp_path, tables_file.TABLES)
    assert set(tables_file.read_curves(tmp_path)["run"]) == {"NA", "some"}
    assert next(words.experiment_in_words(tmp_path)).startswith(f"{tmp_path.name}, NA: icl")
