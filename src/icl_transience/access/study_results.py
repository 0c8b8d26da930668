"""What a study found: `load` opens it, its tables are DataFrames, and each row leads to its lane's weights."""

import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from icl_transience.access import source
from icl_transience.access.source import Source
from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.records import ExperimentRecord, LaneRecord, RunRecord, experiment_from
from icl_transience.store import checksums
from icl_transience.store.atomic import read_planned
from icl_transience.store.layout import EVIDENCE, VERDICTS

if TYPE_CHECKING:
    import pandas as pd

    from icl_transience.access.lane import TrainedLane
    from icl_transience.access.result_files import ResultFiles

Value = TypeVar("Value")


def load(study: str | PathLike[str], *, results: str | PathLike[str] | None = None) -> "StudyResults":
    """Open what a study found.

    study: its name; or the path of an archive, {study}.tar.gz, or of the folder that one was extracted to. An archive
    has tables, and no weights.
    results: the results folder; None: `results` of the config.yaml in the nearest folder, from the working one upwards,
    that has a Snakefile too; `results` in the working folder where there is none.

    Reads which experiments there are, and nothing else: tables and weights are read, and checked, when they are asked
    for. Writes nothing. Raises StudyError where there is no such study, naming those that there are.
    """
    return StudyResults(source.find(study, results))


class StudyResults:
    """A study's tables, and its lanes.

    name: of the study. The tables are those of all experiments, one below the other, with the name of each in the
    column `experiment` and every axis in a column of its own, empty in experiments without it; files are checked
    against SHA256SUMS. An experiment whose tables are not made yet is left out with a warning.
    """

    def __init__(self, source: Source):
        self.name = source.study
        self._source = source
        self._records = {name: experiment_from(read_planned(path)) for name, path in source.records().items()}

    def __repr__(self) -> str:
        lanes = len({lane.id for _, _, lane in self._lanes()})
        experiments = "\n".join(
            f"  {name}: {', '.join(run.name for run in record.runs)}; "
            f"seeds {', '.join(dict.fromkeys(lane.seed for run in record.runs for lane in run.lanes))}; "
            f"{record.horizon:,} sequences"
            for name, record in self._records.items()
        )
        at, here = self._source.at.absolute(), Path.cwd()
        at = at.relative_to(here) if at.is_relative_to(here) else at
        return f"study {self.name} in {at}: {lanes} lanes\n{experiments}"

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments."""
        return tuple(self._records)

    # Tables.

    @property
    def curves(self) -> "pd.DataFrame":
        """Every metric of every snapshot: a row a lane, sequences seen, evaluator and metric.

        experiment, run, seed, lane (what `lane` takes), the axes, sequences_seen, evaluator, metric, value,
        standard_error. Evaluator `training`, metric `loss`: the mean training loss since the snapshot before.
        """
        return self._curves.copy(deep=False)

    @property
    def transience(self) -> "pd.DataFrame":
        """When in-context learning came and went: a row a lane; analysis/transience.py defines the quantities.

        experiment, run, seed, lane (what `lane` takes), the axes, then the columns of transience.csv.
        """
        return self._transience.copy(deep=False)

    @property
    def runs(self) -> "pd.DataFrame":
        """The same over seeds: a row a run, with intervals. experiment, run, the axes, the columns of runs.csv."""
        return self._runs.copy(deep=False)

    @property
    def verdicts(self) -> "pd.DataFrame":
        """How the study's claims stand: a row a claim; without rows where the study makes none."""
        return self._of_claims(VERDICTS, "verdict")

    @property
    def evidence(self) -> "pd.DataFrame":
        """How they came to stand so: a row a claim and seed, `part` empty, and a row for each part of a claim."""
        return self._of_claims(EVIDENCE, "seed")

    def _of_claims(self, name: str, column: str) -> "pd.DataFrame":
        import pandas as pd

        from icl_transience.store.tables_file import read_csv

        if not (self._source.top / name).is_file():
            # What an archive lacks, its study never had.
            if self._source.results and read_planned(self._source.top / "claims.json"):
                raise StudyError(f"{self.name}: its claims are not judged yet: `{self._source.command()}`")
            return pd.DataFrame(columns=["experiment", "claim", column])
        checksums.check_checksums(self._source.top, [name], move=False)
        return read_csv(self._source.top / name)

    @cached_property
    def _curves(self) -> "pd.DataFrame":
        return self._table("curves.csv")

    @cached_property
    def _transience(self) -> "pd.DataFrame":
        return self._table("transience.csv")

    @cached_property
    def _runs(self) -> "pd.DataFrame":
        return self._table("runs.csv")

    def _table(self, file: str) -> "pd.DataFrame":
        """Return the tables of this name of all experiments, one below the other."""
        import pandas as pd

        from icl_transience.store.tables_file import read_csv

        tables, missing = [], []
        for name, record in self._records.items():
            folder = self._source.experiments / name
            if not (folder / file).is_file():
                missing.append(name)
                continue
            checksums.check_checksums(folder, [file], move=False)
            table = read_csv(folder / file)
            table.insert(0, "experiment", name)
            if "seed" in table:
                table.insert(3, "lane", self._lanes_of(table, record))
            tables.append(table)
        if missing:
            message = (
                f"{self.name}: {file} of {', '.join(missing)} is not made yet: `{self._source.command(missing[0])}`"
            )
            if not tables:
                raise StudyError(message)
            warnings.warn(message, stacklevel=3)
        table = pd.concat(tables, ignore_index=True)
        axes = dict.fromkeys(axis for record in self._records.values() for axis in record.axes if axis in table)
        first = [column for column in ("experiment", "run", "seed", "lane", *axes) if column in table]
        return table.reindex(columns=[*first, *(column for column in table if column not in first)])

    def _lanes_of(self, table: "pd.DataFrame", record: ExperimentRecord) -> list[str]:
        """Return the id of each row's lane."""
        ids = {(run.name, lane.seed): lane.id for run in record.runs for lane in run.lanes}
        try:
            return [ids[lane] for lane in zip(table["run"], table["seed"], strict=True)]
        except KeyError as error:
            run, seed = error.args[0]
            raise StudyError(
                f"{self.name}: the tables of {record.experiment} have a lane, run {run}, seed {seed}, that the study "
                f"no longer has: `{self._source.command(record.experiment)}`"
            ) from error

    # Lanes.

    def lane(self, experiment: str, run: str | None = None, seed: int | str | None = None) -> "TrainedLane":
        """Return a lane.

        experiment, run, seed: as the tables name them; run and seed may be left out where there is but one.
        Or, in place of the experiment, what stands in the column `lane` of a table: a lane that several experiments
        have is then that of the longest horizon.

        Raises StudyError where there is none, naming those that there are; or where they are an archive's.
        """
        if "/" in experiment and run is None and seed is None:
            named = self._by_id(experiment)
        else:
            record = _named(self._records, experiment, "experiment", self.name)
            of_run = _named({one.name: one for one in record.runs}, run, "run", experiment)
            lanes = {lane.seed: lane for lane in of_run.lanes}
            label = None if seed is None else str(seed)
            named = record, of_run, _named(lanes, label, "seed", f"{experiment}, {of_run.name}")
        from icl_transience.access.lane import TrainedLane

        record, of_run, lane = named
        return TrainedLane(
            study=self.name,
            peak=partial(self._peak_at, record.experiment, of_run.name, lane.seed),
            files=self._files,
            experiment=record,
            run_record=of_run,
            lane_record=lane,
            command=self._source.command(record.experiment),
        )

    @cached_property
    def _files(self) -> "ResultFiles":
        from icl_transience.access.result_files import ResultFiles

        if self._source.results is None:
            raise StudyError(
                f"{self._source.at}: an archive has tables and figures, no weights: load the study in the results "
                "folder that it was made from"
            )
        return ResultFiles(self._source.results)

    def _lanes(self) -> Iterator[tuple[ExperimentRecord, RunRecord, LaneRecord]]:
        return ((record, run, lane) for record in self._records.values() for run in record.runs for lane in run.lanes)

    def _by_id(self, id: str) -> tuple[ExperimentRecord, RunRecord, LaneRecord]:
        """Return the lane of this id, where its horizon is longest."""
        found = [entry for entry in self._lanes() if entry[2].id == id]
        if not found:
            known = sorted({lane.id for _, _, lane in self._lanes()})
            raise StudyError(
                f"{self.name}: no lane {id!r}{did_you_mean(id, known)}, expected what stands in the column `lane` of a "
                "table, or experiment, run and seed"
            )
        return max(found, key=lambda entry: entry[0].horizon)

    def _peak_at(self, experiment: str, run: str, seed: str) -> float | None:
        """Return the sequences seen at which the lane's smoothed curve is highest; None where it never rises."""
        from icl_transience.store.tables_file import records

        for row in records(self.transience):
            if (row["experiment"], row["run"], row["seed"]) == (experiment, run, seed):
                return None if row["peak_at"] != row["peak_at"] else float(row["peak_at"])
        raise StudyError(
            f"{experiment}, {run}, seed {seed}: transience.csv, which says where the peak is, is not made yet: "
            f"`{self._source.command(experiment)}`"
        )


def _named(known: Mapping[str, Value], name: str | None, kind: str, where: str) -> Value:
    """Return the value of this name; None: the only one there is."""
    if name is None:
        if len(known) == 1:
            return next(iter(known.values()))
        raise StudyError(f"{where}: which {kind}? There are {', '.join(known)}")
    if name not in known:
        raise StudyError(f"{where}: no {kind} {name!r}{did_you_mean(name, list(known))}: there are {', '.join(known)}")
    return known[name]
