"""When in-context learning is acquired along an axis: survival, the threshold K*, whether lanes are of two kinds."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from factories import make_record
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_survival import AML, kaplan_meier

from icl_transience.analysis import acquisition
from icl_transience.analysis.survival import median_time, survival_curve
from icl_transience.report.figures.fields import draw_map
from icl_transience.report.figures.survival import draw_survival

AXIS = "bank.gaussian.classes"


def lanes_of(shares: dict[float, list[int]], diverged: tuple[tuple[float, int], ...] = ()) -> pd.DataFrame:
    """transience.csv of lanes that acquired it (1) after 1,000 sequences more a seed, or not (0) until 32,000."""
    return pd.DataFrame(
        {
            "run": f"classes={level:g}",
            "seed": str(seed),
            AXIS: level,
            "outcome": "diverged" if (level, seed) in diverged else ("persistent" if acquired else "never"),
            "emergence": None if (level, seed) in diverged else (1000.0 * (seed + 1) if acquired else 32_000.0),
            "emergence_censored": None if (level, seed) in diverged else not acquired,
            "emergence_left_censored": None if (level, seed) in diverged else False,
            "final": None if (level, seed) in diverged else (0.95 if acquired else 0.5) + 0.001 * seed,
        }
        for level, of_level in shares.items()
        for seed, acquired in enumerate(of_level)
    )


# Survival.


def test_survival_is_kaplan_and_meiers_on_a_published_example():
    times, censored = zip(*AML, strict=True)
    curve = pd.DataFrame(survival_curve(times, censored, 0.95))
    columns = zip(*kaplan_meier(times, censored, 0.95), strict=True)
    for name, expected in zip(("sequences_seen", "survival", "lower", "upper"), columns, strict=True):
        assert curve[name].tolist() == pytest.approx(expected)
    # As printed by Miller (1981), of the same patients.
    assert curve["survival"].round(2).tolist() == [0.91, 0.82, 0.72, 0.61, 0.49, 0.37, 0.18]
    assert curve["at_risk"].tolist() == [11, 10, 8, 7, 5, 4, 2]
    assert int(curve["happened"].to_numpy().sum()) == 7


def test_where_nothing_happened_there_is_no_time_and_where_all_is_over_no_limit():
    assert len(survival_curve([9, 9], [True, True], 0.95)["survival"]) == 0
    over = pd.DataFrame(survival_curve([4, 8], [False, False], 0.95))
    assert over["survival"].tolist() == [0.5, 0]
    assert math.isnan(over["lower"].iloc[-1])


def test_a_lane_that_never_acquires_it_stays_in_the_tables_and_one_that_diverged_does_not():
    lanes = lanes_of({64: [0, 0, 1, 1], 128: [1, 1, 1, 1]}, diverged=((64, 0),))
    curve, table = (of(lanes, AXIS, 0.95) for of in (acquisition.survival_of, acquisition.threshold_of))
    assert curve.loc[curve[AXIS] == 64, "survival"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert table["seeds"].tolist() == [3, 4]
    assert table["acquired"].tolist() == [2, 4]
    assert table["median"].tolist() == [4000, median_time([1000, 2000, 3000, 4000], [False] * 4, 0.95).median]


# The threshold.


def test_the_threshold_lies_where_half_of_the_lanes_acquire_it():
    shares = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=float)
    acquired = np.repeat(shares, 2, axis=1)
    star, lower, upper = acquisition.threshold([64, 128, 256, 512], acquired, 0.95)
    # A quarter at 128, three quarters at 256: half way between their logarithms.
    assert star == pytest.approx(128 * math.sqrt(2))
    assert 64 <= lower < star < upper <= 512
    assert acquisition.threshold([0, 1, 2, 3], acquired, 0.95)[0] == pytest.approx(1.5)


def test_a_threshold_beyond_the_levels_is_none_of_them():
    assert acquisition.threshold([64, 128], np.zeros((2, 6)), 0.95) == (math.inf, math.inf, math.inf)
    assert acquisition.threshold([64, 128], np.ones((2, 6)), 0.95) == (-math.inf, -math.inf, -math.inf)


def test_shares_that_fall_by_chance_are_levelled():
    """2 of 4, then 1 of 4, then all: the first two are one level, at 3 of 8."""
    acquired = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=float)
    star, *_ = acquisition.threshold([64, 128, 256], acquired, 0.95)
    assert star == pytest.approx(128 * 2 ** ((0.5 - 0.375) / 0.625))


def test_the_interval_of_a_threshold_covers_it(monkeypatch):
    """Simulated: 24 seeds, a logistic share with its middle at 256 classes; 95 % intervals, 60 studies."""
    monkeypatch.setattr(acquisition, "_RESAMPLES", 200)
    levels, rng = [64, 128, 256, 512, 1024], np.random.default_rng(3)
    shares = 1 / (1 + np.exp(-1.5 * (np.log2(levels) - 8)))
    covered = 0
    for _ in range(60):
        _, lower, upper = acquisition.threshold(levels, (rng.random((5, 24)) < shares[:, None]).astype(float), 0.95)
        covered += lower <= 256 <= upper
    # 57 of 60, less three standard deviations of a binomial.
    assert covered >= 52


def test_the_interval_is_as_wide_as_the_levels_between_which_a_sharp_threshold_is():
    """No seed at 128 and every seed at 256: resamples all agree, and nobody has seen where between."""
    acquired = np.repeat([[0.0], [0.0], [1.0], [1.0]], 16, axis=1)
    star, lower, upper = acquisition.threshold([64, 128, 256, 512], acquired, 0.95)
    assert (lower, upper) == (128, 256)
    assert lower < star < upper
    assert all(map(math.isnan, acquisition.threshold([64, 128, 256, 512], acquired[:, :5], 0.95)[1:]))


# Two kinds of lanes.


def test_the_coefficient_of_bimodality_is_that_of_known_distributions():
    normal = np.random.default_rng(0).standard_normal(200_000)
    assert acquisition.bimodality(normal) == pytest.approx(1 / 3, abs=0.01)
    assert acquisition.bimodality(np.linspace(0, 1, 20_001)) == pytest.approx(acquisition.BIMODAL_ABOVE, abs=1e-3)
    assert acquisition.bimodality(np.repeat([0.0, 1.0], 10_000)) == pytest.approx(1, abs=1e-3)


def test_few_or_equal_values_have_no_shape():
    assert math.isnan(acquisition.bimodality(np.arange(7.0)))
    assert math.isnan(acquisition.bimodality(np.ones(32)))


def test_lanes_of_two_kinds_are_told_from_lanes_of_one():
    table = acquisition.threshold_of(lanes_of({64: [0] * 16, 128: [0, 1] * 8, 256: [1] * 16}), AXIS, 0.95)
    below, at, above = table["bimodality_final"]
    assert at > acquisition.BIMODAL_ABOVE
    assert not max(below, above) > acquisition.BIMODAL_ABOVE


@pytest.mark.parametrize(("few", "told"), [(1, False), (2, False), (3, True), (16, True)])
def test_stragglers_are_no_second_group(few, told):
    values = np.random.default_rng(0).normal(0.5, 0.01, 32)
    values[:few] += 0.4
    assert acquisition.bimodality(values) > acquisition.BIMODAL_ABOVE
    assert math.isnan(acquisition.bimodality_of_groups(values)) != told


def test_times_of_which_only_an_upper_bound_is_known_are_counted_and_are_in_no_shape():
    lanes = lanes_of({64: [1] * 16, 128: [1] * 16})
    # The time of a lane is 1,000 sequences more than that of the one before; 4,000 is the first snapshot.
    early = (lanes[AXIS] == 64) & (lanes["emergence"] <= 12_000)
    lanes.loc[early, ["emergence", "emergence_left_censored"]] = [4000.0, True]
    table = acquisition.threshold_of(lanes, AXIS, 0.95)
    assert table["left_censored"].tolist() == [12, 0]
    assert table["median_left_censored"].tolist() == [True, False]
    # Four exact times are left.
    assert math.isnan(table["bimodality_time"].iloc[0])
    assert not math.isnan(acquisition.bimodality_of_groups(np.log2(lanes.loc[lanes[AXIS] == 64, "emergence"])))
    said = acquisition.in_words(table, AXIS)[1]
    assert "16 of 16 seeds acquire it, 12 by their first snapshot, median at most 4,000 sequences" in said


# Tables and figures.


def test_tables_are_written_and_hold_what_the_figure_says(tmp_path):
    lanes = lanes_of({64: [0] * 8, 128: [0, 1] * 4, 256: [1] * 8})
    acquisition.write_tables(tmp_path, lanes, AXIS, 0.95)
    written = pd.read_csv(tmp_path / "threshold.csv")
    record = make_record({f"classes={level}": {AXIS: level} for level in (64, 128, 256)}, seeds=8)
    record = replace(record, statistics=replace(record.statistics, acquisition=True))
    figure = draw_survival(record, lanes)
    titles = [axes.get_title() for axes in figure.axes]
    assert f"K* = {written['threshold'].iloc[0]:.3g}" in titles
    left = figure.axes[1] if figure.axes[0].get_title() else figure.axes[0]
    assert isinstance(figure, Figure)
    assert left is not None
    lines = [line.get_ydata() for axes in figure.axes for line in axes.get_lines()]
    assert any(list(np.asarray(line, dtype=float))[-1] == 0.5 for line in lines)


def test_the_table_is_told_in_words():
    table = acquisition.threshold_of(lanes_of({64: [0] * 8, 128: [0, 1] * 4, 256: [1] * 8}), AXIS, 0.95)
    star, *of_levels = acquisition.in_words(table, AXIS)
    found = "128 on (resampled seeds, 95% of them, and the levels beside it: "
    assert star.startswith(f"half of the seeds acquire it from about {AXIS} = {found}")
    large = acquisition.threshold_of(lanes_of({512: [0] * 8, 1028: [0, 1] * 4, 2048: [1] * 8}), AXIS, 0.95)
    assert large["threshold"].iloc[0] == pytest.approx(1028)
    said, *_ = acquisition.in_words(large, AXIS)
    assert f" from about {AXIS} = 1030 on (" in said
    # An end may be a level.
    assert said.endswith(": 762.5 to 2048)")
    assert of_levels[0].startswith(
        f"{AXIS} = 64: 0 of 8 seeds acquire it, median not reached; bimodality of final accuracies "
    )
    final = table["bimodality_final"].iloc[1]
    none = "of times — (not two groups of 3 or more)"
    assert of_levels[1].endswith(f"; bimodality of final accuracies {final:.2f} (not above 0.56), {none}")
    two = table.assign(bimodality_final=0.7)
    assert acquisition.in_words(two, AXIS)[2].endswith(f"of final accuracies 0.70 (above 0.56), {none}")
    lone = acquisition.threshold_of(lanes_of({64: [0] * 15 + [1]}), AXIS, 0.95)
    assert "final accuracies — (not two groups of 3 or more), of times" in acquisition.in_words(lone, AXIS)[1]
    even = table.assign(bimodality_time=0.41)
    assert acquisition.in_words(even, AXIS)[1].endswith("of times 0.41 (not above 0.56)")
    assert of_levels[2].startswith(f"{AXIS} = 256: 8 of 8 seeds acquire it, median 4,000 sequences")
    beyond = [[value] * 4 for value in (0, 1)]
    said = [acquisition.in_words(acquisition.threshold_of(lanes_of({64: one}), AXIS, 0.95), AXIS)[0] for one in beyond]
    share = "the share of seeds that acquire it, taken not to fall,"
    assert said[0] == f"{share} stays under one half up to {AXIS} = 64"
    assert said[1] == f"{share} is one half or more already at {AXIS} = 64"


def test_the_foot_of_the_figure_says_from_which_accuracy_on_it_is_acquired():
    record = make_record({f"classes={level}": {AXIS: level} for level in (64, 128)}, seeds=4)
    lanes = lanes_of({64: [0] * 4, 128: [1] * 4})
    for min_effect, level in ((0.25, "0.75"), (0.05, "0.55")):
        asked = replace(record, statistics=replace(record.statistics, min_effect=min_effect))
        said = " ".join(text.get_text() for text in draw_survival(asked, lanes).findobj(Text)).replace("\n", " ")
        assert f"It emerges where the best accuracy exceeds {level}, or" in said


@pytest.mark.parametrize(("acquired", "place"), [(0, acquisition.ABOVE), (1, acquisition.BELOW)])
def test_a_threshold_that_is_no_level_is_said(acquired, place):
    record = make_record({f"classes={level}": {AXIS: level} for level in (64, 128)}, seeds=4)
    lanes = lanes_of({64: [acquired] * 4, 128: [acquired] * 4})
    assert f"K* {place}" in [axes.get_title() for axes in draw_survival(record, lanes).axes]
    table = acquisition.threshold_of(lanes, AXIS, 0.95)
    assert table["threshold"].isna().all()
    assert set(table["threshold_place"]) == {place}


def test_a_map_has_outcome_and_numbers_of_every_run():
    places = {
        f"{depth}/{width}": {"model.depth": depth, "model.width": width} for depth in (1, 2, 3) for width in (8, 16, 32)
    }
    record = make_record(places, seeds=2)
    runs = pd.DataFrame(
        {
            "run": name,
            "outcome": "never" if number == 4 else "transient",
            "seeds": 2,
            "index": None if number == 4 else number / 10,
            "n_index": {4: 0, 7: 1}.get(number, 2),
            "peak": 0.5 + number / 20,
            "n_peak_at_censored": int(number == 8),
        }
        for number, name in enumerate(places)
    )
    index, peak, *_ = draw_map(record, runs).axes
    assert [text.get_text() for text in index.texts][:5] == ["T\n0.00", "T\n0.10", "T\n0.20", "T\n0.30", "N"]
    # A peak at the last snapshot of some lane may be less than what would have come.
    assert [text.get_text() for text in peak.texts] == [f"{0.5 + n / 20:.2f}" + "↑" * (n == 8) for n in range(9)]
    # The field of depth 3, width 16, of whose two lanes one has an index.
    assert [patch.get_xy() for patch in index.patches if patch.get_hatch()] == [(0.5, 1.5)]
    assert not any(patch.get_hatch() for patch in peak.patches)
    assert [panel.images[0].get_clim() for panel in (index, peak)] == [(0, 1), (0.5, 1)]
    asked = replace(record, statistics=replace(record.statistics, evaluator="ciwl"))
    # Of one of eight labels in the context.
    assert draw_map(asked, runs).axes[1].images[0].get_clim() == (1 / 8, 1)
    assert index.get_ylabel() == "model.depth"
    assert [tick.get_text() for tick in index.get_xticklabels()] == ["8", "16", "32"]
