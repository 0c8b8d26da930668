"""What is kept in docs/data of studies' results, read with proof that it is whole; recorded.py writes it.

study.json has the digest of every SHA256SUMS beside and below it, and is written last: where a record was interrupted,
or a table was taken from elsewhere, they contradict each other.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from icl_transience.planning.plan import study_files
from icl_transience.report import remarks
from icl_transience.specs.errors import StudyError
from icl_transience.store import checksums, tables_file
from icl_transience.store.layout import ACQUISITION_TABLES, VERDICTS

# Below the folder of the documentation.
DATA, IMAGES = "data", "images"
STUDY = "study.json"
RUNS, LANES = "runs.csv", "transience.csv"
# Of few experiments.
_, THRESHOLD = ACQUISITION_TABLES
_AGAIN = "say `git checkout -- docs/data docs/images`, or record the study again"


def read(base: Path) -> list[dict[str, Any]]:
    """Return what is kept of each study that ships, as study.json has it, with the rows of its verdicts as `claims`.

    base: a checkout of the repository. Each claim has its `remark`, "" where there is none. Raises StudyError where
    something is not as it was recorded.
    """
    docs, studies = base / "docs", []
    for path in study_files(base):
        folder = docs / DATA / path.stem
        if (folder / STUDY).is_file():
            study = _read_study(folder, docs / IMAGES)
            is_judged = (folder / VERDICTS).is_file()
            claims = tables_file.records(tables_file.read_csv(folder / VERDICTS)) if is_judged else []
            studies.append(study | {"claims": claims})
    said = remarks.of_claims(docs / DATA / remarks.REMARKS, studies)
    for study in studies:
        for row in study["claims"]:
            row["remark"] = said.get((study["study"], row["experiment"], row["claim"]), "")
    return studies


def read_json(path: Path) -> dict[str, Any]:
    """Return a study.json. Raises StudyError where it cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise StudyError(
            f"{path}: is not as it was recorded ({error}): delete it, and record the study again"
        ) from error


def _read_study(folder: Path, pictures: Path) -> dict[str, Any]:
    """Return a study.json from its folder. Raises StudyError where something beside or below it is not as recorded."""
    path = folder / STUDY
    study = read_json(path)
    if study.get("study") != folder.name:
        raise StudyError(f"{path}: is of study {study.get('study')!r}: {_AGAIN}")
    if study.get("tables") != digests(folder):
        raise StudyError(f"{path}: was not recorded with the tables beside and below it: {_AGAIN}")
    for inside, digest in study["tables"].items():
        check_tables((folder / inside).parent, digest)
    check_images(images(study), pictures)
    return study


def check_tables(folder: Path, digest: str | None) -> None:
    """Raise StudyError where a folder's tables are not those of its SHA256SUMS, or this is not that of the digest."""
    sums = folder / checksums.CHECKSUMS
    if not sums.is_file() or checksums.sha256(sums) != digest:
        raise StudyError(f"{sums}: is not as it was recorded: {_AGAIN}")
    for line in sums.read_text(encoding="utf-8").splitlines():
        of_table, name = line.split("  ", 1)
        table = folder / name
        if not table.is_file() or checksums.sha256(table) != of_table:
            raise StudyError(f"{table}: is not as it was recorded: {_AGAIN}")


def check_images(names: Collection[str], pictures: Path) -> None:
    """Raise StudyError where one of these pictures is not there."""
    if missing := sorted(name for name in names if not (pictures / name).is_file()):
        raise StudyError(f"{pictures / missing[0]}: not there: {_AGAIN}")


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each SHA256SUMS in a study's folder and those of its experiments, by path in it."""
    sums = sorted(folder.glob(f"**/{checksums.CHECKSUMS}"))
    return {path.relative_to(folder).as_posix(): checksums.sha256(path) for path in sums}


def images(study: dict[str, Any]) -> set[str]:
    """Return the files of the pictures that a study.json names."""
    figures = {one["figure"]["file"] for one in study["experiments"].values() if one["figure"]}
    return figures | {*filter(None, [study["evidence"]])}
