"""One file with all that a finished study says: {results}/archives/{study}.tar.gz.

{study}/README.md            what is in it, and how to draw its figures again
{study}/experiments/{name}/  tables, figures, experiment.json (what they are drawn with besides the tables)
                              and in circuits/ what is inside its models
{study}/verdicts.csv         how the study's claims stand, if it makes any; evidence.*: how they came to stand so
{study}/banks/{bank}.*       quality cards, and the little of each bank that its card is drawn from
{study}/explorer.html        every curve in a page to choose from; report.html (if Snakemake can make it): all figures
{study}/study.yaml, bases/ (what it extends), config.json, provenance.json
{study}/src, envs            the library that made it, and the versions it was tested with
{study}/SHA256SUMS           of every other file
Members are sorted, and their times and owners fixed: equal results give equal bytes.
"""

import gzip
import hashlib
import importlib.resources
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from icl_transience.banks.bank import contact_sheet
from icl_transience.planning.plan import Plan
from icl_transience.report import page as report_page
from icl_transience.report.explorer import page as explorer
from icl_transience.report.page import path_of, unfinished
from icl_transience.results import provenance
from icl_transience.specs.banks import BankSpec
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import from_values
from icl_transience.specs.records import experiment_from, minimal_model_from
from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.store import atomic, hdf5, layout
from icl_transience.store.layout import EXPLORER

# 1980-01-01, the first day that zip knows too.
_TIME = 315532800
# Of the library: code, and what the explorer is put together from.
_SOURCES = (".py", ".cpp", ".js", ".css", ".html", ".txt")
_README = """# Study {study}

Made by icl-transience {version} ({date}); provenance.json says from what, with which versions and on which machine.

| path | what it is |
|---|---|
| `experiments/{{name}}/` | `curves.csv` (tidy), `transience.csv` (a row a lane), `runs.csv` (a row a run), figures |
| `minimal_model/` | losses and figure of the minimal model of coopetition, if the study has it |
| `verdicts.csv` | how the study's claims stand, a row a claim, if it makes any |
| `evidence.csv` | the evidence for and against them after every seed; `evidence.svg`, `.png`: the figure |
| `banks/{{bank}}.svg`, `.png` | quality cards; `.card.h5`: what they are drawn from |
| `explorer.html` | every curve, to choose from and to read values; opens by a double click, without a network |
| `report.html` | all figures in one page |
| `study.yaml`, `bases/`, `config.json` | what was asked for, what it extends, and how it was executed |
| `src/`, `envs/` | the library that made it, and the versions of what it needs |
| `SHA256SUMS` | `sha256sum -c SHA256SUMS` checks every file |

All figures can be drawn again from these files alone, in an environment of `envs/requirements.txt`:

```
PYTHONPATH=src python -m icl_transience redraw --archive . --folder redrawn
```
"""


def write_archive(plan: Plan, snakefile: Path) -> Path:
    """Write the archive of the plan's study and return its path.

    Raises StudyError where Snakemake would still make something of the study.
    """
    refuse_unfinished(plan, snakefile)
    path = Path(plan.paths.root, "archives", f"{plan.study.name}.tar.gz")
    with tempfile.TemporaryDirectory() as scratch:
        members = dict(_members(plan, snakefile, Path(scratch)))
        members["SHA256SUMS"] = "".join(
            f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(members.items())
        ).encode()
        atomic.write(path, lambda temporary: _write_tar(temporary, plan.study.name, members))
    return path


def _write_tar(path: Path, top: str, members: dict[str, bytes]) -> None:
    with (
        path.open("wb") as raw,
        # Without a name and a time in gzip's own header.
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in sorted(members.items()):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime, member.mode = len(content), _TIME, 0o644
            tar.addfile(member, io.BytesIO(content))


def refuse_unfinished(plan: Plan, snakefile: Path) -> None:
    """Raise StudyError where a dry run of `all` finds anything to do."""
    if jobs := unfinished(plan, snakefile):
        raise StudyError(
            f"study {plan.study.name} is not finished ({jobs}): `snakemake all archive` finishes and archives it"
        )


# What is in it.


def _members(plan: Plan, snakefile: Path, scratch: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every file but the list of checksums."""
    entry = provenance.last(plan)
    yield "provenance.json", _json(entry)
    yield "config.json", _json(plan.config)
    yield layout.ARCHIVED_STUDY, plan.study_path.read_bytes()
    for base in plan.study.bases:
        yield base.name, base.path.read_bytes()
    yield (
        "README.md",
        _README.format(
            study=plan.study.name, version=entry["versions"]["icl-transience"] or "", date=entry["date"]
        ).encode(),
    )
    for name in plan.study.experiments:
        for path in map(Path, [plan.paths.experiment(name), *plan.targets.experiment(name)]):
            if not path.name.startswith("."):
                inside = path.relative_to(plan.paths.experiment_folder(name))
                yield f"experiments/{name}/{inside.as_posix()}", path.read_bytes()
    of_model = [plan.paths.minimal_model, *plan.targets.minimal_model()] if plan.study.minimal_model else []
    for path in map(Path, of_model):
        if not path.name.startswith("."):
            yield f"{MINIMAL_MODEL}/{path.name}", path.read_bytes()
    of_claims = map(Path, plan.targets.verdicts() + plan.targets.evidence())
    for path in (path for path in of_claims if path.suffix):
        yield path.name, path.read_bytes()
    for bank_id in plan.banks:
        for path in (path for path in map(Path, plan.targets.cards()) if path.stem == bank_id):
            yield f"banks/{path.name}", path.read_bytes()
        shown = scratch / f"{bank_id}.card.h5"
        words = write_card_data(Path(plan.paths.bank(bank_id)), plan.sources.vocabulary(bank_id), shown)
        yield f"banks/{shown.name}", shown.read_bytes()
        if words is not None:
            yield f"banks/{bank_id}.words.json", _words(words)
    explorer.explore(plan)
    yield EXPLORER, explorer.path_of(plan).read_bytes()
    if page := _page(plan, snakefile):
        yield "report.html", page.read_bytes()
    yield from _sources(plan)


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _words(words: list[dict]) -> bytes:
    """Return words as a tokenizer's; escaped, as UTF-8 cannot write those that are halves of characters."""
    return (json.dumps({"added_tokens": words}, indent=1, sort_keys=True) + "\n").encode()


def _sources(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """Yield the library as it is installed, and what the workflow says about its environment."""
    package = Path(str(importlib.resources.files("icl_transience")))
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix in _SOURCES:
            yield f"src/icl_transience/{path.relative_to(package).as_posix()}", path.read_bytes()
    for path in sorted((plan.base / "envs").glob("*")):
        if path.is_file():
            yield f"envs/{path.name}", path.read_bytes()
    for name in ("LICENSE", "pyproject.toml"):
        if (plan.base / name).is_file():
            yield name, (plan.base / name).read_bytes()


def _page(plan: Plan, snakefile: Path) -> Path | None:
    """Return the study's page, which has the time of its making in it: made again only where a result is newer.

    None, with the reason on the terminal, where Snakemake cannot make it.
    """
    path = path_of(plan)
    newest = max(Path(target).stat().st_mtime for target in plan.targets.all())
    if not path.is_file() or path.stat().st_mtime < newest:
        try:
            report_page.write_page(plan, snakefile)
        except StudyError as error:
            print(f"archive: goes without report.html: {error}", file=sys.stderr)
            return None
    return path


def write_card_data(bank: Path, vocabulary: str | None, path: Path) -> list[dict] | None:
    """Copy to `path` what the card of `bank` is drawn from; return the words on it as a tokenizer's, if any.

    The embeddings keep their shape, but only what is on the contact sheet has values; the rest takes no space.
    """
    with hdf5.reading(bank, "bank") as full, h5py.File(path, "w", libver=("v110", "v110")) as file:
        for key in sorted(full.attrs):
            file.attrs[key] = full.attrs[key]
        full.copy("quality", file)
        classes, exemplars = contact_sheet(from_values(BankSpec, json.loads(str(full.attrs["spec"]))).shape)
        if "contact" in full:
            file["contact"] = hdf5.array(full, "contact")
        elif "exemplars/token" in full:
            _copy_part(full, file, "exemplars/token", classes, exemplars)
        else:
            _copy_part(full, file, "embeddings", classes, exemplars)
        file.attrs["checksum"] = hdf5.checksum(file)
        if "contact" in full or "exemplars/token" not in full or not vocabulary:
            return None
        from icl_transience.report.figures.bank_card import words_of_rows

        shown = hdf5.array(full, "exemplars/token")[np.ix_(classes, exemplars)].ravel().tolist()
        words = words_of_rows(Path(vocabulary))
        return [{"id": row, "content": words[row]} for row in sorted(shown) if row in words] or None


def _copy_part(full: h5py.File, file: h5py.File, name: str, classes: np.ndarray, exemplars: np.ndarray) -> None:
    """Copy the values of some classes and exemplars."""
    values = hdf5.dataset(full, name)
    chunk = (1, len(exemplars), *values.shape[2:])
    part = file.create_dataset(name, values.shape, values.dtype, chunks=chunk)
    for number in classes:
        part[number, : len(exemplars)] = values[number, : len(exemplars)]


# And back.


def redraw(archive: Path, output: Path) -> list[Path]:
    """Draw every figure of an extracted archive into `output`, under the names that they have in it."""
    from icl_transience.report.figures import bank_card, evidence
    from icl_transience.report.figures.circuits import draw_circuits
    from icl_transience.report.figures.experiment import draw_experiment
    from icl_transience.report.figures.minimal_model import draw_from_tables
    from icl_transience.store import tables_file

    drawn = []
    for folder in sorted(path.parent for path in archive.glob("experiments/*/experiment.json")):
        record = experiment_from(json.loads((folder / "experiment.json").read_text(encoding="utf-8")))
        tables, target = tables_file.read_tables(folder), output / folder.relative_to(archive)
        drawn += draw_experiment(record, tables, target)
        if record.circuits_figures:
            inside = tables_file.read_circuits_tables(folder)
            drawn += draw_circuits(record, tables, inside, target / layout.CIRCUITS)
    if drawn and (archive / tables_file.EVIDENCE).is_file():
        drawn.append(evidence.draw_from_tables(record.study, archive, output))
    if (written := archive / MINIMAL_MODEL / f"{MINIMAL_MODEL}.json").is_file():
        model = minimal_model_from(json.loads(written.read_text(encoding="utf-8")))
        folders = (archive / MINIMAL_MODEL, archive / "experiments", output / MINIMAL_MODEL)
        drawn.append(draw_from_tables(model, *folders))
    for data in sorted(archive.glob("banks/*.card.h5")):
        target = output / "banks" / data.name.replace(".card.h5", ".svg")
        words = data.with_name(data.name.replace(".card.h5", ".words.json"))
        bank_card.draw_bank_card(data, words if words.is_file() else None, target, target.with_suffix(".png"))
        drawn.append(target)
    if not drawn:
        raise StudyError(f"{archive}: no archive of a study: name the folder that has experiments/ and banks/ in it")
    return drawn
