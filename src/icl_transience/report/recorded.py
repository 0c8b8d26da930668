"""What the repository keeps of a study's results, so that docs/results.md can be written from it: docs/data/{study}/.

study.json              what was asked, how far it is, what it took: see `_described`
verdicts.csv            how its claims stand, if it makes any
{experiment}/runs.csv   a row a run; where the experiment has one, threshold.csv beside it
SHA256SUMS              beside every table, as in results/
docs/images/{study}-*.png  a figure of each experiment, and that of the evidence, made small

`record` copies all of it from the results of a study, finished or not. An experiment whose tables are not there yet has
none here either; study.json says how many of its lanes are done.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_transience.planning.plan import Plan
from icl_transience.report import pictures
from icl_transience.results import provenance, status
from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic, checksums, tables_file
from icl_transience.store.layout import ACQUISITION_TABLES, VERDICTS

# Below the folder of the documentation.
DATA, IMAGES = "data", "images"
STUDY = "study.json"
RUNS = "runs.csv"
# Of few experiments.
_, THRESHOLD = ACQUISITION_TABLES
# The figure that says most of an experiment, the first one that it has; of many runs `comparison` is crowded.
_SHOWN = ("survival", "map", "comparison", "curves")
_SHOWN_OF_MANY = ("survival", "map", "summary", "curves")
_MANY_RUNS = 6
# What shapes numbers, of the versions that results say.
_VERSIONS = ("icl-transience", "python", "torch", "snakemake")


def record(plan: Plan, docs: Path) -> Path:
    """Copy what is known of the plan's study to `docs`/data/{study} and return that folder.

    docs: the folder of the documentation. Raises StudyError where nothing of the study has been trained, where
    a table is not as it was written, and where pictures of the documentation are drawn from other results.
    """
    # While the first call of snakemake is at work there is no entry yet.
    entry = provenance.known(plan) or provenance.describe(plan, {})
    if not any(pack["segments"] for pack in entry["packs"].values()):
        raise StudyError(f"study {plan.study.name} has no results in {plan.paths.root}: run `snakemake` first")
    folder, described = docs / DATA / plan.study.name, _described(plan, entry)
    for name, experiment in described["experiments"].items():
        source, target = Path(plan.paths.experiment_folder(name)), folder / name
        has_tables = all((source / table).is_file() for table in tables_file.TABLES)
        experiment["ends"] = _copy_tables(source, target) if has_tables else {}
        experiment["figure"] = _copy_figure(plan, name, docs)
    evidence = Path(plan.paths.study_folder, "evidence.png")
    if plan.targets.is_judged():
        checksums.check_checksums(evidence.parent, [VERDICTS], move=False)
        _copy(evidence.parent, folder, [VERDICTS])
        if evidence.is_file():
            described["evidence"] = _copy_image(evidence, docs / IMAGES / f"{plan.study.name}-evidence.png")
    atomic.write_text(folder / STUDY, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    return folder


def _described(plan: Plan, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what study.json says: study and experiments with their questions, lanes and seconds, versions, machine.

    entry: of the study, in provenance.json. seconds: wall time of the jobs, one after another. A lane that two
    experiments have counts in both, and once in the study's own.
    """
    packs = provenance.describe(plan, dict(entry))["packs"]
    states: dict[str, Counter] = {name: Counter() for name in plan.study.experiments}
    used: dict[str, set[str]] = {name: set() for name in plan.study.experiments}
    for row in status.rows(plan):
        states[row.experiment][row.state] += 1
        used[row.experiment].add(row.pack)
    return {
        "study": plan.study.name,
        "description": plan.study.description,
        "date": entry["date"][:10],
        "versions": {name: entry["versions"][name] for name in _VERSIONS},
        "cores": entry["machine"]["cores"],
        "gpus": entry["machine"]["gpus"],
        "seconds": _seconds(packs, set().union(*used.values())),
        "experiments": {
            name: {
                "question": experiment.question,
                "horizon": experiment.horizon,
                "confidence": experiment.statistics.confidence,
                "runs": len(experiment.runs),
                "seeds": [seed.label for seed in experiment.seeds],
                "lanes": states[name].total(),
                "done": states[name]["done"] + states[name]["diverged"],
                "seconds": _seconds(packs, used[name]),
            }
            for name, experiment in plan.study.experiments.items()
        },
        # Why is not said: it names folders of this machine.
        "left_out": list(plan.study.left_out),
        "evidence": None,
    }


def _seconds(packs: Mapping[str, Any], used: set[str]) -> dict[str, float]:
    kinds = {"training": "seconds", "evaluation": "evaluation_seconds", "circuits": "circuits_seconds"}
    return {kind: round(sum(packs[pack][key] for pack in used), 1) for kind, key in kinds.items()}


def _copy_tables(source: Path, target: Path) -> dict[str, list[float]]:
    """Copy an experiment's tables; return what `words.last_points` says of its runs."""
    # Here and not above: the Snakefile imports this room, and parsing need not wait for pandas.
    from icl_transience.analysis import words

    checksums.check_checksums(source, tables_file.TABLES, move=False)
    further = [THRESHOLD] if (source / THRESHOLD).is_file() else []
    if (target / "curves.csv").is_file():
        _refuse_other_pictures(source, target)
    else:
        _copy(source, target, [RUNS, *further])
    return {run: list(ends) for run, ends in words.last_points(source).items()}


def _refuse_other_pictures(source: Path, target: Path) -> None:
    """Raise StudyError where the tables that pictures of the documentation are drawn from are of other results."""
    drawn, found = (tables_file.read_csv(folder / RUNS) for folder in (target, source))
    if not drawn.equals(found):
        raise StudyError(
            f"{target / RUNS}: pictures of the documentation are drawn from it, and it is not {source / RUNS}: say "
            f"`python docs/pictures.py {source.parent}` first, which takes the tables of all pictures of that study"
        )


def _copy(source: Path, target: Path, names: list[str]) -> None:
    atomic.make_folder(target)
    for name in names:
        atomic.write(target / name, lambda temporary, name=name: shutil.copyfile(source / name, temporary))
    checksums.write_checksums(target, names)


def _copy_figure(plan: Plan, experiment: str, docs: Path) -> dict[str, str] | None:
    """Copy the figure that says most of an experiment, made small; return its name and file, None without one."""
    there = plan.targets.figures(experiment)
    many = len(plan.study.experiments[experiment].runs) > _MANY_RUNS
    for name in _SHOWN_OF_MANY if many else _SHOWN:
        drawn = Path(plan.paths.experiment_folder(experiment), f"{name}.png")
        if name in there and drawn.is_file():
            target = docs / IMAGES / f"{plan.study.name}-{experiment}.png"
            return {"name": name, "file": _copy_image(drawn, target)}
    return None


def _copy_image(drawn: Path, target: Path) -> str:
    atomic.make_folder(target.parent)
    atomic.write(target, lambda temporary: temporary.write_bytes(pictures.small(drawn)))
    return target.name
