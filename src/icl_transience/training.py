"""Training of a pack, a segment at a time. Letters for shapes as in model.py: S lanes, B batch, C pairs, …

A segment is a function of (pack, state at its beginning, its end): batches come from counters, so stopping and
resuming is exact. On the CPU a job runs one thread; parallelism is jobs side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from icl_transience import engines
from icl_transience import model as transformer
from icl_transience.packs import PackSpec
from icl_transience.spec import Lane

# Batches in one value of the recorded training loss.
LOSS_BATCHES = 32

NOT_DIVERGED = -1


@dataclass
class State:
    """Everything a pack's future depends on.

    parameters, first_moments, second_moments: name -> [S, …]. sequences_seen: of each lane, in whole batches.
    loss_sum: [S], over the batches of the stretch under way (see LOSS_BATCHES), so that stretches do not end where
    segments do. diverged_at: int64 [S], sequences seen at the end of the first stretch whose loss was not finite, or
    NOT_DIVERGED.
    """

    parameters: transformer.Parameters
    first_moments: transformer.Parameters
    second_moments: transformer.Parameters
    sequences_seen: int
    loss_sum: Tensor
    diverged_at: Tensor


@dataclass(frozen=True)
class Losses:
    """Mean training loss, a tensor [S] for each stretch of LOSS_BATCHES batches that ends at `sequences_seen`."""

    sequences_seen: list[int]
    values: list[Tensor]


def initial_state(pack: PackSpec, device: str = "cpu") -> State:
    """The state before the first batch: each lane's own weights, moments zero."""
    dtype = engines.DTYPES[pack.run.numerics]
    lanes = [_initial_parameters(lane) for lane in pack.lanes]
    parameters = {name: torch.stack([lane[name] for lane in lanes]).to(device=device, dtype=dtype) for name in lanes[0]}
    return State(
        parameters=parameters,
        first_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        second_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        sequences_seen=0,
        loss_sum=torch.zeros(len(lanes), device=device, dtype=dtype),
        diverged_at=torch.full((len(lanes),), NOT_DIVERGED),
    )


def _initial_parameters(lane: Lane) -> transformer.Parameters:
    run = lane.run
    return transformer.initial_parameters(
        run.model, run.bank.shape.width, run.n_labels, lane.seed.init, run.recipe.context
    )


def train(
    pack: PackSpec,
    state: State,
    embeddings: Tensor,
    until: int,
    on_snapshot: Callable[[State], None],
    on_progress: Callable[[int], None] = lambda sequences_seen: None,
    engine: str = "auto",
    step: engines.Step | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Losses:
    """Trains `state` in place until `until` sequences seen, and returns the training loss on the way.

    embeddings [classes, exemplars, I], the bank, on the state's device. on_snapshot is called at every point of the
    snapshot schedule in (state.sequences_seen, until], and at 0 before the first batch. on_progress is called with
    the sequences seen a few times a second. engine: see engines.py. step: one made for `state` before, in its place.
    stop is asked after every batch; once it says so, training ends where it is.
    """
    run = pack.run
    step = step or engines.step_for(pack, state, embeddings, engine)
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
            on_progress(seen)
        if seen in snapshots:
            on_snapshot(state)
        if stop():
            break
    if state.sequences_seen % stretch:
        on_progress(state.sequences_seen)
    return losses


def parameter_names(pack: PackSpec) -> list[str]:
    """The names of the parameters, in forward order."""
    run = pack.run
    return list(transformer.parameter_shapes(run.model, run.bank.shape.width, run.n_labels, run.recipe.context))
