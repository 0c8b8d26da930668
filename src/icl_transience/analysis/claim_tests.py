"""The test of each kind of claim, on the values of its lanes; analysis/verdicts.py says what each tests."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from icl_transience.analysis import paired_tests
from icl_transience.analysis.paired_tests import Measured
from icl_transience.specs.experiment import DIRECTIONS
from icl_transience.specs.records import ClaimRecord


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a test finds.

    seeds: those that enter it. sign: of its statistic. effect: as analysis/verdicts.py says of each kind; nan where
    there are no seeds, or bounds among the differences that it would be the mean of. interval: lower end, upper end,
    confidence reached; nan where seeds are too few for it. p_min: the smallest p that so many seeds can give. slope: of
    a trend, with the ends of its interval, per `slope_per`; nan where the effect of a difference would be.
    """

    statistic: str
    seeds: tuple[str, ...]
    sign: int
    effect: float
    interval: tuple[float, float, float]
    p: float
    p_min: float
    slope: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    slope_per: str = ""


# run -> seed -> value, of the lanes that have one.
Values = Mapping[str, Mapping[str, Measured]]


def assess(claim: ClaimRecord, values: Values) -> Finding:
    """Test a claim on the values of its lanes."""
    if claim.kind == "trend":
        return _test_trend(claim, values)
    if claim.kind == "difference":
        one, other = (values[run] for run in claim.runs)
        return _test_differences({seed: (one[seed], other[seed]) for seed in _in_order(set(one) & set(other))}, claim)
    value = Measured(claim.value)
    of_runs = [
        _test_differences({seed: (values[run][seed], value) for seed in _in_order(values[run])}, claim)
        for run in claim.runs
    ]
    return _all_runs(of_runs, claim.direction)


def _test_differences(pairs: Mapping[str, tuple[Measured, Measured]], claim: ClaimRecord) -> Finding:
    differences = [paired_tests.difference(*pair) for pair in pairs.values()]
    lowest, highest = ([paired_tests.bounds(*pair)[end] for pair in pairs.values()] for end in (0, 1))
    return Finding(
        statistic=f"mean difference, {exactness(len(pairs) <= paired_tests.EXACT_SEEDS)} sign-flip test",
        seeds=tuple(pairs),
        sign=_sign(math.fsum(differences)),
        effect=_mean(differences) if lowest == highest else math.nan,
        interval=paired_tests.typical_interval(lowest, highest, claim.confidence),
        p=paired_tests.sign_flip(differences),
        p_min=paired_tests.min_attainable_p(len(pairs)),
    )


def _all_runs(findings: Sequence[Finding], direction: str) -> Finding:
    """Return the finding for all runs: that of the run which speaks least for the claim."""
    claimed = 1 if direction == DIRECTIONS["threshold"][0] else -1
    contrary = [finding for finding in findings if finding.sign != claimed]
    if not contrary:
        return max(findings, key=lambda finding: finding.p)
    worst = min(contrary, key=lambda finding: finding.p)
    return replace(worst, p=min(1.0, len(findings) * worst.p))


def _test_trend(claim: ClaimRecord, values: Values) -> Finding:
    per, positions = _positions(claim.levels)
    blocks: dict[str, list[Measured]] = {}
    slopes: list[float] = []
    for seed in _in_order(set().union(*(values[run] for run in claim.runs))):
        present = [number for number, run in enumerate(claim.runs) if seed in values[run]]
        if len(present) > 1:
            blocks[seed] = [values[claim.runs[number]][seed] for number in present]
            slopes.append(_slope([positions[number] for number in present], blocks[seed]))
    taus = [paired_tests.kendall(block)[1] for block in blocks.values()]
    slope = _mean(slopes), *paired_tests.typical_interval(slopes, slopes, claim.confidence)[:2]
    if any(measured.is_bound for block in blocks.values() for measured in block):
        slope = math.nan, math.nan, math.nan
    statistic, p, p_min = paired_tests.trend(list(blocks.values()))
    exact = all(len(block) <= paired_tests.EXACT_LEVELS for block in blocks.values())
    return Finding(
        statistic=f"Kendall's S within seeds, {exactness(exact)} permutation test",
        seeds=tuple(blocks),
        sign=_sign(statistic),
        effect=_mean(taus),
        interval=paired_tests.typical_interval(taus, taus, claim.confidence),
        p=p,
        p_min=p_min,
        slope=slope,
        slope_per=per,
    )


def _positions(levels: Sequence[float]) -> tuple[str, list[float]]:
    """Return what a slope is per ("tenfold" or "level"), and the levels' positions on that scale."""
    if min(levels) > 0 and max(levels) > 9.99 * min(levels):
        return "tenfold", [math.log10(level) for level in levels]
    return "level", [float(number) for number in range(len(levels))]


def _slope(positions: Sequence[float], block: Sequence[Measured]) -> float:
    """Return the least-squares slope."""
    return statistics.linear_regression(positions, [measured.value for measured in block]).slope


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _sign(value: float) -> int:
    return int(value > 0) - int(value < 0)


def exactness(exact: bool) -> str:
    """Return how a test was computed, as a statistic's name says it."""
    return "exact" if exact else f"{paired_tests.DRAWS:,} draws of a"


def _in_order(seeds: Iterable[str]) -> list[str]:
    return sorted(seeds, key=lambda seed: (len(seed), seed))


def verdict(p_holm: float, sign: int, direction: str, n_seeds: int, alpha: float) -> str:
    """Return supported, contradicted or undecided. sign: of the statistic tested."""
    if n_seeds < 2 or p_holm > alpha or not sign:
        return "undecided"
    claimed = 1 if direction in {positive for positive, _ in DIRECTIONS.values()} else -1
    return "supported" if sign * claimed > 0 else "contradicted"
