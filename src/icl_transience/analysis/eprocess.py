"""Evidence for and against a claim, which may be read after every seed and added to until it is clear.

Seeds come one after another, in ascending order. A seed's sign is 1 where it goes the way that the claim declares, -1
where it goes the other, 0 where it is a tie. Under the null hypothesis the declared direction is at most as likely
as the other, whatever came before. Then the wealth of a gambler who stakes a share 2p - 1 of it on that direction, seed
by seed, is a supermartingale for every p from 1/2 to 1, and so is the mean over p,

    E = 2^(n+1) * integral of p^(n+) (1 - p)^(n-) dp over p from 1/2 to 1,    n = n+ + n-,

of which n+ seeds went the declared way and n- the other. E starts at 1, and reaches 1 / alpha with a probability of
alpha at most, however long one looks (Ville 1939): p = 1 / (its running maximum) holds at every seed. Ties bet nothing.
The mirror image, with n+ and n- exchanged, is the evidence against. (Shafer 2021; Ramdas, Gruenwald, Vovk and Shafer
2023; Howard et al. 2020.)

    difference   sign of y[run] - y[than]            threshold   sign of y - value, in each run
    trend        sign of Kendall's S of a seed's lanes, in the order of their levels

Where a seed has no value in a lane (it diverged, or nothing emerged there), nobody knows which way it would have gone,
and why it has none may depend on that. So it is LOST: against the claim, and against the claim's mirror image too, else
lanes that are missing would speak for one of them. Where it has none in any of the runs compared, it bets nothing. A
threshold compares a run with a value, which is always there. Censored times are compared as in paired_tests.py: by what
is surely known. A seed that bounds leave OPEN counts as one that is lost, for the same reason: where short times are
seen and long ones are not, those that are known would speak for one direction, though both are as likely.

A claim of several parts holds where all do: its p is the largest of theirs (intersection-union test), its E the
smallest, and the evidence against it is the mean of that against each. A threshold for several runs is such a claim,
with a part a run.

N: seeds, L: lanes of a seed, P: parts; other axes may stand before these.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.special import betainc, betaln

from icl_transience.analysis.paired_tests import compare_ends, is_open

# Of what `seeds_needed` tells: in which share of resampled continuations the claim is decided; how many are drawn, and
# how far they are followed.
POWER = 0.8
_DRAWS = 2000
MOST_SEEDS = 400
# What a seed says that has no value in a lane, and one of whose times too little is known.
LOST, OPEN = 2, 3

Seed = TypeVar("Seed", int, str)


# From lanes to signs.


def ascending(seeds: Iterable[Seed]) -> list[Seed]:
    """Return seeds in the order in which they are read: by their numbers, of `init3-data4` by both."""
    return sorted(seeds, key=lambda seed: (list(map(int, re.findall(r"\d+", str(seed)))), str(seed)))


def finished(seeds: Mapping[Seed, bool]) -> list[Seed]:
    """Return the seeds that are read: in ascending order, up to the first that is not finished.

    seeds: seed -> whether all of its lanes are finished. Later ones wait, so that none is chosen by what it shows.
    """
    return list(itertools.takewhile(seeds.__getitem__, ascending(seeds)))


def signs(
    kind: str, lowest: np.ndarray, claimed: int, highest: np.ndarray | None = None, threshold: float = 0.0
) -> np.ndarray:
    """Return which way each seed goes, int [..., P, N]: 1 as claimed, -1 otherwise, 0: it bets nothing, LOST or OPEN.

    kind: difference (2 lanes: the one and the other), trend (lanes in ascending order of levels), or threshold, which
    has a part a lane; the others have one. claimed: 1 for greater, rises, above; -1 for less, falls, below.
    lowest, highest: between which each lane's value surely lies, [..., N, L], nan where it has none; inf is the highest
    of a censored time. Without `highest` the values are known.
    """
    highest = lowest if highest is None else highest
    if kind == "threshold":
        value = np.full_like(lowest, threshold)
        ends = lowest, highest, value, value
        total, n_open = compare_ends(*ends), is_open(*ends)
    else:
        # A difference is of the first lane from the second.
        order = slice(None, None, -1 if kind == "difference" else None)
        total, n_open = (of_seed[..., None] for of_seed in kendall(lowest[..., order], highest[..., order]))
    # Were all open pairs to go the other way, the seed might, too.
    directions = np.where(np.abs(total) > n_open, claimed * np.sign(total), np.where(n_open > 0, OPEN, 0))
    without = np.isnan(lowest)
    if kind == "threshold":
        directions = np.where(without, LOST, directions)
    else:
        directions = np.where(without.any(axis=-1, keepdims=True), LOST, directions)
        directions = np.where(without.all(axis=-1, keepdims=True), 0, directions)
    return np.moveaxis(directions, -1, -2)


def kendall(lowest: np.ndarray, highest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Kendall's S of each seed's lanes by what is surely known, and how many pairs are open; int [..., N]."""
    total, n_open = np.zeros((2, *lowest.shape[:-1]), int)
    for earlier, later in itertools.combinations(range(lowest.shape[-1]), 2):
        ends = (lowest[..., later], highest[..., later], lowest[..., earlier], highest[..., earlier])
        total, n_open = total + compare_ends(*ends), n_open + is_open(*ends)
    return total, n_open


# From signs to evidence.


def e_value(n_for: np.ndarray, n_against: np.ndarray) -> np.ndarray:
    """Return E after so many seeds for and against; 1 after none."""
    total = n_for + n_against
    # The integral is the complete beta function times the share of it above 1/2.
    logarithm = (total + 1) * np.log(2) + betaln(n_for + 1, n_against + 1)
    return np.exp(logarithm) * betainc(n_against + 1, n_for + 1, 0.5)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What seeds say for and against a claim after each of them, [..., N].

    support, against: E as it stands; both are 1 before the first seed. p: of the null hypothesis that the claim is not
    so, p_against: of that it is so. These may be read after every seed, and never rise.
    """

    support: np.ndarray
    against: np.ndarray
    p: np.ndarray
    p_against: np.ndarray


def _one_part(support: np.ndarray, against: np.ndarray) -> Evidence:
    return Evidence(support=support, against=against, p=1 / _highest(support), p_against=1 / _highest(against))


def _highest(e: np.ndarray) -> np.ndarray:
    """Return the running maximum, the start among it."""
    return np.maximum(1.0, np.maximum.accumulate(e, axis=-1))


def evidence(of_seeds: np.ndarray) -> Evidence:
    """Return the evidence of a claim. of_seeds: see `signs`, [..., P, N]."""
    n_for, n_against, n_lost = (is_so.cumsum(axis=-1) for is_so in (of_seeds == 1, of_seeds == -1, of_seeds >= LOST))
    # Of so many seeds there are few different pairs of counts, and what is simulated has many seeds.
    counts = np.arange(of_seeds.shape[-1] + 1)
    possible = counts[:, None] + counts <= counts[-1]
    known = np.ones(possible.shape)
    known[possible] = e_value(*np.nonzero(possible))
    support, against = known[n_for, n_against + n_lost], known[n_against, n_for + n_lost]
    parts = [_one_part(support[..., part, :], against[..., part, :]) for part in range(of_seeds.shape[-2])]
    return parts[0] if len(parts) == 1 else all_of(parts)


def all_of(parts: Sequence[Evidence]) -> Evidence:
    """Return the evidence of a claim that holds where all parts do; of fewer seeds, the last ones' stays."""
    n_seeds = max(part.support.shape[-1] for part in parts)
    supports, againsts, of_p = (
        [_lengthened(getattr(part, name), n_seeds) for part in parts] for name in ("support", "against", "p")
    )
    against = np.mean(againsts, axis=0)
    return Evidence(
        support=np.min(supports, axis=0), against=against, p=np.max(of_p, axis=0), p_against=1 / _highest(against)
    )


def _lengthened(values: np.ndarray, n_seeds: int) -> np.ndarray:
    before = values if values.shape[-1] else np.ones((*values.shape[:-1], 1))
    more = n_seeds - values.shape[-1]
    return np.concatenate([values, np.repeat(before[..., -1:], more, axis=-1)], axis=-1)


def median_interval(lowest: np.ndarray, highest: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Return lower and upper end for the median of what seeds show, and the confidence.

    All are nan where seeds are too few, and where they went first one way and then the other, so that the ends cross.

    It holds at every number of seeds at once: a value is left out once the evidence that the median is on one side
    of it reaches 2 / (1 - confidence). lowest, highest: between which each seed's value surely lies, [N], in the order
    in which seeds are read; nan where it has none, which counts against whatever is left out, as does a value that may
    be on either side of it.
    """
    lower, upper = _lower_end(lowest, highest, confidence), -_lower_end(-highest, -lowest, confidence)
    return (lower, upper, confidence) if lower <= upper else (math.nan, math.nan, math.nan)


def _lower_end(lowest: np.ndarray, highest: np.ndarray, confidence: float) -> float:
    """Return the largest value below which none can be the median; nan where there is none."""
    # For a value just below `end`: which seeds are surely above it, and which are not known to be.
    for end in -np.unique(-lowest[~np.isnan(lowest)]):
        above = lowest >= end
        e = e_value(np.cumsum(above), np.cumsum(~above))
        if e.max(initial=1.0) >= 2 / (1 - confidence):
            return float(end)
    return math.nan


# From evidence to verdicts.


def verdict(p: float, p_against: float, alpha: float) -> str:
    """Return supported, contradicted, both or undecided; each statement is false with a probability of `alpha` at most.

    p, p_against: after Holm's correction over the claims (paired_tests.holm), each by itself.
    """
    supported, contradicted = p <= alpha, p_against <= alpha
    if supported and contradicted:
        return "both"
    return "supported" if supported else "contradicted" if contradicted else "undecided"


def seeds_needed(of_seeds: np.ndarray, p: float, *, against: bool = False) -> int | None:
    """Return how many more seeds give p or less in 8 of 10 cases, if seeds go on as they did; 0 where they have.

    of_seeds: [P, N], as of `signs`. Further ones are drawn from these, with their parts together, by a generator that
    is always the same. against: whether p is that of the evidence against the claim. None where more than MOST_SEEDS
    are needed, or there are none to draw from.
    """
    n_seeds = of_seeds.shape[-1]
    if n_seeds and _p(evidence(of_seeds), against)[-1] <= p:
        return 0
    hopeful = (of_seeds == -1).any() if against else (of_seeds == 1).any(axis=-1).all()
    if not n_seeds or not hopeful:
        return None
    # Most claims need few more; only where these do not do are more of them drawn.
    for most in (16, 64, MOST_SEEDS):
        drawn = np.random.default_rng(0).integers(n_seeds, size=(MOST_SEEDS, _DRAWS))[:most].T
        of_more = np.moveaxis(of_seeds[:, drawn], 0, 1)
        known = np.broadcast_to(of_seeds, (_DRAWS, *of_seeds.shape))
        found = _p(evidence(np.concatenate([known, of_more], axis=-1)), against)
        enough = np.flatnonzero((found[:, n_seeds:] <= p).mean(axis=0) >= POWER)
        if len(enough):
            return int(enough[0]) + 1
    return None


def _p(found: Evidence, against: bool) -> np.ndarray:
    return found.p_against if against else found.p
