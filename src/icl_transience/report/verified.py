"""Whether the tables that stand in an experiment's folder are of the runs that its plan declares.

Tables name runs and seeds, not what these are made of. Metrics do: each file says of which lanes, segment and evaluator
set it is, and is refused as another. So the tables are made again in a folder of their own, from the metrics of the
plan, for the seeds that the tables have, and compared. Of a study to which seeds were added since, the tables of the
earlier seeds are still right; those of other settings are not, however new they are.
"""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from icl_transience.planning.plan import Plan
from icl_transience.specs.errors import StudyError
from icl_transience.specs.records import ExperimentRecord, experiment_from, text_of
from icl_transience.store import checksums, tables_file
from icl_transience.store.checksums import CHECKSUMS

if TYPE_CHECKING:
    import pandas as pd

# Tables are written with 7 to 10 digits, of which another machine's libraries may round the last one differently.
_RELATIVE = 1e-6
# That which says most of where tables differ comes first.
_COMPARED = ("transience.csv", "curves.csv", "runs.csv")


def record_of_tables(plan: Plan, experiment: str) -> ExperimentRecord | None:
    """Return an experiment of the plan with the seeds that its tables have; None where there are no tables yet.

    Raises StudyError where a table is not as it was written, and where the tables are of other runs.
    """
    folder = Path(plan.paths.experiment_folder(experiment))
    if not all((folder / name).is_file() for name in (*tables_file.TABLES, CHECKSUMS)):
        return None
    checksums.check_checksums(folder, tables_file.TABLES, move=False)
    declared = plan.records.experiment(experiment, figures=True)
    lanes = tables_file.read_csv(folder / "transience.csv")
    if problem := _other_lanes(lanes, declared):
        raise _refused(plan, experiment, problem)
    record = _with_seeds(declared, set(lanes["seed"]))
    with TemporaryDirectory() as made:
        if problem := _other_values(folder, record, Path(plan.paths.packs), Path(made)):
            raise _refused(plan, experiment, problem)
    return record


def _refused(plan: Plan, experiment: str, problem: str) -> StudyError:
    folder, study = plan.paths.experiment_folder(experiment), plan.config["study"]
    again = f"snakemake --config study={shlex.quote(str(study))} results={shlex.quote(plan.paths.root)}"
    return StudyError(
        f"experiment {experiment}: the tables in {folder} are not those of the runs that study {plan.study.name} "
        f"declares: {problem}: say `{again}`, which makes them again, or delete that folder to record the "
        "other experiments"
    )


def _other_lanes(lanes: "pd.DataFrame", declared: ExperimentRecord) -> str:
    """Return which runs and seeds of transience.csv are not those of the experiment; "" where they are."""
    runs = [run.name for run in declared.runs]
    seeds = [lane.seed for lane in declared.runs[0].lanes]
    for noun, found, known in (("run", lanes["run"], runs), ("seed", lanes["seed"], seeds)):
        if other := [name for name in dict.fromkeys(found) if name not in known]:
            return f"{noun} {', '.join(other)} of them is not declared"
    if missing := [run for run in runs if run not in set(lanes["run"])]:
        return f"they lack run {', '.join(missing)}"
    known = {(run, seed) for run in runs for seed in set(lanes["seed"])}
    if missing := known - set(zip(lanes["run"], lanes["seed"], strict=True)):
        return "they lack " + ", ".join(f"seed {seed} of run {run}" for run, seed in sorted(missing))
    return ""


def _with_seeds(record: ExperimentRecord, seeds: set[str]) -> ExperimentRecord:
    """Return an experiment with these of its seeds alone."""
    runs = tuple(replace(run, lanes=tuple(lane for lane in run.lanes if lane.seed in seeds)) for run in record.runs)
    used = {lane.pack for run in runs for lane in run.lanes}
    return replace(record, runs=runs, packs={pack: ends for pack, ends in record.packs.items() if pack in used})


def _other_values(folder: Path, record: ExperimentRecord, packs: Path, made: Path) -> str:
    """Return where an experiment's tables differ from those made of its metrics in `made`; "" where they do not."""
    # Here and not above: the Snakefile imports this room, and parsing need not wait for pandas.
    from icl_transience.analysis import curves

    # As the job has it, which reads JSON whose keys are sorted: columns are in its order.
    as_read = experiment_from(json.loads(text_of(record.for_tables())))
    try:
        curves.write_tables(made, as_read, packs)
    except (OSError, StudyError) as error:
        return f"the metrics of those cannot be read ({error})"
    for name in _COMPARED:
        found, right = (tables_file.read_csv(each / name) for each in (folder, made))
        if problem := difference(found, right):
            return f"{name}: {problem}"
    return ""


def difference(found: "pd.DataFrame", right: "pd.DataFrame") -> str:
    """Return in words where a table first differs from the right one; "" where they are equal."""
    import numpy as np
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    columns, theirs = list(map(str, found.columns)), list(map(str, right.columns))
    if more := [name for name in columns if name not in theirs]:
        return f"column {', '.join(more)} is none of theirs"
    if columns != theirs:
        missing = [name for name in theirs if name not in columns]
        return f"lacks column {', '.join(missing)}" if missing else "columns in another order"
    if len(found) != len(right):
        return f"{len(found)} rows, not {len(right)}"
    for column in right.columns:
        pair = found[column], right[column]
        if all(is_numeric_dtype(values) and not is_bool_dtype(values) for values in pair):
            equal = np.isclose(*(values.to_numpy(float) for values in pair), rtol=_RELATIVE, atol=0, equal_nan=True)
        else:
            # Text of what is missing is missing, too, and equals nothing.
            said = [values.astype(str).to_numpy(object) for values in pair]
            missing = [values.isna().to_numpy() for values in pair]
            equal = np.where(missing[0] | missing[1], missing[0] & missing[1], said[0] == said[1])
        if not equal.all():
            row = int(np.argmin(equal))
            lane = ", ".join(f"{key} {right[key].iloc[row]}" for key in ("run", "seed") if key in right.columns)
            return f"{column} of {lane} is {pair[0].iloc[row]}, and theirs is {pair[1].iloc[row]}"
    return ""
