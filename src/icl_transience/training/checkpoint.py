"""TODO"""

import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from icl_transience.engines.state import State
from icl_transience.specs.compute import STATE_PARTS
from icl_transience.specs.runs import PackSpec, parameter_names
from icl_transience.store import hdf5
from icl_transience.store.segment_file import check_pack, identity
from icl_transience.training import loop


def copy_snapshots(beginning: Path, file: h5py.File) -> None:
    """One at a time: all of them may take more memory than training does."""
    with h5py.File(beginning, "r") as unfinished:
        for name, dataset in unfinished["snapshots/parameters"].items():
            for row in range(len(dataset)):
                file[f"snapshots/parameters/{name}"][row] = dataset[row]


def write_state(file: h5py.File, state: State, losses: loop.Losses) -> None:
    file["train_loss/sequences_seen"] = np.array(losses.sequences_seen, dtype=np.int64)
    values = torch.stack(losses.values) if losses.values else state.loss_sum.new_empty(0, len(state.loss_sum))
    file["train_loss/value"] = values.cpu().numpy()
    file["diverged_at"] = state.diverged_at.numpy()
    for part in STATE_PARTS:
        for name, tensor in getattr(state, part).items():
            file[f"checkpoint/{part}/{name}"] = tensor.cpu().numpy()
    file["checkpoint/loss_sum"] = state.loss_sum.cpu().numpy()


def _read_state(file: h5py.File, pack: PackSpec, sequences_seen: int, device: str) -> State:
    def tensors(part: str) -> dict[str, torch.Tensor]:
        # In the order of the model, which HDF5 does not keep.
        names = parameter_names(pack)
        return {name: torch.from_numpy(file[f"checkpoint/{part}/{name}"][()]).to(device) for name in names}

    return State(
        *(tensors(part) for part in STATE_PARTS),
        sequences_seen=sequences_seen,
        loss_sum=torch.from_numpy(file["checkpoint/loss_sum"][()]).to(device),
        diverged_at=torch.from_numpy(file["diverged_at"][()]),
    )


@dataclass(frozen=True)
class _Unfinished:
    """The beginning of a segment, but its snapshots. seconds: how long it took."""

    state: State
    losses: loop.Losses
    seconds: float


def load_unfinished(path: Path, pack: PackSpec, start: int, end: int, device: str) -> _Unfinished | None:
    """What an interrupted job left of this segment; None where it left nothing that is whole."""
    if not path.exists():
        return None
    try:
        with hdf5.reading(path, "unfinished", identity(pack, start, end)) as file:
            return _Unfinished(
                state=_read_state(file, pack, int(file.attrs["sequences_seen"]), device),
                losses=loop.Losses(
                    file["train_loss/sequences_seen"][()].tolist(),
                    list(torch.from_numpy(file["train_loss/value"][()]).to(device)),
                ),
                seconds=float(file.attrs["made_in_seconds"]),
            )
    except hdf5.StoreError as error:
        # Its checkpoint before is still there.
        print(error, file=sys.stderr)
        return None


def load_checkpoint(path: Path, pack: PackSpec, end: int, device: str = "cpu") -> State:
    """The state at the end of the segment in `path`."""
    with hdf5.reading(path, "segment") as file:
        check_pack(path, file, pack)
        if file.attrs["to"] != end:
            raise hdf5.StoreError(f"{path}: ends at {file.attrs['to']} sequences seen, expected {end}")
        return _read_state(file, pack, end, device)
