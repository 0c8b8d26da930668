"""When in-context learning is acquired along an axis of numbers: survival.csv, threshold.csv, where a study asks.

    acquired       the lane's peak exceeds chance by max(statistics.min_effect, 3 sigma): its in-context learning
                   emerged (transience.py). Then `emergence`, half-way to its own peak, is the time, and otherwise a
                   lower bound of it: the same that claims of `emergence` are judged by. Diverged lanes are left out
    left_censored  of these, the lanes that had acquired it by their first snapshot: their time is at most that. The
                   curve falls there for them, and a median that is no later is at most that
    survival.csv   S(t), the share of lanes that have not acquired it by t, at each level of the axis: Kaplan & Meier
                   (1958), with the log-log interval (survival.py)
    threshold      K*: the level from which half of the lanes acquire it. Shares of lanes are made non-decreasing along
                   the axis (isotonic regression: Robertson, Wright & Dykstra 1988), and K* is where they cross 1/2,
                   interpolated in log2 of positive levels. Where they never reach 1/2, or are at 1/2 at the lowest
                   level already, there is no number, and `threshold_place` says on which side K* lies. Its interval:
                   percentiles over 2,000 resamples of seeds, and the two levels between which K* is, at least; an
                   infinite end lies beyond the levels
    bimodality     Sarle's coefficient b = (g^2 + 1) / (k + 3 (n - 1)^2 / ((n - 2) (n - 3))), g and k the sample's
                   skewness and excess kurtosis, corrected for bias: 1/3 of a normal distribution, 5/9 of a uniform one,
                   which a distribution of two peaks exceeds (as can a very skewed one, or a straggler). Source:
                   SAS/STAT, CLUSTER; Pfister et al. (2013). Of the lanes' final in-context accuracy, and of log2 of the
                   times of those that acquired it, without the left-censored. One straggler makes it larger than two
                   equal groups do: it is told only where the widest gap between values has 3 or more on either side

That there is such a threshold, and two kinds of lanes near it, is what Nguyen & Reddy (2024) say.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from icl_transience.analysis.survival import INTERVAL_FROM, median_time, survival_curve
from icl_transience.store.layout import ACQUISITION_TABLES
from icl_transience.store.tables_file import records, write_csv

# Of a uniform distribution; see above.
BIMODAL_ABOVE = 5 / 9
# Fewer values say nothing of a distribution's shape, and fewer beyond the widest gap between them are stragglers.
_FEWEST, _FEWEST_IN_GROUP = 8, 3
_RESAMPLES = 2000
# Where K* lies: a number is between levels alone.
BETWEEN, BELOW, ABOVE = "between levels", "below the lowest level", "above the highest level"
_BIMODALITY = {"final accuracies": "bimodality_final", "times": "bimodality_time"}
_NO_GROUPS = f"— (not two groups of {_FEWEST_IN_GROUP} or more)"
_SHARE = "the share of seeds that acquire it, taken not to fall,"


def write_tables(folder: Path, lanes: pd.DataFrame, axis: str, confidence: float) -> None:
    """Write survival.csv and threshold.csv into an experiment's folder. lanes: its transience.csv."""
    tables = (survival_of(lanes, axis, confidence), threshold_of(lanes, axis, confidence))
    for name, table in zip(ACQUISITION_TABLES, tables, strict=True):
        write_csv(folder / name, table, digits=10)


def survival_of(lanes: pd.DataFrame, axis: str, confidence: float) -> pd.DataFrame:
    """Return the share of lanes that have not acquired it, a row a level and time at which some did."""
    tables = []
    for level, of_level in _levels(lanes, axis).items():
        is_open = _is_true(of_level, "emergence_censored")
        curve = survival_curve(of_level["emergence"].tolist(), is_open.tolist(), confidence)
        tables.append(pd.DataFrame({axis: level} | curve))
    return pd.concat(tables, ignore_index=True)


def threshold_of(lanes: pd.DataFrame, axis: str, confidence: float) -> pd.DataFrame:
    """Return a row a level: how many lanes acquired it, when, whether lanes are of two kinds; and K*, in each row."""
    levels = _levels(lanes, axis)
    acquired = pd.DataFrame({level: _acquired(of_level) for level, of_level in levels.items()}).T
    star, lower, upper = threshold(list(levels), acquired.to_numpy(dtype=float), confidence)
    place = BETWEEN if math.isfinite(star) else BELOW if star < 0 else ABOVE
    rows = []
    for level, of_level in levels.items():
        is_open, is_early = (_is_true(of_level, f"emergence_{side}") for side in ("censored", "left_censored"))
        median = median_time(of_level["emergence"].tolist(), is_open.tolist(), confidence)
        times = np.log2(of_level.loc[~is_open & ~is_early, "emergence"].to_numpy(dtype=float))
        rows.append(
            {
                axis: level,
                "seeds": len(of_level),
                "acquired": int((~is_open).sum()),
                "left_censored": int(is_early.sum()),
                "share": float((~is_open).mean()),
                "median": median.median,
                "median_left_censored": bool((of_level.loc[is_early, "emergence"] >= median.median).any()),
                "median_lower": median.lower,
                "median_upper": median.upper,
                "bimodality_final": bimodality_of_groups(of_level["final"].to_numpy(dtype=float)),
                "bimodality_time": bimodality_of_groups(times),
                "threshold": star if place == BETWEEN else math.nan,
                "threshold_place": place,
                "threshold_lower": lower,
                "threshold_upper": upper,
            }
        )
    return pd.DataFrame(rows)


def in_words(table: pd.DataFrame, axis: str, confidence: float = 0.95) -> list[str]:
    """Return what threshold.csv says: K*, and in how many lanes of each level in-context learning is acquired.

    confidence: of the intervals, as the table's were made.
    """
    star, lower, upper = (float(table[name].iloc[0]) for name in ("threshold", "threshold_lower", "threshold_upper"))
    levels, where = table[axis], table["threshold_place"].iloc[0]
    if where == ABOVE:
        said = [f"{_SHARE} stays under one half up to {axis} = {levels.max():g}"]
    elif where == BELOW:
        said = [f"{_SHARE} is one half or more already at {axis} = {levels.min():g}"]
    else:
        ends = _ends_in_words(lower, upper, confidence)
        said = [f"half of the seeds acquire it from about {axis} = {float(f'{star:.3g}'):g} on{ends}"]
    for row in records(table):
        shape = ", of ".join(_shape(of, row[name]) for of, name in _BIMODALITY.items())
        bound = "at most " if row["median_left_censored"] else ""
        median = "not reached" if math.isinf(row["median"]) else f"{bound}{row['median']:,.0f} sequences"
        how_many = f"{row['acquired']:.0f} of {row['seeds']:.0f} seeds acquire it"
        early = f", {row['left_censored']:.0f} by their first snapshot" if row["left_censored"] else ""
        said.append(f"{axis} = {row[axis]:g}: {how_many}{early}, median {median}; bimodality of {shape}")
    return said


def _shape(of: str, coefficient: float) -> str:
    if math.isnan(coefficient):
        return f"{of} {_NO_GROUPS}"
    return f"{of} {coefficient:.2f} ({'above' if coefficient > BIMODAL_ABOVE else 'not above'} {BIMODAL_ABOVE:.2f})"


def _ends_in_words(lower: float, upper: float, confidence: float) -> str:
    if math.isnan(lower):
        return ""
    first, last = (BELOW if end == -math.inf else ABOVE if end == math.inf else f"{end:.4g}" for end in (lower, upper))
    return f" (resampled seeds, {confidence:.0%} of them, and the levels beside it: {first} to {last})"


def threshold(levels: Sequence[float], acquired: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Return K* and the ends of its interval, which are nan of fewer than INTERVAL_FROM seeds.

    Each is infinite where it lies beyond the levels, below the lowest or above the highest.
    The interval is of resampled seeds, and as wide as the two levels between which K* is at least: where no seed
    acquires it at one and every seed at the next, resamples agree on what nobody has seen.

    levels: [L] ascending. acquired: [L, N], 1 where a lane acquired it and 0 where not, of N seeds; nan where a seed
    has no lane. A resample that leaves a level without a lane is left out.
    """
    n_seeds, rng = acquired.shape[1], np.random.default_rng(0)
    drawn = np.concatenate([[np.arange(n_seeds)], rng.integers(n_seeds, size=(_RESAMPLES, n_seeds))])
    known = ~np.isnan(acquired)[:, drawn]  # [L, resamples + 1, N]
    counts = known.sum(axis=2)
    drawn_shares = np.nan_to_num(acquired)[:, drawn].sum(axis=2) / np.maximum(counts, 1)
    star, *resampled = _crossing(levels, drawn_shares, counts)[(counts > 0).all(axis=0)]
    if n_seeds < INTERVAL_FROM:
        return float(star), math.nan, math.nan
    # Ends are resamples themselves: between two of which one is infinite there is no number.
    lower, upper = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], method="nearest")
    place = int(np.searchsorted(levels, star))
    if 0 < place < len(levels):
        lower, upper = min(lower, levels[place - 1]), max(upper, levels[place])
    return float(star), float(lower), float(upper)


def _crossing(levels: Sequence[float], shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return where each column of `shares` [L, R], made non-decreasing, crosses 1/2, [R]; weights: [L, R]."""
    level, risen = np.asarray(levels, dtype=float), _isotonic(shares, weights)
    is_positive = bool(level[0] > 0)
    scale = np.log2(level) if is_positive else level
    found = np.full(shares.shape[1], math.inf)
    for place in range(len(level) - 1, 0, -1):
        below, above = risen[place - 1], risen[place]
        crosses = (below < 0.5) & (above >= 0.5)
        part = (0.5 - below[crosses]) / (above[crosses] - below[crosses])
        between = scale[place - 1] + part * (scale[place] - scale[place - 1])
        found[crosses] = 2**between if is_positive else between
    found[risen[0] >= 0.5] = -math.inf
    return found


def _isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the non-decreasing columns nearest to those of `values` [L, R] in weighted squares.

    weights: [L, R]. By the max-min formula.
    """
    n = len(values)
    nothing = np.zeros((1, values.shape[1]))
    sums, total = (np.concatenate([nothing, rows.cumsum(axis=0)]) for rows in (values * weights, weights))

    def mean(first: int, last: int) -> np.ndarray:
        return (sums[last + 1] - sums[first]) / np.maximum(total[last + 1] - total[first], 1)

    risen = []
    for place in range(n):
        smallest = [np.min([mean(first, last) for last in range(place, n)], axis=0) for first in range(place + 1)]
        risen.append(np.max(smallest, axis=0))
    return np.array(risen)


def bimodality(values: np.ndarray) -> float:
    """Return Sarle's coefficient of `values` [n]; nan under 8 of them, or where all are equal."""
    n = len(values)
    if n < _FEWEST or np.ptp(values) == 0:
        return math.nan
    centred = values - values.mean()
    second, third, fourth = (float((centred**power).mean()) for power in (2, 3, 4))
    skewness = math.sqrt(n * (n - 1)) / (n - 2) * third / second**1.5
    kurtosis = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (fourth / second**2 - 3) + 6)
    return (skewness**2 + 1) / (kurtosis + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))


def bimodality_of_groups(values: np.ndarray) -> float:
    """Return Sarle's coefficient of `values` [n]; nan where the widest gap parts fewer than 3 from the others."""
    gaps = np.diff(np.sort(values))
    if not len(gaps):
        return math.nan
    below = int(gaps.argmax()) + 1
    return bimodality(values) if min(below, len(values) - below) >= _FEWEST_IN_GROUP else math.nan


def _levels(lanes: pd.DataFrame, axis: str) -> dict[float, pd.DataFrame]:
    """Return level -> its lanes that did not diverge, in order of levels."""
    alive = pd.DataFrame(lanes.loc[lanes["outcome"] != "diverged"])
    return {float(str(level)): of_level for level, of_level in alive.groupby(axis)}


def _is_true(lanes: pd.DataFrame, column: str) -> pd.Series:
    # In a column that has empty cells too, pandas reads what is true and false as text.
    return pd.Series(lanes[column].astype(str) == "True")


def _acquired(lanes: pd.DataFrame) -> pd.Series:
    return pd.Series((~_is_true(lanes, "emergence_censored")).to_numpy(dtype=float), index=lanes["seed"])
