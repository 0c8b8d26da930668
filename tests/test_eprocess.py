"""Anytime-valid evidence: what E is, what seeds bet, and that looking after every seed makes no error more likely."""

import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from icl_transience.analysis import eprocess, paired_tests
from icl_transience.analysis.paired_tests import Measured

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "error_rates.py"


def loaded(path: Path):
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[path.stem] = module
    module_spec.loader.exec_module(module)
    return module


error_rates = loaded(BENCHMARK)


def e_of(*of_seeds: int) -> np.ndarray:
    return eprocess.evidence(np.array([of_seeds])).support


# What E is.


@pytest.mark.parametrize(("n_for", "n_against"), [(0, 0), (3, 1), (10, 0), (2, 9), (40, 25)])
def test_e_is_the_integral_of_its_definition(n_for, n_against):
    integral, _ = quad(lambda p: p**n_for * (1 - p) ** n_against, 0.5, 1)
    expected = 2 ** (n_for + n_against + 1) * integral
    assert eprocess.e_value(np.array(n_for), np.array(n_against)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n_for", "n_against", "expected"), [(10, 0, 186), (11, 0, 341), (11, 1, 52)])
def test_so_many_seeds_give_what_is_known_of_them(n_for, n_against, expected):
    assert round(float(eprocess.e_value(np.array(n_for), np.array(n_against)))) == expected


@given(st.integers(0, 300), st.integers(0, 300))
def test_e_is_a_supermartingale_where_the_direction_is_as_likely_as_the_other(n_for, n_against):
    now, gained, lost = eprocess.e_value(n_for + np.array([0, 1, 0]), n_against + np.array([0, 0, 1]))
    assert (gained + lost) / 2 == pytest.approx(now, rel=1e-9)
    # And where it is less likely, E falls on average.
    assert gained >= lost


def test_nobody_who_looks_after_every_seed_finds_more_than_chance_allows():
    """Exactly, by the probability of every pair of counts that has not crossed yet, until 400 seeds."""
    for alpha in (0.05, 0.005):
        alive, crossed = np.array([1.0]), 0.0
        for n in range(1, 401):
            after = np.zeros(n + 1)
            after[1:] += alive / 2
            after[:-1] += alive / 2
            n_for = np.arange(n + 1)
            over = eprocess.e_value(n_for, n - n_for) >= 1 / alpha
            crossed += after[over].sum()
            alive = np.where(over, 0, after)
        assert alpha / 4 < crossed <= alpha


# What a seed bets.


def test_ties_bet_nothing_and_the_order_of_seeds_does_not_change_the_last_e():
    assert e_of(1, 0, 1, 0, -1)[-1] == e_of(-1, 1, 1)[-1]
    np.testing.assert_allclose(e_of(0, 0), 1, rtol=1e-12)


FLAGS = st.sampled_from([(False, False), (True, False), (False, True)])


def ends_of(block: list[Measured]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[one.lowest for one in block]]), np.array([[one.highest for one in block]])


@given(st.lists(st.tuples(st.integers(0, 3), FLAGS), min_size=2, max_size=6))
def test_lanes_are_compared_as_in_the_fixed_test(lanes):
    block = [Measured(float(value), *flags) for value, flags in lanes]
    lowest, highest = ends_of(block)
    total, n_open = (of_seed.tolist() for of_seed in eprocess.kendall(lowest, highest))
    assert total == [paired_tests.kendall(block)[0]]
    pairs = list(itertools.combinations(block, 2))
    assert n_open == [
        sum(not paired_tests.compare(*pair) and any(one.lowest != one.highest for one in pair) for pair in pairs)
    ]
    for one, other in itertools.permutations(range(len(lanes)), 2):
        found = paired_tests.compare_ends(*(ends[0, lane] for lane in (one, other) for ends in (lowest, highest)))
        assert found == paired_tests.compare(block[one], block[other])


def test_the_declared_direction_counts():
    values = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]])
    assert eprocess.signs("difference", values, 1).tolist() == [[-1, 1, 0]]
    assert eprocess.signs("difference", values, -1).tolist() == [[1, -1, 0]]
    assert eprocess.signs("trend", values, 1).tolist() == [[1, -1, 0]]
    # A part a run.
    assert eprocess.signs("threshold", values, 1, threshold=2).tolist() == [[-1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("claimed", [1, -1])
@pytest.mark.parametrize("kind", ["difference", "trend"])
def test_a_seed_without_a_value_is_lost_to_both_sides_unless_it_has_none_at_all(kind, claimed):
    values = np.array([[np.nan, 5.0], [5.0, np.nan], [np.nan, np.nan]])
    of_seeds = eprocess.signs(kind, values, claimed)
    assert of_seeds.tolist() == [[eprocess.LOST, eprocess.LOST, 0]]
    found = eprocess.evidence(of_seeds)
    assert found.support.tolist() == found.against.tolist() == e_of(-1, -1, 0).tolist()


def test_a_run_without_a_value_is_lost_to_its_own_part_of_a_threshold_the_value_being_there():
    values = np.array([[np.nan, 5.0], [np.nan, np.nan]])
    lost = eprocess.LOST
    assert eprocess.signs("threshold", values, 1, threshold=1).tolist() == [[lost, lost], [1, lost]]


def test_lanes_that_diverge_where_a_claim_holds_do_not_speak_against_it():
    """As they would, were a seed without a value evidence for the opposite."""
    null = error_rates.NULLS["difference, diverged where it holds"]
    of_seeds = null(np.random.default_rng(0), 500, 40)
    naive = eprocess.evidence(np.where(of_seeds == eprocess.LOST, -1, of_seeds))
    assert (naive.p_against[:, -1] <= 0.05).mean() > 0.5
    assert (eprocess.evidence(of_seeds).p_against[:, -1] <= 0.05).mean() < 0.1


def test_a_bounded_time_counts_by_what_is_surely_known():
    blocks = [
        [Measured(9.0, censored=True), Measured(4.0)],
        [Measured(9.0, censored=True), Measured(9.0, censored=True)],
        [Measured(4.0), Measured(9.0, censored=True)],
        [Measured(4.0, left_censored=True), Measured(9.0)],
        [Measured(4.0, left_censored=True), Measured(3.0)],
    ]
    lowest, highest = (np.concatenate(ends) for ends in zip(*map(ends_of, blocks), strict=True))
    is_open = eprocess.OPEN
    assert eprocess.signs("difference", lowest, 1, highest).tolist() == [[1, is_open, -1, -1, is_open]]


def test_a_seed_that_bounds_leave_open_counts_against_both_sides():
    lowest, highest = np.array([[2.0, 1.0, 1.0]]), np.array([[math.inf, 3.0, 1.0]])
    of_seeds = eprocess.signs("threshold", lowest, 1, highest, threshold=2.5)
    assert of_seeds.tolist() == [[eprocess.OPEN], [eprocess.OPEN], [-1]]
    found = eprocess.evidence(of_seeds[:1])
    assert found.support.tolist() == found.against.tolist() == e_of(-1).tolist()


def test_a_trend_goes_its_way_where_the_pairs_that_are_open_could_not_turn_it():
    never, early = Measured(9.0, censored=True), Measured(1.0)
    blocks = [[never, never, early], [never, never, never], [never, Measured(3.0), early], [early, never, never]]
    lowest, highest = (np.concatenate(ends) for ends in zip(*map(ends_of, blocks), strict=True))
    assert eprocess.signs("trend", lowest, -1, highest).tolist() == [[1, eprocess.OPEN, 1, -1]]
    # Two of three pairs are open, and one falls.
    half = ends_of([Measured(2.0, censored=True), Measured(4.0), Measured(3.0)])
    assert eprocess.signs("trend", half[0], -1, half[1]).tolist() == [[eprocess.OPEN]]


@pytest.mark.parametrize(
    "name",
    [
        "difference, one run is seen for longer",
        "threshold, seen for less than it takes",
        "trend, seen for less at each level",
    ],
)
def test_times_that_are_seen_where_they_are_short_do_not_speak_for_them(name):
    """As they would, were seeds that bounds leave open to bet nothing."""
    of_seeds = error_rates.NULLS[name](np.random.default_rng(0), 500, 64)
    naive = eprocess.evidence(np.where(of_seeds == eprocess.OPEN, 0, of_seeds))
    assert (naive.p[:, -1] <= 0.05).mean() > 0.1
    assert (eprocess.evidence(of_seeds).p[:, -1] <= 0.05).mean() < 0.02


def test_an_interval_holds_the_median_where_only_low_values_are_bounds():
    """Effects of median 0, of which those below 0 are known to be above some bound alone."""
    generator, missed = np.random.default_rng(0), 0
    for _ in range(200):
        lowest = generator.normal(size=32)
        highest = np.where(lowest < 0, math.inf, lowest)
        lower, upper, _ = eprocess.median_interval(np.where(lowest < 0, lowest - 0.5, lowest), highest, 0.95)
        missed += lower > 0 or upper < 0
    assert missed <= 10  # 5 % of 200


def test_seeds_are_read_up_to_the_first_that_is_not_finished():
    assert eprocess.finished({14: True, 13: True, 16: True, 15: False}) == [13, 14]
    assert eprocess.finished({13: False, 14: True}) == []
    assert eprocess.ascending(["10", "9", "init2-data10", "init2-data9", "init10-data1"]) == [
        *("init2-data9", "init2-data10", "9", "10", "init10-data1")
    ]


# What is read from it.


def test_p_never_rises_and_a_later_seed_takes_nothing_back():
    found = eprocess.evidence(np.array([[1] * 8 + [-1] * 30]))
    assert found.p[7] == pytest.approx(1 / found.support[7])
    assert (found.p[7:] == found.p[7]).all()
    # The other way they went later.
    assert found.p_against[-1] < 0.05
    assert eprocess.verdict(found.p[-1], found.p_against[-1], 0.05) == "both"
    assert eprocess.verdict(found.p[7], found.p_against[7], 0.05) == "supported"
    assert eprocess.verdict(found.p_against[7], found.p[7], 0.05) == "contradicted"
    assert eprocess.verdict(0.051, 1, 0.05) == "undecided"


def test_the_evidence_against_is_that_for_the_opposite():
    of_seeds = np.random.default_rng(0).choice([-1, 0, 1], size=(5, 1, 20))
    found, opposite = eprocess.evidence(of_seeds), eprocess.evidence(-of_seeds)
    np.testing.assert_array_equal(found.against, opposite.support)


def test_a_conjunction_is_as_sure_as_its_least_sure_part():
    parts = np.random.default_rng(0).choice([-1, 1, 1, 1], size=(3, 12))
    each = [eprocess.evidence(part[None]) for part in parts]
    together = eprocess.evidence(parts)
    np.testing.assert_allclose(together.p, np.max([one.p for one in each], axis=0))
    np.testing.assert_allclose(together.support, np.min([one.support for one in each], axis=0))
    np.testing.assert_allclose(together.against, np.mean([one.against for one in each], axis=0))


def test_a_part_of_fewer_seeds_keeps_what_it_has():
    short, long = eprocess.evidence(np.ones((1, 3), int)), eprocess.evidence(np.ones((1, 8), int))
    together = eprocess.all_of([short, long])
    assert together.p[-1] == short.p[-1]
    assert together.against.shape == (8,)
    none = eprocess.evidence(np.ones((1, 0), int))
    assert eprocess.all_of([none, long]).p.tolist() == [1.0] * 8


# How large an effect is.


def test_an_interval_leaves_out_what_the_evidence_speaks_against():
    # Eight seeds that agree give 56.8, seven 31.9; 95 % ask for 40.
    values = np.arange(1.0, 9)
    assert eprocess.median_interval(values, values, 0.95) == (1, 8, 0.95)
    assert np.isnan(eprocess.median_interval(values[:7], values[:7], 0.95)).all()
    assert eprocess.median_interval(values, np.where(values > 7, np.inf, values), 0.95) == (1, np.inf, 0.95)


@given(st.lists(st.integers(-20, 20).filter(bool) | st.none(), max_size=40))
def test_an_interval_leaves_zero_out_exactly_where_one_side_reaches_its_threshold(values):
    seeds = np.array([np.nan if value is None else value for value in values], float)
    lower, upper, _ = eprocess.median_interval(seeds, seeds, 0.8)
    found = eprocess.evidence(eprocess.signs("threshold", seeds[:, None], 1))
    assert (lower > 0) == bool((found.support >= 10).any())
    assert (upper < 0) == bool((found.against >= 10).any())


def test_an_interval_holds_the_median_at_every_number_of_seeds():
    runs, held = 400, 0
    for values in np.random.default_rng(3).exponential(size=(runs, 24)):
        ends = [eprocess.median_interval(values[:n], values[:n], 0.9)[:2] for n in range(25)]
        held += all(not (lower > np.log(2) or upper < np.log(2)) for lower, upper in ends)
    assert held / runs >= 0.9 - 3 * np.sqrt(0.9 * 0.1 / runs)


# How many more seeds.


def test_seeds_that_all_go_one_way_need_as_many_as_e_says():
    """E of n such seeds is (2^(n+1) - 1) / (n + 1): 11 for 200, 7 for 20."""
    assert eprocess.seeds_needed(np.ones((1, 5), int), 1 / 200) == 6
    assert eprocess.seeds_needed(np.ones((1, 5), int), 0.05) == 2
    assert eprocess.seeds_needed(np.ones((1, 11), int), 1 / 200) == 0
    assert eprocess.seeds_needed(np.ones((4, 5), int), 1 / 200) == 6


def test_the_more_seeds_disagree_the_more_are_needed():
    needed = [eprocess.seeds_needed(np.array([[1] * (10 - wrong) + [-1] * wrong]), 1 / 200) for wrong in range(4)]
    assert needed == sorted(needed)
    assert needed[0] < needed[3]
    # With as many against as for, chance alone decides; with none for, nothing does.
    assert eprocess.seeds_needed(np.array([[1, -1] * 5]), 1 / 200) is None
    assert eprocess.seeds_needed(np.array([[1] * 5, [-1] * 5]), 0.05) is None
    assert eprocess.seeds_needed(np.ones((1, 0), int), 0.05) is None


def test_seeds_that_contradict_are_counted_likewise_and_two_calls_say_the_same():
    of_seeds = np.array([[1] * 2 + [-1] * 6])
    assert eprocess.seeds_needed(of_seeds, 0.01, against=True) == eprocess.seeds_needed(-of_seeds, 0.01)
    assert eprocess.seeds_needed(of_seeds, 0.01, against=True) == eprocess.seeds_needed(of_seeds, 0.01, against=True)
    # One part that goes the other way contradicts a claim of several, but the mean over parts takes longer.
    parts = np.array([[1] * 5, [-1] * 5])
    assert eprocess.seeds_needed(parts, 0.05, against=True) == 3
    assert eprocess.seeds_needed(parts, 0.05) is None


def test_so_many_more_seeds_are_enough_in_four_of_five_cases():
    of_seeds = np.array([[1] * 9 + [-1]])
    needed = eprocess.seeds_needed(of_seeds, 1 / 200)
    more = np.where(np.random.default_rng(1).random((4000, 1, needed)) < 0.9, 1, -1)
    known = np.broadcast_to(of_seeds, (4000, *of_seeds.shape))
    share = (eprocess.evidence(np.concatenate([known, more], axis=-1)).p[:, -1] <= 1 / 200).mean()
    # Shares jump from seed to seed; both are of thousands of draws.
    assert 0.78 <= share <= 0.9


# Error rates.


@pytest.mark.parametrize("name", error_rates.NULLS)
def test_false_verdicts_are_rare_however_often_one_looks(name):
    supported, contradicted = error_rates.error_rates(error_rates.NULLS[name], 1000, seeds=40, seed=7)
    # Of 20,000 runs 2.8 % are at most: 5 % of 1,000 are beyond the Monte Carlo error.
    assert supported <= error_rates.ALPHA
    assert contradicted <= error_rates.ALPHA


def test_the_recorded_error_rates_are_those_of_every_kind_and_none_exceeds_alpha():
    recorded = json.loads(error_rates.RECORDED.read_text())
    assert recorded["nulls"].keys() == error_rates.NULLS.keys()
    assert recorded["runs"] == 20_000
    for name, rates in (recorded["nulls"] | {"any claim of a study": recorded["any_of_a_study"]}).items():
        assert max(rates.values()) <= recorded["alpha"] + recorded["standard_error"], name


def test_one_recorded_rate_is_what_the_code_gives():
    recorded = json.loads(error_rates.RECORDED.read_text())["nulls"]["trend, 3 levels"]
    found = error_rates.error_rates(error_rates.NULLS["trend, 3 levels"], 20_000)
    assert found == (recorded["supported"], recorded["contradicted"])


def test_a_test_that_may_be_read_once_errs_where_it_is_read_after_every_seed():
    """Why the fixed-sample test does not do: a binomial test that is looked at until it says yes."""
    of_seeds = error_rates.ties(np.random.default_rng(0), 1000, 40)[:, 0]
    n_for, n = (of_seeds == 1).cumsum(axis=1), (of_seeds != 0).cumsum(axis=1)
    tails = np.array([[sum(math.comb(m, k) for k in range(up, m + 1)) / 2**m for up in range(41)] for m in range(41)])
    assert (tails[n, n_for] <= 0.05).any(axis=1).mean() > 0.1
