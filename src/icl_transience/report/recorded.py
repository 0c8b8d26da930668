"""What the repository keeps of a study's results, so that docs/results.md can be written from it: docs/data/{study}/.

study.json              what was asked, how far it is, what it took: see study_json.py
verdicts.csv            how its claims stand, if it makes any; evidence.csv beside it, seed by seed
{experiment}/runs.csv   a row a run; transience.csv, a row a lane, where claims are made; threshold.csv or forecast.csv,
                        where the experiment is asked for one
SHA256SUMS              beside every table, as in results/
docs/images/{study}-*.png  a figure of each experiment, and that of the evidence, made small

`record` copies tables from the results of a study, finished or not: those of each experiment that has them, once it is
proven that they are of the runs that the study declares (verified.py). What follows from them is made anew from them
and not copied, so that nothing older stands beside them: threshold.csv, forecast.csv, verdicts, evidence and figures.
An experiment that has none there and is on record stays so, where it is what the study still asks for (earlier.py).
Claims of experiments without tables are not tested yet, but count in Holm's correction. study.json says how many lanes
are done, and which seeds the tables have.
"""

import json
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from icl_transience.planning.plan import Plan
from icl_transience.report import earlier, on_record, pictures, study_json, verified
from icl_transience.report.on_record import DATA, IMAGES, LANES, RUNS, STUDY, THRESHOLD
from icl_transience.results import provenance
from icl_transience.specs.errors import StudyError
from icl_transience.specs.records import ExperimentRecord
from icl_transience.store import atomic, checksums, tables_file
from icl_transience.store.layout import FORECAST, VERDICTS

# The figure that says most of an experiment, the first one that it has; of many runs `comparison` is crowded.
_SHOWN = ("survival", "map", "comparison", "curves")
_SHOWN_OF_MANY = ("survival", "map", "summary", "curves")
_MANY_RUNS = 6


def record(plan: Plan, docs: Path) -> Path:
    """Copy what is known of the plan's study to `docs`/data/{study} and return that folder.

    docs: the folder of the documentation. Raises StudyError, before anything is written, where nothing of the study has
    been trained, where a table is not as it was written or of other runs than the study declares, where something on
    record would be forgotten, and where pictures of the documentation are drawn from other results.
    """
    # While the first call of snakemake is at work there is no entry yet.
    entry = provenance.known(plan) or provenance.describe(plan, {})
    if not any(pack["segments"] for pack in entry["packs"].values()):
        raise StudyError(f"study {plan.study.name} has no results in {plan.paths.root}: run `snakemake` first")
    folder = docs / DATA / plan.study.name
    found = {name: verified.record_of_tables(plan, name) for name in plan.study.experiments}
    finished = {name: of_tables for name, of_tables in found.items() if of_tables}
    seeds = {name: [lane.seed for lane in of_tables.runs[0].lanes] for name, of_tables in finished.items()}
    kept = earlier.kept(plan, docs, study_json.made_with(entry), seeds)
    for name, of_experiment in (seeds | {name: one["seeds_in_tables"] for name, one in kept.items()}).items():
        _refuse_to_pass_over(name, of_experiment, [seed.label for seed in plan.study.experiments[name].seeds])
    for name in finished:
        _refuse_other_pictures(Path(plan.paths.experiment_folder(name)), folder / name)
    before = on_record.read_json(folder / STUDY) if (folder / STUDY).is_file() else {}
    described = study_json.describe(plan, entry, seeds, kept)
    for name, of_tables in finished.items():
        ends, figure = _copy_tables(plan, of_tables, folder / name), _draw_figure(plan, of_tables, docs)
        described["experiments"][name].update(ends=ends, figure=figure)
    described["evidence"] = _judge(plan, finished, kept, docs)
    _remove_rest(folder, {*finished, *kept})
    # Last, with what proves that all of it is of this record.
    described["tables"] = on_record.digests(folder)
    atomic.write_text(folder / STUDY, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    for name in on_record.images(before) - on_record.images(described) if before else ():
        (docs / IMAGES / name).unlink(missing_ok=True)
    return folder


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


def _refuse_to_pass_over(experiment: str, found: Collection[str], declared: Sequence[str]) -> None:
    """Raise StudyError where tables lack a seed that comes before others which they have: evidence waits for it.

    found, declared: seeds, of the tables and of the study.
    """
    # Here and not above: the Snakefile imports this room, and parsing need not wait for NumPy.
    from icl_transience.analysis import eprocess

    in_order = eprocess.ascending(declared)
    first = next((seed for seed in in_order if seed not in found), None)
    if first is not None and {*found} & {*in_order[in_order.index(first) :]}:
        raise StudyError(
            f"experiment {experiment}: seed {first} is declared and not in its tables, which have later ones: "
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


def _judge(plan: Plan, finished: Collection[str], kept: Collection[str], docs: Path) -> str | None:
    """Write the study's verdicts.csv and evidence.csv from the tables that there are, and draw the evidence.

    finished: experiments whose tables are in results. kept: those whose tables are on record alone. Return the file of
    that figure; None where no claim could be tested.
    """
    from icl_transience.analysis import verdicts
    from icl_transience.report.figures import evidence

    target, claims, names = docs / DATA / plan.study.name, plan.records.claims(), (VERDICTS, tables_file.EVIDENCE)
    if not claims:
        for name in (*names, checksums.CHECKSUMS):
            (target / name).unlink(missing_ok=True)
        return None
    folders = {name: Path(plan.paths.experiment_folder(name)) for name in finished}
    folders |= {name: target / name for name in kept}
    of_claims = {claim.experiment for claim in claims}
    lanes = {name: tables_file.read_csv(folder / LANES) for name, folder in folders.items() if name in of_claims}
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


def _remove_rest(folder: Path, of_tables: Collection[str]) -> None:
    """Remove what was recorded of experiments without tables; what pictures are drawn from stays."""
    for path in folder.iterdir():
        if path.is_dir() and path.name not in of_tables and not (path / "curves.csv").is_file():
            shutil.rmtree(path)
