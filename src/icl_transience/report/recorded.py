"""What the repository keeps of a study's results, so that docs/results.md can be written from it: docs/data/{study}/.

study.json              what was asked, how far it is, what it took: see `_described`
verdicts.csv            how its claims stand, if it makes any; evidence.csv beside it, seed by seed
{experiment}/runs.csv   a row a run; transience.csv, a row a lane, where claims are made; threshold.csv or forecast.csv,
                        where the experiment is asked for one
SHA256SUMS              beside every table, as in results/
docs/images/{study}-*.png  a figure of each experiment, and that of the evidence, made small

`record` copies tables from the results of a study, finished or not: those of each experiment that has them, once it is
proven that they are of the runs that the study declares (verified.py). What follows from them is made anew from them
and not copied, so that nothing older stands beside them: threshold.csv, forecast.csv, verdicts, evidence and figures.
Claims of experiments without tables are not tested yet, but count in Holm's correction. study.json says how many lanes
are done, and which seeds the tables have.
"""

import json
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from icl_transience.planning.plan import Plan
from icl_transience.report import on_record, pictures, verified
from icl_transience.report.on_record import DATA, IMAGES, LANES, RUNS, STUDY, THRESHOLD
from icl_transience.results import provenance, status
from icl_transience.specs.errors import StudyError
from icl_transience.specs.records import ExperimentRecord
from icl_transience.specs.runs import Lane
from icl_transience.store import atomic, checksums, tables_file
from icl_transience.store.layout import FORECAST, VERDICTS

# The figure that says most of an experiment, the first one that it has; of many runs `comparison` is crowded.
_SHOWN = ("survival", "map", "comparison", "curves")
_SHOWN_OF_MANY = ("survival", "map", "summary", "curves")
_MANY_RUNS = 6
# What there is no more to train of: see results/status.py.
_DONE = ("done", "diverged")
# What shapes numbers, of the versions that results say.
_VERSIONS = ("icl-transience", "python", "torch", "snakemake")


def record(plan: Plan, docs: Path) -> Path:
    """Copy what is known of the plan's study to `docs`/data/{study} and return that folder.

    docs: the folder of the documentation. Raises StudyError, before anything is written, where nothing of the study has
    been trained, where a table is not as it was written or of other runs than the study declares, and where pictures of
    the documentation are drawn from other results.
    """
    # While the first call of snakemake is at work there is no entry yet.
    entry = provenance.known(plan) or provenance.describe(plan, {})
    if not any(pack["segments"] for pack in entry["packs"].values()):
        raise StudyError(f"study {plan.study.name} has no results in {plan.paths.root}: run `snakemake` first")
    folder, described = docs / DATA / plan.study.name, _described(plan, entry)
    found = {name: verified.record_of_tables(plan, name) for name in plan.study.experiments}
    finished = {name: of_tables for name, of_tables in found.items() if of_tables}
    earlier = on_record.read_json(folder / STUDY) if (folder / STUDY).is_file() else {}
    _refuse_to_forget(plan, earlier, finished)
    for name, of_tables in finished.items():
        _refuse_to_pass_over(of_tables, described["experiments"][name]["seeds"])
        _refuse_other_pictures(Path(plan.paths.experiment_folder(name)), folder / name)
    for name, experiment in described["experiments"].items():
        experiment.update(ends={}, seeds_in_tables=[], figure=None)
        if of_tables := finished.get(name):
            experiment["seeds_in_tables"] = [lane.seed for lane in of_tables.runs[0].lanes]
            experiment["ends"] = _copy_tables(plan, of_tables, folder / name)
            experiment["figure"] = _draw_figure(plan, of_tables, docs)
    described["evidence"] = _judge(plan, finished, docs)
    _remove_rest(folder, finished)
    # Last, with what proves that all of it is of this record.
    described["tables"] = on_record.digests(folder)
    atomic.write_text(folder / STUDY, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    for name in on_record.images(earlier) - on_record.images(described) if earlier else ():
        (docs / IMAGES / name).unlink(missing_ok=True)
    return folder


def _described(plan: Plan, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what study.json says: study and experiments with their questions, lanes and seconds, versions, machine.

    entry: of the study, in provenance.json. seconds: wall time of the jobs, one after another. A lane that two
    experiments have counts in both, and once in the study's own.
    """
    packs = provenance.describe(plan, dict(entry))["packs"]
    states: dict[str, Counter] = {name: Counter() for name in plan.study.experiments}
    used: dict[str, set[str]] = {name: set() for name in plan.study.experiments}
    lanes = {
        (experiment.name, named.name, seed.label): Lane(run=named.run, seed=seed)
        for experiment in plan.study.experiments.values()
        for named in experiment.runs
        for seed in experiment.seeds
    }
    # A lane that experiments share is done where it is in all of them: one may train it further than another.
    done: dict[Lane, bool] = {}
    for row in status.rows(plan):
        states[row.experiment][row.state] += 1
        used[row.experiment].add(row.pack)
        lane = lanes[row.experiment, row.run, row.seed]
        done[lane] = done.get(lane, True) and row.state in _DONE
    return {
        "study": plan.study.name,
        "description": plan.study.description,
        "date": entry["date"][:10],
        "versions": {name: entry["versions"][name] for name in _VERSIONS},
        "cores": entry["machine"]["cores"],
        "gpus": entry["machine"]["gpus"],
        "seconds": _seconds(packs, set().union(*used.values())),
        "lanes": len(done),
        "done": sum(done.values()),
        "experiments": {
            name: {
                "question": experiment.question,
                "horizon": experiment.horizon,
                "confidence": experiment.statistics.confidence,
                "runs": len(experiment.runs),
                "seeds": [seed.label for seed in experiment.seeds],
                "lanes": states[name].total(),
                "done": sum(states[name][state] for state in _DONE),
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


def _copy_tables(plan: Plan, record: ExperimentRecord, target: Path) -> dict[str, list[float]]:
    """Copy an experiment's tables; return what `words.last_points` says of its runs."""
    # Here and not above: the Snakefile imports this room, and parsing need not wait for pandas.
    from icl_transience.analysis import acquisition, forecast, words

    source = Path(plan.paths.experiment_folder(record.experiment))
    names: list[str] = [RUNS, *([LANES] if plan.study.experiments[record.experiment].claims else [])]
    if (target / "curves.csv").is_file():
        names = list(tables_file.TABLES)  # those of pictures, which are of these results
    else:
        for name in names:
            _copy(source / name, target)
        if LANES not in names:
            (target / LANES).unlink(missing_ok=True)
    with TemporaryDirectory() as made:
        if record.statistics.acquisition:
            (axis,) = record.axes
            lanes = tables_file.read_csv(source / LANES)
            acquisition.write_tables(Path(made), lanes, axis, record.statistics.confidence)
        if plan.targets.forecast(record.experiment):
            forecast.write_table(Path(made), tables_file.read_csv(source / "curves.csv"))
        for name in (THRESHOLD, FORECAST):
            if Path(made, name).is_file():
                _copy(Path(made, name), target)
                names.append(name)
            else:
                (target / name).unlink(missing_ok=True)
    checksums.write_checksums(target, names)
    return {run: list(ends) for run, ends in words.last_points(source).items()}


def _refuse_to_forget(plan: Plan, earlier: Mapping[str, Any], finished: Collection[str]) -> None:
    """Raise StudyError where an experiment that the study still has is on record, and has no tables now."""
    on_record = [name for name, one in earlier.get("experiments", {}).items() if one["ends"]]
    if lost := [name for name in on_record if name in plan.study.experiments and name not in finished]:
        raise StudyError(
            f"experiment {', '.join(lost)}: has no tables in {plan.paths.root}, but is on record in {DATA}/"
            f"{plan.study.name}: run `snakemake` first, which makes them, or delete that folder of the documentation"
        )


def _refuse_to_pass_over(record: ExperimentRecord, declared: Sequence[str]) -> None:
    """Raise StudyError where the tables lack a seed that comes before others which they have: evidence waits for it."""
    found = {lane.seed for lane in record.runs[0].lanes}
    # Here and not above: the Snakefile imports this room, and parsing need not wait for NumPy.
    from icl_transience.analysis import eprocess

    in_order = eprocess.ascending(declared)
    first = next((seed for seed in in_order if seed not in found), None)
    if first is not None and found & {*in_order[in_order.index(first) :]}:
        raise StudyError(
            f"experiment {record.experiment}: seed {first} is declared and not in its tables, which have later ones: "
            "run `snakemake` first, or give new seeds higher numbers than those that have been looked at"
        )


def _refuse_other_pictures(source: Path, target: Path) -> None:
    """Raise StudyError where pictures of the documentation are drawn from the tables there, and these are of others."""
    if not (target / "curves.csv").is_file():
        return
    drawn, found = (tables_file.read_csv(folder / RUNS) for folder in (target, source))
    if not drawn.equals(found):
        raise StudyError(
            f"{target / RUNS}: pictures of the documentation are drawn from it, and it is not {source / RUNS}: say "
            f"`python docs/pictures.py {source.parent}` first, which takes the tables of all pictures of that study"
        )


def _copy(source: Path, target: Path) -> None:
    atomic.make_folder(target)
    atomic.write(target / source.name, lambda temporary: shutil.copyfile(source, temporary))


def _draw_figure(plan: Plan, record: ExperimentRecord, docs: Path) -> dict[str, str]:
    """Draw the figure that says most of an experiment, made small; return its name and file."""
    from icl_transience.report.figures import experiment

    drawable = plan.targets.figures(record.experiment)
    order = _SHOWN_OF_MANY if len(record.runs) > _MANY_RUNS else _SHOWN
    name = next(name for name in order if name in drawable)  # curves there are always
    tables = tables_file.read_tables(Path(plan.paths.experiment_folder(record.experiment)))
    with TemporaryDirectory() as made:
        drawn = Path(made, f"{name}.png")
        experiment.draw_figure(name, record, tables, drawn)
        return {"name": name, "file": _copy_image(drawn, docs / IMAGES / f"{plan.study.name}-{record.experiment}.png")}


def _judge(plan: Plan, finished: Collection[str], docs: Path) -> str | None:
    """Write the study's verdicts.csv and evidence.csv from the tables that there are, and draw the evidence.

    Return the file of that figure; None where no claim could be tested.
    """
    from icl_transience.analysis import verdicts
    from icl_transience.report.figures import evidence

    target, claims, names = docs / DATA / plan.study.name, plan.records.claims(), (VERDICTS, tables_file.EVIDENCE)
    if not claims:
        for name in (*names, checksums.CHECKSUMS):
            (target / name).unlink(missing_ok=True)
        return None
    lanes = {name: tables_file.read_csv(Path(plan.paths.experiment_folder(name), LANES)) for name in finished}
    with TemporaryDirectory() as made:
        verdicts.write_judged(Path(made), claims, lanes)
        for name in names:
            _copy(Path(made, name), target)
        checksums.write_checksums(target, names)
        if not any(claim.experiment in lanes and not claim.left_out for claim in claims):
            return None
        drawn = evidence.draw_from_tables(plan.study.name, Path(made), Path(made)).with_suffix(".png")
        return _copy_image(drawn, docs / IMAGES / f"{plan.study.name}-evidence.png")


def _copy_image(drawn: Path, target: Path) -> str:
    atomic.make_folder(target.parent)
    atomic.write(target, lambda temporary: temporary.write_bytes(pictures.small(drawn)))
    return target.name


def _remove_rest(folder: Path, finished: Collection[str]) -> None:
    """Remove what was recorded of experiments that have no tables now; what pictures are drawn from stays."""
    for path in folder.iterdir():
        if path.is_dir() and path.name not in finished and not (path / "curves.csv").is_file():
            shutil.rmtree(path)
