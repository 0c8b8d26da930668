"""Say how far a study is, a row a lane: from file names, one or two attributes a pack, and the logs of live jobs.

Nothing is written or locked, so it can be asked at any time, beside any number of jobs. States:
    done         trained and evaluated to the experiment's horizon
    running      a job is training the lane's pack now, on this machine or, through a network file system, on another
    interrupted  no job, but one that was told to stop has saved how far it came within a segment
    missing      no job, and segments, their metrics or what is measured inside them are missing
    diverged     the lane's loss was no longer finite at or before the horizon, however far its pack has trained
"""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np

from icl_transience.planning import packs
from icl_transience.planning.packs import Pack
from icl_transience.planning.plan import Plan
from icl_transience.results import stale
from icl_transience.specs.runs import Lane, Seed
from icl_transience.store import hdf5, layout, locks, metrics_file
from icl_transience.study.experiments import Experiment
from icl_transience.system.formatting import format_clock, format_table

STATES = ("done", "running", "interrupted", "missing", "diverged")
_PROGRESS = re.compile(r"left, ([\d,]+) sequences/s, ([\d,]+) of [\d,]+ seen")
_TAIL_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Row:
    """How far a lane of an experiment is.

    state: see above. sequences_seen: in training, at most the horizon. sequences_per_second: the lane's share of its
    pack's rate. seconds_left: of training alone. None where the rate is unknown. note: what else there is to say.
    """

    experiment: str
    run: str
    seed: str
    pack: str
    state: str
    sequences_seen: int
    horizon: int
    sequences_per_second: float | None
    seconds_left: float | None
    note: str


def rows(plan: Plan) -> Iterator[Row]:
    """Yield a row for every lane of every experiment of the plan's study, in the study's order."""
    folder, logs = Path(plan.paths.root, "packs"), Path(plan.paths.root, "logs/packs")
    writers = training(folder, plan.packs)
    trained = {
        pack_id: _Trained(folder / pack_id, logs / pack_id, pack, pack_id in writers)
        for pack_id, pack in plan.packs.items()
    }
    rates = _rates(trained)
    for experiment in plan.study.experiments.values():
        yield from _experiment_rows(plan, experiment, trained, rates)


def _experiment_rows(
    plan: Plan, experiment: Experiment, trained: Mapping[str, "_Trained"], rates: Mapping[str, float | None]
) -> Iterator[Row]:
    """Yield the rows of an experiment. trained, rates: by pack id."""
    places = packs.lane_places(plan.packs, experiment.lanes())
    for named in experiment.runs:
        for seed in experiment.seeds:
            pack_id, place = places[Lane(run=named.run, seed=seed)]
            pack, rate = trained[pack_id], rates[pack_id]
            seen = min(pack.sequences_seen, experiment.horizon)
            inside = [spec.id for spec in plan.circuits.of_run(experiment, named)]
            state, note = pack.state(place, experiment.horizon, named.sequence_set.id, inside)
            if state == "missing" and not pack.sequences_seen and (waits := _waits(plan, pack_id, seed, trained)):
                note = f"{note}; {waits}"
            rate = rate and rate / len(pack.pack.spec.lanes)
            yield Row(
                experiment=experiment.name,
                run=named.name,
                seed=seed.label,
                pack=pack_id,
                state=state,
                sequences_seen=seen,
                horizon=experiment.horizon,
                sequences_per_second=rate,
                seconds_left=(experiment.horizon - seen) / rate if rate else (None if seen < experiment.horizon else 0),
                note=note,
            )


def _waits(plan: Plan, pack_id: str, seed: Seed, trained: Mapping[str, "_Trained"]) -> str:
    """Return from which lane's snapshot a lane starts, where that is not trained yet; "" where it is or there is none.

    trained: by pack id.
    """
    for source in plan.targets.sources(pack_id):
        if source.lane.seed == seed and source.segment not in trained[source.pack].finished:
            return f"waits for run {source.lane.run.start_from.run} at {source.at:,}, to start from it"
    return ""


class _Trained:
    """How far a pack has come. Its folder is listed once; of its segments and metrics only the last is opened.

    live: whether a job is training it now.
    """

    def __init__(self, folder: Path, log: Path, pack: Pack, live: bool):
        self.folder, self.log, self.pack, self.live = folder, log, pack, live
        self.problems: list[str] = []
        self._lost: dict[tuple[str, int], list[bool]] = {}
        self.names, self.kept = names(folder), names(folder / layout.KEPT)
        self.finished = finished(pack, self.names | self.kept)
        self.next = (pack.segments(pack.boundaries[-1])[len(self.finished) :] or [None])[0]

    @cached_property
    def _last(self) -> tuple[float | None, list[int]]:
        """Return (sequences per second, diverged_at of each lane) of the last finished segment."""
        nothing = [-1] * len(self.pack.spec.lanes)
        if not self.finished:
            return None, nothing
        name = layout.segment_name(*self.finished[-1])
        path = self.folder / name if name in self.names else self.folder / layout.KEPT / name
        try:
            with hdf5.open_made(path) as file:
                # A lane that diverged stays diverged: the last segment knows of all that came before.
                rate = float(np.asarray(file.attrs["made_sequences_per_second"]))
                return rate, hdf5.array(file, "diverged_at").tolist()
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            self.problems.append(f"{path} cannot be read ({error})")
            return None, nothing

    @cached_property
    def _progress(self) -> tuple[float, int] | None:
        """Return (sequences per second, sequences seen) as the live job has last logged them."""
        if not self.live or self.next is None:
            return None
        log = self.log / f"{Path(layout.segment_name(*self.next)).stem}.log"
        if not log.is_file():
            return None
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = _PROGRESS.findall(file.read().decode(errors="replace"))
        if not lines:
            return None
        rate, seen = (int(number.replace(",", "")) for number in lines[-1])
        return (rate, seen) if rate and seen >= self.next[0] else None

    @cached_property
    def _saved(self) -> int | None:
        """Return the sequences seen that a job told to stop has saved on the way to the next checkpoint."""
        if self.next is None:
            return None
        name = layout.segment_name(*self.next).replace("segment", "unfinished")
        if name not in self.kept:
            return None
        try:
            return int(hdf5.read_attribute(self.folder / layout.KEPT / name, "sequences_seen", aside=False))
        except hdf5.StoreError as error:
            self.problems.append(str(error))
            return None

    @property
    def sequences_seen(self) -> int:
        """Return the sequences seen so far."""
        checkpoint = self.finished[-1][1] if self.finished else 0
        return max(checkpoint, self._progress[1] if self._progress else 0, self._saved or 0)

    @property
    def rate(self) -> float | None:
        """Return the sequences a second, summed over lanes; None where they are unknown."""
        return self._progress[0] if self._progress else self._last[0]

    def _not_finite(self, set_id: str, horizon: int) -> list[bool]:
        """Return which lanes have no finite loss at the last snapshots until the horizon.

        A lane that diverged stays so; training records it at the next mean of its loss, which may be beyond the end.
        """
        if (set_id, horizon) not in self._lost:
            name = layout.metrics_name(set_id, *self.pack.segments(horizon)[-1])
            path = self.folder / name if name in self.names else self.folder / layout.KEPT / name
            try:
                self._lost[set_id, horizon] = metrics_file.not_finite(path, horizon).tolist()
            except metrics_file.UNREADABLE as error:
                self.problems.append(f"{path} cannot be read ({error})")
                self._lost[set_id, horizon] = [False] * len(self.pack.spec.lanes)
        return self._lost[set_id, horizon]

    def state(self, place: int, horizon: int, set_id: str, circuits: Sequence[str] = ()) -> tuple[str, str]:
        """Return (state, note) of the lane at index `place`, in an experiment of this horizon and evaluator set.

        circuits: ids of what is measured inside its models.
        """
        _, diverged_at = self._last
        saved = self._saved
        segments = self.pack.segments(horizon)
        to_train = [segment for segment in segments if segment not in self.finished]
        known = self.names | self.kept
        to_evaluate = sum(layout.metrics_name(set_id, *segment) not in known for segment in segments)
        to_measure = sum(
            any(layout.circuits_name(one, *segment) not in known for one in circuits) for segment in segments
        )
        if 0 <= diverged_at[place] <= horizon:
            return "diverged", f"at {diverged_at[place]:,}"
        if not to_train and not to_evaluate and self._not_finite(set_id, horizon)[place]:
            return "diverged", f"by {horizon:,}"
        problem = "; ".join(self.problems)
        if not to_train and not to_evaluate and not to_measure:
            return "done", problem
        if to_train and self.live:
            return "running", problem
        if to_train and saved is not None:
            return "interrupted", f"saved at {saved:,}"
        if not to_train:
            left = f"{to_evaluate} of {len(segments)} segments to evaluate" if to_evaluate else ""
            inside = f"{to_measure} of {len(segments)} segments to measure inside" if to_measure else ""
            return "missing", problem or "; ".join(filter(None, (left, inside)))
        return "missing", problem or f"{len(to_train)} of {len(segments)} segments to train"


def names(folder: Path) -> set[str]:
    """Return the names of what is in a folder; none where there is no such folder."""
    return set(os.listdir(folder)) if folder.is_dir() else set()


def finished(pack: Pack, known: set[str]) -> list[tuple[int, int]]:
    """Return (start, end) of a pack's segments up to the first that is not among the `known` file names.

    known: of the files in the pack's folder and of those kept.

    Snakemake deletes a declared output before its job reruns; what is kept will not be trained again.
    """
    segments = pack.segments(pack.boundaries[-1])
    return list(itertools.takewhile(lambda segment: layout.segment_name(*segment) in known, segments))


def _rates(trained: Mapping[str, _Trained]) -> dict[str, float | None]:
    """Return pack id -> sequences a second; of a pack not begun, the median of those with equal tensor shapes."""
    known = {pack_id: pack.rate for pack_id, pack in trained.items()}
    by_shape: dict[str, list[float]] = {}
    shape_of = {pack_id: pack.pack.spec.run.tensor_shape for pack_id, pack in trained.items()}
    for pack_id, rate in known.items():
        if rate:
            by_shape.setdefault(shape_of[pack_id], []).append(rate)
    typical = {shape: median(rates) for shape, rates in by_shape.items()}
    return {pack_id: rate or typical.get(shape_of[pack_id]) for pack_id, rate in known.items()}


def training(folder: Path, pack_ids: Iterable[str]) -> set[str]:
    """Return those of the packs in `folder` that a living process trains now."""
    return {pack_id for pack_id in pack_ids if locks.is_held(folder / pack_id / ".lock")}


# In words.


def table(plan: Plan) -> str:
    """Return the rows as text, a line of totals an experiment, and a line for all that is left out."""
    head = ("experiment", "run", "seed", "state", "sequences seen", "of", "", "a second", "left", "")
    lines, totals = [head], []
    lanes = list(rows(plan))
    for name in plan.study.experiments:
        of_experiment = [row for row in lanes if row.experiment == name]
        lines += [_cells(row) for row in of_experiment]
        totals.append(_total(name, of_experiment))
    text = format_table(lines, left=(0, 1, 2, 3, len(head) - 1))
    left_out = plan.study.left_out_in_words()
    return "\n".join([*text, "", *totals, *stale.differences(plan), *left_out, *map(str, plan.skipped)])


def _cells(row: Row) -> tuple[str, ...]:
    """Return a row of the table."""
    unfinished = row.sequences_seen < row.horizon
    return (
        row.experiment,
        row.run,
        row.seed,
        row.state,
        f"{row.sequences_seen:,}",
        f"{row.horizon:,}",
        _percent(row.sequences_seen, row.horizon),
        f"{row.sequences_per_second:,.0f}" if row.sequences_per_second else "",
        (format_clock(row.seconds_left) if row.seconds_left is not None else "?") if unfinished else "",
        row.note,
    )


def _percent(seen: int, horizon: int) -> str:
    """Return the share in percent, rounded down: 100% is all."""
    return f"{100 * seen // horizon}%"


def _total(name: str, of_experiment: list[Row]) -> str:
    """Return the line of totals of an experiment."""
    states = Counter(row.state for row in of_experiment)
    counted = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    seen, horizon = (sum(getattr(row, key) for row in of_experiment) for key in ("sequences_seen", "horizon"))
    # The lanes of a pack train together: their time counts once.
    left = {row.pack: row.seconds_left for row in of_experiment}
    known = sum(seconds for seconds in left.values() if seconds is not None)
    unknown = sum(seconds is None for seconds in left.values())
    text = f"{name}: {len(of_experiment)} lanes, {counted}; {seen:,} of {horizon:,} sequences"
    text += f" ({_percent(seen, horizon)})"
    if known:
        text += f"; {format_clock(known)} of training left, job after job"
    if unknown:
        text += f"; {unknown} pack{'s' * (unknown > 1)} of unknown speed"
    return text
