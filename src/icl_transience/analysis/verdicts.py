"""Whether a study's claims hold: from the tables of its experiments to verdicts.csv.

Tests are paired over seeds; paired_tests.py defines them. By kind of claim (see study/claims.py):
    difference   sign flip of y[run] - y[than]. Effect: their mean
    threshold    sign flip of y - value: y lies symmetrically about the value. Over several runs all must keep it: the
                 largest p where all are on the claimed side (intersection-union test), else the smallest of those that
                 are not, times the number of runs (Bonferroni)
    trend        permutation of levels within seeds. Effect: the mean of tau-b; beside it the least-squares slope, per
                 tenfold where the levels are positive and span that, else per level

A mean of bounds is no effect: where a time is only bounded, a mean difference and a slope are empty, and the interval
holds for whatever the times may be. tau needs no more than which lane is surely later.

p_holm is p, corrected by Holm over all claims of the study. Where it is at most `claims_alpha` the claim is supported
or contradicted, by the sign of the statistic; else it is undecided. One seed decides nothing.

A lane that diverged is left out, and so is one in which nothing emerged where that leaves a quantity undefined
(peak_at, half_life, index): in a difference with its partner, in a trend alone. What is left then tells of lanes that
learned, which is another question; the note names the others. Seeds count as independent, those too that share `init`
or `data`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from icl_transience.analysis import paired_tests
from icl_transience.analysis.claim_tests import Finding, Values, assess, verdict
from icl_transience.analysis.paired_tests import Measured
from icl_transience.specs.experiment import DIRECTIONS
from icl_transience.specs.records import ClaimRecord
from icl_transience.store import atomic, checksums, tables_file
from icl_transience.store.tables_file import records

COLUMNS = (
    *("experiment", "claim", "text", "source", "kind", "of", "direction", "tested", "statistic"),
    *("effect", "lower", "upper", "confidence", "slope", "slope_lower", "slope_upper", "slope_per"),
    *("p", "p_min", "p_holm", "verdict", "seeds", "seeds_used", "excluded", "note"),
)

# Lanes that a note names of those left out for one reason.
MOST_NAMED = 5


# From tables to the table of verdicts.


def write_verdicts(folder: Path, claims: Sequence[ClaimRecord]) -> None:
    """Write verdicts.csv and its SHA256SUMS into a study's folder, from the transience.csv of its experiments."""
    judged = dict.fromkeys(claim.experiment for claim in claims if not claim.left_out)
    table = judge(claims, {name: tables_file.read_lanes(folder / name) for name in judged})
    atomic.write(
        folder / tables_file.VERDICTS, lambda temporary: table.to_csv(temporary, index=False, float_format="%.10g")
    )
    checksums.write_checksums(folder, [tables_file.VERDICTS])


def judge(claims: Sequence[ClaimRecord], lanes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the table of verdicts (COLUMNS), a row a claim. lanes: transience.csv by experiment.

    Claims of experiments that are left out are undecided, and no test is corrected for them.
    """
    left_out = [_row_left_out(claim) for claim in claims if claim.left_out]
    claims = [claim for claim in claims if not claim.left_out]
    measured = [measure(claim, lanes[claim.experiment]) for claim in claims]
    findings = [assess(claim, values) for claim, (values, _) in zip(claims, measured, strict=True)]
    corrected = paired_tests.holm([finding.p for finding in findings])
    rows = [
        _row(claim, finding, p_holm, len(claims), values, excluded)
        for claim, finding, p_holm, (values, excluded) in zip(claims, findings, corrected, measured, strict=True)
    ]
    return pd.DataFrame([*rows, *left_out], columns=list(COLUMNS))


def measure(claim: ClaimRecord, lanes: pd.DataFrame) -> tuple[dict[str, dict[str, Measured]], dict[str, str]]:
    """Return run -> seed -> what the claim is about, and run/seed -> why, of lanes that have no such value."""
    values: dict[str, dict[str, Measured]] = {run: {} for run in claim.runs}
    excluded: dict[str, str] = {}
    for row in records(lanes.loc[lanes["run"].isin(list(values))]):
        measured = _measured(row, claim.of)
        if claim.minus:
            measured = _minus(measured, _measured(row, claim.minus))
        if isinstance(measured, Measured):
            values[row["run"]][row["seed"]] = measured
        else:
            excluded[f"{row['run']}/{row['seed']}"] = measured
    return values, excluded


def _measured(row: Mapping[str, Any], of: str) -> Measured | str:
    """Return a lane's value, or why it has none."""
    if row["outcome"] == "diverged":
        return "diverged"
    value = row.get(of)
    if value is None or pd.isna(value):
        return "never emerged" if row["outcome"] == "never" else f"has no {of}"
    # In a column that has empty cells too, pandas reads what is true and false as text.
    flags = [str(row.get(f"{of}_{flag}")) == "True" for flag in ("censored", "left_censored")]
    return Measured(float(value), *flags)


def _minus(one: Measured | str, other: Measured | str) -> Measured | str:
    if isinstance(one, str) or isinstance(other, str):
        return one if isinstance(one, str) else other
    # A bound of either is one of the difference, which may be less than nothing.
    at_least, at_most = one.censored or other.left_censored, one.left_censored or other.censored
    return Measured(one.value - other.value, at_least, at_most, least=-math.inf)


def _row(
    claim: ClaimRecord,
    finding: Finding,
    p_holm: float,
    n_claims: int,
    values: Values,
    excluded: Mapping[str, str],
) -> dict[str, Any]:
    lower, upper, confidence = finding.interval
    slope, slope_lower, slope_upper = finding.slope
    decision = verdict(p_holm, finding.sign, claim.direction, len(finding.seeds), claim.alpha)
    why = [_why_undecided(claim, finding, n_claims)] if decision == "undecided" else []
    return _claim_columns(claim) | {
        "statistic": finding.statistic,
        "effect": finding.effect,
        "lower": lower,
        "upper": upper,
        "confidence": confidence,
        "slope": slope,
        "slope_lower": slope_lower,
        "slope_upper": slope_upper,
        "slope_per": finding.slope_per,
        "p": finding.p,
        "p_min": finding.p_min,
        "p_holm": p_holm,
        "verdict": decision,
        "seeds": len(finding.seeds),
        "seeds_used": " ".join(finding.seeds),
        "excluded": len(excluded),
        "note": "; ".join(filter(None, [*why, *_list_excluded(excluded), *_bounds(values)])),
    }


def _row_left_out(claim: ClaimRecord) -> dict[str, Any]:
    note = "not tested: the experiment is left out, as its source's files are not at hand"
    return _claim_columns(claim) | {"verdict": "undecided", "seeds": 0, "excluded": 0, "note": note}


def _claim_columns(claim: ClaimRecord) -> dict[str, Any]:
    """Return what a row says of the claim itself."""
    of = " - ".join(filter(None, (claim.of, claim.minus)))
    return {
        "experiment": claim.experiment,
        "claim": claim.name,
        "text": claim.text,
        "source": claim.source,
        "kind": claim.kind,
        "of": of,
        "direction": claim.direction,
        "tested": _formula(of, claim),
    }


def _formula(of: str, claim: ClaimRecord) -> str:
    """Return a claim as a formula: "peak > 0.6 (baseline)"."""
    runs = claim.runs
    if claim.kind == "trend":
        levels = ", ".join(f"{level:g}" for level in claim.levels)
        return f"{of} {claim.direction} along {claim.axis} = {levels}"
    sign = ">" if claim.direction == DIRECTIONS[claim.kind][0] else "<"
    if claim.kind == "difference":
        return f"{of}: {runs[0]} {sign} {runs[1]}"
    more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    return f"{of} {sign} {claim.value:g} ({', '.join(runs[:3])}{more})"


def _why_undecided(claim: ClaimRecord, finding: Finding, n_claims: int) -> str:
    """Return what so few seeds could not have decided; empty where they could have."""
    n, alpha = len(finding.seeds), claim.alpha
    least = f"{n} seeds give no p below {finding.p_min:.3g}"
    if n < 2:
        return f"{_count(n, 'seed')}: decides nothing"
    if finding.p_min > alpha:
        return f"{least}: take {_enough(claim, alpha)} or more"
    if finding.p_min > alpha / n_claims:
        strict = alpha / n_claims
        return (
            f"{least}, but Holm's correction for {n_claims} claims may ask for {strict:.3g}: "
            f"{_enough(claim, strict)} seeds or more can always give it"
        )
    return ""


def _list_excluded(excluded: Mapping[str, str]) -> Iterator[str]:
    """Yield, a reason each, the lanes that were left out."""
    for reason in dict.fromkeys(excluded.values()):
        lanes = [lane for lane, why in excluded.items() if why == reason]
        more = f" and {len(lanes) - MOST_NAMED} more" if len(lanes) > MOST_NAMED else ""
        yield f"left out, {reason}: {', '.join(lanes[:MOST_NAMED])}{more}"


def _bounds(values: Values) -> Iterator[str]:
    if bounds := sum(measured.is_bound for of_run in values.values() for measured in of_run.values()):
        yield f"of {_count(bounds, 'time')} only a bound is known, which counts as far as it tells lanes apart"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _enough(claim: ClaimRecord, p: float) -> int:
    """Return the smallest number of seeds that can give such a p."""
    orders = math.factorial(len(claim.runs)) if claim.kind == "trend" else 2
    return max(2, math.ceil(math.log(2 / p) / math.log(orders) - 1e-9))


# In words.


def claims_in_words(folder: Path) -> Iterator[str]:
    """Yield a line a claim of a study's verdicts.csv. Raises StudyError where it is not as it was written."""
    checksums.check_checksums(folder, [tables_file.VERDICTS])
    for row in records(tables_file.read_csv(folder / tables_file.VERDICTS)):
        yield sentence(row)


def sentence(row: Mapping[str, Any]) -> str:
    """Return a row of verdicts.csv as a sentence."""
    parts = [row["tested"]]
    if not pd.isna(row["effect"]):
        parts.append(f"{'tau' if row['kind'] == 'trend' else 'difference'} {row['effect']:.3g}{_interval(row)}")
    elif row["seeds"]:
        parts.append(f"difference only bounded{_interval(row)}")
    elif not row["seeds"] and not pd.isna(row["p_holm"]):
        parts.append("no lane to tell from")
    if not pd.isna(row["p_holm"]):
        parts.append(f"p = {row['p_holm']:.2g} after Holm")
    parts.append(_count(row["seeds"], "seed"))
    note = "" if pd.isna(row["note"]) else f"; {row['note']}"
    return f"{row['experiment']}, claim {row['claim']}, {row['verdict']}: {row['text']} ({'; '.join(parts)}){note}"


def _interval(row: Mapping[str, Any]) -> str:
    if pd.isna(row["confidence"]):
        return ""
    return f", {row['confidence']:.1%} interval {row['lower']:.3g} to {row['upper']:.3g}"
