"""The notes on a verdict: why it is undecided, which seeds wait, and which lanes have no value."""

import math
from collections.abc import Iterator

from icl_transience.analysis import eprocess
from icl_transience.analysis.judged import Judged
from icl_transience.specs.records import ClaimRecord
from icl_transience.system.formatting import format_number_of

# Lanes that a note names of those without a value for one reason.
MOST_NAMED = 5


# Why a claim is undecided.


def undecided(one: Judged, needed: int | None, direction: str, n_claims: int) -> str:
    """Return what it would take to decide a claim. needed, direction: how many more seeds would decide it, and how."""
    if one.is_fixed:
        return _why_fixed(one, n_claims)
    n_seeds = len(one.reading.seeds)
    if not n_seeds:
        return "no seed is finished in all lanes"
    if needed is None and not (abs(one.reading.of_seeds) == 1).any():
        return "no seed is known to go either way"
    if needed is None:
        return f"more than {eprocess.MOST_SEEDS} more seeds at this effect"
    verdict = {"supported": "support", "contradicted": "contradict"}[direction]
    return f"about {format_number_of(needed, 'more seed')} at this effect would {verdict} it"


def _why_fixed(one: Judged, n_claims: int) -> str:
    """Return what so few seeds could not have decided in a fixed-sample test; empty where they could have."""
    n, alpha, p_min = len(one.fixed.seeds), one.claim.alpha, one.fixed.p_min
    least = f"{n} seeds give no p below {p_min:.3g}"
    if n < 2:
        return f"{format_number_of(n, 'seed')}: decides nothing"
    if p_min > alpha and enough(one.claim, alpha) <= n:
        return f"{least}, as values are missing, equal or only bounded"
    if p_min > alpha:
        return f"{least}: take {enough(one.claim, alpha)} or more"
    if p_min > alpha / n_claims:
        strict = alpha / n_claims
        return (
            f"{least}, but Holm's correction for {n_claims} claims may ask for {strict:.3g}: "
            f"{enough(one.claim, strict)} seeds or more can always give it"
        )
    return ""


def enough(claim: ClaimRecord, p: float) -> int:
    """Return the smallest number of seeds that can give such a p in a fixed-sample test."""
    orders = min(math.factorial(len(part.runs)) if part.kind == "trend" else 2 for part in claim.parts)
    return max(2, math.ceil(math.log(2 / p) / math.log(orders) - 1e-9))


# What else is to be known of it.


def notes(one: Judged) -> Iterator[str]:
    """Yield which seeds wait, which lanes have no value, what is only bounded."""
    if not one.is_fixed and (waiting := list(one.reading.waiting)):
        yield f"read up to the first seed whose lanes are not all finished; not read: {', '.join(waiting)}"
    yield from _list_without(one)
    bounded = [values.is_bound for lanes in one.lanes for of_run in lanes.values.values() for values in of_run.values()]
    if bounds := sum(bounded):
        times = format_number_of(bounds, "time")
        yield f"of {times} only a bound is known, which counts as far as it tells lanes apart" + _left_open(one)


def _left_open(one: Judged) -> str:
    """Return how many seeds bounds leave open, and what that does to a claim; "" where there are none."""
    n_open = int((one.reading.of_seeds == eprocess.OPEN).any(axis=0).sum())
    if not n_open or one.is_fixed:
        return ""
    counts = "counts" if n_open == 1 else "count"
    return f": {format_number_of(n_open, 'seed')} may go either way and {counts} against the claim and its opposite"


def without(one: Judged) -> dict[str, str]:
    """Return run/seed -> why, of the lanes that have no value in some part."""
    return {
        f"{run}/{seed}": why
        for lanes in one.lanes
        for run, of_run in lanes.without.items()
        for seed, why in of_run.items()
    }


def _list_without(one: Judged) -> Iterator[str]:
    """Yield, a reason each, the lanes without a value, and what that does to a claim."""
    found = without(one)
    for reason in dict.fromkeys(found.values()):
        lanes = [lane for lane, why in found.items() if why == reason]
        more = f" and {len(lanes) - MOST_NAMED} more" if len(lanes) > MOST_NAMED else ""
        said = "left out" if one.is_fixed else "without a value"
        yield f"{said}, {reason}: {', '.join(lanes[:MOST_NAMED])}{more}"
    lost = int((one.reading.of_seeds == eprocess.LOST).any(axis=0).sum())
    if lost and not one.is_fixed:
        verb = "counts" if lost == 1 else "count"
        seeds = format_number_of(lost, "seed")
        yield f"{seeds} without a value in some lane {verb} against the claim and against its opposite"
