"""Evidence for and against a claim, which may be read after every seed and added to until it is clear.

Seeds come one after another, in ascending order. A seed's sign is 1 where it goes the way that the claim declares, -1
where it goes the other, 0 where it tells nothing. Under the null hypothesis the declared direction is at most as likely
as the other, whatever came before. Then the wealth of a gambler who stakes a share 2p - 1 of it on that direction, seed
by seed, is a supermartingale for every p from 1/2 to 1, and so is the mean over p,

    E = 2^(n+1) * integral of p^(n+) (1 - p)^(n-) dp over p from 1/2 to 1,    n = n+ + n-,

of which n+ seeds went the declared way and n- the other. E starts at 1, and reaches 1 / alpha with a probability of
alpha at most, however long one looks (Ville 1939): p = 1 / (its running maximum) holds at every seed. Ties bet nothing.
The mirror image, with n+ and n- exchanged, is the evidence against. (Shafer 2021; Ramdas, Gruenwald, Vovk and Shafer
2023; Howard et al. 2020.)

    difference   sign of y[run] - y[than]            threshold   sign of y - value, in each run
    trend        sign of Kendall's S of a seed's lanes, in the order of their levels

Censored times are compared as in paired_tests.py: by what is surely known. Where a seed has no value in a lane (it
diverged, or nothing emerged there), it goes against the claim; where it has none in any lane, it bets nothing.

A claim of several parts holds where all do: its p is the largest of theirs (intersection-union test), and the evidence
against it is the mean of that against each. A threshold for several runs is such a claim, with a part a run.

N: seeds, L: lanes of a seed, P: parts; other axes may stand before these.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaln

# Of what `seeds_needed` tells: in which share of resampled continuations the claim is decided; how many are drawn, and
# how far they are followed.
POWER = 0.8
_DRAWS = 2000
MOST_SEEDS = 400


# From lanes to signs.


def finished(seeds: Mapping[int, bool]) -> list[int]:
    """Return the seeds that are read: in ascending order, up to the first that is not finished.

    seeds: seed -> whether all of its lanes are finished. Later ones wait, so that none is chosen by what it shows.
    """
    return list(itertools.takewhile(seeds.__getitem__, sorted(seeds)))


def signs(
    kind: str, values: np.ndarray, claimed: int, censored: np.ndarray | None = None, threshold: float = 0.0
) -> np.ndarray:
    """Return which way each seed goes, int [..., P, N]: 1 as claimed, -1 otherwise, 0 where it bets nothing.

    kind: difference (2 lanes: the one and the other), trend (lanes in ascending order of levels), or threshold, which
    has a part a lane; the others have one. values: [..., N, L], nan where a lane has none. claimed: 1 for greater,
    rises, above; -1 for less, falls, below. censored: of which values only a lower bound is known, [..., N, L].
    """
    late = np.zeros(values.shape, bool) if censored is None else censored
    if kind == "threshold":
        directions = compare(values, late, np.full_like(values, threshold), np.zeros_like(late))
    elif kind == "difference":
        directions = compare(values[..., 0], late[..., 0], values[..., 1], late[..., 1])[..., None]
    else:
        directions = np.sign(kendall(values, late))[..., None]
    without = np.isnan(values)
    lost = without if kind == "threshold" else without.any(axis=-1, keepdims=True)
    directions = np.where(lost, -1, claimed * directions)
    return np.moveaxis(np.where(without.all(axis=-1, keepdims=True), 0, directions), -1, -2)


def compare(a: np.ndarray, a_censored: np.ndarray, b: np.ndarray, b_censored: np.ndarray) -> np.ndarray:
    """Return 1 where a is surely larger than b, -1 where b surely is, else 0.

    As paired_tests.compare, on arrays, but for left-censored values, which count as exact here.
    """
    a_larger = ~b_censored & np.where(a_censored, a >= b, a > b)
    b_larger = ~a_censored & np.where(b_censored, b >= a, b > a)
    return a_larger.astype(int) - b_larger


def kendall(values: np.ndarray, censored: np.ndarray) -> np.ndarray:
    """Return Kendall's S of each seed's lanes, int [..., N]."""
    total = np.zeros(values.shape[:-1], int)
    for earlier, later in itertools.combinations(range(values.shape[-1]), 2):
        total += compare(values[..., later], censored[..., later], values[..., earlier], censored[..., earlier])
    return total


# From signs to evidence.


def e_value(n_for: np.ndarray, n_against: np.ndarray) -> np.ndarray:
    """Return E after so many seeds for and against; 1 after none."""
    total = n_for + n_against
    # The integral is the complete beta function times the share of it above 1/2.
    logarithm = (total + 1) * np.log(2) + betaln(n_for + 1, n_against + 1)
    return np.exp(logarithm) * betainc(n_against + 1, n_for + 1, 0.5)


@dataclass(frozen=True)
class Evidence:
    """E for and against a claim after each seed, [..., N]; both are 1 before the first."""

    support: np.ndarray
    against: np.ndarray

    @property
    def p(self) -> np.ndarray:
        """Of the null hypothesis that the claim is not so, [..., N]: may be read after every seed, and never rises."""
        return 1 / _highest(self.support)

    @property
    def p_against(self) -> np.ndarray:
        """Of the null hypothesis that the claim is so, likewise."""
        return 1 / _highest(self.against)


def _highest(e: np.ndarray) -> np.ndarray:
    """Return the running maximum, the start among it."""
    return np.maximum(1.0, np.maximum.accumulate(e, axis=-1))


def evidence(of_seeds: np.ndarray) -> Evidence:
    """Return the evidence of a claim. of_seeds: see `signs`, [..., P, N]."""
    n_for, n_against = ((of_seeds == sign).cumsum(axis=-1) for sign in (1, -1))
    # Of so many seeds there are few different pairs of counts, and what is simulated has many seeds.
    counts = np.arange(of_seeds.shape[-1] + 1)
    possible = counts[:, None] + counts <= counts[-1]
    known = np.ones(possible.shape)
    known[possible] = e_value(*np.nonzero(possible))
    support, against = known[n_for, n_against], known[n_against, n_for]
    parts = [Evidence(support[..., part, :], against[..., part, :]) for part in range(of_seeds.shape[-2])]
    return parts[0] if len(parts) == 1 else all_of(parts)


def all_of(parts: Sequence[Evidence]) -> Evidence:
    """Return the evidence of a claim that holds where all parts do; of fewer seeds, the last ones' stays.

    `support` is the smallest of the parts' running maxima, as p is the largest of their p.
    """
    n_seeds = max(part.support.shape[-1] for part in parts)
    supports = [_lengthened(_highest(part.support), n_seeds) for part in parts]
    againsts = [_lengthened(part.against, n_seeds) for part in parts]
    return Evidence(support=np.min(supports, axis=0), against=np.mean(againsts, axis=0))


def _lengthened(e: np.ndarray, n_seeds: int) -> np.ndarray:
    before = e if e.shape[-1] else np.ones((*e.shape[:-1], 1))
    more = n_seeds - e.shape[-1]
    return np.concatenate([e, np.repeat(before[..., -1:], more, axis=-1)], axis=-1)


# From evidence to verdicts.


def verdict(p: float, p_against: float, alpha: float) -> str:
    """Return supported, contradicted, both or undecided; each statement is false with a probability of `alpha` at most.

    p, p_against: after Holm's correction over the claims (paired_tests.holm), each by itself.
    """
    supported, contradicted = p <= alpha, p_against <= alpha
    if supported and contradicted:
        return "both"
    return "supported" if supported else "contradicted" if contradicted else "undecided"


def seeds_needed(of_seeds: np.ndarray, p: float) -> int | None:
    """Return how many more seeds give p or less in 8 of 10 cases, if seeds go on as they did; 0 where they have.

    of_seeds: [P, N], as of `signs`. Further ones are drawn from these, with their parts together. None where more than
    MOST_SEEDS are needed, or there are none to draw from.
    """
    before = evidence(of_seeds)
    n_seeds = of_seeds.shape[-1]
    if n_seeds and before.p[-1] <= p:
        return 0
    if not n_seeds or not (of_seeds == 1).any(axis=-1).all():
        return None
    drawn = np.random.default_rng(0).integers(n_seeds, size=(_DRAWS, MOST_SEEDS))
    of_more = np.moveaxis(of_seeds[:, drawn], 0, 1)
    known = np.broadcast_to(of_seeds, (_DRAWS, *of_seeds.shape))
    shares = (evidence(np.concatenate([known, of_more], axis=-1)).p[:, n_seeds:] <= p).mean(axis=0)
    enough = np.flatnonzero(shares >= POWER)
    return int(enough[0]) + 1 if len(enough) else None
