"""The file of a segment: its snapshots, its training loss, and the checkpoint that the next segment starts from.

snapshots/sequences_seen [n], snapshots/parameters/{name} [n, S, …]
train_loss/sequences_seen [m], train_loss/value [m, S]: means over stretches that end there
checkpoint/{parameters, first_moments, second_moments}/{name} [S, …], checkpoint/loss_sum [S]
diverged_at [S]: sequences seen when the lane's loss was no longer finite, or -1
attributes: spec (the pack's lanes, as JSON), semantics (of training), from, to
"""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from icl_transience import engines, store, training
from icl_transience.packs import PackSpec
from icl_transience.spec import StudyError, canonical, semantics_of

_STATE_PARTS = ("parameters", "first_moments", "second_moments")


def identity(pack: PackSpec, start: int, end: int) -> str:
    """A segment is a function of its pack and its ends; where earlier segments met changes nothing in it."""
    return f"{pack.id}/{start}-{end}"


def run_segment(
    path: Path,
    pack: PackSpec,
    bank: np.ndarray,
    previous: Path | None,
    start: int,
    end: int,
    device: str = "cpu",
    on_progress: Callable[[int], None] = lambda sequences_seen: None,
    engine: str = "auto",
) -> None:
    """Trains the segment (start, end] and writes its file. `previous` is the one that ends at `start`, None at 0.

    Raises StudyError where the ends are not whole batches in order, or `previous` does not fit `start`.
    """
    if start % pack.run.batch_size or end % pack.run.batch_size or not 0 <= start < end:
        raise StudyError(
            f"segment {start}-{end}: expected whole batches of {pack.run.batch_size}, the end after the start"
        )
    if (previous is None) != (start == 0):
        raise StudyError(f"segment {start}-{end}: a segment that starts at 0 has no previous one, any other has one")
    begun = time.perf_counter()
    engine = engines.chosen(engine, pack.run, torch.device(device))
    state = load_checkpoint(previous, pack, start, device) if previous else training.initial_state(pack, device)
    embeddings = torch.from_numpy(bank).to(device=device, dtype=engines.DTYPES[pack.run.numerics])
    points = pack.run.snapshots.points(pack.run.batch_size, start, end)
    with store.writing(path, "segment", identity(pack, start, end)) as file:
        file.attrs["spec"] = pack.to_json()
        file.attrs["semantics"] = canonical(semantics_of("training"))
        file.attrs["from"], file.attrs["to"] = start, end
        file["snapshots/sequences_seen"] = np.array(points, dtype=np.int64)
        for name, tensor in state.parameters.items():
            file.create_dataset(
                f"snapshots/parameters/{name}",
                (len(points), *tensor.shape),
                dtype=tensor.cpu().numpy().dtype,
            )

        def write_snapshot(state: training.State) -> None:
            row = points.index(state.sequences_seen)
            for name, tensor in state.parameters.items():
                file[f"snapshots/parameters/{name}"][row] = tensor.cpu().numpy()

        losses = training.train(pack, state, embeddings, end, write_snapshot, on_progress, engine)
        file["train_loss/sequences_seen"] = np.array(losses.sequences_seen, dtype=np.int64)
        values = (
            torch.stack(losses.values) if losses.values else torch.empty(0, len(pack.lanes), dtype=state.loss_sum.dtype)
        )
        file["train_loss/value"] = values.cpu().numpy()
        file["diverged_at"] = state.diverged_at.numpy()
        for part in _STATE_PARTS:
            for name, tensor in getattr(state, part).items():
                file[f"checkpoint/{part}/{name}"] = tensor.cpu().numpy()
        file["checkpoint/loss_sum"] = state.loss_sum.cpu().numpy()
        seconds = time.perf_counter() - begun
        file.attrs["made_in_seconds"] = seconds
        file.attrs["made_sequences_per_second"] = (end - start) * len(pack.lanes) / seconds
        file.attrs["made_with"] = (
            f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {device}, {engine} engine"
        )
        file.attrs["made_on"] = platform.platform()


def load_checkpoint(path: Path, pack: PackSpec, end: int, device: str = "cpu") -> training.State:
    """The state at the end of the segment in `path`."""
    with store.reading(path, "segment") as file:
        _check_pack(path, file, pack)
        if file.attrs["to"] != end:
            raise store.StoreError(f"{path}: ends at {file.attrs['to']} sequences seen, expected {end}")

        def tensors(part: str) -> dict[str, torch.Tensor]:
            # In the order of the model, which HDF5 does not keep.
            names = training.parameter_names(pack)
            return {name: torch.from_numpy(file[f"checkpoint/{part}/{name}"][()]).to(device) for name in names}

        return training.State(
            *(tensors(part) for part in _STATE_PARTS),
            sequences_seen=end,
            loss_sum=torch.from_numpy(file["checkpoint/loss_sum"][()]).to(device),
            diverged_at=torch.from_numpy(file["diverged_at"][()]),
        )


@dataclass(frozen=True)
class Trained:
    """What evaluation and tables read of a segment. parameters(i): name -> [S, …] of snapshot i."""

    sequences_seen: np.ndarray
    parameters: Callable[[int], dict[str, torch.Tensor]]
    loss_sequences_seen: np.ndarray
    loss: np.ndarray
    diverged_at: np.ndarray


@contextmanager
def opened(path: Path, pack: PackSpec) -> Iterator[Trained]:
    """The segment in `path`, once it has been checked; snapshots are read one at a time."""
    with store.reading(path, "segment") as file:
        _check_pack(path, file, pack)

        def parameters(row: int) -> dict[str, torch.Tensor]:
            group = file["snapshots/parameters"]
            return {name: torch.from_numpy(group[name][row]) for name in training.parameter_names(pack)}

        yield Trained(
            sequences_seen=file["snapshots/sequences_seen"][()],
            parameters=parameters,
            loss_sequences_seen=file["train_loss/sequences_seen"][()],
            loss=file["train_loss/value"][()],
            diverged_at=file["diverged_at"][()],
        )


def _check_pack(path: Path, file: h5py.File, pack: PackSpec) -> None:
    if file.attrs["identity"].split("/")[0] != pack.id:
        raise store.StoreError(
            f"{path}: belongs to pack {file.attrs['identity'].split('/')[0]}, expected {pack.id}: "
            f"delete it and run the same snakemake command again"
        )
