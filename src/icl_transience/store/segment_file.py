"""The file of a segment, as evaluation reads it; training/segments.py writes it and says what it holds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from icl_transience.specs.runs import PackSpec, parameter_names
from icl_transience.store import hdf5


@dataclass(frozen=True)
class SegmentReader:
    """What evaluation and tables read of a segment. parameters(i): name -> [S, …] of snapshot i."""

    sequences_seen: np.ndarray
    parameters: Callable[[int], dict[str, torch.Tensor]]
    loss_sequences_seen: np.ndarray
    loss: np.ndarray
    diverged_at: np.ndarray


@contextmanager
def opened(path: Path, pack: PackSpec) -> Iterator[SegmentReader]:
    """The segment in `path`, once it has been checked; snapshots are read one at a time."""
    with hdf5.reading(path, "segment") as file:
        check_pack(path, file, pack)

        def parameters(row: int) -> dict[str, torch.Tensor]:
            group = file["snapshots/parameters"]
            return {name: torch.from_numpy(group[name][row]) for name in parameter_names(pack)}

        yield SegmentReader(
            sequences_seen=file["snapshots/sequences_seen"][()],
            parameters=parameters,
            loss_sequences_seen=file["train_loss/sequences_seen"][()],
            loss=file["train_loss/value"][()],
            diverged_at=file["diverged_at"][()],
        )


def check_pack(path: Path, file: h5py.File, pack: PackSpec) -> None:
    if file.attrs["identity"].split("/")[0] != pack.id:
        raise hdf5.StoreError(f"{path}: belongs to pack {file.attrs['identity'].split('/')[0]}, expected {pack.id}")
