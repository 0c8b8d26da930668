"""Training of a pack, a segment at a time. Letters for shapes as in model/transformer.py.

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
    """Mean training loss of every LOSS_BATCHES batches: [S] each, and the sequences seen at the end of them."""

    sequences_seen: list[int]
    values: list[Tensor]

    def __add__(self, later: "Losses") -> "Losses":
        return Losses(self.sequences_seen + later.sequences_seen, self.values + later.values)


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
    """Train `state` in place until `until` sequences seen, and return the training loss on the way.

    embeddings [classes, exemplars, I], the bank, on the state's device. on_snapshot: called at every point of the
    snapshot schedule in (state.sequences_seen, until], and at 0 before the first batch. on_progress: called a few times
    a second with the sequences seen and the mean loss of late [S], None where there is none yet. engine: see
    engines/select.py. step: one made for `state` before, in place of a new one. stop: asked after every batch; once it
    says so, training ends where it is, or where the step lets it: see interface.Step.
    """
    run = pack.run
    step = step or select.step_for(pack, state, embeddings, engine)
    snapshots = set(run.snapshots.points(run.batch_size, state.sequences_seen, until))
    losses = Losses([], [])
    if state.sequences_seen in snapshots:
        on_snapshot(state)
    interval = LOSS_BATCHES * run.batch_size
    for loss in step.losses(state.sequences_seen, until):
        state.loss_sum += loss
        state.sequences_seen += run.batch_size
        seen = state.sequences_seen
        if seen % interval == 0:
            mean = state.loss_sum / LOSS_BATCHES
            # On the device: asking it for the mean would make it wait for us, and us for it.
            state.diverged_at.masked_fill_((state.diverged_at == NOT_DIVERGED) & ~mean.isfinite(), seen)
            losses.sequences_seen.append(seen)
            losses.values.append(mean)
            state.loss_sum = torch.zeros_like(mean)
            on_progress(seen, mean)
        if seen in snapshots:
            on_snapshot(state)
        if stop() and step.settled:
            break
    if state.sequences_seen % interval:
        on_progress(state.sequences_seen, losses.values[-1] if losses.values else None)
    return losses
