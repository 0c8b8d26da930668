"""What the report says in words: questions, what came out, claims and their verdicts, how all of it was made.

The captions in workflow/report/ ask for these when a report is made, so another word or verdict draws nothing again.
Each is reStructuredText with nothing but HTML in it, or nothing; in it every text of a study's is text and no markup,
since reStructuredText could read files and HTML run scripts.
"""

import csv
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from icl_transience.planning.plan import Plan
from icl_transience.report import pictures
from icl_transience.results import provenance, stale, status
from icl_transience.specs.errors import StudyError
from icl_transience.specs.experiment import QUANTITIES
from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.store import checksums
from icl_transience.store.layout import EXPLORER

# More runs than that are better read as a table.
_MOST_SENTENCES = 12
_MOST_ROWS = 200
# What is said of a row of verdicts.csv.
_OF_A_CLAIM = (
    *("experiment", "text", "source", "tested", "statistic", "effect_of", "effect", "lower", "upper"),
    *("confidence", "evidence", "e_for", "e_against", "p_holm", "p_against_holm", "verdict", "seeds", "note"),
)
# docutils takes none of more than 10,000 characters.
_LONGEST_LINE = 5000


def built(plan: Plan) -> list[str]:
    """Return the experiments all of whose tables and figures are there, be they up to date or not."""
    return [
        name for name in plan.study.experiments if all(Path(path).exists() for path in plan.targets.experiment(name))
    ]


class Captions(dict):
    """Words on a plan's study, as its files say it at the time of asking.

    An empty mapping otherwise: it stands in Snakemake's configuration, of which JSON must know how to write all.
    """

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan

    def question(self, experiment: str) -> str:
        """Return the question of an experiment."""
        question = self.plan.study.experiments[experiment].question
        return _html(f"<p><strong>{escape(question)}</strong></p>") if question else ""

    def findings(self, experiment: str) -> str:
        """Return what came of each run, and of each claim."""
        return _html(self._findings(experiment) + self._code(experiment) + self._claims(experiment))

    def claims(self, experiment: str) -> str:
        """Return the claims of an experiment and their verdicts."""
        return _html(self._claims(experiment))

    def all_claims(self) -> str:
        """Return the claims of all experiments and their verdicts."""
        return _html("".join(f"<h4>{escape(name)}</h4>{self._claims(name)}" for name in self._verdicts))

    def table(self, experiment: str, name: str) -> str:
        """Return the columns that matter of transience.csv or runs.csv."""
        # As in _findings.
        from icl_transience.analysis import words

        folder = Path(self.plan.paths.experiment_folder(experiment))
        checksums.check_checksums(folder, [name], move=False)
        rows = [dict(_cells(row)) for row in (words.runs_of if name == "runs.csv" else words.lanes_of)(folder)]
        more = f"<p>… and {len(rows) - _MOST_ROWS:,} rows more in the file.</p>" if len(rows) > _MOST_ROWS else ""
        return _html(_table(rows[0], (row.values() for row in rows[:_MOST_ROWS])) + more)

    def overview(self) -> str:
        """Return the first page: experiments with their questions and answers; study, versions, machine, times."""
        study = self.plan.study
        parts = [f"<h1>Study {escape(study.name)}</h1>"]
        if study.description:
            parts.append(f"<p>{escape(study.description)}</p>")
        if Path(self.plan.paths.study_folder, EXPLORER).is_file():
            parts.append(
                f'<p><a href="{EXPLORER}">The explorer</a>: every curve, to choose from and to read values.</p>'
            )
        parts += [self._experiment(name) for name in study.experiments]
        if self.plan.targets.is_minimal_model_finished():
            link = f"<a href=\"javascript:app.showCategory('{MINIMAL_MODEL}')\">{MINIMAL_MODEL}</a>"
            parts.append(f"<h2>{link}</h2>{self._minimal_model()}")
        parts += [f"<h2>{name}</h2><p>Left out: {escape(one.reason)}</p>" for name, one in study.left_out.items()]
        parts.append("<h2>How it was made</h2>" + self._made())
        asked = self.plan.study_path.read_text(encoding="utf-8")
        parts.append(f"<h2>What was asked for</h2><pre>{escape(asked)}</pre>")
        parts += [f"<p>It extends {base.name}:</p><pre>{escape(base.text)}</pre>" for base in study.bases]
        return _html("\n".join(parts))

    def minimal_model(self) -> str:
        """Return what came of each variant of the minimal model."""
        return _html(self._minimal_model())

    def _minimal_model(self) -> str:
        from icl_transience.store import tables_file
        from icl_transience.theory import minimal_model_tables

        folder = Path(self.plan.paths.experiment_folder(MINIMAL_MODEL))
        _, seeds = tables_file.read_minimal_model(folder, move=False)
        said = minimal_model_tables.sentences(seeds).items()
        items = "".join(f"<li><strong>{escape(name)}</strong>: {escape(text)}</li>" for name, text in said)
        return f"<ul>{items}</ul>"

    def _experiment(self, name: str) -> str:
        question = f"<p><em>{escape(self.plan.study.experiments[name].question)}</em></p>"
        states = self._states[name]
        done, lanes = states["done"] + states["diverged"], states.total()
        if name not in built(self.plan):
            return f"<h2>{name}</h2>{question}<p>Not in this report: {done} of {lanes} lanes are done.</p>"
        # The first figure of an experiment says most of it.
        figure, names = next(iter(self.plan.targets.figures(name).items()))
        files = [Path(self.plan.paths.experiment_folder(name), file) for file in names]
        link = f'<h2><a href="{escape(pictures.opens(files[0], name))}">{name}</a></h2>'
        old = f"<p>Out of date: {lanes - done} of {lanes} lanes are not in it yet.</p>" if done < lanes else ""
        said = question + self._findings(name) + self._code(name) + self._claims(name) + old
        beside = pictures.picture(files, name, f"{name}, {figure}")
        return f'{link}<div class="beside"><div>{said}</div>{beside}</div>'

    @cached_property
    def _states(self) -> dict[str, Counter]:
        """Return experiment -> how many of its lanes are in which state."""
        states = {name: Counter() for name in self.plan.study.experiments}
        for row in status.rows(self.plan):
            states[row.experiment][row.state] += 1
        return states

    def _findings(self, experiment: str) -> str:
        # Here and not above: the Snakefile imports this module, and parsing need not wait for pandas.
        from icl_transience.analysis import words
        from icl_transience.store import tables_file

        folder = Path(self.plan.paths.experiment_folder(experiment))
        checksums.check_checksums(folder, tables_file.TABLES, move=False)
        runs, ends = words.runs_of(folder), words.last_points(folder)
        said = [
            f"<li><strong>{escape(row['run'])}</strong>: {escape(words.run_in_words(row, *ends[row['run']]))}</li>"
            for row in runs[:_MOST_SENTENCES]
        ]
        if len(runs) > _MOST_SENTENCES:
            counts = Counter(row["outcome"] for row in runs)
            outcomes = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
            said.append(f"<li>… and so on, in the table of runs; of all {len(runs)}: {outcomes}</li>")
        return f"<ul>{''.join(said)}</ul>"

    def _code(self, experiment: str) -> str:
        """Say that lanes were trained by different code, where they were."""
        text = stale.difference(self.plan, experiment)
        return f"<p><strong>Mind</strong> that {escape(text)}.</p>" if text else ""

    def _claims(self, experiment: str) -> str:
        said = [claim_in_html(row) for row in self._verdicts.get(experiment, ())]
        return f"<p><strong>Claims.</strong></p><ul>{''.join(said)}</ul>" if said else ""

    @cached_property
    def _verdicts(self) -> dict[str, list[dict[str, str]]]:
        """Return experiment -> its rows of verdicts.csv; empty where the study has none."""
        return read_verdicts(Path(self.plan.paths.study_folder, "verdicts.csv"))

    def _made(self) -> str:
        entry = provenance.known(self.plan)
        if not entry:
            return "<p>provenance.json does not know this study yet: the next run of snakemake writes it.</p>"
        rows = [(escape(name), escape(value)) for name, value in _made(entry)]
        return _table(("", ""), rows)


def _html(text: str) -> str:
    """Return HTML as reStructuredText. All that is indented is the directive's, so no text in it can begin another."""
    lines = [
        part
        for line in text.splitlines()
        for part in textwrap.wrap(line, _LONGEST_LINE, replace_whitespace=False) or [""]
    ]
    return ".. raw:: html\n\n" + "".join(f"   {line}\n" for line in lines) if lines else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of cells, which are HTML."""
    columns = "".join(f"<th>{name}</th>" for name in head)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"


def read_verdicts(path: Path) -> dict[str, list[dict[str, str]]]:
    """Return experiment -> its rows of verdicts.csv; empty where there is none. Raises StudyError where it is older."""
    found: dict[str, list[dict[str, str]]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if missing := [name for name in _OF_A_CLAIM if name not in (table.fieldnames or ())]:
                raise StudyError(f"{path}: lacks {', '.join(missing)}: delete it, and snakemake writes it again")
            for row in table:
                found.setdefault(row["experiment"], []).append(row)
    return found


def claim_in_html(row: Mapping[str, str]) -> str:
    """Return a row of verdicts.csv as an item of a list, in HTML."""
    source = f" ({escape(row['source'])})" if row["source"] else ""
    parts = [f"<strong>{row['verdict']}</strong>: {escape(row['text'])}{source}"]
    parts.append(f"tested: {escape(row['tested'])}")
    if row["effect"] or row["confidence"]:
        effect = _plain(row["effect"]) if row["effect"] else "only bounded"
        least = f"least for it, {escape(row['effect_of'])}: " if row["effect_of"] != row["tested"] else ""
        parts.append(f"{least}effect {effect}{_confidence(row)} ({escape(row['statistic'])})")
    if row["p_holm"]:
        parts.append(_p(row) + f" after Holm's correction, seeds: {row['seeds']}")
    return f"<li>{'; '.join(parts + [escape(row['note'])] * bool(row['note']))}</li>"


def _p(row: Mapping[str, str]) -> str:
    """Return what decides a claim: p, and the evidence behind it; where more is against it, the p of the opposite."""
    if row["evidence"] == "fixed":
        return f"p = {float(row['p_holm']):.2g}"
    e_for, e_against = float(row["e_for"]), float(row["e_against"])
    opposite = e_against > e_for
    p = float(row["p_against_holm" if opposite else "p_holm"])
    return f"evidence {e_for:.3g} for it, {e_against:.3g} against: p = {p:.2g}{' of the opposite' * opposite}"


def _confidence(row: Mapping[str, str]) -> str:
    if not row["confidence"]:
        return ""
    return f", {float(row['confidence']):.1%} interval {_plain(row['lower'])} to {_plain(row['upper'])}"


def _cells(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (head, HTML) of those cells of a row of transience.csv or runs.csv that a page has room for."""
    from icl_transience.analysis import words

    for name in ("run", "seed" if "seed" in row else "seeds", "outcome"):
        yield name, escape(str(row[name]))
    for name in QUANTITIES:
        yield {"peak_at": "peak at", "half_life": "half-life"}.get(name, name), words.quantity_in_words(row, name)


def _plain(number: str) -> str:
    """Format with two decimals, or two digits where those are further behind the point."""
    value = float(number)
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def _made(entry: provenance.Entry) -> Iterator[tuple[str, str]]:
    """Yield (what, how) of an entry of provenance.json."""
    machine, versions, git = entry["machine"], entry["versions"], entry["git"]
    packs = entry["packs"].values()
    segments = [segment for pack in packs for segment in pack["segments"].values()]
    yield "when", f"{entry['date']} (the last change)"
    yield "software", ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if git:
        yield "commit", git["commit"] + (" and changes beyond it" if git["dirty"] else "")
    room = [f"{machine['cores']} cores", f"{machine['memory_mb']:,} MB"]
    yield "machine", ", ".join([machine["cpu"], *room, *machine["gpus"], machine["platform"]])
    yield "trained with", "; ".join(sorted({segment["with"] for segment in segments if segment.get("with")})) or "–"
    lanes, trained = sum(len(pack["lanes"]) for pack in packs), sum(pack["seconds"] for pack in packs)
    on_gpu, evaluated = (sum(pack[f"{kind}_seconds"] for pack in packs) for kind in ("gpu", "evaluation"))
    gpu = f", of which {_duration(on_gpu)} on GPUs" if on_gpu else ""
    yield "training", f"{lanes} lanes in {len(packs)} packs, {len(segments)} segments: {_duration(trained)}{gpu}"
    yield "evaluation", _duration(evaluated)
    if inside := sum(pack.get("circuits_seconds", 0) for pack in packs):
        yield "inside the models", _duration(inside)


def _duration(seconds: float) -> str:
    """Format a duration summed over jobs, however many ran side by side."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"
