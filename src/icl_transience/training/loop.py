"""Training of a pack, a segment at a time. Letters for shapes as in model.py: S lanes, B batch, C pairs, …

A segment is a function of (pack, state at its beginning, its end): batches come from counters, so stopping and
resuming is exact. On the CPU a job runs one thread; parallelism is jobs side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from icl_transience.engines import select
from icl_transience.engines.interface import Step
from icl_transience.engines.state import NOT_DIVERGED, State
from icl_transience.specs.runs import PackSpec

# Batches in one value of the recorded training loss.
LOSS_BATCHES = 32


@dataclass(frozen=True)
class Losses:
    """Mean training loss, a tensor [S] for each stretch of LOSS_BATCHES batches that ends at `sequences_seen`."""

    sequences_seen: list[int]
    values: list[Tensor]


def train(
    pack: PackSpec,
    state: State,
    embeddings: Tensor,
    until: int,
    on_snapshot: Callable[[State], None],
    on_progress: Callable[[int, Tensor | None], None] = lambda sequences_seen, loss: None,
    engine: str = "auto",
    step: Step | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Losses:
    """Trains `state` in place until `until` sequences seen, and returns the training loss on the way.

    embeddings [classes, exemplars, I], the bank, on the state's device. on_snapshot is called at every point of the
    snapshot schedule in (state.sequences_seen, until], and at 0 before the first batch. on_progress is called a few
    times a second with the sequences seen and the mean loss of late [S], None where there is none yet. engine: see
    engines.py. step: one made for `state` before, in its place.
    stop is asked after every batch; once it says so, training ends where it is.
    """
    run = pack.run
    step = step or select.step_for(pack, state, embeddings, engine)
    snapshots = set(run.snapshots.points(run.batch_size, state.sequences_seen, until))
    losses = Losses([], [])
    if state.sequences_seen in snapshots:
        on_snapshot(state)
    stretch = LOSS_BATCHES * run.batch_size
    for loss in step.losses(state.sequences_seen, until):
        state.loss_sum += loss
        state.sequences_seen += run.batch_size
        seen = state.sequences_seen
        if seen % stretch == 0:
            mean = state.loss_sum / LOSS_BATCHES
            state.diverged_at[(state.diverged_at == NOT_DIVERGED) & ~mean.isfinite().cpu()] = seen
            losses.sequences_seen.append(seen)
            losses.values.append(mean)
            state.loss_sum = torch.zeros_like(mean)
            on_progress(seen, mean)
        if seen in snapshots:
            on_snapshot(state)
        if stop():
            break
    if state.sequences_seen % stretch:
        on_progress(state.sequences_seen, losses.values[-1] if losses.values else None)
    return losses
