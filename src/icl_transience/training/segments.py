"""The file of a segment: its snapshots, its training loss, and the checkpoint that the next segment starts from.

snapshots/sequences_seen [n], snapshots/parameters/{name} [n, S, …]
train_loss/sequences_seen [m], train_loss/value [m, S]: means over stretches that end there
checkpoint/{parameters, first_moments, second_moments}/{name} [S, …], checkpoint/loss_sum [S]
diverged_at [S]: sequences seen when the lane's loss was no longer finite, or -1
attributes: spec (the pack's lanes, as JSON), semantics (of training), from, to

A job that is told to stop leaves what it has of its segment in a file of the same layout, of kind `unfinished`, with
the sequences seen so far as an attribute; the next job goes on from there.
"""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from icl_transience.engines import select
from icl_transience.engines.interface import DTYPES
from icl_transience.engines.state import State, initial_state
from icl_transience.specs.compute import lane_bytes
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import canonical, semantics_of
from icl_transience.specs.runs import PackSpec
from icl_transience.store import atomic, hdf5
from icl_transience.store.layout import unfinished_name
from icl_transience.store.segment_file import identity
from icl_transience.training import loop
from icl_transience.training.checkpoint import copy_snapshots, load_checkpoint, load_unfinished, write_state


class Interrupted(StudyError):
    """Training was told to stop; what it had done is kept."""


def run_segment(
    path: Path,
    pack: PackSpec,
    bank: np.ndarray,
    previous: Path | None,
    start: int,
    end: int,
    device: str = "cpu",
    on_progress: Callable[[int, torch.Tensor | None], None] = lambda sequences_seen, loss: None,
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
    engine = select.chosen(engine, pack.run, torch.device(device))
    beginning = unfinished_name(path)
    earlier = load_unfinished(beginning, pack, start, end, device)
    if earlier:
        state, losses = earlier.state, earlier.losses
    else:
        state = load_checkpoint(previous, pack, start, device) if previous else initial_state(pack, device)
        losses = loop.Losses([], [])
    embeddings = torch.from_numpy(bank).to(device=device, dtype=DTYPES[pack.run.numerics])
    points = pack.run.snapshots.points(pack.run.batch_size, start, end)
    atomic.check_room(path, len(pack.lanes) * lane_bytes(pack.run, len(points)))
    # Told so before there is anything new: what was kept before stays as it is. (The compiler may have been told so
    # too, and training would begin on another engine.)
    if stop():
        raise _interrupted(path, start, end, state.sequences_seen)
    with hdf5.writing(path, "segment", identity(pack, start, end), kept=True) as file:
        file.attrs["spec"] = pack.json
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
            copy_snapshots(beginning, file)

        def write_snapshot(state: State) -> None:
            row = points.index(state.sequences_seen)
            for name, tensor in state.parameters.items():
                file[f"snapshots/parameters/{name}"][row] = tensor.cpu().numpy()
            file.check_disk()

        more = loop.train(pack, state, embeddings, end, write_snapshot, on_progress, engine, stop=stop)
        write_state(file, state, loop.Losses(losses.sequences_seen + more.sequences_seen, losses.values + more.values))
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
