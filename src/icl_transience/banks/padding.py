"""What pads a vocabulary: rows of a table of tokens that are equal, nearly equal or nearly zero, as no words' are.

Such rows would be a training class whose exemplars do not differ. A block of them, rows in a row, is refused with the
key that leaves it out; single ones are warned of.
"""

from collections.abc import Iterable

import numpy as np

from icl_transience.banks.bank import equal_rows
from icl_transience.specs.banks import BankSpec, Tokens
from icl_transience.specs.errors import StudyError

# A table of which so large a share of rows repeats another is refused.
REPEATED = 0.01
# Rows whose variance is so small a share of what is usual within a class are no words of one meaning: of MiniLM's table
# the tightest class has 0.22 of the median class's variance by direction (1,600 clusters), 0.04 by raw rows (1,000).
TIGHT = 1e-2
# Likewise the norm, of which MiniLM's smallest is 0.22 of the median.
SHORT = 1e-2


def repeated(rows: np.ndarray, spec: BankSpec, n_table: int) -> tuple[str, ...]:
    """Return at most one warning: of equal rows among those to cluster, such as the rows that pad a vocabulary.

    n_table: rows in the file.
    Raises StudyError where as many rows are equal as make a class, or a share of REPEATED or more repeat another row.
    """
    tokens = spec.parameters_of(Tokens)
    group, first, needed = equal_rows(rows), tokens.skip_rows, max(2, spec.shape.n_exemplars)
    sizes = np.bincount(group)
    repeated, largest = int((sizes[group] > 1).sum()), np.flatnonzero(group == sizes.argmax())
    if not repeated:
        return ()
    # A block of equal rows at either end is left out by its length.
    trailing, leading = _run(group[::-1]), _run(group)
    if 1 < trailing < len(rows) and group[-1] == group[largest[0]]:
        remedy = (
            f"say `bank.tokens.skip_last_rows: {n_table - first - len(rows) + trailing}` to leave the last ones out"
        )
    elif 1 < leading < len(rows) and group[0] == group[largest[0]]:
        remedy = f"say `bank.tokens.skip_rows: {first + leading}` to leave the first ones out"
    else:
        remedy = "write the table without them, or leave them out with `skip_rows` or `skip_last_rows`"
    said = (
        f"bank.tokens: {repeated:,} of {len(rows):,} rows of {tokens.tensor} are equal to another one; of these "
        f"{len(largest):,} are {'equal' if rows[largest[0]].any() else 'all zeros'}, {_ranges(largest + first)}"
    )
    if len(largest) >= needed or repeated >= REPEATED * len(rows):
        raise StudyError(
            f"{said}: they would be a class without differences; expected are fewer equal rows than a class has "
            f"exemplars ({needed}), and less than {REPEATED:.0%} of all that repeat another: {remedy}"
        )
    return (f"{said}: {remedy}",)


def near_equal(rows: np.ndarray, members: Iterable[np.ndarray], spec: BankSpec, n_table: int) -> tuple[str, ...]:
    """Return at most one warning: of classes whose exemplars are nearly one point.

    rows: float32 [N, dim], as they were clustered. members: of each cluster that can be a class the numbers of its
    rows, those nearest to its centroid first. n_table: rows in the file.

    Raises StudyError where as many such rows as make a class stand in a row in the file.
    """
    needed, members = spec.shape.n_exemplars, list(members)
    if needed < 2 or not members:
        return ()
    # Of each cluster's core, the rows of which a class would be made.
    variances = np.array([rows[of_cluster[:needed]].var(axis=0, dtype=np.float64).sum() for of_cluster in members])
    limit = TIGHT * float(np.median(variances))
    tight = [
        of_cluster[((rows[of_cluster] - rows[of_cluster[:needed]].mean(axis=0)) ** 2).sum(axis=1) <= 2 * limit]
        for of_cluster, variance in zip(members, variances, strict=True)
        if variance < limit
    ]
    if not tight:
        return ()
    found = np.sort(np.concatenate(tight)) + spec.parameters_of(Tokens).skip_rows
    return _refused_or_said(
        found,
        f"{len(found):,} of {len(rows):,} rows of {spec.parameters_of(Tokens).tensor} differ from each other by less "
        f"than {TIGHT:.0%} of the variance that is usual within a class ({len(tight)} of {len(members):,} clusters)",
        needed,
        n_table,
    )


def short(rows: np.ndarray, spec: BankSpec, n_table: int) -> tuple[str, ...]:
    """Return at most one warning: of rows that are nearly zero, whose directions mean nothing.

    Raises StudyError where as many such rows as make a class stand in a row in the file.
    """
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    found = np.flatnonzero(norms < SHORT * np.median(norms)) + spec.parameters_of(Tokens).skip_rows
    if not len(found):
        return ()
    return _refused_or_said(
        found,
        f"{len(found):,} of {len(rows):,} rows of {spec.parameters_of(Tokens).tensor} have less than {SHORT:.0%} of "
        "the median row's norm",
        max(2, spec.shape.n_exemplars),
        n_table,
    )


def _refused_or_said(found: np.ndarray, said: str, needed: int, n_table: int) -> tuple[str]:
    """Return a warning of these rows of the file, or raise StudyError where `needed` of them stand in a row."""
    block = max(_runs(found), key=len)
    first, last = int(block[0]), int(block[-1])
    said = f"bank.tokens: {said}, {_ranges(found)}"
    if len(block) < needed:
        return (f"{said}: are they words?",)
    key = f"skip_last_rows: {n_table - first}" if first > n_table // 2 else f"skip_rows: {last + 1}"
    raise StudyError(
        f"{said}: as rows are that pad a vocabulary or were never trained; they would be a class without differences: "
        f"say `bank.tokens.{key}` to leave them out, or write the table without them"
    )


def _runs(numbers: np.ndarray) -> list[np.ndarray]:
    """Split ascending numbers where one is left out."""
    return np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)


def _run(group: np.ndarray) -> int:
    """Count the leading entries that are equal."""
    other = np.flatnonzero(group != group[0])
    return int(other[0]) if len(other) else len(group)


def _ranges(numbers: np.ndarray) -> str:
    """Name ascending numbers of rows, runs of them as "rows first to last", at most five of these."""
    runs = _runs(numbers)
    said = [f"rows {run[0]} to {run[-1]}" if len(run) > 1 else f"row {run[0]}" for run in runs[:5]]
    return ", ".join(said) + (", …" if len(runs) > 5 else "")
