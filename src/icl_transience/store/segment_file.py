"""The file of a segment, as evaluation reads it; training/segments.py writes it and gives its layout."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from icl_transience.specs.runs import PackSpec, snapshot_names
from icl_transience.store import hdf5


@dataclass(frozen=True)
class SegmentReader:
    """The snapshots and training loss of a segment; n snapshots, m recordings of the loss, S lanes.

    sequences_seen: [n]. parameters(i): name -> [S, …] of snapshot i. end: sequences seen at the segment's end.
    end_parameters(): those of its checkpoint, which need be no snapshot. loss_sequences_seen: [m]. loss: [m, S].
    diverged_at: [S], sequences seen, or -1.
    """

    sequences_seen: np.ndarray
    parameters: Callable[[int], dict[str, torch.Tensor]]
    end: int
    end_parameters: Callable[[], dict[str, torch.Tensor]]
    loss_sequences_seen: np.ndarray
    loss: np.ndarray
    diverged_at: np.ndarray

    @property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (sequences seen, is it a snapshot) of every snapshot and of the end, which need be none; [n] each."""
        scheduled = self.sequences_seen.tolist()
        points = scheduled if self.end in scheduled else [*scheduled, self.end]
        return np.array(points, dtype=np.int64), np.arange(len(points)) < len(scheduled)

    def parameters_at(self, row: int) -> dict[str, torch.Tensor]:
        """Return name -> [S, …] of one of the `points`."""
        return self.parameters(row) if row < len(self.sequences_seen) else self.end_parameters()


@contextmanager
def opened(path: Path, pack: PackSpec, *, aside: bool = True, whole: bool = False) -> Iterator[SegmentReader]:
    """Open the segment in `path`, after checking its file; snapshots are read one at a time.

    aside, whole: as of hdf5.reading.
    """
    with hdf5.reading(path, "segment", aside=aside, whole=whole) as file:
        check_pack(path, file, pack)

        def parameters(row: int) -> dict[str, torch.Tensor]:
            names = snapshot_names(pack)
            return {name: torch.from_numpy(hdf5.dataset(file, f"snapshots/parameters/{name}")[row]) for name in names}

        def end_parameters() -> dict[str, torch.Tensor]:
            parts = {"parameters": pack.run.parameter_shapes, "statistics": pack.run.running_shapes}
            return {
                name: torch.from_numpy(hdf5.array(file, f"checkpoint/{part}/{name}"))
                for part, names in parts.items()
                for name in names
            }

        yield SegmentReader(
            sequences_seen=hdf5.array(file, "snapshots/sequences_seen"),
            parameters=parameters,
            end=int(np.asarray(file.attrs["to"])),
            end_parameters=end_parameters,
            loss_sequences_seen=hdf5.array(file, "train_loss/sequences_seen"),
            loss=hdf5.array(file, "train_loss/value"),
            diverged_at=hdf5.array(file, "diverged_at"),
        )


def check_pack(path: Path, file: h5py.File, pack: PackSpec) -> None:
    """Raise StoreError where the open segment `file` is not one of `pack`. path: its name, for the message."""
    pack_id = str(file.attrs["identity"]).split("/")[0]
    if pack_id != pack.id:
        raise hdf5.StoreError(f"{path}: belongs to pack {pack_id}, expected {pack.id}")
