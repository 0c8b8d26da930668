"""The file of a segment: its snapshots, its training loss, and the checkpoint that the next segment starts from.

snapshots/sequences_seen [n], snapshots/parameters/{name} [n, S, …]
train_loss/sequences_seen [m], train_loss/value [m, S]: means over stretches that end there
checkpoint/{parameters, first_moments, second_moments}/{name} [S, …], checkpoint/loss_sum [S]
diverged_at [S]: sequences seen when the lane's loss was no longer finite, or -1
attributes: spec (the pack's lanes, as JSON), semantics (of training), from, to

A job that is told to stop leaves what it has of its segment in a file of the same layout, of kind `unfinished`, with
the sequences seen so far as an attribute; the next job goes on from there.
"""

import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import torch

from icl_transience import engines, files, store, training
from icl_transience import model as transformer
from icl_transience.packs import PackSpec
from icl_transience.spec import Model, Run, StudyError, canonical, semantics_of

_STATE_PARTS = ("parameters", "first_moments", "second_moments")


def identity(pack: PackSpec, start: int, end: int) -> str:
    """A segment is a function of its pack and its ends; where earlier segments met changes nothing in it."""
    return f"{pack.id}/{start}-{end}"


def lane_bytes(run: Run, snapshots: int, segments: int = 1) -> int:
    """What a lane takes of the files of so many segments, with so many snapshots in all of them together.

    As many times its parameters as there are snapshots, and three times in each checkpoint. The training loss (12 bytes
    every 1,024 sequences at batch 32) and HDF5's own (a kilobyte or two an array) come on top.
    """
    parameters = _n_parameters(run.model, run.bank.shape.width, run.n_labels, run.recipe.context)
    return (snapshots + len(_STATE_PARTS) * segments) * parameters * engines.DTYPES[run.numerics].itemsize


@cache
def _n_parameters(model: Model, input_width: int, n_labels: int, context: int) -> int:
    return sum(map(math.prod, transformer.parameter_shapes(model, input_width, n_labels, context).values()))


class Interrupted(StudyError):
    """Training was told to stop; what it had done is kept."""


def unfinished_name(path: Path) -> Path:
    """Where what there is of the segment in `path` is kept, if its training was told to stop."""
    return store.kept_name(path).with_name(path.name.replace("segment-", "unfinished-"))


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
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Trains the segment (start, end] and writes its file. `previous` is the one that ends at `start`, None at 0.

    Goes on from where an earlier call was told to `stop`, which is asked after every batch. Raises Interrupted where
    it is so now; StudyError where the ends are not whole batches in order, or `previous` does not fit `start`.
    """
    if start % pack.run.batch_size or end % pack.run.batch_size or not 0 <= start < end:
        raise StudyError(
            f"segment {start}-{end}: expected whole batches of {pack.run.batch_size}, the end after the start"
        )
    if (previous is None) != (start == 0):
        raise StudyError(f"segment {start}-{end}: a segment that starts at 0 has no previous one, any other has one")
    begun = time.perf_counter()
    engine = engines.chosen(engine, pack.run, torch.device(device))
    beginning = unfinished_name(path)
    earlier = _load_unfinished(beginning, pack, start, end, device)
    if earlier:
        state, losses = earlier.state, earlier.losses
    else:
        state = load_checkpoint(previous, pack, start, device) if previous else training.initial_state(pack, device)
        losses = training.Losses([], [])
    embeddings = torch.from_numpy(bank).to(device=device, dtype=engines.DTYPES[pack.run.numerics])
    points = pack.run.snapshots.points(pack.run.batch_size, start, end)
    files.check_room(path, len(pack.lanes) * lane_bytes(pack.run, len(points)))
    # Told so before there is anything new: what was kept before stays as it is. (The compiler may have been told so
    # too, and training would begin on another engine.)
    if stop():
        raise _interrupted(path, start, end, state.sequences_seen)
    with store.writing(path, "segment", identity(pack, start, end), kept=True) as file:
        file.attrs["spec"] = pack.to_json()
        file.attrs["semantics"] = canonical(semantics_of("training"))
        file.attrs["from"], file.attrs["to"] = start, end
        file["snapshots/sequences_seen"] = np.array(points, dtype=np.int64)
        for name, tensor in state.parameters.items():
            file.create_dataset(
                f"snapshots/parameters/{name}",
                (len(points), *tensor.shape),
                dtype=tensor.cpu().numpy().dtype,
                # A snapshot at a time, so that an unfinished file can do without those that are missing.
                chunks=(1, *tensor.shape),
                maxshape=(None, *tensor.shape),
            )
        if earlier:
            _copy_snapshots(beginning, file)

        def write_snapshot(state: training.State) -> None:
            row = points.index(state.sequences_seen)
            for name, tensor in state.parameters.items():
                file[f"snapshots/parameters/{name}"][row] = tensor.cpu().numpy()
            file.check_disk()

        more = training.train(pack, state, embeddings, end, write_snapshot, on_progress, engine, stop=stop)
        _write_state(
            file, state, training.Losses(losses.sequences_seen + more.sequences_seen, losses.values + more.values)
        )
        seconds = time.perf_counter() - begun + (earlier.seconds if earlier else 0)
        file.attrs["made_in_seconds"] = seconds
        if state.sequences_seen < end:
            file.attrs["sequences_seen"] = state.sequences_seen
            done = sum(point <= state.sequences_seen for point in points)
            del file["snapshots/sequences_seen"]
            file["snapshots/sequences_seen"] = np.array(points[:done], dtype=np.int64)
            for dataset in file["snapshots/parameters"].values():
                dataset.resize(done, axis=0)
            file.becomes(beginning, "unfinished")
        file.attrs["made_sequences_per_second"] = (state.sequences_seen - start) * len(pack.lanes) / seconds
        file.attrs["made_with"] = (
            f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {device}, {engine} engine"
        )
        file.attrs["made_on"] = platform.platform()
        file.attrs["made_device"] = device
    if state.sequences_seen < end:
        raise _interrupted(path, start, end, state.sequences_seen)
    beginning.unlink(missing_ok=True)


def _interrupted(path: Path, start: int, end: int, sequences_seen: int) -> Interrupted:
    return Interrupted(
        f"{path}: stopped after {sequences_seen - start:,} of {end - start:,} sequences; they are kept: run the same "
        "snakemake command again to go on from there"
    )


def _copy_snapshots(beginning: Path, file: h5py.File) -> None:
    """One at a time: all of them may take more memory than training does."""
    with h5py.File(beginning, "r") as unfinished:
        for name, dataset in unfinished["snapshots/parameters"].items():
            for row in range(len(dataset)):
                file[f"snapshots/parameters/{name}"][row] = dataset[row]


def _write_state(file: h5py.File, state: training.State, losses: training.Losses) -> None:
    file["train_loss/sequences_seen"] = np.array(losses.sequences_seen, dtype=np.int64)
    values = torch.stack(losses.values) if losses.values else state.loss_sum.new_empty(0, len(state.loss_sum))
    file["train_loss/value"] = values.cpu().numpy()
    file["diverged_at"] = state.diverged_at.numpy()
    for part in _STATE_PARTS:
        for name, tensor in getattr(state, part).items():
            file[f"checkpoint/{part}/{name}"] = tensor.cpu().numpy()
    file["checkpoint/loss_sum"] = state.loss_sum.cpu().numpy()


def _read_state(file: h5py.File, pack: PackSpec, sequences_seen: int, device: str) -> training.State:
    def tensors(part: str) -> dict[str, torch.Tensor]:
        # In the order of the model, which HDF5 does not keep.
        names = training.parameter_names(pack)
        return {name: torch.from_numpy(file[f"checkpoint/{part}/{name}"][()]).to(device) for name in names}

    return training.State(
        *(tensors(part) for part in _STATE_PARTS),
        sequences_seen=sequences_seen,
        loss_sum=torch.from_numpy(file["checkpoint/loss_sum"][()]).to(device),
        diverged_at=torch.from_numpy(file["diverged_at"][()]),
    )


@dataclass(frozen=True)
class _Unfinished:
    """The beginning of a segment, but its snapshots. seconds: how long it took."""

    state: training.State
    losses: training.Losses
    seconds: float


def _load_unfinished(path: Path, pack: PackSpec, start: int, end: int, device: str) -> _Unfinished | None:
    """What an interrupted job left of this segment; None where it left nothing that is whole."""
    if not path.exists():
        return None
    try:
        with store.reading(path, "unfinished", identity(pack, start, end)) as file:
            return _Unfinished(
                state=_read_state(file, pack, int(file.attrs["sequences_seen"]), device),
                losses=training.Losses(
                    file["train_loss/sequences_seen"][()].tolist(),
                    list(torch.from_numpy(file["train_loss/value"][()]).to(device)),
                ),
                seconds=float(file.attrs["made_in_seconds"]),
            )
    except store.StoreError as error:
        # Its checkpoint before is still there.
        print(error, file=sys.stderr)
        return None


def load_checkpoint(path: Path, pack: PackSpec, end: int, device: str = "cpu") -> training.State:
    """The state at the end of the segment in `path`."""
    with store.reading(path, "segment") as file:
        _check_pack(path, file, pack)
        if file.attrs["to"] != end:
            raise store.StoreError(f"{path}: ends at {file.attrs['to']} sequences seen, expected {end}")
        return _read_state(file, pack, end, device)


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
        raise store.StoreError(f"{path}: belongs to pack {file.attrs['identity'].split('/')[0]}, expected {pack.id}")
