"""The page docs/results.md and the README's table of claims: what the studies show, from docs/data alone.

No number on them is typed: `recorded.record` takes tables and figures from a study's results to docs/data and
docs/images, and this writes them as Markdown, in the words of analysis/words.py and analysis/verdicts.py. What we make
of a verdict is written by hand, see remarks.py.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_transience.analysis import acquisition, forecast, verdicts, words
from icl_transience.planning.plan import Plan, study_files
from icl_transience.report import on_record, recorded
from icl_transience.report.on_record import DATA, IMAGES, THRESHOLD
from icl_transience.specs.errors import StudyError
from icl_transience.specs.experiment import QUANTITIES
from icl_transience.store import atomic, tables_file
from icl_transience.store.layout import FORECAST
from icl_transience.system.formatting import format_count, format_duration, format_number_of

PAGE = "results.md"
BEGIN, END = "<!-- claims: snakemake results_page -->", "<!-- end of claims -->"
# More runs than that are better read as a table.
_MOST_SENTENCES = 8
_VERDICTS = ("supported", "contradicted", "both", "undecided", verdicts.NOT_YET)
# What the name of a study ends in that asks another's claims again, of another bank, other models and horizons.
_REPLICATED = "_replicated"
# Studies whose claims stand first, and whose figure of the evidence the README shows.
_FIRST = ("claims", f"claims{_REPLICATED}")
_HEAD = """# What the studies show

Written by `snakemake results_page` from `docs/data`, which that command takes from a study's results. By hand, and
after the verdict, are only the sentences after *Remark* ([all of them](data/remarks.yaml)). Every number is that of the
tables and of the report: levels are means over seeds, times are medians, and [files and tables](tables.md) defines
them. A peak is that of the smoothed curve, an end is the last snapshot as it was measured: it may lie above the peak.
What else claims are of stands last: `index` and `emergence` with their intervals, levels as `final_iwl` as means over
the lanes that have a value. A claim is decided by [evidence](claims.md) over seeds; *undecided* is not *refuted*, and a
claim of several parts may be *contradicted* for one of them alone.

p is corrected for all claims of a study (Holm), and is that of the opposite where there is more evidence against a
claim than for it. An effect is the median over the seeds that have it; its interval is of that claim or part alone, not
corrected, so that it may leave out what the verdict leaves open. There is none where few seeds have a value, or where
they went first one way and then the other. *Others* are seeds without a value, with one that goes neither way, or with
times of which too little is known. Tau is Kendall's, of a seed: 1 where each pair of levels rises along the axis, -1
where each falls. "About 4 more seeds" is for seeds that go on as they did.

Times are those of the jobs, one after another, on a machine that may have had other work; jobs run beside each other.
A lane that experiments share counts in each of them, and once in a study's lanes; in its time once, too, with the first
of them, unless it was trained again for another.
"""


def write_pages(base: Path) -> list[Path]:
    """Write docs/results.md and the README's table below `base`, a checkout of the repository; return both files.

    Raises StudyError where they are not there, or something kept is not as it was recorded; then neither is written.
    """
    page, readme, text = _pages(base)
    texts = page_of(base), readme_of(base, text)
    for path, written in zip((page, readme), texts, strict=True):
        atomic.write_text(path, written)
    return [page, readme]


def record(plan: Plan, base: Path) -> Path:
    """Record the plan's study in a checkout, see `recorded.record`, if pages could be written from it.

    Raises StudyError, before anything is written, where they could not, or the study is none that ships.
    """
    _pages(base)
    shipped = base / "workflow/studies" / f"{plan.study.name}.yaml"
    if plan.study_path.resolve() != shipped.resolve():
        raise StudyError(
            f"{plan.study_path}: results are recorded of studies that ship alone, and {shipped} is not this file: move "
            "it there, under a name of its own"
        )
    return recorded.record(plan, base / "docs")


def _pages(base: Path) -> tuple[Path, Path, str]:
    """Return the page and the README, and what stands in the latter."""
    page, readme = base / "docs" / PAGE, base / "README.md"
    if missing := [str(path) for path in (page, readme) if not path.is_file()]:
        raise StudyError(f"{', '.join(missing)}: not there: results are recorded in a checkout of the repository")
    text = readme.read_text(encoding="utf-8")
    if not (0 <= text.find(BEGIN) < text.find(END)):
        raise StudyError(f"{readme}: has no lines {BEGIN} and {END}, between which the table of claims stands")
    return page, readme, text


def page_of(base: Path) -> str:
    """Return the text of docs/results.md."""
    studies = _recorded(base)
    parts = [_HEAD, "\n".join(_overview(studies))]
    parts += ["\n".join(_study(study, base / "docs")) for study in studies]
    names = {study["study"] for study in studies}
    if missing := [path.stem for path in study_files(base) if path.stem not in names]:
        links = ", ".join(f"[`{name}`](../workflow/studies/{name}.yaml)" for name in missing)
        parts.append(f"## Not recorded\n\nNo results are kept here of {links}.\n")
    return "\n".join(parts)


def readme_of(base: Path, text: str) -> str:
    """Return the README's text with the claims between its markers as docs/data has them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n" + "\n".join(_claims_of_all(base)) + f"\n{end}{after}"


def _recorded(base: Path) -> list[dict[str, Any]]:
    """Return what is kept of each study, those of claims first."""

    def place(study: Mapping[str, Any]) -> tuple[bool, bool, str]:
        return study["study"] not in _FIRST, not study["claims"], study["study"]

    return sorted(on_record.read(base), key=place)


# The README.


def _claims_of_all(base: Path) -> Iterator[str]:
    studies = [study for study in _recorded(base) if study["claims"]]
    if not studies:
        yield f"No verdicts are recorded yet; [what the studies show](docs/{PAGE}) has what is."
        return
    # A study that asks the same of another bank has no rows of its own: its verdicts stand beside those of the first.
    asked = {
        (study["study"], row["experiment"], row["claim"], row["text"]): row
        for study in studies
        for row in study["claims"]
    }
    theirs = {key: (f"{key[0]}{_REPLICATED}", *key[1:]) for key in asked}
    theirs = {key: other for key, other in theirs.items() if other in asked}
    own = {key: row for key, row in asked.items() if key not in theirs.values()}
    again = [asked[other] for other in theirs.values()]
    count = _counted(list(own.values()))
    said = f"{count[0].upper()}{count[1:]}, each in a study of minutes to hours on two cores ([how](docs/{PAGE}))."
    if again:
        said += f" Asked again of another bank, with other models and horizons: {_counted(again).partition(': ')[2]}."
    yield said
    yield (
        "[Evidence](docs/claims.md) is 1 before the first seed, and grows with each that goes the way claimed; 20 "
        "decides a claim that stands alone. In a study with others, p after Holm's correction for all of them must be "
        "0.05 at most: each study errs by itself. A claim of several parts may be contradicted for one of them alone."
    )
    yield ""
    head = ["study", "experiment", "claim", "verdict", "evidence", "p", "seeds", *["on another bank"] * bool(again)]
    rows = []
    for key, row in own.items():
        study, other = key[0], theirs.get(key)
        found = _verdict(study, row), _evidence(row), verdicts.p_in_words(row) if row["seeds"] else "", row["seeds"]
        beside = [_again(other[0], asked[other]) if other else ""] * bool(again)
        rows.append([f"[`{study}`](docs/{PAGE}#{study})", row["experiment"], _text(row["text"]), *found, *beside])
    yield from _table(head, rows)
    name, file = studies[0]["study"], studies[0]["evidence"]
    if file:
        yield f"\n![The evidence for and against each claim of `{name}`, seed by seed](docs/{IMAGES}/{file})"


def _again(study: str, row: Mapping[str, Any]) -> str:
    """Return what the study found that asks the same of another bank."""
    return _verdict(study, row) + (f"; p {verdicts.p_in_words(row)}; {row['seeds']} seeds" if row["seeds"] else "")


def _evidence(row: Mapping[str, Any]) -> str:
    """Return what decides a claim, in few words."""
    if not row["seeds"]:
        return "none"
    return "fixed-sample test" if row["evidence"] == "fixed" else verdicts.evidence_in_words(row)


def _verdict(study: str, row: Mapping[str, Any]) -> str:
    """Return the verdict as a link to where it stands, and whether there is a remark on it."""
    return f"[{row['verdict']}](docs/{PAGE}#{_anchor(study, row)})" + ", with a remark" * bool(row["remark"])


def _anchor(study: str, row: Mapping[str, Any]) -> str:
    """Return the name by which a claim is linked to on the page."""
    return f"{study}-{row['experiment']}-{row['claim']}"


# The page.


def _overview(studies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for study in studies:
        experiments = study["experiments"]
        rows.append(
            (
                f"[`{study['study']}`](#{study['study']})",
                _counted(study["claims"]) if study["claims"] else "no claims",
                f"{len(experiments) - len(_not_yet(study))} of {len(experiments)}",
                f"{study['done']} of {study['lanes']}",
                format_duration(sum(study["seconds"].values())),
            )
        )
    yield from _table(("study", "claims", "experiments", "lanes done", "time"), rows)
    yield ""


def _not_yet(study: Mapping[str, Any]) -> list[str]:
    """Return the experiments of a study that have no tables yet."""
    return [name for name, one in study["experiments"].items() if not one["ends"]]


def _counted(claims: Sequence[Mapping[str, Any]]) -> str:
    found = Counter(row["verdict"] for row in claims)
    said = ", ".join(f"{found[verdict]} {verdict}" for verdict in _VERDICTS if found[verdict])
    return f"{format_number_of(len(claims), 'claim')}: {said}"


def _study(study: Mapping[str, Any], docs: Path) -> Iterator[str]:
    name = study["study"]
    yield f"## {name}\n"
    yield f"{_text(' '.join(study['description'].split()))}\n"
    yield f"{_made(study)} [The study](../workflow/studies/{name}.yaml).\n"
    if not_yet := _not_yet(study):
        n = len(study["experiments"])
        yield f"**{n - len(not_yet)} of {format_number_of(n, 'experiment')} so far**; not yet: {', '.join(not_yet)}.\n"
    if study["left_out"]:
        yield f"Left out, as the files of its source were not at hand: {', '.join(study['left_out'])}.\n"
    for experiment, one in study["experiments"].items():
        yield from _experiment(study, experiment, one, docs)
    if study["evidence"]:
        yield f"![Study {name}: the evidence for and against each claim, seed by seed]({IMAGES}/{study['evidence']})\n"


def _made(study: Mapping[str, Any]) -> str:
    spent = [f"{kind} {format_duration(seconds)}" for kind, seconds in study["seconds"].items() if seconds]
    with_what = ", ".join(f"{name} {version}" for name, version in study["versions"].items())
    machine = ", ".join([format_number_of(study["cores"], "core"), *study["gpus"]])
    commits = dict.fromkeys(one.get("commit") for one in study["experiments"].values())
    known = ", ".join(commit for commit in commits if commit)
    code = f"; last run at commit {known}" + ", some of it at others" * (None in commits) if known else ""
    return f"Jobs took: {', '.join(spent)}; {machine}; {study['date']}; {with_what}{code}."


def _experiment(study: Mapping[str, Any], name: str, one: Mapping[str, Any], docs: Path) -> Iterator[str]:
    yield f"### {name}" + (f": {_text(one['question'])}" if one["question"] else "") + "\n"
    runs, seeds, lanes = (format_number_of(number, noun) for number, noun in _sizes(one))
    yield (
        f"{runs}, {seeds} each: {lanes} to {format_count(one['horizon'])} sequences seen; "
        f"jobs took {format_duration(sum(one['seconds'].values()))}{_without_shared(one)}.\n"
    )
    if one["done"] < one["lanes"]:
        left = f"**Not finished:** {one['lanes'] - one['done']} of {lanes} are left out"
        yield f"{left}.\n" if one["ends"] else f"{left}, so that there are no tables yet.\n"
    if one["ends"] and len(one["seeds_in_tables"]) < len(one["seeds"]):
        yield f"Figure and numbers are of {len(one['seeds_in_tables'])} of {seeds}.\n"
    if figure := one["figure"]:
        shown = f"Study {study['study']}, experiment {name}: {figure['name']}"
        yield f"![{shown}]({IMAGES}/{figure['file']})\n"
    claims = [row for row in study["claims"] if row["experiment"] == name]
    yield from _claims(study["study"], claims)
    if one["ends"]:
        folder = docs / DATA / study["study"] / name
        yield from _threshold(folder, one)
        yield from _forecast(folder)
        yield from _runs(folder, one["ends"], claims)


def _without_shared(one: Mapping[str, Any]) -> str:
    """Return how much of an experiment's time an earlier one has not counted yet; "" where that is all of it."""
    own = one["own_seconds"]
    if own == one["seconds"]:
        return ""
    if not any(own.values()):
        return ", all of it for lanes that another experiment has, too"
    return f", {format_duration(sum(own.values()))} without lanes that another experiment has, too"


def _threshold(folder: Path, one: Mapping[str, Any]) -> Iterator[str]:
    """Yield from which level on in-context learning is acquired, where that was asked."""
    if (folder / THRESHOLD).is_file():
        table = tables_file.read_csv(folder / THRESHOLD)
        first, *of_levels = acquisition.in_words(table, str(table.columns[0]), one["confidence"])
        yield f"{first[0].upper()}{first[1:]}:\n"
        yield from (f"- {said}" for said in of_levels)
        yield ""


def _forecast(folder: Path) -> Iterator[str]:
    """Yield whether the copier's weight forecasts flip, where that was asked."""
    if (folder / FORECAST).is_file():
        yield from (f"- {said}." for said in forecast.in_words(tables_file.read_csv(folder / FORECAST)))
        yield ""


def _sizes(one: Mapping[str, Any]) -> list[tuple[int, str]]:
    return [(one["runs"], "run"), (len(one["seeds"]), "seed"), (one["lanes"], "lane")]


def _claims(study: str, claims: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    said = set[str]()
    for row in claims:
        source = f" ({_text(row['source'])})" if isinstance(row["source"], str) and row["source"] else ""
        place = f'<a id="{_anchor(study, row)}"></a>'
        yield f"- {place}**{row['verdict'].capitalize()}**: {_text(row['text'])}{source}."
        if row["verdict"] != verdicts.NOT_YET:
            tested, found, note = (_text(part) for part in verdicts.tested_and_found(row))
            yield f"    - Tested: {tested}."
            yield f"    - Found: {found}." + (f" {note[0].upper()}{note[1:]}." if note else "")
        if row["remark"]:
            yield "    - *Remark:* " + ("as above." if row["remark"] in said else _text(row["remark"]))
            said.add(row["remark"])
    if claims:
        yield ""


def _runs(folder: Path, ends: Mapping[str, Sequence[float]], claims: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what came of each run: a sentence, or a row of a table where there are many; what claims are of, too."""
    rows = words.runs_of(folder)
    asked = _asked(claims)
    of_evaluator = {*QUANTITIES, *(f"final_{row['evaluator']}" for row in rows)}
    beside = [name for name in asked if name not in of_evaluator]
    means = words.means_in_words(folder, beside) if beside else {}
    if len(rows) <= _MOST_SENTENCES:
        # The sentence has the other quantities.
        unsaid = [name for name in ("emergence", "index") if name in asked]
        for row in rows:
            said = [words.run_in_words(row, *ends[row["run"]])]
            said += [f"{name} {words.quantity_in_words(row, name)}" for name in unsaid]
            said += [f"{name} {mean}" for name, mean in zip(beside, means.get(row["run"], ()), strict=True)]
            yield f"- `{row['run']}`: {_text('; '.join(said))}."
    else:
        yield f"Of {', '.join(dict.fromkeys(map(words.measured_in_words, rows)))}:\n"
        head = ("run", "outcome", *(name.replace("_", " ") for name in (*QUANTITIES, *beside)))
        cells = [
            (
                f"`{row['run']}`",
                row["outcome"],
                *(words.quantity_in_words(row, name) for name in QUANTITIES),
                *means.get(row["run"], ()),
            )
            for row in rows
        ]
        yield from _table(head, cells)
    yield ""


def _asked(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns of transience.csv that claims are of."""
    names = (name for row in claims for part in row["of"].split(", ") for name in part.split(" - "))
    return list(dict.fromkeys(names))


# Markdown.


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(map(str, cells)) + " |"


def _text(text: str) -> str:
    """Return a study's text as Markdown that shows it as it is."""
    for character in "\\*|<[":
        text = text.replace(character, "&lt;" if character == "<" else "\\" + character)
    return text
