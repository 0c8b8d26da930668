"""What we make of a verdict, in words: docs/data/remarks.yaml, the only text by hand on docs/results.md.

{study}: {experiment}: {claim}: {verdict}: a sentence or two. The verdict stands there so that no remark outlives the
one that it was written about.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.study.document import read_yaml

REMARKS = "remarks.yaml"


def of_claims(path: Path, studies: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], str]:
    """Return the remark on each claim that has one, by study, experiment and claim.

    path: a file of remarks, which need not be there. studies: as results_page has them, with `study` and rows of
    `claims`. Raises StudyError where a remark is not text, on no claim of theirs, or on a verdict that is not its
    claim's.
    """
    verdicts: dict[tuple[str, ...], str] = {
        (study["study"], row["experiment"], row["claim"]): row["verdict"]
        for study in studies
        for row in study["claims"]
    }
    remarks = {}
    for (*names, verdict), text in _leaves(path, read_yaml(path) if path.is_file() else {}):
        claim = tuple(names)
        if claim not in verdicts:
            raise StudyError(f"{path}: {': '.join(claim)}: is no claim on record: correct the names, or remove it")
        if verdict != verdicts[claim]:
            raise StudyError(
                f"{path}: {': '.join(claim)}: is a remark on {verdict!r}, but the claim is {verdicts[claim]!r} now: "
                "write another, or remove it"
            )
        remarks[claim] = " ".join(text.split())
    return remarks


def _leaves(path: Path, node: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each text with the four names that lead to it."""
    if len(names) == 4 and isinstance(node, str) and node.strip():
        yield names, node
    elif len(names) < 4 and isinstance(node, dict):
        for name, below in node.items():
            yield from _leaves(path, below, (*names, name))
    else:
        raise StudyError(
            f"{path}: {': '.join(names) or 'the file'}: is {type(node).__name__}, not what is read here: "
            "{study}: {experiment}: {claim}: {verdict}: a text"
        )
