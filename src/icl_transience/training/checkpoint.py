"""What a segment's file holds of a state: the checkpoint at its end, and what an interrupted job left."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import torch

from icl_transience.engines.state import State
from icl_transience.specs import code_digest
from icl_transience.specs.compute import STATE_PARTS
from icl_transience.specs.runs import PackSpec, parameter_names
from icl_transience.store import hdf5
from icl_transience.store.layout import segment_identity
from icl_transience.store.segment_file import check_pack
from icl_transience.training import loop


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return the dataset `name` of a file whose layout says that it is one."""
    return cast(h5py.Dataset, file[name])


def attribute(file: h5py.File, name: str) -> np.generic:
    """Return the number in an attribute of a file whose layout says that it is one."""
    return cast(np.generic, file.attrs[name])


def copy_snapshots(unfinished: Path, file: h5py.File) -> None:
    """Copy the snapshots of an unfinished segment, one at a time: all may take more memory than training does."""
    with hdf5.open_made(unfinished) as source:
        for name in cast(h5py.Group, source["snapshots/parameters"]):
            old, new = (dataset(one, f"snapshots/parameters/{name}") for one in (source, file))
            for row in range(len(old)):
                new[row] = old[row]


def write_state(file: h5py.File, state: State, losses: loop.Losses) -> None:
    """Write the checkpoint and the training loss."""
    file["train_loss/sequences_seen"] = np.array(losses.sequences_seen, dtype=np.int64)
    values = torch.stack(losses.values) if losses.values else state.loss_sum.new_empty(0, len(state.loss_sum))
    file["train_loss/value"] = values.cpu().numpy()
    file["diverged_at"] = state.diverged_at.numpy()
    for part in (*STATE_PARTS, "statistics"):
        for name, tensor in getattr(state, part).items():
            file[f"checkpoint/{part}/{name}"] = tensor.cpu().numpy()
    file["checkpoint/loss_sum"] = state.loss_sum.cpu().numpy()


def _tensor(file: h5py.File, name: str) -> torch.Tensor:
    return torch.from_numpy(dataset(file, name)[()])


def _read_state(file: h5py.File, pack: PackSpec, sequences_seen: int, device: str) -> State:
    def tensors(part: str) -> dict[str, torch.Tensor]:
        # In the order of the model, which HDF5 does not keep.
        return {name: _tensor(file, f"checkpoint/{part}/{name}").to(device) for name in parameter_names(pack)}

    parameters, first_moments, second_moments = (tensors(part) for part in STATE_PARTS)
    statistics = {name: _tensor(file, f"checkpoint/statistics/{name}").to(device) for name in pack.run.running_shapes}
    return State(
        statistics=statistics,
        parameters=parameters,
        first_moments=first_moments,
        second_moments=second_moments,
        sequences_seen=sequences_seen,
        loss_sum=_tensor(file, "checkpoint/loss_sum").to(device),
        diverged_at=_tensor(file, "diverged_at"),
    )


@dataclass(frozen=True)
class Beginning:
    """What training of a segment goes on from.

    losses, seconds: what an interrupted job recorded of this segment, and how long it took; resumed: if there was one.
    code: what trained the state so far, see `training_code`; "" where there is none or it was not recorded.
    """

    state: State
    losses: loop.Losses = field(default_factory=lambda: loop.Losses([], []))
    seconds: float = 0.0
    resumed: bool = False
    code: str = ""


def load_unfinished(path: Path, pack: PackSpec, start: int, end: int, device: str) -> Beginning | None:
    """Load what an interrupted job left of this segment, but its snapshots; None where nothing whole is left."""
    if not path.exists():
        return None
    try:
        with hdf5.reading(path, "unfinished", segment_identity(pack.id, start, end)) as file:
            return Beginning(
                state=_read_state(file, pack, int(attribute(file, "sequences_seen")), device),
                losses=loop.Losses(
                    dataset(file, "train_loss/sequences_seen")[()].tolist(),
                    list(_tensor(file, "train_loss/value").to(device)),
                ),
                seconds=float(attribute(file, "made_in_seconds")),
                resumed=True,
                code=str(file.attrs.get("made_training_code", "")),
            )
    except hdf5.StoreError as error:
        # Its checkpoint before is still there.
        print(error, file=sys.stderr)
        return None


def load_checkpoint(path: Path, pack: PackSpec, end: int, device: str = "cpu") -> State:
    """Load the state at the end of the segment in `path`; see `load_previous`."""
    return load_previous(path, pack, end, device).state


def load_previous(path: Path, pack: PackSpec, end: int, device: str = "cpu") -> Beginning:
    """Load what training goes on from after the segment in `path`, which ends at `end` sequences seen.

    Raises StoreError where it is another pack's or ends elsewhere.
    """
    with hdf5.reading(path, "segment") as file:
        check_pack(path, file, pack)
        if file.attrs["to"] != end:
            raise hdf5.StoreError(f"{path}: ends at {file.attrs['to']} sequences seen, expected {end}")
        state, code = _read_state(file, pack, end, device), file.attrs.get("made_training_code", NOT_RECORDED)
    return Beginning(state, code=str(code))


# Stands for the code of segments that were trained before it was recorded.
NOT_RECORDED = "not recorded"


def training_codes(before: str, engine: str) -> str:
    """Return what trained a lane, from its first batch on: `before`, and the code of `engine` as it now stands."""
    codes = [code for code in before.split(", ") if code]
    return ", ".join(dict.fromkeys([*codes, code_digest.training_code(engine)]))
