"""What stays on record of a study beside new results: experiments that have no tables there, and were recorded before.

So a study may be trained in several places, an experiment at a time. An experiment that is on record stays where it is
what the study still asks for: the same runs to the same horizon, with whatever seeds, by the same versions on as many
cores. Code is not compared, but for its version: its tables are those of the code that made them.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from icl_transience.planning.plan import Plan
from icl_transience.report import on_record, study_json
from icl_transience.report.on_record import DATA, IMAGES, LANES, STUDY
from icl_transience.specs.errors import StudyError
from icl_transience.store.checksums import CHECKSUMS


def _read(folder: Path) -> dict[str, Any]:
    """Return the study.json of a study's folder, but for experiments whose folders have been deleted; {} without one.

    Raises StudyError where it cannot be read.
    """
    path = folder / STUDY
    if not path.is_file():
        return {}
    study = on_record.read_json(path)
    experiments = study.get("experiments", {}).items()
    there = {name: one for name, one in experiments if not one["ends"] or (folder / name).is_dir()}
    return study | {"experiments": there}


def kept(
    plan: Plan, docs: Path, made_with: Mapping[str, Any], seeds: Mapping[str, Collection[str]]
) -> dict[str, dict[str, Any]]:
    """Return what study.json has of each experiment that is on record and has no tables in the results at hand.

    made_with: `study_json.made_with` of these results. seeds: those of their tables, by experiment. Raises StudyError
    where something on record would be forgotten, or would no longer be true.
    """
    folder = docs / DATA / plan.study.name
    study = _read(folder)
    experiments = study.get("experiments", {})
    if out := [name for name in experiments if name in plan.study.left_out]:
        raise StudyError(
            f"experiment {out[0]}: is part of what is recorded in {folder}, and is left out here: "
            f"{plan.study.left_out[out[0]].reason}; verdicts would be corrected for fewer claims than they are"
        )
    recorded = {name: one for name, one in experiments.items() if one["ends"] and name in plan.study.experiments}
    for name, of_tables in seeds.items():
        declared = {seed.label for seed in plan.study.experiments[name].seeds}
        on_it = recorded.get(name, {}).get("seeds_in_tables", ())
        if lost := [seed for seed in on_it if seed in declared and seed not in of_tables]:
            raise _refused(plan, folder, name, f"its tables lack seed {', '.join(lost)}, which is on record")
    found = {name: one for name, one in recorded.items() if name not in seeds}
    for name, one in found.items():
        on_record.check_tables(folder / name, study.get("tables", {}).get(f"{name}/{CHECKSUMS}"))
        on_record.check_images({one["figure"]["file"]}, docs / IMAGES)
        if problem := _problem(plan, folder / name, study, one, made_with):
            raise _refused(plan, folder, name, f"it has no tables, and what is on record of it {problem}")
    return found


def _problem(
    plan: Plan, folder: Path, study: Mapping[str, Any], one: Mapping[str, Any], made_with: Mapping[str, Any]
) -> str:
    """Return why an experiment cannot stay on record, "" where it can. one: its part of `study`."""
    now = plan.study.experiments[folder.name]
    if "declared" not in one:
        return "does not say of which runs it is, as it is older than this check"
    if one["declared"] != study_json.declared(now):
        return "is of other runs than the study declares now"
    if gone := [seed for seed in one["seeds_in_tables"] if seed not in {each.label for each in now.seeds}]:
        return f"has seed {', '.join(gone)}, which the study does not declare now"
    if other := [f"{key} {study[key]}, not {value}" for key, value in made_with.items() if study[key] != value]:
        return f"was made with other means than these results ({'; '.join(other)})"
    if now.claims and not (folder / LANES).is_file():
        return "has no lanes to judge its claims by, as it made none then"
    return ""


def _refused(plan: Plan, folder: Path, experiment: str, problem: str) -> StudyError:
    return StudyError(
        f"experiment {experiment}: {problem} ({plan.paths.root}; {folder}): run `snakemake` for it first, or delete "
        f"{folder / experiment}, which takes it off the record"
    )
