"""A lane that was trained: its run, its snapshots, and the bank and frozen sequences that belong to it.

Letters for shapes as in model/transformer.py; N sequences.
"""

import bisect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from icl_transience.access.result_files import ResultFiles
from icl_transience.access.sequences import Sequences
from icl_transience.specs.errors import StudyError
from icl_transience.specs.records import ExperimentRecord, LaneRecord, RunRecord
from icl_transience.specs.runs import Lane, Run

if TYPE_CHECKING:
    from icl_transience.access.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedLane:
    """A run with a seed, as an experiment has it.

    study: its name. peak: returns `peak_at` of transience.csv, None where there is no peak. command: makes what is
    missing of the lane.
    """

    study: str
    peak: Callable[[], float | None]
    files: ResultFiles
    experiment: ExperimentRecord
    run_record: RunRecord
    lane_record: LaneRecord
    command: str

    def __repr__(self) -> str:
        return f"lane {self.name}: {len(self.snapshots)} snapshots, {self.horizon:,} sequences"

    @property
    def name(self) -> str:
        """Experiment, run and seed in words."""
        return f"{self.experiment.experiment}, {self.run_record.name}, seed {self.lane_record.seed}"

    @property
    def id(self) -> str:
        """What stands in the column `lane` of tables."""
        return self.lane_record.id

    @property
    def seed(self) -> str:
        """The seed, as tables have it."""
        return self.lane_record.seed

    @property
    def axes(self) -> Mapping[str, Any]:
        """Axis -> the run's level."""
        return self.run_record.axes

    @property
    def horizon(self) -> int:
        """Sequences seen at the end of the experiment."""
        return self.experiment.horizon

    @property
    def run(self) -> Run:
        """Everything that shaped the weights but the seed: bank, recipe, model, optimizer and more."""
        return self._lane.run

    @cached_property
    def _lane(self) -> Lane:
        if not self._segments:
            raise StudyError(f"{self.name}: nothing of it is trained yet: `{self.command}`")
        first, _ = self._segments[0]
        end = dict(self._segments)[first]
        return self.files.pack(self.files.segment(self.lane_record.pack, first, end)).lanes[self.lane_record.place]

    @property
    def _boundaries(self) -> list[tuple[int, int]]:
        return list(itertools.pairwise(self.experiment.packs[self.lane_record.pack]))

    @property
    def _segments(self) -> list[tuple[int, int]]:
        """(start, end) of the segments that are there, in sequences seen."""
        pack = self.lane_record.pack
        return [ends for ends in self._boundaries if self.files.segment(pack, *ends).is_file()]

    @property
    def snapshots(self) -> list[int]:
        """Sequences seen at the snapshots that are there, as in curves.csv.

        Those of the schedule, and the horizon where all lanes of the experiment have a checkpoint there.
        """
        if not self._segments:
            return []
        points = (point for start, end in self._segments for point in self._points(start, end))
        return [point for point in points if point <= self.horizon]

    def _points(self, start: int, end: int) -> list[int]:
        scheduled = self.run.snapshots.points(self.run.batch_size, start, end)
        # The last point of a curve need be no snapshot of the schedule: the segment's checkpoint has it.
        is_end = end == self.horizon and self.experiment.horizon_is_end
        return sorted({*scheduled, end} if is_end else scheduled)

    def at(self, sequences_seen: int | float | str) -> "Snapshot":
        """Return the snapshot at so many sequences seen, at the "peak" or at the "end".

        "peak": where the lane's smoothed curve is highest, `peak_at` of transience.csv. "end": the last point of the
        lane's curve. Raises StudyError where there is none, naming the nearest and what makes it.
        """
        if sequences_seen == "peak":
            where = self.peak()
            if where is None:
                raise StudyError(
                    f"{self.name}: it has no peak, in-context learning never rose: give a number of sequences seen, or "
                    '"end"'
                )
        elif sequences_seen == "end":
            where = max(point for ends in self._boundaries for point in self._points(*ends) if point <= self.horizon)
        elif isinstance(sequences_seen, str):
            raise StudyError(f'at: {sequences_seen!r}, expected a number of sequences seen, "peak" or "end"')
        else:
            where = sequences_seen
        for start, end in self._segments:
            if where <= self.horizon and where in self._points(start, end):
                from icl_transience.access.snapshot import Snapshot

                segment = self.files.segment(self.lane_record.pack, start, end)
                return Snapshot(
                    lane=self.name,
                    about={
                        "study": self.study,
                        "experiment": self.experiment.experiment,
                        "run": self.run_record.name,
                        "seed": self.seed,
                    },
                    spec=self.run,
                    sequences_seen=int(where),
                    parameters=self.files.parameters(segment, self.lane_record.place, int(where)),
                    files=self.files,
                    set_id=self.run_record.set,
                )
        raise StudyError(f"{self.name}: {self._missing(where)}")

    def _missing(self, where: float) -> str:
        """Say why there is no snapshot at `where` sequences seen, which are near, and what makes it."""
        scheduled = {point for ends in self._boundaries for point in self._points(*ends) if point <= self.horizon}
        there = self.snapshots
        at = bisect.bisect(there, where)
        near = f"the nearest there are at {' and '.join(f'{point:,}' for point in there[max(at - 1, 0) : at + 1])}"
        if where in scheduled:
            return f"the snapshot at {where:,} sequences seen is not there yet ({near}): `{self.command}` makes it"
        if where > self.horizon:
            return (
                f"no snapshot at {where:,} sequences seen ({near}): its `horizon` is {self.horizon:,}; with a longer "
                f"one in the study, `{self.command}` trains on from there"
            )
        return (
            f"no snapshot at {where:,} sequences seen ({near}): `snapshots` in the study says when there are any; with "
            f"other values, `{self.command}` trains the lane anew"
        )

    # What it was trained on, and what it is asked.

    @property
    def bank(self) -> np.ndarray:
        """Embeddings of all exemplars, float32 [classes, exemplars, I], read-only; those of training stand first.

        `run.bank.shape` says how many classes and exemplars are trained on.
        """
        return self.files.bank(self.run.bank)

    def sequences(self, evaluator: str) -> Sequences:
        """Return the frozen sequences of an evaluator, such as "icl", as its metrics are of; read-only arrays.

        Raises StudyError where the study has no such evaluator, naming those that it has.
        """
        return self.files.sequences(self.run_record.set, evaluator)
