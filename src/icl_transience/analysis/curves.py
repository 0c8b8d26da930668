"""The tables of an experiment, from the metrics of its lanes: curves.csv here, the others in summaries.py."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from icl_transience.analysis.heads import JoinedCircuits, read_lane
from icl_transience.analysis.summaries import write_summaries
from icl_transience.specs.evaluators import METRICS, STRATEGY, TRAINING, metrics_of
from icl_transience.specs.records import ExperimentRecord
from icl_transience.store import checksums, layout
from icl_transience.store.metrics_file import metrics_identity, on_curve, read_metrics
from icl_transience.store.tables_file import TABLES, write_csv


def write_tables(folder: Path, record: ExperimentRecord, packs_folder: Path) -> None:
    """Write curves.csv, transience.csv and runs.csv of an experiment, and their SHA256SUMS, into `folder`.

    curves.csv is tidy: run, seed, the experiment's axes, sequences_seen, evaluator, metric, value, standard_error;
    evaluator `training`, metric `loss` is the mean training loss since the snapshot before; `icl|no_layer0` is `icl`
    under the intervention of that name; `strategy` says where the model stands between two ideal predictors.
    """
    inside: dict[tuple[str, str], JoinedCircuits] = {}
    metrics: dict[tuple[str, str], JoinedMetrics] = {}
    frames: list[pd.DataFrame] = []
    diverged: set[tuple[str, str]] = set()
    for run in record.runs:
        for lane in run.lanes:
            key = (lane.pack, run.set)
            if key not in metrics:
                metrics[key] = JoinedMetrics(
                    packs_folder / lane.pack,
                    key,
                    record.packs[lane.pack],
                    record.horizon,
                    horizon_is_end=record.horizon_is_end,
                )
            under = [one.curves(lane.place) for one in read_lane(packs_folder, record, lane, inside)]
            frame = pd.concat([metrics[key].lane(lane.place), *(one for one in under if len(one))], ignore_index=True)
            if metrics[key].diverged(lane.place):
                diverged.add((run.name, lane.seed))
            for number, (column, value) in enumerate({"run": run.name, "seed": lane.seed, **run.axes}.items()):
                frame.insert(number, column, value)
            frames.append(frame)
    curves = pd.concat(frames, ignore_index=True)
    write_csv(folder / "curves.csv", curves, digits=7)  # float32 has no more
    write_summaries(folder, record, curves, diverged)
    checksums.write_checksums(folder, TABLES)


class JoinedMetrics:
    """The metrics of one pack on one evaluator set, all segments up to the horizon joined.

    Points are those `on_curve`.
    """

    def __init__(
        self,
        folder: Path,
        key: tuple[str, str],
        boundaries: Sequence[int],
        horizon: int,
        *,
        horizon_is_end: bool,
    ):
        pack_id, set_id = key
        self.horizon, self.horizon_is_end = horizon, horizon_is_end
        self.parts = [
            read_metrics(
                folder / layout.metrics_name(set_id, start, end),
                metrics_identity(layout.segment_identity(pack_id, start, end), set_id),
            )
            for start, end in itertools.pairwise(boundaries)
        ]

    def lane(self, place: int) -> pd.DataFrame:
        """Return the rows of curves.csv of the lane at `place` in the pack."""
        seen = np.concatenate([part.sequences_seen for part in self.parts])
        scheduled = np.concatenate([part.is_scheduled for part in self.parts])
        kept = on_curve(seen, scheduled, self.horizon, horizon_is_end=self.horizon_is_end)
        frames = [self._training_loss(seen[kept], place)]
        for name in self.parts[0].values:
            mean, error = (
                np.concatenate([part.values[name][column][:, place] for part in self.parts])[kept] for column in (0, 1)
            )
            metrics = metrics_of(name)
            frames.append(
                pd.DataFrame(
                    {
                        "sequences_seen": np.repeat(seen[kept], len(metrics)),
                        "evaluator": name,
                        "metric": np.tile(metrics, kept.sum()),
                        "value": mean.ravel(),
                        "standard_error": error.ravel(),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)

    def diverged(self, place: int) -> bool:
        """Return whether the lane's loss was no longer finite at or before the horizon.

        In training, where a mean of it is taken every so many batches; or at a snapshot that no such mean has reached.
        """
        if any(0 <= part.diverged_at[place] <= self.horizon for part in self.parts):
            return True
        losses = (
            mean[part.sequences_seen <= self.horizon, place, METRICS.index("loss")]
            for part in self.parts
            for name, (mean, _) in part.values.items()
            if name != STRATEGY
        )
        return not all(np.isfinite(one).all() for one in losses)

    def _training_loss(self, seen: np.ndarray, place: int) -> pd.DataFrame:
        ends = np.concatenate([part.loss_sequences_seen for part in self.parts])
        values = np.concatenate([part.loss[:, place] for part in self.parts])
        lengths = np.diff(ends, prepend=0)
        rows = []
        for before, at in itertools.pairwise(seen):
            within = (ends > before) & (ends <= at)
            if within.any():
                rows.append((at, np.average(values[within], weights=lengths[within])))
        return pd.DataFrame(
            {
                "sequences_seen": [at for at, _ in rows],
                "evaluator": TRAINING,
                "metric": "loss",
                "value": [loss for _, loss in rows],
                "standard_error": np.nan,
            }
        )
