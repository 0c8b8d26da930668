"""Tables of what is inside the models of an experiment: heads.csv, composition.csv and attention.csv.

heads.csv        run, seed, axes, sequences_seen, evaluator, layer, head, measure, value. Of the whole model `layer` and
                 `head` are empty, of an MLP `head`; attribution to other parts than heads is `mlp_attribution`,
                 `embedding_attribution` and so on
composition.csv  run, seed, axes, sequences_seen, layer, head, later_layer, later_head, measure, value: how much of what
                 the later head reads the head writes
attention.csv    run, seed, axes, snapshot, sequences_seen, evaluator, layer, head, token, attends_to, value: mean
                 attention of a run's first lane at its start, peak and end; zeros of the causal mask are left out

Tokens count from 0. Rows whose value is not a number are left out: of diverged lanes, and where a measure has no
meaning on an evaluator's sequences.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from icl_transience.specs.circuits import END, PATTERNS, PEAK, START, intervened
from icl_transience.specs.evaluators import METRICS
from icl_transience.specs.measures import ATTRIBUTION
from icl_transience.specs.records import ExperimentRecord, LaneRecord, RunRecord
from icl_transience.store import checksums, layout
from icl_transience.store.circuits_file import SegmentCircuits, circuits_identity, read_circuits
from icl_transience.store.layout import CIRCUITS_TABLES
from icl_transience.store.metrics_file import on_curve
from icl_transience.store.tables_file import write_csv

# Of longer sequences attention.csv has the query's row alone.
MOST_TOKENS = 65
_OF = ("sequences_seen", "evaluator", "layer", "head", "measure", "value")
_OF_PAIRS = ("sequences_seen", "layer", "head", "later_layer", "later_head", "measure", "value")
_OF_TOKENS = ("snapshot", "sequences_seen", "evaluator", "layer", "head", "token", "attends_to", "value")


class JoinedCircuits:
    """What one spec gave of a pack, all segments up to the horizon joined; snapshots are those of curves.csv."""

    def __init__(self, folder: Path, pack_id: str, circuits_id: str, record: ExperimentRecord):
        self.parts: list[SegmentCircuits] = [
            read_circuits(
                folder / layout.circuits_name(circuits_id, start, end),
                circuits_identity(layout.segment_identity(pack_id, start, end), circuits_id),
            )
            for start, end in itertools.pairwise(record.packs[pack_id])
        ]
        seen, scheduled = (
            np.concatenate([getattr(part, name) for part in self.parts]) for name in ("sequences_seen", "is_scheduled")
        )
        self.kept = on_curve(seen, scheduled, record.horizon, horizon_is_end=record.horizon_is_end)
        self.seen = seen[self.kept]

    def _joined(self, arrays: Sequence[np.ndarray], place: int) -> np.ndarray:
        """Return a lane's values at the snapshots, [n, …]."""
        return np.concatenate([array[:, place] for array in arrays])[self.kept]

    def curves(self, place: int) -> pd.DataFrame:
        """Return the rows of curves.csv of a lane, under every intervention."""
        frames = []
        for name, evaluator in self.parts[0].interventions:
            mean, error = (
                self._joined([part.interventions[name, evaluator][column] for part in self.parts], place)
                for column in (0, 1)
            )
            columns = {
                "sequences_seen": np.repeat(self.seen, len(METRICS)),
                "evaluator": intervened(evaluator, name),
                "metric": np.tile(METRICS, len(self.seen)),
                "value": mean.ravel(),
                "standard_error": error.ravel(),
            }
            frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def heads(self, place: int) -> pd.DataFrame:
        """Return the rows of heads.csv of a lane."""
        frames = [_nothing(_OF)]
        for evaluator, name in self.parts[0].measures:
            if name == PATTERNS:
                continue
            values = self._joined([part.measures[evaluator, name] for part in self.parts], place)
            if values.ndim == 3:
                frames.append(_rows(values, self.seen, ("layer", "head")).assign(evaluator=evaluator, measure=name))
                continue
            measure, layer, head = _measure_of(name)
            columns = {"sequences_seen": self.seen, "layer": layer, "head": head, "value": values}
            frames.append(pd.DataFrame(columns).assign(evaluator=evaluator, measure=measure))
        return _joined(frames, _OF)

    def composition(self, place: int) -> pd.DataFrame:
        """Return the rows of composition.csv of a lane."""
        frames = [_nothing(_OF_PAIRS)]
        for key in self.parts[0].composition:
            values = self._joined([part.composition[key] for part in self.parts], place)
            rows = _rows(values, self.seen, ("head", "later_head"))
            frames.append(rows.assign(measure=key[0], layer=key[1], later_layer=key[2]))
        return _joined(frames, _OF_PAIRS)

    def attention(self, place: int, evaluator: str, peak_at: float) -> pd.DataFrame:
        """Return the rows of attention.csv of a lane; peak_at: NaN where there is no peak."""
        frames = [_nothing(_OF_TOKENS)]
        if (evaluator, PATTERNS) in self.parts[0].measures:
            patterns = self._joined([part.measures[evaluator, PATTERNS] for part in self.parts], place)
            for snapshot, at in ((START, self.seen[0]), (PEAK, peak_at), (END, self.seen[-1])):
                for row in np.flatnonzero(self.seen == at):
                    rows = _rows(patterns[row : row + 1], self.seen[row : row + 1], _OF_TOKENS[3:-1])
                    n_tokens = patterns.shape[-1]
                    if n_tokens > MOST_TOKENS:
                        rows = rows.loc[rows["token"] == n_tokens - 1]
                    rows = rows.loc[rows["attends_to"] <= rows["token"]]
                    frames.append(rows.assign(snapshot=snapshot, evaluator=evaluator))
        return _joined(frames, _OF_TOKENS)


def _measure_of(name: str) -> tuple[str, float, float]:
    """Return (measure, layer, head) as heads.csv has them, of a measure that has one value a model."""
    above, _, part = name.partition("/")
    if above != ATTRIBUTION:
        return name, np.nan, np.nan
    block, _, inside = part.partition(".")
    if not inside:
        return f"{part}_{ATTRIBUTION}", np.nan, np.nan
    layer = int(block.removeprefix("block"))
    if inside.startswith("head"):
        return ATTRIBUTION, layer, int(inside.removeprefix("head"))
    return f"{inside}_{ATTRIBUTION}", layer, np.nan


def _rows(values: np.ndarray, seen: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Return a row a value of `values` [n, …], with its place along each axis."""
    places = np.indices(values.shape).reshape(values.ndim, -1)
    columns = {"sequences_seen": seen[places[0]]} | dict(zip(names, places[1:], strict=True))
    return pd.DataFrame(columns).assign(value=values.ravel().astype(float))


def _nothing(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in columns})


def _joined(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows of all frames whose value is a number."""
    some = [frame for frame in frames if len(frame)] or [frames[0]]
    table = pd.concat(some, ignore_index=True)
    table = table.loc[table["value"].notna(), list(columns)]
    counts = [name for name in ("layer", "head") if name in columns]
    return table.astype(dict.fromkeys(counts, "Int64"))


def read_lane(
    folder: Path, record: ExperimentRecord, lane: LaneRecord, known: dict[tuple[str, str], JoinedCircuits]
) -> Iterator[JoinedCircuits]:
    """Yield what was measured inside a lane, a spec at a time. known: what has been read of its pack already."""
    for circuits_id in lane.circuits:
        key = (lane.pack, circuits_id)
        if key not in known:
            known[key] = JoinedCircuits(folder / lane.pack, *key, record)
        yield known[key]


def write_circuits_tables(folder: Path, record: ExperimentRecord, packs_folder: Path, lanes: pd.DataFrame) -> None:
    """Write heads.csv, composition.csv and attention.csv of an experiment, and their SHA256SUMS, into `folder`.

    lanes: transience.csv, which says where the peaks are.
    """
    known: dict[tuple[str, str], JoinedCircuits] = {}
    heads, pairs, tokens = [], [], []
    for run in record.runs:
        for lane in run.lanes:
            for joined in read_lane(packs_folder, record, lane, known):
                heads.append(_named(joined.heads(lane.place), run, lane))
                pairs.append(_named(joined.composition(lane.place), run, lane))
                if lane is run.lanes[0]:
                    of_lane = lanes.loc[(lanes["run"] == run.name) & (lanes["seed"] == lane.seed)]
                    evaluator = record.statistics.evaluator
                    measured = dict.fromkeys(one for one, _ in joined.parts[0].measures)
                    if evaluator not in measured and measured:
                        evaluator = next(iter(measured))
                    rows = joined.attention(lane.place, evaluator, float(of_lane["peak_at"].iloc[0]))
                    tokens.append(_named(rows, run, lane))
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames in zip(CIRCUITS_TABLES, (heads, pairs, tokens), strict=True):
        some = [frame for frame in frames if len(frame)] or frames[:1]
        write_csv(folder / name, pd.concat(some, ignore_index=True), digits=7 if name != "attention.csv" else 4)
    checksums.write_checksums(folder, CIRCUITS_TABLES)


def _named(frame: pd.DataFrame, run: RunRecord, lane: LaneRecord) -> pd.DataFrame:
    """Return rows with those columns in front that say whose they are."""
    named: Mapping[str, object] = {"run": run.name, "seed": lane.seed, **run.axes}
    for number, (column, value) in enumerate(named.items()):
        frame.insert(number, column, value)
    return frame
