"""Whether a study's claims hold: from the tables of its experiments to verdicts.csv, and to evidence.csv.

Tests are paired over seeds. `evidence` says by which a claim is decided; verdicts.csv has what both find.

    anytime   eprocess.py: evidence grows or shrinks with every seed, and may be read after each; seeds are added until
              it is clear. Seeds are read in ascending order up to the first whose lanes are not all finished
    fixed     paired_tests.py: a test of as many seeds as were fixed before any was looked at

By kind of claim (see study/claims.py):
    difference   y[run] - y[than]. Effect: their median (fixed: mean) over seeds
    threshold    y - value. Over several runs all must keep it
    trend        Kendall's S within seeds. Effect: the median (fixed: mean) of tau-b; beside it the least-squares
                 slope, per tenfold where the levels are positive and span that, else per level
    all_of       several of these; a threshold over several runs is such a claim, too. Effect and seeds for and against:
                 of the part which speaks least for it, `effect_of`. Fixed: the largest p where all go the way claimed
                 (intersection-union test), else the smallest of those that do not, times the number of parts
                 (Bonferroni)

A mean of bounds is no effect: where times are only bounded and leave it open, it is empty. So is a slope where any time
is bounded, and tau where it is open which of two lanes is later. The interval holds for whatever the times may be. It
has the confidence that was asked for, or there is none; that of `anytime` is for the median, at every number of seeds.

p_holm and p_against_holm are p for and against, each corrected by Holm over all claims of the study, not over parts.
Where one is at most `claims_alpha`, the claim is supported, or contradicted; where both are, "both"; else undecided.
Each of the two statements is false with a probability of `claims_alpha` at most. A fixed test has one p, two-sided, and
the sign of its statistic says which of the two it is; one seed decides nothing there.

A lane that diverged has no value, nor has one in which nothing emerged where that leaves a quantity undefined (peak_at,
half_life, index). What that does to its seed says eprocess.py; a fixed test leaves it out, in a difference with its
partner, in a trend alone. What is left then tells of lanes that learned, which is another question; the note names the
others. Seeds count as independent, those too that share `init` or `data`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from icl_transience.analysis import claim_notes, claim_tests, eprocess, paired_tests
from icl_transience.analysis.claim_values import column, formula, formula_of_part
from icl_transience.analysis.judged import Judged, judge_claim
from icl_transience.specs.experiment import CONJUNCTION
from icl_transience.specs.records import ClaimRecord
from icl_transience.store import atomic, checksums, tables_file
from icl_transience.store.tables_file import records
from icl_transience.system.formatting import format_number_of

COLUMNS = (
    *("experiment", "claim", "text", "source", "kind", "of", "direction", "tested", "evidence", "alpha", "statistic"),
    *("effect_of", "effect", "lower", "upper", "confidence", "slope", "slope_lower", "slope_upper", "slope_per"),
    *("e_for", "e_against", "p", "p_min", "p_holm", "p_against", "p_against_holm", "p_fixed", "verdict"),
    *("seeds", "seeds_for", "seeds_against", "seeds_used", "seeds_needed", "excluded", "note"),
)
# Of evidence.csv: a row a claim and seed, and, where a claim has parts, a row for each of them (1, 2, ...).
EVIDENCE_COLUMNS = (
    "experiment",
    "claim",
    "part",
    "tested",
    "n",
    "seed",
    "goes",
    "e_for",
    "e_against",
    "p",
    "p_against",
)
# What stands for a verdict on a claim whose experiment has no tables yet; only of studies that are not finished.
NOT_YET = "not tested yet"
# What a seed says of a part, in the column `goes`.
_GOES = {1: "as claimed", -1: "the other way", 0: "neither", eprocess.LOST: "no value", eprocess.OPEN: "not known"}


# From tables to the table of verdicts.


def write_verdicts(folder: Path, claims: Sequence[ClaimRecord]) -> None:
    """Write verdicts.csv, evidence.csv and their SHA256SUMS into a study's folder.

    They are made from the transience.csv of its experiments.
    """
    experiments = dict.fromkeys(claim.experiment for claim in claims if not claim.left_out)
    write_judged(folder, claims, {name: tables_file.read_lanes(folder / name) for name in experiments})


def write_judged(folder: Path, claims: Sequence[ClaimRecord], lanes: Mapping[str, pd.DataFrame]) -> None:
    """Write verdicts.csv, evidence.csv and their SHA256SUMS into a folder. lanes: transience.csv by experiment."""
    judged = judge_all(claims, lanes)
    tables = {tables_file.VERDICTS: table_of(judged, claims), tables_file.EVIDENCE: evidence_of(judged)}
    for name, table in tables.items():
        atomic.write(
            folder / name,
            lambda temporary, table=table: table.to_csv(temporary, index=False, float_format="%.10g"),
        )
    checksums.write_checksums(folder, tables)


def judge(claims: Sequence[ClaimRecord], lanes: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the table of verdicts (COLUMNS), a row a claim. lanes: transience.csv by experiment."""
    return table_of(judge_all(claims, lanes), claims)


def judge_all(claims: Sequence[ClaimRecord], lanes: Mapping[str, pd.DataFrame]) -> list[Judged]:
    """Return every claim but those of experiments that are left out or have no lanes here, with what its lanes say."""
    return [judge_claim(one, lanes[one.experiment]) for one in claims if not one.left_out and one.experiment in lanes]


def table_of(judged: Sequence[Judged], claims: Sequence[ClaimRecord]) -> pd.DataFrame:
    """Return the table of verdicts; claims that are left out stand last, undecided, and correct no other's p.

    Claims of experiments that have no tables yet stand before them. Each counts in Holm's correction with the p of no
    evidence, 1: what is read before a study is finished is never decided more easily than it will be at its end.
    """
    of_judged = {(one.claim.experiment, one.claim.name) for one in judged}
    not_yet = [one for one in claims if not one.left_out and (one.experiment, one.name) not in of_judged]
    n_claims = len(judged) + len(not_yet)
    corrected = [
        paired_tests.holm([*(getattr(one, name) for one in judged), *([1.0] * len(not_yet))])[: len(judged)]
        for name in ("p", "p_against")
    ]
    decided = [_verdict(*of_one) for of_one in zip(judged, *corrected, strict=True)]
    rows = []
    for one, p_holm, p_against_holm, verdict in zip(judged, *corrected, decided, strict=True):
        # What Holm's correction asks of the next claim, if the others stay as they are.
        open_claims = {
            wanted: len(not_yet) + sum(other not in (wanted, "both") for other in decided)
            for wanted in ("supported", "contradicted")
        }
        needed, direction = _seeds_needed(one, open_claims) if verdict == "undecided" else (None, "")
        why = claim_notes.undecided(one, needed, direction, n_claims) if verdict == "undecided" else ""
        rows.append(
            _row(one)
            | {"p_holm": p_holm, "p_against_holm": p_against_holm, "verdict": verdict}
            | {"seeds_needed": needed, "note": "; ".join(filter(None, [why, *claim_notes.notes(one)]))}
        )
    left_out = [_row_left_out(claim) for claim in claims if claim.left_out]
    table = pd.DataFrame([*rows, *map(_row_not_yet, not_yet), *left_out], columns=list(COLUMNS))
    return table.astype({"seeds_needed": "Int64", "seeds_for": "Int64", "seeds_against": "Int64"})


def _verdict(one: Judged, p_holm: float, p_against_holm: float) -> str:
    if one.is_fixed:
        return claim_tests.verdict(p_holm, one.fixed.sign, len(one.fixed.seeds), one.claim.alpha)
    return eprocess.verdict(p_holm, p_against_holm, one.claim.alpha)


def _seeds_needed(one: Judged, open_claims: Mapping[str, int]) -> tuple[int | None, str]:
    """Return how many more seeds decide a claim as it tends, None where that cannot be told; and how they decide it."""
    e_for, e_against, *_ = one.reading.last()
    direction = "contradicted" if e_against > e_for else "supported"
    if one.is_fixed:
        return None, direction
    p = one.claim.alpha / open_claims[direction]
    return eprocess.seeds_needed(one.reading.of_seeds, p, against=direction == "contradicted"), direction


def _row(one: Judged) -> dict[str, Any]:
    lower, upper, confidence = one.finding.interval
    slope, slope_lower, slope_upper = one.finding.slope
    e_for, e_against, *_ = one.reading.last()
    of_seeds = one.reading.of_seeds[one.part]
    return _claim_columns(one.claim) | {
        "alpha": one.claim.alpha,
        "statistic": one.finding.statistic,
        "effect_of": formula_of_part(one.reading.parts[one.part]),
        "effect": one.finding.effect,
        "lower": lower,
        "upper": upper,
        "confidence": confidence,
        "slope": slope,
        "slope_lower": slope_lower,
        "slope_upper": slope_upper,
        "slope_per": one.finding.slope_per,
        "e_for": e_for,
        "e_against": e_against,
        "p": one.p,
        "p_min": one.finding.p_min,
        "p_against": one.p_against,
        "p_fixed": one.fixed.p,
        "seeds": len(one.finding.seeds),
        "seeds_for": int((of_seeds == 1).sum()),
        "seeds_against": int((of_seeds == -1).sum()),
        "seeds_used": " ".join(one.finding.seeds),
        "excluded": len(claim_notes.without(one)),
    }


def _row_not_yet(claim: ClaimRecord) -> dict[str, Any]:
    nothing = dict.fromkeys(("e_for", "e_against", "p", "p_against", "p_holm", "p_against_holm"), 1.0)
    counts = dict.fromkeys(("seeds", "seeds_for", "seeds_against", "excluded"), 0)
    columns = _claim_columns(claim) | {"alpha": claim.alpha, "verdict": NOT_YET}
    return columns | nothing | counts | {"note": "the experiment has no tables yet"}


def _row_left_out(claim: ClaimRecord) -> dict[str, Any]:
    note = "not tested: the experiment is left out, as its source's files are not at hand"
    return _claim_columns(claim) | {"verdict": "undecided", "seeds": 0, "excluded": 0, "note": note}


def _claim_columns(claim: ClaimRecord) -> dict[str, Any]:
    """Return what a row says of the claim itself."""
    return {
        "experiment": claim.experiment,
        "claim": claim.name,
        "text": claim.text,
        "source": claim.source,
        "kind": claim.kind,
        "of": ", ".join(dict.fromkeys(map(column, claim.parts))),
        "direction": claim.direction,
        "tested": formula(claim),
        "evidence": claim.evidence,
    }


def evidence_of(judged: Sequence[Judged]) -> pd.DataFrame:
    """Return the evidence after every seed that is read (EVIDENCE_COLUMNS)."""
    rows = [row for one in judged for row in _evidence_rows(one)]
    return pd.DataFrame(rows, columns=list(EVIDENCE_COLUMNS)).astype({"part": "Int64"})


def _evidence_rows(one: Judged) -> Iterator[dict[str, Any]]:
    reading, parts = one.reading, one.reading.parts
    of_all = [(None, formula(one.claim), reading.evidence, reading.of_seeds[0] if len(parts) == 1 else None)]
    if len(parts) > 1:
        numbered = enumerate(zip(parts, reading.of_parts, reading.of_seeds, strict=True), start=1)
        of_all += [(n, formula_of_part(part), found, goes) for n, (part, found, goes) in numbered]
    for number, tested, found, goes in of_all:
        for place, seed in enumerate(reading.seeds):
            yield {
                "experiment": one.claim.experiment,
                "claim": one.claim.name,
                "part": number,
                "tested": tested,
                "n": place + 1,
                "seed": seed,
                "goes": "" if goes is None else _GOES[int(goes[place])],
                "e_for": found.support[place],
                "e_against": found.against[place],
                "p": found.p[place],
                "p_against": found.p_against[place],
            }


# In words.


def claims_in_words(folder: Path) -> Iterator[str]:
    """Yield a line a claim of a study's verdicts.csv. Raises StudyError where it is not as it was written."""
    checksums.check_checksums(folder, [tables_file.VERDICTS])
    for row in records(tables_file.read_csv(folder / tables_file.VERDICTS)):
        yield sentence(row)


def sentence(row: Mapping[str, Any]) -> str:
    """Return a row of verdicts.csv as a sentence."""
    return f"{row['experiment']}, claim {row['claim']}, {row['verdict']}: {row['text']} {findings(row)}"


def findings(row: Mapping[str, Any]) -> str:
    """Return what was tested, what was found and by how many seeds, in parentheses; then what there is to note."""
    tested, found, note = tested_and_found(row)
    return f"({tested}; {found})" + (f"; {note}" if note else "")


def tested_and_found(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what was tested, what was found and by how many seeds, and what there is to note, "" where nothing is.

    Of a claim of several parts, effect and seeds are of the one that speaks least for it, which is named.
    """
    parts = []
    effect = f"{_name_of_effect(row)} {{}}{_interval(row)}"
    if not pd.isna(row["effect_of"]) and row["effect_of"] != row["tested"]:
        effect = f"least for it, {row['effect_of']}: {effect}"
    if not pd.isna(row["effect"]):
        parts.append(effect.format(f"{row['effect']:.3g}"))
    elif row["seeds"]:
        parts.append(effect.format("not known" if pd.isna(row["confidence"]) else "only bounded"))
    elif not pd.isna(row["p_holm"]):
        parts.append("no lane to tell from")
    if not pd.isna(row["p_holm"]):
        parts += _tests(row)
    parts.append(format_number_of(row["seeds"], "seed"))
    return row["tested"], "; ".join(parts), "" if pd.isna(row["note"]) else row["note"]


def _name_of_effect(row: Mapping[str, Any]) -> str:
    """Return what kind of effect stands in a row, from the name of its statistic."""
    if pd.isna(row["statistic"]):
        return "effect"
    name = "tau" if "Kendall" in row["statistic"] else "difference"
    value = " from the value" if "from the value" in row["statistic"] else ""
    return f"{'' if row['evidence'] == 'fixed' else 'median '}{name}{value}"


def _tests(row: Mapping[str, Any]) -> Iterator[str]:
    if row["evidence"] != "fixed":
        # A table with rows of claims that are left out has no whole numbers.
        claimed, other, seeds = (int(row[name]) for name in ("seeds_for", "seeds_against", "seeds"))
        more = f", {format_number_of(seeds - claimed - other, 'other')}" if seeds > claimed + other else ""
        yield f"{claimed} as claimed and {other} the other way{more}"
        yield f"evidence {evidence_in_words(row)}"
    yield f"p = {p_in_words(row)} after Holm"


def p_in_words(row: Mapping[str, Any]) -> str:
    """Return p after Holm's correction; where there is more evidence against the claim than for it, that p."""
    if row["evidence"] != "fixed" and row["e_against"] > row["e_for"]:
        return f"{row['p_against_holm']:.2g} of the opposite"
    return f"{row['p_holm']:.2g}"


def evidence_in_words(row: Mapping[str, Any]) -> str:
    """Return the evidence for and against the claim of a row of verdicts.csv."""
    # The evidence for several parts is their smallest, and each may have been at its highest after another seed; that
    # against them is one number, their mean.
    highest = "with each part at its highest" if row["kind"] == CONJUNCTION else "at its highest"
    e_for = _e_value(row["e_for"], row["p"], highest)
    return f"{e_for} for it, {_e_value(row['e_against'], row['p_against'], 'at its highest')} against"


def _e_value(e: float, p: float, highest: str) -> str:
    """Return the evidence, and the highest so far, of which p is, where that is more. highest: what that is called."""
    return _short(e) + (f" ({_short(1 / p)} {highest})" if 1 / p > max(1.0, e) * 1.01 else "")


def _short(e: float) -> str:
    return f"{e:.2g}" if e >= 1e6 else f"{e:,.0f}" if e >= 1000 else f"{e:.3g}"


def _interval(row: Mapping[str, Any]) -> str:
    if pd.isna(row["confidence"]):
        return ", no interval" if row["evidence"] != "fixed" and not pd.isna(row["effect"]) else ""
    return f", {row['confidence']:.1%} interval {row['lower']:.3g} to {row['upper']:.3g}"
