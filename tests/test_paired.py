"""Paired tests: what they must give under the null hypothesis is counted out, not drawn."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from icl_transience.analysis import paired_tests
from icl_transience.analysis.paired_tests import Measured, compare, sign_flip, trend, typical_interval


def plain(*values: float) -> list[Measured]:
    return [Measured(value) for value in values]


def late(value: float) -> Measured:
    return Measured(value, censored=True)


def assert_super_uniform(p_values: list[float]) -> None:
    """Of equally likely p, a share of at most x lies at or below x."""
    found = np.array(p_values)
    assert all(np.mean(found <= p + 1e-12) <= p + 1e-12 for p in found)


def early(value: float) -> Measured:
    return Measured(value, left_censored=True)


# Values of which only a bound is known.


@pytest.mark.parametrize(
    ("a", "b", "sign"),
    [
        (Measured(2), Measured(1), 1),
        (Measured(1), Measured(1), 0),
        (late(2), Measured(1), 1),
        # It came later than 2, the other one at 2.
        (late(2), Measured(2), 1),
        # It came later than 2: before or after 3, nobody knows.
        (late(2), Measured(3), 0),
        (late(2), late(1), 0),
        (late(2), late(2), 0),
        # It came by 2: before 1 or after it, nobody knows.
        (Measured(1), early(2), 0),
        (Measured(2), early(2), 0),
        (Measured(3), early(2), 1),
        (early(2), early(2), 0),
        (late(3), early(2), 1),
    ],
)
def test_a_censored_time_is_larger_than_what_was_seen_until_its_bound_and_else_ties(a, b, sign):
    assert compare(a, b) == sign
    assert compare(b, a) == -sign


def test_of_a_difference_with_a_censored_time_that_much_counts_as_is_known():
    assert paired_tests.difference(late(5), Measured(2)) == 3
    assert paired_tests.difference(late(5), Measured(7)) == paired_tests.difference(late(5), late(2)) == 0
    assert paired_tests.bounds(late(5), Measured(2)) == (3, math.inf)
    assert paired_tests.bounds(Measured(2), late(5)) == (-math.inf, -3)
    assert paired_tests.bounds(Measured(2), Measured(5)) == (-3, -3)
    assert paired_tests.bounds(early(2), Measured(5)) == (-5, -3)
    assert paired_tests.bounds(late(5), early(2)) == (3, math.inf)


# Sign flips.


@pytest.mark.parametrize("sizes", [(1, 2, 3, 4, 5), (1, 1, 1, 1, 1, 1), (0, 0, 1, 2), (1e-9, 1, 1e9), (0.1, 0.2, 0.3)])
def test_under_the_null_the_p_of_a_sign_flip_is_no_smaller_than_it_says(sizes):
    signs = itertools.product([-1, 1], repeat=len(sizes))
    assert_super_uniform([sign_flip(np.multiply(sizes, flips)) for flips in signs])


def test_the_p_of_a_sign_flip_by_hand():
    # Of eight sums of 1, 2, 3, those of absolute value at least 4 are 6, 4, -4, -6.
    assert sign_flip([-1, 2, 3]) == 0.5
    assert sign_flip([1, 2, 3]) == 0.25
    # 0.1 + 0.2 and 0.3 are no tie to a computer; flipping both gives the same sum, which must count.
    assert sign_flip([0.1, 0.2, -0.3]) == 1
    assert sign_flip([0, 0]) == sign_flip([]) == 1


def test_sign_flips_agree_with_scipy():
    generator = np.random.default_rng(1)
    for n in (4, 7, 10):
        one, other = generator.normal(size=n), generator.normal(0.5, size=n)
        found = stats.permutation_test(
            (one, other), lambda x, y: np.sum(x - y), permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip(one - other) == pytest.approx(found.pvalue)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 10, 20])
def test_as_many_seeds_as_agree_decide_how_small_p_is(n):
    p = sign_flip(list(range(1, n + 1)))
    assert p == paired_tests.min_attainable_p(n) == 2 / 2**n
    assert (p <= 0.05) == (n >= 6)


def test_pairing_sees_what_lies_beneath_differences_between_seeds():
    one = np.array([0.1, 0.5, 0.9, 0.3, 0.7, 0.2, 0.8, 0.6])
    other = one + np.array([0.02, 0.03, 0.02, 0.03, 0.02, 0.03, 0.02, 0.03])
    assert sign_flip(other - one) == 2 / 2**8
    assert stats.ttest_ind(one, other).pvalue > 0.5


def test_random_sign_flips_stand_in_for_all_and_are_the_same_every_time(monkeypatch):
    differences = np.random.default_rng(2).normal(0.6, size=12)
    exact = sign_flip(differences)
    monkeypatch.setattr(paired_tests, "EXACT_SEEDS", 5)
    drawn = sign_flip(differences)
    # Five standard errors of 100,000 draws.
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / paired_tests.DRAWS))
    assert drawn == sign_flip(differences)
    assert drawn != exact
    assert sign_flip(list(range(1, 31))) == paired_tests.min_attainable_p(30) == 1 / (paired_tests.DRAWS + 1)


# Trends.

TRENDS = {
    "all different": [plain(1, 2, 3), plain(5, 6, 7)],
    "ties": [plain(1, 1, 2), plain(5, 5, 5)],
    "censored": [[Measured(1), late(2), late(2)], [late(1), Measured(2), Measured(3)]],
    "blocks of two lengths": [plain(1, 2, 3, 4), plain(1, 2)],
}


def all_orders(blocks: list[list[Measured]]) -> list[tuple]:
    return list(itertools.product(*(itertools.permutations(block) for block in blocks)))


@pytest.mark.parametrize("blocks", TRENDS.values(), ids=TRENDS)
def test_under_the_null_the_p_of_a_trend_is_no_smaller_than_it_says(blocks):
    assert_super_uniform([trend(order)[1] for order in all_orders(blocks)])


@pytest.mark.parametrize("blocks", TRENDS.values(), ids=TRENDS)
def test_the_p_of_a_trend_is_the_share_of_orders_that_are_as_steep(blocks):
    """As steep as it surely is: pairs of which too little is known count against it."""
    n_open = sum(map(paired_tests.open_pairs, blocks))
    sums = np.array([sum(paired_tests.kendall(block)[0] for block in order) for order in all_orders(blocks)])
    for order, total in list(zip(all_orders(blocks), sums, strict=True))[::5]:
        assert trend(order) == (
            total,
            pytest.approx(np.mean(np.abs(sums) >= max(0, abs(total) - n_open))),
            pytest.approx(np.mean(np.abs(sums) == np.abs(sums).max())),
        )


def test_the_p_of_a_trend_by_hand():
    # One order in six rises in a seed, one falls; three seeds.
    assert trend([plain(1, 2, 3)] * 3) == (9, pytest.approx(2 / 6**3), pytest.approx(2 / 6**3))
    assert trend([plain(3, 2, 1)] * 3)[:2] == (-9, pytest.approx(2 / 6**3))
    # With two levels it is the sign test.
    assert trend([plain(1, 2)] * 6)[1] == pytest.approx(2 / 2**6)
    assert trend([plain(4, 4, 4)]) == (0, 1, 1)
    assert trend([]) == (0, 1, 1)


def test_a_trend_is_looked_for_within_seeds():
    """Seeds far apart, which falls if they are thrown together, and the same rise in each."""
    blocks = [plain(*(10 * seed + np.arange(4))) for seed in range(4)]
    assert trend(blocks)[1] == pytest.approx(2 / 24**4)
    pooled = stats.kendalltau(np.tile(np.arange(4), 4), [value.value for block in blocks for value in block])
    assert pooled.pvalue > 0.1


@pytest.mark.parametrize("values", [(1, 3, 2, 5), (1, 1, 2, 3), (2, 2, 1, 1), (4, 3, 2, 1)])
def test_tau_is_kendalls_tau_b(values):
    assert paired_tests.kendall(plain(*values))[1] == pytest.approx(stats.kendalltau(range(4), values).statistic)


def test_random_orders_stand_in_for_all_and_are_the_same_every_time(monkeypatch):
    weak = [plain(1, 3, 2, 5, 4), plain(3, 2, 4, 1, 5), plain(2, 3, 1, 5, 4)]
    exact = trend(weak)[1]
    monkeypatch.setattr(paired_tests, "EXACT_LEVELS", 3)
    drawn = trend(weak)[1]
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / paired_tests.DRAWS))
    assert drawn == trend(weak)[1]
    assert trend([plain(*range(12))] * 3)[1:] == (1 / (paired_tests.DRAWS + 1),) * 2


# Intervals.


def test_an_interval_by_hand():
    # Means of subsets: 1, 2, 6, 1.5, 3.5, 4, 3.
    assert typical_interval([1, 2, 6], [1, 2, 6], 0.75) == (1, 6, 0.75)
    assert typical_interval([1, 2, 6], [1, 2, 6], 0.5) == (1.5, 4, 0.5)


@pytest.mark.parametrize(("n", "allows"), [(0, False), (1, False), (3, False), (5, False), (6, True)])
def test_seeds_that_do_not_allow_the_confidence_asked_for_give_no_interval_at_another(n, allows):
    *ends, reached = typical_interval(range(n), range(n), 0.95)
    assert np.isfinite([*ends, reached]).all() if allows else np.isnan([*ends, reached]).all()
    assert not reached < 0.95


@pytest.mark.parametrize("n", [2, 3, 6, 9])
def test_an_interval_leaves_zero_out_exactly_where_the_test_rejects_it(n):
    generator, outcomes = np.random.default_rng(n), set()
    for _ in range(200):
        differences = generator.normal(generator.uniform(0, 2), size=n)
        lower, upper, reached = typical_interval(differences, differences, min(0.9, 1 - 2 / 2**n))
        rejected = sign_flip(differences) <= 1 - reached + 1e-12
        assert rejected == (lower > 0 or upper < 0)
        outcomes.add(rejected)
    assert outcomes == {True, False}


@pytest.mark.parametrize("n", [3, 6, 8])
def test_an_interval_holds_the_centre_as_often_as_it_says(n):
    """Of all signs that values about 0 may have; no two subsets of these have equal means."""
    sizes = 2.0 ** np.arange(n)
    asked, held = min(0.9, 1 - 2 / 2**n), []
    for signs in itertools.product([-1, 1], repeat=n):
        lower, upper, reached = typical_interval(sizes * signs, sizes * signs, asked)
        held.append(lower <= 0 <= upper)
    assert np.mean(held) == reached >= asked


def test_an_interval_holds_whatever_censored_times_may_be():
    seen, at_least = [Measured(3), Measured(4), Measured(7)], [late(9), late(5), Measured(6)]
    ends = [paired_tests.bounds(b, a) for a, b in zip(seen, at_least, strict=True)]
    lower, upper, _ = typical_interval(*zip(*ends, strict=True), 0.5)
    for more in itertools.product([0, 1, 1000], repeat=2):
        truth = [9 + more[0] - 3, 5 + more[1] - 4, 6 - 7]
        inner = typical_interval(truth, truth, 0.5)
        assert lower <= inner[0] <= inner[1] <= upper
    assert math.isfinite(lower)
    assert upper == math.inf


def test_intervals_of_many_seeds_are_drawn_and_close_to_those_of_all_subsets(monkeypatch):
    values = np.random.default_rng(3).normal(1, 1, size=14)
    exact = typical_interval(values, values, 0.95)
    monkeypatch.setattr(paired_tests, "EXACT_SEEDS", 5)
    assert typical_interval(values, values, 0.95) == pytest.approx(exact, abs=0.02)


# Many tests.


def test_holms_correction_by_hand():
    assert paired_tests.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired_tests.holm([0.5, 0.6]) == [1, 1]
    assert paired_tests.holm([0.02]) == [0.02]
    assert paired_tests.holm([]) == []


def test_holms_correction_rejects_what_his_procedure_does():
    generator = np.random.default_rng(4)
    for _ in range(50):
        p_values = generator.uniform(0, 0.1, size=6)
        rejected, order = np.zeros(6, dtype=bool), np.argsort(p_values)
        for rank, place in enumerate(order):
            if p_values[place] > 0.05 / (6 - rank):
                break
            rejected[place] = True
        assert (np.array(paired_tests.holm(list(p_values))) <= 0.05).tolist() == rejected.tolist()
