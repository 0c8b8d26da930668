"""Times over seeds of which some are only bounded: Kaplan and Meier's estimator.

A lane in which in-context learning has not emerged, or not fallen by half, at the end of its training gives a lower
bound of the time, not a time: it is censored. No mean is taken of such bounds. S(t) is the share of lanes in which it
has not happened by t, estimated by Kaplan & Meier (1958); the median is the first t with S(t) <= 1/2, and its interval
holds every t at which the log-log interval of S (Greenwood's variance) contains 1/2 (Brookmeyer & Crowley 1982). Where
S does not come down to 1/2 the median is not reached; where a limit of S does not, that end of the interval is open.
If no lane is censored, the last time is an upper end too: all n lie below the median in 2^-n of cases.
The estimator takes a lane that is censored early for one like those that went on: its bound tells no more than itself.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Under this many lanes an interval of a median says nothing that the lanes themselves do not.
INTERVAL_FROM = 6
# S is a product of shares: of 24 lanes, 12 of which are over, it comes to a little more than 1/2.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class MedianTime:
    """The median over n lanes, of which `censored` gave a lower bound alone.

    median, lower, upper: sequences; inf where it is not reached. The ends are nan where no interval is given.
    """

    median: float
    lower: float
    upper: float
    n: int
    censored: int


def median_time(times: Sequence[float], censored: Sequence[bool], confidence: float) -> MedianTime:
    """Return the median of lanes' times [n] and its interval; a time is a lower bound where it is `censored` [n].

    The median of no lanes is nan. There is no interval under INTERVAL_FROM lanes, nor where all are censored.
    Source: Kaplan & Meier (1958); Brookmeyer & Crowley (1982); of order statistics Thompson (1936).
    """
    if len(times) != len(censored):
        raise ValueError(f"{len(times)} times, {len(censored)} flags")
    n, bounded = len(times), sum(map(bool, censored))
    if bounded == n:
        return MedianTime(math.inf if n else math.nan, math.nan, math.nan, n, bounded)
    # Here and not above: it takes longer to import than all else in a job that only draws.
    from scipy import stats

    data = stats.CensoredData.right_censored(np.asarray(times, float), np.asarray(censored, bool))
    survival = stats.ecdf(data).sf
    ends = (math.nan, math.nan)
    if n >= INTERVAL_FROM:
        with warnings.catch_warnings():
            # Of nan before the first event and after the last, which _first_at_half knows how to take.
            warnings.filterwarnings("ignore", "The confidence interval is undefined at some", RuntimeWarning)
            limits = survival.confidence_interval(confidence, method="log-log")
        # A lower limit lies at or below S, so it is 0 where S is, though log-log gives none there.
        low = np.where(survival.probabilities == 0, 0, limits.low.probabilities)
        upper = _first_at_half(survival.quantiles, limits.high.probabilities)
        if not bounded and 0.5**n <= (1 - confidence) / 2:
            # Of seeds that all peak at one snapshot log-log knows no upper limit.
            upper = min(upper, float(max(times)))
        ends = _first_at_half(survival.quantiles, low), upper
    return MedianTime(_first_at_half(survival.quantiles, survival.probabilities), *ends, n, bounded)


def survival_curve(
    times: Sequence[float] | np.ndarray, censored: Sequence[bool] | np.ndarray, confidence: float
) -> dict[str, np.ndarray]:
    """Return S and its log-log interval at each time at which it falls, as columns of equal length [m].

    times, censored [n]: as of `median_time`. sequences_seen; survival, lower, upper: S; at_risk: lanes in which it had
    not happened before; happened: those in which it does then. An end is nan where log-log gives none.
    """
    times, censored = np.asarray(times, float), np.asarray(censored, bool)
    events = np.unique(times[~censored])
    at_risk = np.array([(times >= event).sum() for event in events], dtype=int)
    happened = np.array([((times == event) & ~censored).sum() for event in events], dtype=int)
    columns = {"sequences_seen": events, "at_risk": at_risk, "happened": happened}
    if not len(events):
        return columns | {name: np.empty(0) for name in ("survival", "lower", "upper")}
    from scipy import special

    survival = np.cumprod(1 - happened / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(happened / (at_risk * (at_risk - happened)))
        half = special.ndtri((1 + confidence) / 2) * np.sqrt(variance) / np.abs(np.log(survival))
        lower, upper = (np.where(survival > 0, survival ** np.exp(sign * half), np.nan) for sign in (1, -1))
    return columns | {"survival": survival, "lower": lower, "upper": upper}


def _first_at_half(times: np.ndarray, survival: np.ndarray) -> float:
    """Return the first of `times` [m] at which `survival` [m] is at most 1/2; inf where it never is, or is nan."""
    reached = np.flatnonzero(survival <= 0.5 + _ROUNDING)
    return float(times[reached[0]]) if len(reached) else math.inf
