"""The fixed-sample test of each kind of claim, on the values of its lanes; analysis/verdicts.py says what it is of."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from icl_transience.analysis import eprocess, paired_tests
from icl_transience.analysis.claim_values import Values
from icl_transience.analysis.paired_tests import Measured
from icl_transience.specs.experiment import Part


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a test finds.

    seeds: those that enter it. sign: of its statistic, 1 where it goes the way that is claimed. effect: as
    analysis/verdicts.py says of each kind; nan where there are no seeds, or bounds leave it open. interval: lower end,
    upper end, confidence reached; nan where seeds are too few for it. p_min: the smallest p that so many seeds can
    give. slope: of a trend, with the ends of its interval, per `slope_per`; nan where there is no effect, or a bound.
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


# Of each seed, the ends between which its effect surely lies.
Effects = Mapping[str, tuple[float, float]]


def effects(part: Part, values: Values) -> Effects:
    """Return the effect of each seed: its difference, from the value of a threshold in its only run, or its tau."""
    if part.kind == "trend":
        return {seed: paired_tests.tau_bounds(block) for seed, (_, block) in _blocks(part, values).items()}
    return {seed: paired_tests.bounds(*pair) for seed, pair in _pairs(part, values).items()}


def slopes(part: Part, values: Values) -> Effects:
    """Return the slope of each seed along the levels of a trend; none where a time is only bounded."""
    _, positions = _positions(part.levels)
    blocks = _blocks(part, values)
    if any(measured.is_bound for _, block in blocks.values() for measured in block):
        return {}
    found = {seed: _slope([positions[number] for number in at], block) for seed, (at, block) in blocks.items()}
    return {seed: (slope, slope) for seed, slope in found.items()}


def assess(part: Part, values: Values, confidence: float) -> Finding:
    """Test a part on the values of its lanes; a threshold has one run."""
    of_seeds = effects(part, values)
    lowest, highest = ([ends[end] for ends in of_seeds.values()] for end in (0, 1))
    interval = paired_tests.typical_interval(lowest, highest, confidence)
    effect = _mean(lowest) if lowest == highest else math.nan
    if part.kind == "trend":
        return _test_trend(part, values, confidence, effect, interval)
    pairs = list(_pairs(part, values).values())
    differences = [paired_tests.difference(*pair) for pair in pairs]
    of = " from the value" if part.kind == "threshold" else ""
    return Finding(
        statistic=f"mean difference{of}, {exactness(len(differences) <= paired_tests.EXACT_SEEDS)} sign-flip test",
        seeds=tuple(of_seeds),
        sign=part.claimed * _sign(math.fsum(differences)),
        effect=effect,
        interval=interval,
        p=paired_tests.sign_flip(differences) if paired_tests.is_sure(pairs) else 1.0,
        p_min=paired_tests.min_attainable_p(len(differences)),
    )


def all_of(findings: Sequence[Finding]) -> tuple[int, Finding]:
    """Return which of them speaks least for a claim that holds where all do, and it, with the p of all."""
    contrary = [number for number, finding in enumerate(findings) if finding.sign != 1]
    if not contrary:
        least = max(range(len(findings)), key=lambda number: findings[number].p)
        return least, findings[least]
    worst = min(contrary, key=lambda number: findings[number].p)
    return worst, replace(findings[worst], p=min(1.0, len(findings) * findings[worst].p))


def _pairs(part: Part, values: Values) -> dict[str, tuple[Measured, Measured]]:
    """Return what is compared in each seed."""
    one = values[part.runs[0]]
    if part.kind == "threshold":
        return {seed: (one[seed], Measured(part.value)) for seed in eprocess.ascending(one)}
    other = values[part.runs[1]]
    return {seed: (one[seed], other[seed]) for seed in eprocess.ascending(set(one) & set(other))}


def _blocks(part: Part, values: Values) -> dict[str, tuple[list[int], list[Measured]]]:
    """Return of each seed that has two lanes at least which levels have one, and their values."""
    blocks = {}
    for seed in eprocess.ascending(set().union(*(values[run] for run in part.runs))):
        present = [number for number, run in enumerate(part.runs) if seed in values[run]]
        if len(present) > 1:
            blocks[seed] = present, [values[part.runs[number]][seed] for number in present]
    return blocks


def _test_trend(
    part: Part, values: Values, confidence: float, effect: float, interval: tuple[float, float, float]
) -> Finding:
    blocks = {seed: block for seed, (_, block) in _blocks(part, values).items()}
    of_slopes = [slope for slope, _ in slopes(part, values).values()]
    slope = _mean(of_slopes), *paired_tests.typical_interval(of_slopes, of_slopes, confidence)[:2]
    statistic, p, p_min = paired_tests.trend(list(blocks.values()))
    exact = all(len(block) <= paired_tests.EXACT_LEVELS for block in blocks.values())
    return Finding(
        statistic=f"Kendall's S within seeds, {exactness(exact)} permutation test",
        seeds=tuple(blocks),
        sign=part.claimed * _sign(statistic),
        effect=effect,
        interval=interval,
        p=p,
        p_min=p_min,
        slope=slope,
        slope_per=slope_per(part),
    )


def slope_per(part: Part) -> str:
    """Return what a slope is per, "tenfold" or "level"; nothing where there is no slope."""
    return _positions(part.levels)[0] if part.kind == "trend" else ""


def _positions(levels: Sequence[float]) -> tuple[str, list[float]]:
    """Return what a slope is per, and the levels' positions on that scale."""
    if min(levels) > 0 and max(levels) > 9.99 * min(levels):
        return "tenfold", [math.log10(level) for level in levels]
    return "level", [float(number) for number in range(len(levels))]


def _slope(positions: Sequence[float], block: Sequence[Measured]) -> float:
    """Return the least-squares slope."""
    return statistics.linear_regression(positions, [measured.value for measured in block]).slope


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def _sign(value: float) -> int:
    return int(value > 0) - int(value < 0)


def exactness(exact: bool) -> str:
    """Return how a test was computed, as a statistic's name says it."""
    return "exact" if exact else f"{paired_tests.DRAWS:,} draws of a"


def verdict(p_holm: float, sign: int, n_seeds: int, alpha: float) -> str:
    """Return supported, contradicted or undecided. sign: of the statistic, 1 where it goes the way claimed."""
    if n_seeds < 2 or p_holm > alpha or not sign:
        return "undecided"
    return "supported" if sign > 0 else "contradicted"
