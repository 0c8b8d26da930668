"""Medians of times that are partly lower bounds, against the formulas written out."""

import math

import numpy as np
import pytest
from scipy import stats

from icl_transience.analysis.survival import INTERVAL_FROM, median_time

# Acute myelogenous leukaemia, maintained group (Miller 1981), weeks; True: still in remission when last seen.
AML = [(9, False), (13, False), (13, True), (18, False), (23, False), (28, True)]
AML += [(31, False), (34, False), (45, True), (48, False), (161, True)]


def kaplan_meier(times, censored, confidence):
    """(time, S, lower, upper) at each event, from the definitions."""
    z, survival, variance, rows = stats.norm.ppf((1 + confidence) / 2), 1.0, 0.0, []
    for time in sorted({t for t, c in zip(times, censored, strict=True) if not c}):
        at_risk = sum(t >= time for t in times)
        events = sum(t == time and not c for t, c in zip(times, censored, strict=True))
        survival *= 1 - events / at_risk
        if at_risk > events:
            variance += events / (at_risk * (at_risk - events))
            half = z * math.sqrt(variance) / abs(math.log(survival))
            lower, upper = (survival ** math.exp(sign * half) for sign in (1, -1))
        else:
            # Without anybody left the variance is infinite: no lower limit of S is above S, and none upper is known.
            lower, upper = 0.0, math.nan
        rows.append((time, survival, lower, upper))
    return rows


def first(rows, column):
    return next((row[0] for row in rows if row[column] <= 0.5 + 1e-12), math.inf)


def test_a_textbook_case():
    times, censored = zip(*AML, strict=True)
    found = median_time(times, censored, 0.95)
    assert (found.median, found.n, found.censored) == (31, 11, 4)
    rows = kaplan_meier(times, censored, 0.95)
    assert (found.lower, found.upper) == (first(rows, 2), first(rows, 3)) == (13, math.inf)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_estimator_written_out(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(INTERVAL_FROM, 30))
    times = generator.integers(1, 12, n).astype(float)
    censored = generator.random(n) < 0.4
    censored[0] = False
    found, rows = median_time(times, censored, 0.9), kaplan_meier(times, censored, 0.9)
    assert (found.median, found.lower, found.upper) == tuple(first(rows, column) for column in (1, 2, 3))
    assert found.lower <= found.median <= found.upper


def test_without_bounds_it_is_the_middle_time():
    assert median_time([3, 1, 2], [False] * 3, 0.95).median == 2
    assert median_time([4, 1, 2, 3], [False] * 4, 0.95).median == 2  # the first with S <= 1/2


@pytest.mark.parametrize("n", range(1, 60))
def test_of_a_half_that_is_over_rounding_takes_nothing_away(n):
    """A lane that is only bounded stands at the end, so that S is a product and no share of n."""
    times = [float(time) for time in range(1, n + 1)]
    assert median_time(times, [time == n and n > 1 for time in times], 0.95).median == (n + 1) // 2


def test_lanes_that_agree_leave_no_doubt_before_their_time():
    """The peaks of seeds often lie at the same snapshot."""
    found = median_time([5.0] * 6, [False] * 6, 0.95)
    assert (found.lower, found.median, found.upper) == (5, 5, 5)
    # All six below the median: in 1 of 64 cases, which is more than half of 1 %.
    assert median_time([5.0] * 6, [False] * 6, 0.99).upper == math.inf
    assert median_time([5.0, 5.0, 5.0, 6.0, 6.0, 6.0], [False] * 3 + [True] * 3, 0.95).upper == math.inf


def test_the_interval_of_few_known_times_covers_the_median_as_often_as_it_says():
    generator = np.random.default_rng(0)
    found = [median_time(times, [False] * 6, 0.95) for times in generator.exponential(size=(200, 6))]
    # All lie on one side of the median in 1 of 32 samples, and no interval of six is narrower than that allows.
    assert np.mean([one.lower <= math.log(2) <= one.upper for one in found]) >= 0.93


def test_it_says_nothing_on_the_terminal(recwarn):
    median_time([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [True] + [False] * 6, 0.95)
    assert not recwarn


def test_bounds_alone_reach_no_median():
    found = median_time([5, 5, 5], [True] * 3, 0.95)
    assert found.median == math.inf
    assert found.censored == 3


def test_more_bounds_never_make_a_median_earlier():
    """What a mean of bounds gets wrong: lanes that keep in-context learning for longer must not look shorter-lived."""
    times = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    medians = [median_time(times, [rank >= 7 - n for rank in range(7)], 0.95).median for n in range(7)]
    assert medians == sorted(medians)
    assert medians[-1] == math.inf


def test_few_lanes_have_no_interval_and_none_no_median():
    few = median_time([1, 2, 3, 4, 5], [False] * 5, 0.95)
    assert math.isnan(few.lower)
    assert math.isnan(few.upper)
    none = median_time([], [], 0.95)
    assert (math.isnan(none.median), none.n) == (True, 0)


def test_times_without_flags_are_refused():
    with pytest.raises(ValueError, match="2 times, 1 flags"):
        median_time([1, 2], [True], 0.95)
