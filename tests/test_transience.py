"""Statistics of curves whose answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_transience.analysis import transience
from icl_transience.analysis.transience import Summary
from icl_transience.specs.experiment import QUANTITIES, TIMES, Statistics

CHANCE = 0.5
STATISTICS = Statistics(evaluator="icl", smoothing=1, min_effect=0.05, confidence=0.95)
# A geometric then even schedule, like the pipeline's.
SEEN = np.array([0, 1000, 2000, 4000, 8000, 16_000, 32_000, 48_000, 64_000, 80_000, 96_000, 112_000, 128_000])


def summarise(values, error=0.0, **options) -> Summary:
    values = np.asarray(values, dtype=float)
    seen, errors = SEEN[: len(values)], np.full(len(values), error)
    return transience.summarise(seen, values, errors, CHANCE, STATISTICS, **options)


TRIANGLE = [0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55]


def test_a_curve_that_rises_and_falls_is_transient_and_its_numbers_are_read_off_it():
    summary = summarise(TRIANGLE)
    assert summary.outcome == "transient"
    assert (summary.peak, summary.peak_at, summary.final) == (0.9, 16_000, 0.55)
    # Half way between chance 0.5 and peak 0.9 is 0.7: reached at 4,000 on the way up, at 80,000 on the way down.
    assert summary.emergence == pytest.approx(4000)
    assert summary.half_life == pytest.approx(80_000 - 16_000)
    assert summary.half_life_censored is False
    assert summary.index == pytest.approx((0.9 - 0.55) / (0.9 - 0.5))


def test_crossings_are_interpolated_linearly_in_the_logarithm_of_sequences_seen():
    # From 0.6 at 2,000 to 0.8 at 8,000: 0.7 is half way in log2, at 4,000.
    assert transience.crossing(np.array([2000, 8000]), np.array([0.6, 0.8]), 0.7) == pytest.approx(4000)


def test_a_crossing_before_the_first_snapshot_after_the_start_is_interpolated_in_sequences_seen():
    assert transience.crossing(np.array([0, 1000]), np.array([0.5, 0.9]), 0.7) == pytest.approx(500)


def test_a_level_that_is_never_reached_is_not_crossed():
    assert transience.crossing(np.array([0, 1000]), np.array([0.5, 0.6]), 0.7) is None


def test_a_level_held_from_the_start_is_crossed_at_the_first_snapshot():
    assert transience.crossing(np.array([100, 1000]), np.array([0.9, 0.6]), 0.7) == 100


def test_what_emerged_by_the_first_snapshot_is_known_to_be_no_later_and_no_more():
    """Nobody looked between 0 and 1,000: no number is made up in between."""
    summary = summarise([0.5] + [0.9] * 9)
    assert (summary.emergence, summary.emergence_left_censored, summary.emergence_censored) == (1000, True, False)
    later = summarise([0.5, 0.6] + [0.9] * 9)
    assert (later.emergence > 1000, later.emergence_left_censored) == (True, False)


def test_a_peak_at_the_last_snapshot_may_still_lie_ahead():
    rising = summarise([0.5, 0.6, 0.7, 0.8, 0.9])
    assert (rising.peak_at, rising.peak_at_censored) == (8000, True)
    assert (rising.half_life, rising.half_life_censored) == (0, True)
    assert summarise(TRIANGLE).peak_at_censored is False


def test_a_fall_that_does_not_reach_half_has_a_censored_half_life_of_at_least_what_was_seen():
    summary = summarise([0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.85, 0.8, 0.8, 0.8, 0.8, 0.8])
    assert summary.outcome == "transient"
    assert summary.half_life_censored is True
    assert summary.half_life == 128_000 - 8000


def test_a_curve_that_stays_up_is_persistent_and_loses_nothing():
    summary = summarise([0.5, 0.6, 0.7, 0.8] + [0.9] * 9)
    assert summary.outcome == "persistent"
    assert summary.index == 0
    assert summary.half_life_censored is True


def test_a_curve_at_chance_never_shows_icl_which_emerges_after_the_end_if_at_all_and_has_no_half_life_or_index():
    summary = summarise([0.5] * 13)
    assert summary.outcome == "never"
    assert (summary.emergence, summary.emergence_censored) == (128_000, True)
    assert (summary.peak_at, summary.half_life, summary.half_life_censored, summary.index) == (None,) * 4


def test_a_diverged_lane_is_diverged_whatever_its_curve():
    assert summarise(TRIANGLE, diverged=True).outcome == "diverged"


@pytest.mark.parametrize(("error", "outcome"), [(0.02, "transient"), (0.1, "persistent"), (0.14, "never")])
def test_rise_and_fall_count_only_beyond_three_times_the_evaluators_noise(error, outcome):
    # Rise 0.4 = 3 x 0.133; fall 0.35 = 3 x sqrt(2) x 0.082.
    assert summarise(TRIANGLE, error).outcome == outcome


def test_a_rise_below_the_smallest_effect_is_no_rise_however_certain():
    assert summarise([0.5] * 6 + [0.54] * 7).outcome == "never"


def test_scatter_between_snapshots_counts_as_noise():
    fall = np.array([0.5, 0.6, 0.7, 0.8] + [0.9] * 4 + [0.8] * 5)
    assert summarise(fall).outcome == "transient"
    assert summarise(fall + 0.08 * np.array([1, -1] * 6 + [1])).outcome != "transient"


def test_snapshot_noise_is_the_standard_deviation_of_white_scatter_on_any_straight_line():
    noise = np.random.default_rng(0).normal(0, 0.02, 20_000)
    # The median of 20,000 has a relative standard error near 1 %; neighbouring differences overlap, so allow 5 %.
    assert transience.snapshot_noise(noise + np.linspace(0, 5, 20_000)) == pytest.approx(0.02, rel=0.05)


def outcomes_of_noisy(truth: np.ndarray, seed: int) -> list[str]:
    rng, sequences = np.random.default_rng(seed), 1000
    draws = rng.binomial(sequences, truth, (200, len(truth))) / sequences
    return [summarise(values, float(np.sqrt(np.mean(truth * (1 - truth)) / sequences))).outcome for values in draws]


def test_a_flat_curve_of_binomial_noise_is_hardly_ever_called_anything_but_never():
    outcomes = outcomes_of_noisy(np.full(len(SEEN), CHANCE), seed=1)
    # Any of 13 values is above 3 sigma with probability 2 %: at most 4 of 200 expected, more than 12 below 1 in 1,000.
    assert sum(outcome != "never" for outcome in outcomes) <= 12


def test_a_persistent_curve_of_binomial_noise_is_hardly_ever_called_transient():
    outcomes = outcomes_of_noisy(np.array([0.5, 0.6, 0.7, 0.8] + [0.85] * 9), seed=2)
    # Peak minus last passes 3 sqrt(2) sigma in at most 9 times 0.13 %, as each difference does: 2.4 of 200 expected,
    # more than 12 below 1 in 1,000.
    assert sum(outcome == "transient" for outcome in outcomes) <= 12
    assert "persistent" in outcomes


def test_smoothing_is_a_running_mean_that_is_shorter_at_the_ends():
    assert transience.smooth(np.array([1.0, 2.0, 6.0, 4.0]), 3).tolist() == [1.5, 3.0, 4.0, 5.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([1, 3, 5]))
def test_smoothing_never_leaves_the_range_of_the_values(values, smoothing):
    smoothed = transience.smooth(np.array(values), smoothing)
    assert smoothed.min() >= min(values) - 1e-12
    assert smoothed.max() <= max(values) + 1e-12


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=13), st.floats(0, 0.1))
def test_every_curve_has_an_outcome_and_no_number_that_is_not_one(values, error):
    summary = summarise(values, error)
    assert summary.outcome in transience.OUTCOMES
    numbers = [value for name, value in vars(summary).items() if name != "outcome" and value is not None]
    assert np.isfinite(numbers).all()
    if summary.outcome in ("transient", "persistent"):
        # Interpolation in the logarithm rounds: one part in 1e9 is far above that and below a sequence.
        assert summary.peak_at + summary.half_life <= SEEN[len(values) - 1] * (1 + 1e-9)
        assert summary.emergence <= max(summary.peak_at, SEEN[1]) * (1 + 1e-9)


def test_one_seed_gives_no_interval():
    assert transience.interval([0.7], 0.95) == (None, None)


def test_few_seeds_give_students_t_interval():
    low, high = transience.interval([0.6, 0.7, 0.8], 0.95)
    half = 4.302652729911275 * 0.1 / 3**0.5  # t of 2 degrees of freedom, from tables
    assert (low, high) == (pytest.approx(0.7 - half), pytest.approx(0.7 + half))


def test_equal_values_give_an_interval_without_width():
    assert transience.interval([0.5] * 7, 0.95) == (0.5, 0.5)


def test_the_interval_of_many_seeds_covers_the_truth_about_as_often_as_it_says():
    samples = np.random.default_rng(3).normal(0, 1, (150, 12))
    covered = sum(low <= 0 <= high for low, high in (transience.interval(sample, 0.9) for sample in samples))
    # A bootstrap of 12 values is a little narrow: about 0.86 of a nominal 0.9; three standard errors are 0.085.
    assert 0.775 * 150 <= covered <= 0.95 * 150


def lane(outcome="transient", peak=0.9, final=0.6, censored=False, noise=0.01, half_life=50_000.0) -> Summary:
    return Summary(
        outcome=outcome,
        emergence=4000.0,
        emergence_censored=False,
        emergence_left_censored=False,
        peak=peak,
        peak_at=16_000.0,
        peak_at_censored=False,
        half_life=half_life,
        half_life_censored=censored,
        final=final,
        index=(peak - final) / (peak - CHANCE),
        noise=noise,
    )


def run(*lanes: Summary) -> dict:
    return transience.summarise_run(lanes, CHANCE, STATISTICS)


def test_a_run_whose_seeds_all_fall_is_transient():
    row = run(lane(final=0.6), lane(final=0.62), lane(final=0.58))
    assert row["outcome"] == "transient"
    assert (row["seeds"], row["n_transient"]) == (3, 3)
    assert row["peak"] == pytest.approx(0.9)
    assert row["final_lower"] < 0.6 < row["final_upper"]


def test_an_interval_does_not_leave_the_range_of_its_quantity():
    one, other = (replace(lane(peak=0.99), index=index, final=0.02) for index in (0.1, 0.99))
    row = run(one, other)
    assert row["index_upper"] == 1
    assert row["peak_upper"] <= 1
    assert row["final_lower"] >= 0


def test_a_run_whose_seeds_disagree_beyond_their_mean_is_not_called_transient():
    row = run(lane(final=0.55), lane("persistent", final=0.9), lane("persistent", final=0.88))
    assert row["outcome"] == "persistent"


def test_agreement_of_seeds_does_not_beat_the_noise_of_the_sequences_they_share():
    assert run(*[lane(final=0.82)] * 3)["outcome"] == "transient"
    assert run(*[lane(final=0.82, noise=0.03)] * 3)["outcome"] == "persistent"


def test_seeds_that_rise_by_very_different_amounts_still_rise():
    row = run(lane(peak=0.95, final=0.5), lane(peak=0.56, final=0.5), lane(peak=0.9, final=0.5))
    assert row["outcome"] != "never"


def test_a_run_whose_seeds_hardly_rise_on_average_is_never():
    row = run(lane(peak=0.58, final=0.5), NEVER, NEVER)
    assert (row["outcome"], row["n_never"]) == ("never", 2)


NEVER = Summary(
    outcome="never",
    emergence=128_000.0,
    emergence_censored=True,
    emergence_left_censored=False,
    peak=0.52,
    final=0.5,
    noise=0.01,
)


def test_of_how_many_lanes_a_quantity_is_stands_beside_it():
    row = run(lane(), lane(), NEVER, Summary(outcome="diverged"))
    counts = {name: row[f"n_{name}"] for name in QUANTITIES}
    assert counts == {"emergence": 3, "peak": 3, "peak_at": 2, "half_life": 2, "final": 3, "index": 2}
    assert [row[f"n_{name}_censored"] for name in TIMES] == [1, 0, 0]


def test_a_time_of_a_run_is_the_median_of_its_lanes_and_no_mean():
    times = run(*[lane(half_life=half_life) for half_life in (10.0, 20.0, 90.0)])
    assert (times["half_life"], times["n_half_life_censored"]) == (20, 0)


def test_a_median_that_most_lanes_leave_open_is_not_reached():
    row = run(lane(half_life=20.0), lane(censored=True), lane(censored=True))
    assert (row["half_life"], row["n_half_life_censored"]) == (math.inf, 2)
    assert run(lane(), NEVER, NEVER)["emergence"] == math.inf
    assert run(lane(), lane(), NEVER)["emergence"] == 4000


def test_the_more_lanes_keep_icl_to_the_end_the_later_is_the_half_life():
    """A mean would fall here: the longer lanes keep it, the later they peak, and the less is left until the end."""
    falling = [lane(half_life=30_000.0 + number) for number in range(6)]
    half_lives = [run(*[lane(half_life=31_000.0, censored=True)] * n, *falling[n:])["half_life"] for n in range(7)]
    assert half_lives == sorted(half_lives)
    assert (half_lives[0], half_lives[-1]) == (30_002, math.inf)


def test_a_time_has_an_interval_from_six_lanes_and_no_end_of_it_lies_past_the_horizon():
    few, six = (run(*[lane(half_life=1000.0 * (number + 1)) for number in range(n)]) for n in (5, 6))
    assert math.isnan(few["half_life_lower"])
    assert 1000 <= six["half_life_lower"] <= six["half_life"] == 3000
    open_end = run(*[lane(half_life=1000.0 * (number + 1), censored=number > 2) for number in range(6)])
    assert (open_end["half_life"], open_end["half_life_upper"]) == (3000, math.inf)


def test_diverged_lanes_are_counted_and_left_out_of_means():
    row = run(lane(), lane(), Summary(outcome="diverged"))
    assert (row["seeds"], row["n_diverged"], row["outcome"]) == (3, 1, "transient")
    assert row["peak"] == 0.9


def test_a_run_of_diverged_lanes_is_diverged():
    row = run(Summary(outcome="diverged"), Summary(outcome="diverged"))
    assert row["outcome"] == "diverged"
    assert row["peak"] is None
    assert math.isnan(row["emergence"])
