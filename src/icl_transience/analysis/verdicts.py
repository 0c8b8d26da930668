"""Whether a study's claims hold: from the tables of its experiments to verdicts.csv.

Tests are paired over seeds; paired.py defines them. By kind of claim (see claims.py):
    difference   sign flip of y[run] - y[than]. Effect: their mean
    threshold    sign flip of y - value: y lies symmetrically about the value. Over several runs all must keep it: the
                 largest p where all are on the claimed side (intersection-union test), else the smallest of those that
                 are not, times the number of runs (Bonferroni)
    trend        permutation of levels within seeds. Effect: the mean of tau-b; beside it the least-squares slope, per
                 tenfold where the levels are positive and span that, else per level

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
from icl_transience.store import atomic, checksums, tables_file

COLUMNS = (
    *("experiment", "claim", "text", "source", "kind", "of", "direction", "tested", "statistic"),
    *("effect", "lower", "upper", "confidence", "slope", "slope_lower", "slope_upper", "slope_per"),
    *("p", "p_min", "p_holm", "verdict", "seeds", "seeds_used", "excluded", "note"),
)


# From tables to the table of verdicts.


def write(folder: Path, claims: Sequence[Mapping[str, Any]]) -> None:
    """Writes verdicts.csv and its SHA256SUMS into a study's folder, from the transience.csv of its experiments.

    claims: as in plan.Plan.claims.
    """
    judged = dict.fromkeys(claim["experiment"] for claim in claims if "left_out" not in claim)
    table = judge(claims, {name: tables_file.read_lanes(folder / name) for name in judged})
    atomic.write(
        folder / tables_file.VERDICTS, lambda temporary: table.to_csv(temporary, index=False, float_format="%.10g")
    )
    checksums.write_checksums(folder, [tables_file.VERDICTS])


def judge(claims: Sequence[Mapping[str, Any]], lanes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The table of verdicts (COLUMNS), a row a claim. lanes: transience.csv by experiment.

    Claims of experiments that are left out are undecided, and no test is corrected for them.
    """
    left_out = [_row_left_out(claim) for claim in claims if "left_out" in claim]
    claims = [claim for claim in claims if "left_out" not in claim]
    measured = [measure(claim, lanes[claim["experiment"]]) for claim in claims]
    findings = [assess(claim, values) for claim, (values, _) in zip(claims, measured, strict=True)]
    corrected = paired_tests.holm([finding.p for finding in findings])
    rows = [
        _row(claim, finding, p_holm, len(claims), values, excluded)
        for claim, finding, p_holm, (values, excluded) in zip(claims, findings, corrected, measured, strict=True)
    ]
    return pd.DataFrame([*rows, *left_out], columns=list(COLUMNS))


def measure(claim: Mapping[str, Any], lanes: pd.DataFrame) -> tuple[dict[str, dict[str, Measured]], dict[str, str]]:
    """What the claim is about, by run and seed; and run/seed -> why, of lanes that have no such value."""
    values: dict[str, dict[str, Measured]] = {run: {} for run in claim["runs"]}
    excluded: dict[str, str] = {}
    for row in lanes[lanes["run"].isin(values)].to_dict("records"):
        found = _measured(row, claim["of"], claim["horizon"])
        if minus := claim.get("minus"):
            found = _minus(found, _measured(row, minus, claim["horizon"]))
        if isinstance(found, Measured):
            values[row["run"]][row["seed"]] = found
        else:
            excluded[f"{row['run']}/{row['seed']}"] = found
    return values, excluded


def _measured(row: Mapping[str, Any], of: str, horizon: float) -> Measured | str:
    """A lane's value, or why it has none."""
    if row["outcome"] == "diverged":
        return "diverged"
    if of == "emergence" and row["outcome"] == "never":
        return Measured(float(horizon), censored=True)
    value = row.get(of)
    if value is None or pd.isna(value):
        return "never emerged" if row["outcome"] == "never" else f"has no {of}"
    return Measured(float(value), censored=of == "half_life" and str(row["half_life_censored"]) == "True")


def _minus(one: Measured | str, other: Measured | str) -> Measured | str:
    if isinstance(one, str) or isinstance(other, str):
        return one if isinstance(one, str) else other
    return Measured(one.value - other.value)


def _row(
    claim: Mapping[str, Any],
    finding: Finding,
    p_holm: float,
    n_claims: int,
    values: Values,
    excluded: Mapping[str, str],
) -> dict[str, Any]:
    lower, upper, confidence = finding.interval
    slope, slope_lower, slope_upper = finding.slope
    found = verdict(p_holm, finding.sign, claim["direction"], len(finding.seeds), claim["alpha"])
    why = [_why_undecided(claim, finding, n_claims)] if found == "undecided" else []
    return _asked(claim) | {
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
        "verdict": found,
        "seeds": len(finding.seeds),
        "seeds_used": " ".join(finding.seeds),
        "excluded": len(excluded),
        "note": "; ".join(filter(None, [*why, *_without(excluded), *_at_bounds(values)])),
    }


def _row_left_out(claim: Mapping[str, Any]) -> dict[str, Any]:
    note = "not tested: the experiment is left out, as its source's files are not at hand"
    return _asked(claim) | {"verdict": "undecided", "seeds": 0, "excluded": 0, "note": note}


def _asked(claim: Mapping[str, Any]) -> dict[str, str]:
    """What a row says of the claim itself."""
    asked = {key: claim[key] for key in ("experiment", "text", "source", "kind", "direction")}
    of = " - ".join(filter(None, (claim["of"], claim.get("minus"))))
    return asked | {"claim": claim["name"], "of": of, "tested": _tested(of, claim)}


def _tested(of: str, claim: Mapping[str, Any]) -> str:
    """A claim as a formula: "peak > 0.6 (baseline)"."""
    runs = claim["runs"]
    if claim["kind"] == "trend":
        levels = ", ".join(f"{level:g}" for level in claim["levels"])
        return f"{of} {claim['direction']} along {claim['axis']} = {levels}"
    sign = ">" if claim["direction"] == DIRECTIONS[claim["kind"]][0] else "<"
    if claim["kind"] == "difference":
        return f"{of}: {runs[0]} {sign} {runs[1]}"
    more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    return f"{of} {sign} {claim['value']:g} ({', '.join(runs[:3])}{more})"


def _why_undecided(claim: Mapping[str, Any], finding: Finding, n_claims: int) -> str:
    """What so few seeds could not have decided; empty where they could have."""
    n, alpha = len(finding.seeds), claim["alpha"]
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


def _without(excluded: Mapping[str, str]) -> Iterator[str]:
    for reason in dict.fromkeys(excluded.values()):
        lanes = [lane for lane, why in excluded.items() if why == reason]
        yield f"left out, {reason}: {', '.join(lanes[:5])}{f' and {len(lanes) - 5} more' if len(lanes) > 5 else ''}"


def _at_bounds(values: Values) -> Iterator[str]:
    if censored := sum(found.censored for of_run in values.values() for found in of_run.values()):
        yield f"{_count(censored, 'censored time')} counted at the bound"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def _enough(claim: Mapping[str, Any], p: float) -> int:
    """The smallest number of seeds that can give such a p."""
    orders = math.factorial(len(claim["runs"])) if claim["kind"] == "trend" else 2
    return max(2, math.ceil(math.log(2 / p) / math.log(orders) - 1e-9))


# In words.


def in_words(folder: Path) -> Iterator[str]:
    """A line a claim of a study's verdicts.csv. Raises StudyError where it is not as it was written."""
    checksums.check_checksums(folder, [tables_file.VERDICTS])
    for row in tables_file.read_csv(folder / tables_file.VERDICTS).to_dict("records"):
        yield sentence(row)


def sentence(row: Mapping[str, Any]) -> str:
    """A row of verdicts.csv as a sentence."""
    found = [row["tested"]]
    if not pd.isna(row["effect"]):
        effect = f"{'tau' if row['kind'] == 'trend' else 'difference'} {row['effect']:.3g}"
        if not pd.isna(row["confidence"]):
            effect += f", {row['confidence']:.1%} interval {row['lower']:.3g} to {row['upper']:.3g}"
        found.append(effect)
    elif not row["seeds"] and not pd.isna(row["p_holm"]):
        found.append("no lane to tell from")
    if not pd.isna(row["p_holm"]):
        found.append(f"p = {row['p_holm']:.2g} after Holm")
    found.append(_count(row["seeds"], "seed"))
    note = "" if pd.isna(row["note"]) else f"; {row['note']}"
    return f"{row['experiment']}, claim {row['claim']}, {row['verdict']}: {row['text']} ({'; '.join(found)}){note}"
