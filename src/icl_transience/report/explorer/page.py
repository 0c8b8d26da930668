"""The explorer of a study: {results}/studies/{study}/explorer.html, one file that needs no network.

Its data are made in contents.py; they stand in it once, as JSON, compressed and in base64. Its scripts and its style
are the files beside this one, among them uPlot (uplot.min.js, version 1.6.32, from npm; licence: uplot.LICENSE.txt).
"""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from icl_transience.planning.plan import Plan
from icl_transience.report import captions
from icl_transience.report.explorer import contents
from icl_transience.results import stale, status
from icl_transience.specs.errors import StudyError
from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.store import atomic, checksums, tables_file
from icl_transience.store.layout import CIRCUITS, EXPLORER, VERDICTS

# In the order in which they are read.
_SCRIPTS = (
    *("uplot.min.js", "data.js", "state.js", "lines.js", "panel.js", "curves.js", "plane.js", "heads.js"),
    *("controls.js", "claims.js", "main.js"),
)
_STYLES = ("uplot.min.css", "page.css")
_PAGE = "page.html"
_LICENCE = "uplot.LICENSE.txt"
_MOST_NAMED = 6


def path_of(plan: Plan) -> Path:
    """Return the path of a study's explorer."""
    return Path(plan.paths.study_folder, EXPLORER)


def explore(plan: Plan) -> str:
    """Make the explorer of what is built; return a text that says where it is and what it lacks.

    A file that has the same bytes already keeps its time.

    Raises StudyError where nothing is built, or a table is not as it was written. Nothing is trained for it.
    """
    lanes = list(status.rows(plan))
    notes = {name: _notes(plan, name, lanes) for name in plan.study.experiments if _is_built(plan, name)}
    if not notes:
        raise StudyError(f"nothing of study {plan.study.name} is built yet: `snakemake all explore` builds it first")
    path, shown = path_of(plan), _contents(plan, _absent(plan, lanes), notes)
    atomic.write_text(path, page(shown))
    text = f"explorer: {path}"
    if missing := [name for name in plan.study.experiments if name not in notes]:
        text += f"\nnot in it, for lack of tables: {', '.join(missing)}"
    if others := [name for name in notes if name in shown["absent"]]:
        text += f"\nnot in it, since its tables are of other lanes than the study has now: {', '.join(others)}"
    return text if shown["experiments"] else f"{text}\nso it has no curves"


def page(shown: Mapping[str, Any]) -> str:
    """Return the page as HTML. shown: what it holds."""
    packed = gzip.compress(json.dumps(shown, separators=(",", ":"), ensure_ascii=True).encode(), mtime=0)
    parts = {
        "@TITLE@": escape(f"Study {shown['study']}"),
        "@STYLE@": "\n".join(map(_asset, _STYLES)),
        "@LICENCE@": _asset(_LICENCE),
        "@SCRIPT@": "\n".join(map(_asset, _SCRIPTS)),
        "@DATA@": base64.b64encode(packed).decode(),
    }
    text = _asset(_PAGE)
    for place, part in parts.items():
        text = text.replace(place, part)
    return text


def _asset(name: str) -> str:
    return files("icl_transience.report.explorer").joinpath(name).read_text(encoding="utf-8")


# What it shows, and what it does not.


def _is_built(plan: Plan, name: str) -> bool:
    """Return whether the tables of an experiment are there."""
    folder = Path(plan.paths.experiment_folder(name))
    return all((folder / file).is_file() for file in (*tables_file.TABLES, checksums.CHECKSUMS))


def _absent(plan: Plan, lanes: Sequence[status.Row]) -> dict[str, str]:
    """Return what of the study is not in the page -> why."""
    absent = {}
    for name in (name for name in plan.study.experiments if not _is_built(plan, name)):
        states = [lane.state for lane in lanes if lane.experiment == name]
        done = states.count("done") + states.count("diverged")
        absent[name] = f"{done} of {len(states)} lanes are done, and it has no tables yet"
    absent |= {name: f"left out: {one.reason}" for name, one in plan.study.left_out.items()}
    if plan.study.minimal_model:
        absent[MINIMAL_MODEL] = "computed, not trained: it has no curves of lanes; its figure is in the report"
    return absent


def _notes(plan: Plan, experiment: str, lanes: Sequence[status.Row]) -> tuple[str, ...]:
    """Return what an experiment's tables lack or mix."""
    notes = []
    late = [lane for lane in lanes if lane.experiment == experiment and lane.state not in ("done", "diverged")]
    if late:
        some = "; ".join(f"{lane.run}, seed {lane.seed} ({lane.state})" for lane in late[:_MOST_NAMED])
        more = f" and {len(late) - _MOST_NAMED} more" if len(late) > _MOST_NAMED else ""
        notes.append(f"These tables are older than the study. Unfinished: {some}{more}.")
    if text := stale.difference(plan, experiment):
        notes.append(f"Mind that {text}.")
    return tuple(notes)


def _contents(plan: Plan, absent: Mapping[str, str], notes: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return what the page holds: the tables of each experiment that `notes` names."""
    shown, absent = [], dict(absent)
    for name in notes:
        folder = Path(plan.paths.experiment_folder(name))
        checksums.check_checksums(folder, tables_file.TABLES, move=False)
        tables = tables_file.Tables(*(tables_file.read_csv(folder / file) for file in tables_file.TABLES))
        record = contents.of_tables(plan.records.experiment(name, figures=True), tables)
        if record is None:
            absent[name] = "its tables are of other lanes than the study has now"
            continue
        heads = None
        if plan.study.experiments[name].circuits and (inside := folder / CIRCUITS / "heads.csv").is_file():
            checksums.check_checksums(inside.parent, [inside.name], move=False)
            heads = tables_file.read_csv(inside)
        shown.append(contents.Explored(record=record, tables=tables, heads=heads, notes=notes[name]))
    rows = _verdicts(Path(plan.paths.study_folder, VERDICTS))
    claims = [
        claim | {"html": captions.claim_in_html(rows[claim["experiment"], claim["name"]])}
        for claim in contents.claims(plan.records.claims(), rows)
    ]
    return contents.study(plan.study.name, plan.study.description or "", shown, claims, absent)


def _verdicts(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Return (experiment, claim) -> row of verdicts.csv; empty where the study has none."""
    found = captions.read_verdicts(path)
    return {(row["experiment"], row["claim"]): row for rows in found.values() for row in rows}
