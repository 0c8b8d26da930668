"""The evidence of a claim from the values of its lanes, seed by seed; eprocess.py says what evidence is."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from icl_transience.analysis import claim_tests, eprocess
from icl_transience.analysis.claim_tests import Effects, Finding
from icl_transience.analysis.claim_values import Lanes
from icl_transience.specs.experiment import Part

_STATISTICS = {
    "difference": "median difference, evidence of its sign",
    "threshold": "median difference from the value, evidence of its sign",
    "trend": "median tau, evidence of the sign of Kendall's S",
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the seeds of a claim say.

    parts: what is tested by itself, P of them. seeds: the N that are read, in order. waiting: those that come after
    one that is not finished. of_seeds: which way each seed goes, [P, N], as of `eprocess.signs`.
    """

    parts: tuple[Part, ...]
    seeds: tuple[str, ...]
    waiting: tuple[str, ...]
    of_seeds: np.ndarray

    @property
    def evidence(self) -> eprocess.Evidence:
        """Return the evidence after each seed."""
        return eprocess.evidence(self.of_seeds)

    @property
    def of_parts(self) -> list[eprocess.Evidence]:
        """Return that of each part."""
        return [eprocess.evidence(part[None]) for part in self.of_seeds]

    def last(self) -> tuple[float, float, float, float]:
        """Return E for and against after the last seed, and p for and against; 1 before the first."""
        found = self.evidence
        of_all = (found.support, found.against, found.p, found.p_against)
        return tuple(float(values[-1]) if len(self.seeds) else 1.0 for values in of_all)  # pyright: ignore

    def weakest(self) -> int:
        """Return the part that speaks least for the claim.

        That is the one of the largest p, as p is what decides; of these that of least evidence now, of these that of
        most evidence against it, and of these again a comparison of runs before that of a run with a value.
        """
        ends = [
            (-float(found.p[-1]), float(found.support[-1]), -float(found.against[-1])) if len(self.seeds) else ()
            for found in self.of_parts
        ]
        return min(range(len(ends)), key=lambda number: (ends[number], self.parts[number].kind == "threshold"))


def read(parts: Sequence[Part], lanes: Sequence[Lanes]) -> Reading:
    """Return what the seeds of a claim say. lanes: of each part."""
    finished: dict[str, bool] = {}
    for of_part in lanes:
        for seed, is_finished in of_part.finished().items():
            finished[seed] = finished.get(seed, True) and is_finished
    # A seed that has lanes of one part alone is not finished either.
    finished = {seed: done and all(seed in one.finished() for one in lanes) for seed, done in finished.items()}
    seeds = eprocess.finished(finished)
    of_seeds = [_signs(part, one, seeds) for part, one in zip(parts, lanes, strict=True)]
    return Reading(
        parts=tuple(parts),
        seeds=tuple(seeds),
        waiting=tuple(seed for seed in eprocess.ascending(finished) if seed not in seeds),
        of_seeds=np.concatenate(of_seeds),
    )


def _signs(part: Part, lanes: Lanes, seeds: Sequence[str]) -> np.ndarray:
    """Return which way each seed goes in a part, [1, N]."""
    ends = np.full((2, len(seeds), len(part.runs)), np.nan)
    for number, run in enumerate(part.runs):
        for place, seed in enumerate(seeds):
            if measured := lanes.values[run].get(seed):
                ends[:, place, number] = measured.lowest, measured.highest
    return eprocess.signs(part.kind, ends[0], part.claimed, ends[1], threshold=part.value)


def effect(reading: Reading, number: int, lanes: Lanes, fixed: Finding, confidence: float) -> Finding:
    """Return what a part's seeds show, with an interval that holds however many seeds are added.

    number: of the part. fixed: what the fixed-sample test finds on the same seeds.
    """
    part = reading.parts[number]
    lost = [seed for seed, said in zip(reading.seeds, reading.of_seeds[number], strict=True) if said == eprocess.LOST]
    known = lanes.of_seeds([seed for seed in reading.seeds if seed not in lost]).values
    of_effect = claim_tests.effects(part, known)
    # A seed that bets nothing because none of its lanes has a value tells nothing of the effect either.
    read = [seed for seed in reading.seeds if seed in of_effect or seed in lost]
    of_slope = claim_tests.slopes(part, known) if part.kind == "trend" else {}
    n_seeds = len(reading.seeds)
    return replace(
        fixed,
        statistic=_STATISTICS[part.kind],
        seeds=reading.seeds,
        effect=_median(of_effect),
        interval=_interval(of_effect, read, confidence),
        p_min=float(1 / eprocess.e_value(np.array(n_seeds), np.array(0))),
        slope=(_median(of_slope), *_interval(of_slope, read if of_slope else [], confidence)[:2]),
    )


def _median(effects: Effects) -> float:
    """Return the median of effects; nan where there are none, and where bounds leave it open."""
    if not effects:
        return math.nan
    lowest, highest = (statistics.median(ends[end] for ends in effects.values()) for end in (0, 1))
    return lowest if lowest == highest else math.nan


def _interval(effects: Effects, seeds: Sequence[str], confidence: float) -> tuple[float, float, float]:
    lost = (math.nan, math.nan)
    ends = np.array([effects.get(seed, lost) for seed in seeds]).reshape(-1, 2)
    return eprocess.median_interval(ends[:, 0], ends[:, 1], confidence)
