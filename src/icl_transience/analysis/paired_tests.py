"""Tests that are paired over seeds.

The runs of an experiment share, seed by seed, their training sequences and initial weights, so a test compares within
seeds alone: under the null hypothesis it makes no difference which of a seed's lanes belongs to which run. Every p is
two-sided, and exact up to 20 seeds and 8 levels: nothing is assumed beyond that.

    censored     a time of which only a lower bound is known: a half-life past the horizon; the emergence of a lane in
                 which nothing emerged, which is past the horizon too. Left-censored: only an upper bound is known,
                 as of an emergence before the first snapshot
    compare      c(a, b) = 1 where a is surely larger than b, -1 where b is, else 0 (Gehan 1965): a censored time is
                 larger than whatever was seen at or before its bound; against one seen after its bound, and against
                 another censored one, it counts as a tie; a left-censored one likewise, the other way round
    difference   d = a - b; where either is only a bound c(a, b) |a - b| of the bounds, which is what is known of it. So
                 much enters the test; it is no effect. p is 1 where a bounded d may go against the sum of all: it could
                 be of any size
    sign flip    of the sum of d over seeds: all 2^n ways to exchange a and b within seeds
    trend        T = sum over seeds of Kendall's S = sum over levels i < j of c(y_j, y_i): all ways to exchange a seed's
                 lanes among its levels. Where c is not known, pairs count against T. tau-b is S over the root of all
                 pairs times the pairs that are no ties
    interval     the means of all subsets of seeds divide the line into parts of equal probability (Hartigan 1969), so
                 the k-th from either end bound an interval for the centre of d. It leaves 0 out exactly where the
                 sign flip rejects it. n seeds allow a confidence of at most 1 - 2 / 2^n; under the one that is asked
                 for there is no interval. The one reached is told.
                 Where times are censored, it holds for whatever they may be
    Holm         p of several tests, corrected for their number (Holm 1979)
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# All sign flips of up to so many seeds, all permutations of up to so many levels; beyond, random ones.
EXACT_SEEDS = 20
EXACT_LEVELS = 8
DRAWS = 100_000
# Sums of the same numbers in another order differ by this share of their size.
_ROUNDING = 1e-10


class Measured(NamedTuple):
    """A quantity of one lane; of a censored one `value` is a lower bound, of a left-censored one an upper bound.

    least: below which a left-censored one cannot be: 0 of a time.
    """

    value: float
    censored: bool = False
    left_censored: bool = False
    least: float = 0.0

    @property
    def lowest(self) -> float:
        """Return the least that it may be."""
        return self.least if self.left_censored else self.value

    @property
    def highest(self) -> float:
        """Return the most that it may be."""
        return math.inf if self.censored else self.value

    @property
    def is_bound(self) -> bool:
        """Return whether it is only bounded."""
        return self.censored or self.left_censored


def compare(a: Measured, b: Measured) -> int:
    """Return 1 where a is surely larger than b, -1 where b surely is, else 0."""
    return int(compare_ends(*(np.asarray(end) for one in (a, b) for end in (one.lowest, one.highest))))


def compare_ends(
    a_lowest: np.ndarray, a_highest: np.ndarray, b_lowest: np.ndarray, b_highest: np.ndarray
) -> np.ndarray:
    """Return the same of arrays, int, from the ends between which values surely lie; nan is larger than nothing."""
    a_larger = np.where(np.isinf(a_highest), a_lowest >= b_highest, a_lowest > b_highest)  # a bound is passed
    b_larger = np.where(np.isinf(b_highest), b_lowest >= a_highest, b_lowest > a_highest)
    return a_larger.astype(int) - b_larger


def is_open(a_lowest: np.ndarray, a_highest: np.ndarray, b_lowest: np.ndarray, b_highest: np.ndarray) -> np.ndarray:
    """Return whether too little is known to say which is larger, or that both are equal, of the same arrays."""
    equal = (a_lowest == a_highest) & (b_lowest == b_highest)
    return (compare_ends(a_lowest, a_highest, b_lowest, b_highest) == 0) & ~equal


def difference(a: Measured, b: Measured) -> float:
    """Return a - b, or what is known of it."""
    return compare(a, b) * abs(a.value - b.value)


def is_sure(pairs: Sequence[tuple[Measured, Measured]]) -> bool:
    """Say whether no difference that is only bounded may go against the sum of what is known of all."""
    total = math.fsum(difference(*pair) for pair in pairs)
    ends = [bounds(*pair) for pair in pairs]
    return all(lowest == highest or (lowest >= 0 if total > 0 else highest <= 0) for lowest, highest in ends)


def bounds(a: Measured, b: Measured) -> tuple[float, float]:
    """Return the ends between which a - b surely lies."""
    return a.lowest - b.highest, a.highest - b.lowest


# Tests.


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p of a sum of differences, each of which might as well have had the other sign."""
    observed, slack = abs(math.fsum(differences)), _ROUNDING * math.fsum(map(abs, differences))
    if len(differences) <= EXACT_SEEDS:
        sums = np.zeros(1)
        for value in differences:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= observed - slack))
    generator, sums = np.random.default_rng(0), np.zeros(DRAWS)
    for value in differences:
        sums += generator.choice([-value, value], DRAWS)
    return float((1 + np.sum(np.abs(sums) >= observed - slack)) / (1 + DRAWS))


def min_attainable_p(n: int) -> float:
    """Return the smallest p that a sign-flip test on n seeds can give."""
    return min(1.0, 2 / 2**n) if n <= EXACT_SEEDS else 1 / (1 + DRAWS)


def kendall(block: Sequence[Measured]) -> tuple[int, float]:
    """Return Kendall's S and tau-b of the lanes of one seed, in order of their levels; tau is 0 where all are ties."""
    pairs = [compare(later, earlier) for earlier, later in itertools.combinations(block, 2)]
    decided = sum(map(abs, pairs))
    return sum(pairs), sum(pairs) / math.sqrt(len(pairs) * decided) if decided else 0.0


def open_pairs(block: Sequence[Measured]) -> int:
    """Return of how many pairs of lanes too little is known to say which is larger; see `is_open`."""
    ends = [(np.asarray(one.lowest), np.asarray(one.highest)) for one in block]
    return sum(bool(is_open(*a, *b)) for a, b in itertools.combinations(ends, 2))


def tau_bounds(block: Sequence[Measured]) -> tuple[float, float]:
    """Return the ends between which tau-b surely lies: a pair of which too little is known may go either way."""
    pairs = list(itertools.combinations(block, 2))
    (total, tau), n_open = kendall(block), open_pairs(block)
    if not n_open:
        return tau, tau
    decided = sum(abs(compare(*pair)) for pair in pairs)
    root = math.sqrt(len(pairs) * (decided + n_open))
    return (total - n_open) / root, (total + n_open) / root


def trend(blocks: Sequence[Sequence[Measured]]) -> tuple[int, float, float]:
    """Return the sum of Kendall's S over blocks, its two-sided p under permutation within blocks, and the smallest p.

    blocks: a seed's lanes each, in order of their levels; of at least two lanes.
    """
    observed = sum(kendall(block)[0] for block in blocks)
    sure = max(0, abs(observed) - sum(map(open_pairs, blocks)))
    if all(len(block) <= EXACT_LEVELS for block in blocks):
        # probabilities[i] is that of a sum of i - most.
        probabilities = np.ones(1)
        for block in blocks:
            probabilities = np.convolve(probabilities, _permuted(tuple(sorted(block))))
        most = len(probabilities) // 2
        sums = np.arange(-most, most + 1)
        largest = int(np.abs(sums[probabilities > 0]).max())
        p, least = (float(probabilities[np.abs(sums) >= at].sum()) for at in (sure, largest))
        return observed, min(1.0, p), min(1.0, least)
    generator, sums = np.random.default_rng(0), np.zeros(DRAWS, dtype=np.int64)
    for block in blocks:
        orders = generator.permuted(np.tile(np.arange(len(block)), (DRAWS, 1)), axis=1)
        sums += _sums_in_order(_comparisons(sorted(block)), orders)
    return observed, float((1 + np.sum(np.abs(sums) >= sure)) / (1 + DRAWS)), 1 / (1 + DRAWS)


@functools.cache
def _permuted(block: tuple[Measured, ...]) -> np.ndarray:
    """Return the probability of every S from -pairs to pairs, over all orders of the block: [2 pairs + 1]."""
    orders = np.array(list(itertools.permutations(range(len(block)))))
    pairs = math.comb(len(block), 2)
    return np.bincount(_sums_in_order(_comparisons(block), orders) + pairs, minlength=2 * pairs + 1) / len(orders)


def _comparisons(block: Sequence[Measured]) -> np.ndarray:
    """Return `compare` of every two lanes of a block, [later, earlier]."""
    return np.array([[compare(later, earlier) for earlier in block] for later in block])


def _sums_in_order(comparisons: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return Kendall's S of a block in each order [orders, levels]."""
    pairs = itertools.combinations(range(orders.shape[1]), 2)
    sums = np.zeros(len(orders), dtype=np.int64)
    for earlier, later in pairs:
        sums += comparisons[orders[:, later], orders[:, earlier]]
    return sums


# Intervals and corrections.


def typical_interval(low: Sequence[float], high: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Return lower and upper end for the centre of values between `low` and `high`, and the confidence reached.

    The narrowest interval of at least `confidence`; (nan, nan, nan) where so few seeds do not allow that.
    """
    lowest, highest = (np.sort(_subset_means(values)) for values in (low, high))
    parts = len(lowest) + 1
    cut = math.floor((1 - confidence) / 2 * parts + _ROUNDING)
    if not cut:
        return math.nan, math.nan, math.nan
    return float(lowest[cut - 1]), float(highest[-cut]), 1 - 2 * cut / parts


def _subset_means(values: Sequence[float]) -> np.ndarray:
    """Return the means of all subsets but the empty one; of random subsets where there are too many."""
    generator = np.random.default_rng(0)
    sums, counts = (np.zeros(1 if len(values) <= EXACT_SEEDS else DRAWS) for _ in range(2))
    for value in values:
        if len(values) <= EXACT_SEEDS:
            sums, counts = np.concatenate([sums, sums + value]), np.concatenate([counts, counts + 1])
        else:
            taken = generator.random(DRAWS) < 0.5
            sums[taken] += value
            counts += taken
    return sums[counts > 0] / counts[counts > 0]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return each p, corrected for the number of tests (Holm 1979)."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = largest
    return corrected
