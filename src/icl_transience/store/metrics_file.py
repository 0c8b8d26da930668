"""The file of a segment's metrics on an evaluator set.

sequences_seen [n]; is_scheduled [n], false at a segment's end that is no snapshot; {evaluator}/mean and
{evaluator}/standard_error [n, S, metrics], columns named in the attribute `metrics`; strategy/… likewise where the set
has one, with the columns STRATEGY_METRICS; train_loss/sequences_seen [m], train_loss/value [m, S] and diverged_at [S]
as in the segment's file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from icl_transience.specs.evaluators import EVALUATORS, STRATEGY, evaluator_parts, in_order
from icl_transience.store import hdf5

# What `last_mean` and `not_finite` raise of a file that is missing, damaged or being removed.
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError)


@dataclass(frozen=True)
class SegmentMetrics:
    """The metrics of a segment's snapshots and end; n of them, m recordings of the training loss, S lanes.

    sequences_seen: [n]. is_scheduled: [n], false at an end that is no snapshot. values: evaluator, last the strategy ->
    (mean, standard error), each [n, S, metrics]. loss_sequences_seen: [m]. loss: [m, S]. diverged_at: [S], sequences
    seen, or -1.
    """

    sequences_seen: np.ndarray
    is_scheduled: np.ndarray
    values: Mapping[str, tuple[np.ndarray, np.ndarray]]
    loss_sequences_seen: np.ndarray
    loss: np.ndarray
    diverged_at: np.ndarray


def metrics_identity(segment_identity: str, set_id: str) -> str:
    """Return the identity of the metrics of a segment on a set."""
    return f"{segment_identity}/{set_id}"


def read_metrics(path: Path, identity: str) -> SegmentMetrics:
    """Read a metrics file of this identity. Raises StoreError where it is not what its name promises."""
    with hdf5.reading(path, "metrics", identity) as file:
        names = in_order(name for name in map(str, file) if evaluator_parts(name)[0] in EVALUATORS)
        names += [STRATEGY] if STRATEGY in file else []
        return SegmentMetrics(
            sequences_seen=hdf5.array(file, "sequences_seen"),
            is_scheduled=hdf5.array(file, "is_scheduled"),
            values={
                name: (hdf5.array(file, f"{name}/mean"), hdf5.array(file, f"{name}/standard_error")) for name in names
            },
            loss_sequences_seen=hdf5.array(file, "train_loss/sequences_seen"),
            loss=hdf5.array(file, "train_loss/value"),
            diverged_at=hdf5.array(file, "diverged_at"),
        )


def on_curve(sequences_seen: np.ndarray, is_scheduled: np.ndarray, horizon: int, *, horizon_is_end: bool) -> np.ndarray:
    """Return which points stand on a curve, bool [n]: snapshots until the horizon, and a segment's end at it.

    horizon_is_end: whether all lanes of the experiment have such an end, see `ExperimentRecord.horizon_is_end`. Ends of
    other segments are passed over, so that no number depends on where they meet, or changes once training goes further.
    """
    return (is_scheduled & (sequences_seen <= horizon)) | (horizon_is_end & (sequences_seen == horizon))


def not_finite(path: Path, horizon: int) -> np.ndarray:
    """Return of which lanes a loss is no longer finite at a snapshot until the horizon, bool [S].

    Of such a lane tables say that it diverged, whether training has recorded it or not (analysis/curves.py). To look
    at, as `last_mean`.
    """
    with hdf5.open_made(path) as file:
        column = np.asarray(file.attrs["metrics"]).tolist().index("loss")
        until = hdf5.array(file, "sequences_seen") <= horizon
        names = [name for name in map(str, file) if evaluator_parts(name)[0] in EVALUATORS]
        losses = np.stack([hdf5.array(file, f"{name}/mean")[until][..., column] for name in names])
    return np.any(~np.isfinite(losses), axis=(0, 1))


def last_mean(path: Path, evaluator: str, metric: str) -> float:
    """Return a metric of the segment's last snapshot, mean over the lanes that have not diverged.

    To look at, not to compute with: the file is neither checked nor moved aside. Raises one of UNREADABLE.
    """
    with hdf5.open_made(path) as file:
        column = np.asarray(file.attrs["metrics"]).tolist().index(metric)
        means = file[f"{evaluator}/mean"]
        assert isinstance(means, h5py.Dataset)
        of_lanes: np.ndarray = means[-1, :, column]
    finite = of_lanes[np.isfinite(of_lanes)]
    return float(finite.mean()) if finite.size else np.nan
