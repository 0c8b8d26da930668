"""Whether numbers that were drawn come as often as they should."""

import numpy as np
from scipy import stats

# Seeds are fixed, so a test either always passes or always fails. Of a right recipe the p-values are uniform on
# (0, 1), and some 250 are taken in all: the chance that one of them would be below this was 2.5 % when the seeds were
# chosen.
P_MIN = 1e-4


def assert_uniform(cells: np.ndarray, n_cells: int) -> None:
    """The numbers in `cells` are uniform on [0, n_cells)."""
    assert_probabilities(cells, np.full(n_cells, 1 / n_cells))


def assert_probabilities(cells: np.ndarray, probabilities: np.ndarray) -> None:
    """Number i stands in `cells` with probability i of these. A chi-square test needs some 5 expected in each."""
    counts = np.bincount(cells.ravel(), minlength=len(probabilities))
    assert len(counts) == len(probabilities), f"{cells.max()} is out of range"
    expected = counts.sum() * np.asarray(probabilities)
    assert not counts[expected == 0].any()
    counts, expected = counts[expected > 0], expected[expected > 0]
    assert expected.min() >= 5 * (1 - 1e-9)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > P_MIN


def assert_share(happened: np.ndarray, probability: float) -> None:
    """Each of these happened with `probability`, independently."""
    assert stats.binomtest(int(happened.sum()), happened.size, probability).pvalue > P_MIN
