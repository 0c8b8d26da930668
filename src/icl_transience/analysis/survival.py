"""Times over seeds of which some are only bounded: Kaplan and Meier's estimator.

A lane in which in-context learning has not emerged, or not fallen by half, at the end of its training gives a lower
bound of the time, not a time. No mean is taken of such bounds. S(t) is the share of lanes in which it has not happened
by t, estimated by Kaplan & Meier (1958); the median is the first t with S(t) <= 1/2, and its interval holds every t
at which the log-log interval of S (Greenwood's variance) contains 1/2 (Brookmeyer & Crowley 1982). Where a curve does
not come down to 1/2 the median, or an end of its interval, is not reached.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Under this many lanes an interval of a median says nothing that the lanes themselves do not.
INTERVAL_FROM = 6


@dataclass(frozen=True)
class MedianTime:
    """The median over n lanes, of which `censored` only gave a lower bound.

    median, lower, upper: sequences; inf where it is not reached. The ends are nan where no interval is given.
    """

    median: float
    lower: float
    upper: float
    n: int
    censored: int


def median_time(times: Sequence[float], censored: Sequence[bool], confidence: float) -> MedianTime:
    """Return the median of lanes' times [n] and its interval; a time is a lower bound where it is `censored` [n].

    The median of no lanes is nan. Source: Kaplan & Meier (1958); Brookmeyer & Crowley (1982).
    """
    if len(times) != len(censored):
        raise ValueError(f"{len(times)} times, {len(censored)} flags")
    n, bounded = len(times), sum(map(bool, censored))
    if not n:
        return MedianTime(math.nan, math.nan, math.nan, 0, 0)
    if bounded == n:
        return MedianTime(math.inf, math.nan, math.nan, n, n)
    data = stats.CensoredData.right_censored(np.asarray(times, float), np.asarray(censored, bool))
    survival = stats.ecdf(data).sf
    ends = (math.nan, math.nan)
    if n >= INTERVAL_FROM:
        limits = survival.confidence_interval(confidence, method="log-log")
        low, high = (_first_at_half(end.quantiles, end.probabilities) for end in (limits.low, limits.high))
        ends = (low, high)
    return MedianTime(_first_at_half(survival.quantiles, survival.probabilities), *ends, n, bounded)


def _first_at_half(times: np.ndarray, survival: np.ndarray) -> float:
    """Return the first time at which a survival curve is at most 1/2; inf where it never is.

    A limit that is nan is open: where nothing has happened yet, or in all lanes, log-log gives no interval.
    """
    reached = np.flatnonzero(survival <= 0.5)
    return float(times[reached[0]]) if len(reached) else math.inf
