"""Train a segment of a pack and write its file: snapshots, training loss, and the checkpoint the next one starts from.

snapshots/sequences_seen [n], snapshots/parameters/{name} [n, S, …]
train_loss/sequences_seen [m], train_loss/value [m, S]: means over LOSS_BATCHES batches that end there
checkpoint/{parameters, first_moments, second_moments}/{name} [S, …], checkpoint/loss_sum [S]
of an image encoder the running statistics too: among snapshots/parameters, and in checkpoint/statistics/{name} [S, …]
diverged_at [S]: sequences seen when the lane's loss was no longer finite, or -1
attributes: spec (the pack's lanes, as JSON), semantics (of training), from, to; made_training_code: all the code that
has trained the lanes from 0 on, and those that they start from, "ENGINE DIGEST, …" (see specs/code_digest.py)

A job that is told to stop leaves what it has of its segment in a file of the same layout, of kind `unfinished`, with
the sequences seen so far as an attribute; the next job goes on from there.
"""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import torch

from icl_transience.engines import select, verify
from icl_transience.engines.interface import DTYPES
from icl_transience.engines.state import State, initial_state
from icl_transience.specs.compute import lane_bytes
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import canonical, semantics_of
from icl_transience.specs.runs import PackSpec
from icl_transience.store import atomic, hdf5
from icl_transience.store.layout import segment_identity, unfinished_name
from icl_transience.training import checkpoint, loop, starts
from icl_transience.training.checkpoint import Beginning


class InterruptedTrainingError(StudyError):
    """Training was told to stop; what it had done is kept."""


@dataclass(frozen=True)
class SegmentJob:
    """A segment (start, end] of a pack's training, in sequences seen, and what it is made from.

    path: where its file is to stand. bank: embeddings [classes, exemplars, I], or images, uint8. previous: the file of
    the segment that ends at `start`, None at 0. sources: the segments of other packs that hold the snapshots from which
    lanes start.
    """

    path: Path
    pack: PackSpec
    bank: np.ndarray
    previous: Path | None
    start: int
    end: int
    device: str = "cpu"
    engine: str = "auto"
    sources: Sequence[Path] = ()

    def check(self) -> None:
        """Raise StudyError where the ends are not whole batches in order, or `previous` does not fit `start`."""
        name, batch_size = f"segment {self.start}-{self.end}", self.pack.run.batch_size
        if self.start % batch_size or self.end % batch_size or not 0 <= self.start < self.end:
            raise StudyError(f"{name}: expected whole batches of {batch_size}, the end after the start")
        if (self.previous is None) != (self.start == 0):
            raise StudyError(f"{name}: a segment that starts at 0 has no previous one, any other has one")

    @property
    def identity(self) -> str:
        """Identity of the segment's file."""
        return segment_identity(self.pack.id, self.start, self.end)

    @property
    def unfinished(self) -> Path:
        """Where an interrupted job leaves what it has of this segment."""
        return unfinished_name(self.path)

    @property
    def snapshot_points(self) -> list[int]:
        """Sequences seen at each snapshot of the segment."""
        return self.pack.run.snapshots.points(self.pack.run.batch_size, self.start, self.end)

    def interrupted(self, sequences_seen: int) -> InterruptedTrainingError:
        """Return the error that says how far training came."""
        return InterruptedTrainingError(
            f"{self.path}: stopped after {sequences_seen - self.start:,} of {self.end - self.start:,} sequences; they "
            "are kept: run the same snakemake command again to go on from there"
        )


def run_segment(
    job: SegmentJob,
    on_progress: Callable[[int, torch.Tensor | None], None] = lambda sequences_seen, loss: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train the segment and write its file, going on from where an earlier call was told to `stop`.

    on_progress: see loop.train. stop: asked after every batch. Raises StudyError (see SegmentJob.check,
    and verify.check_step: where the engine does not compute what the model says) before anything is written, and
    InterruptedTrainingError where training was told to stop now.
    """
    job.check()
    begun = time.perf_counter()
    engine = select.chosen(job.engine, job.pack.run, torch.device(job.device))
    embeddings = torch.from_numpy(job.bank).to(job.device)
    if not job.pack.run.bank.images:
        embeddings = embeddings.to(DTYPES[job.pack.run.numerics])
    verify.check_step(job.pack, embeddings, job.start, engine)
    beginning = _load_beginning(job)
    state = beginning.state
    atomic.check_room(job.path, len(job.pack.lanes) * lane_bytes(job.pack.run, len(job.snapshot_points)))
    # Told so before there is anything new: what was kept before stays as it is. (The compiler may have been told so
    # too, and training would begin on another engine.)
    if stop():
        raise job.interrupted(state.sequences_seen)
    with hdf5.writing(job.path, "segment", job.identity, kept=True) as file:
        _prepare(file, job, beginning)
        losses = _train(file, job, beginning, embeddings, engine, on_progress, stop)
        checkpoint.write_state(file, state, losses)
        seconds = time.perf_counter() - begun + beginning.seconds
        _describe(file, job, state, engine, seconds)
        file.attrs["made_training_code"] = checkpoint.training_codes(beginning.code, engine)
        if state.sequences_seen < job.end:
            _cut_short(file, job, state.sequences_seen)
    if state.sequences_seen < job.end:
        raise job.interrupted(state.sequences_seen)
    job.unfinished.unlink(missing_ok=True)


def _load_beginning(job: SegmentJob) -> Beginning:
    """Load the state to train from: where an interrupted job ended, else the previous segment, else initial weights.

    These are random, or those of the snapshots that lanes start from.
    """
    unfinished = checkpoint.load_unfinished(job.unfinished, job.pack, job.start, job.end, job.device)
    if unfinished:
        return unfinished
    if job.previous:
        return checkpoint.load_previous(job.previous, job.pack, job.start, job.device)
    state = initial_state(job.pack, job.device)
    return Beginning(state, code=starts.load(state, job.pack, job.sources))


def _prepare(file: hdf5.Written, job: SegmentJob, beginning: Beginning) -> None:
    """Write what is known before training, with room for every snapshot and those of an interrupted job."""
    points = job.snapshot_points
    file.attrs["spec"] = job.pack.json
    file.attrs["semantics"] = canonical(semantics_of("training"))
    file.attrs["from"], file.attrs["to"] = job.start, job.end
    file["snapshots/sequences_seen"] = np.array(points, dtype=np.int64)
    for name, tensor in beginning.state.weights.items():
        file.create_dataset(
            f"snapshots/parameters/{name}",
            (len(points), *tensor.shape),
            dtype=tensor.cpu().numpy().dtype,
            # A snapshot at a time, so that an unfinished file can do without those that are missing.
            chunks=(1, *tensor.shape),
            maxshape=(None, *tensor.shape),
        )
    if beginning.resumed:
        checkpoint.copy_snapshots(job.unfinished, file)


def _train(
    file: hdf5.Written,
    job: SegmentJob,
    beginning: Beginning,
    embeddings: torch.Tensor,
    engine: str,
    on_progress: Callable[[int, torch.Tensor | None], None],
    stop: Callable[[], bool],
) -> loop.Losses:
    """Train the beginning's state in place, writing snapshots on the way; return the whole segment's losses."""
    points = job.snapshot_points

    def write_snapshot(state: State) -> None:
        row = points.index(state.sequences_seen)
        for name, tensor in state.weights.items():
            checkpoint.dataset(file, f"snapshots/parameters/{name}")[row] = tensor.cpu().numpy()
        file.check_disk()

    losses = loop.train(job.pack, beginning.state, embeddings, job.end, write_snapshot, on_progress, engine, stop=stop)
    return beginning.losses + losses


def _describe(file: hdf5.Written, job: SegmentJob, state: State, engine: str, seconds: float) -> None:
    """Write what made the file, and how fast."""
    sequences = (state.sequences_seen - job.start) * len(job.pack.lanes)
    threads = torch.get_num_threads()
    file.attrs["made_in_seconds"] = seconds
    file.attrs["made_sequences_per_second"] = sequences / seconds
    file.attrs["made_with"] = f"torch {torch.__version__}, {threads} thread(s), {job.device}, {engine} engine"
    file.attrs["made_on"] = platform.platform()
    file.attrs["made_device"] = job.device


def _cut_short(file: hdf5.Written, job: SegmentJob, sequences_seen: int) -> None:
    """Make the file that of an unfinished segment: without the snapshots that it has no weights for."""
    file.attrs["sequences_seen"] = sequences_seen
    points = [point for point in job.snapshot_points if point <= sequences_seen]
    del file["snapshots/sequences_seen"]
    file["snapshots/sequences_seen"] = np.array(points, dtype=np.int64)
    for name in cast(h5py.Group, file["snapshots/parameters"]):
        checkpoint.dataset(file, f"snapshots/parameters/{name}").resize(len(points), axis=0)
    file.becomes(job.unfinished, "unfinished")
