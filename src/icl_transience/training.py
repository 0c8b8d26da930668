"""Training of a pack, a segment at a time. Letters for shapes as in model.py: S lanes, B batch, C pairs, …

A segment is a function of (pack, state at its beginning, its end): batches come from counters, so stopping and
resuming is exact. On the CPU a job runs one thread; parallelism is jobs side by side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.adam import adam

from icl_transience import model as transformer
from icl_transience import sequences
from icl_transience.packs import PackSpec
from icl_transience.spec import L2, Lane, Run

DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Batches in one value of the recorded training loss, and in one drawing of indices.
LOSS_BATCHES = 32
DRAW_BATCHES = 256

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
    dtype = DTYPES[pack.run.numerics]
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
    shape = lane.run.bank.shape
    return transformer.initial_parameters(lane.run.model, shape.width, shape.n_train_classes, lane.seed.init)


def train(
    pack: PackSpec,
    state: State,
    embeddings: Tensor,
    until: int,
    on_snapshot: Callable[[State], None],
    on_progress: Callable[[int], None] = lambda sequences_seen: None,
) -> Losses:
    """Trains `state` in place until `until` sequences seen, and returns the training loss on the way.

    embeddings [classes, exemplars, I], the bank, on the state's device. on_snapshot is called at every point of the
    snapshot schedule in (state.sequences_seen, until], and at 0 before the first batch. on_progress is called with
    the sequences seen a few times a second.
    """
    run = pack.run
    step = _Step(pack, state, embeddings)
    snapshots = set(run.snapshots.points(run.batch_size, state.sequences_seen, until))
    losses = Losses([], [])
    if state.sequences_seen in snapshots:
        on_snapshot(state)
    stretch = LOSS_BATCHES * run.batch_size
    for exemplars, labels in _batches(pack, embeddings, state.sequences_seen, until):
        state.loss_sum += step(exemplars, labels)
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
    if state.sequences_seen % stretch:
        on_progress(until)
    return losses


def _batches(pack: PackSpec, embeddings: Tensor, start: int, until: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(exemplars [S, B, C+1, I], labels [S, B, C+1]) of each batch from sequence number `start` on.

    Indices are drawn for many batches at once, which changes none of them.
    """
    batch_size, n_exemplars = pack.run.batch_size, embeddings.shape[1]
    rows = embeddings.flatten(0, 1)
    for first in range(start, until, batch_size * DRAW_BATCHES):
        last = min(first + batch_size * DRAW_BATCHES, until)
        drawn = [_draw(lane, torch.arange(first, last, device=embeddings.device)) for lane in pack.lanes]
        rows_drawn = torch.stack([lane.classes * n_exemplars + lane.exemplars for lane in drawn])
        labels = torch.stack([lane.labels for lane in drawn])
        for offset in range(0, last - first, batch_size):
            index = rows_drawn[:, offset : offset + batch_size]
            yield (
                rows.index_select(0, index.flatten()).view(*index.shape, -1),
                labels[:, offset : offset + batch_size],
            )


def _draw(lane: Lane, positions: Tensor) -> sequences.Sequences:
    run = lane.run
    return sequences.draw(run.recipe, run.bank.shape, lane.seed.data, sequences.TRAINING, positions)


class _Step:
    """One Adam step of all lanes on one batch each; each lane has its own learning rate and L2."""

    def __init__(self, pack: PackSpec, state: State, embeddings: Tensor):
        self.run: Run = pack.run
        self.parameters = state.parameters
        self.geometry = transformer.Geometry(
            self.run.model, self.run.recipe.context, embeddings.dtype, embeddings.device
        )
        self.lanes = []
        steps_done = float(state.sequences_seen // self.run.batch_size)
        for number, lane in enumerate(pack.lanes):
            lane_tensors = [
                [tensor[number] for tensor in tensors.values()]
                for tensors in (state.parameters, state.first_moments, state.second_moments)
            ]
            counts = [torch.tensor(steps_done, device=embeddings.device) for _ in state.parameters]
            self.lanes.append((lane.run.optimizer, *lane_tensors, counts))

    def __call__(self, exemplars: Tensor, labels: Tensor) -> Tensor:
        """Updates the parameters and returns the loss before the update, [S]."""
        for tensor in self.parameters.values():
            tensor.requires_grad_()
        loss = query_loss(self.parameters, self.run.model, self.geometry, exemplars, labels)
        # Lanes share no tensor, so the gradient of the sum is each lane's own.
        gradients = torch.autograd.grad(loss.sum(), list(self.parameters.values()))
        for tensor in self.parameters.values():
            tensor.requires_grad_(False)
        for number, (optimizer, parameters, first_moments, second_moments, counts) in enumerate(self.lanes):
            lane_gradients = [gradient[number] for gradient in gradients]
            l2 = optimizer.l2
            if l2.strength and l2.form == "unsquared":
                add_unsquared_l2(parameters, lane_gradients, l2)
            adam(
                parameters,
                lane_gradients,
                first_moments,
                second_moments,
                [],
                counts,
                fused=True,
                amsgrad=False,
                maximize=False,
                lr=optimizer.learning_rate,
                beta1=optimizer.beta1,
                beta2=optimizer.beta2,
                eps=optimizer.epsilon,
                # Adam's weight_decay is added to the gradient: the gradient of strength * sum of squares.
                weight_decay=2 * l2.strength if l2.form == "squared" else 0.0,
            )
        return loss.detach()


def query_loss(
    parameters: transformer.Parameters,
    model: transformer.Model,
    geometry: transformer.Geometry,
    exemplars: Tensor,
    labels: Tensor,
) -> Tensor:
    """Mean cross-entropy at the query, [S]. exemplars [S, B, C+1, I]; labels [S, B, C+1], the target last."""
    logits = transformer.query_logits(parameters, model, geometry, exemplars, labels[:, :, :-1])
    targets = labels[:, :, -1]
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return loss.view(targets.shape).mean(dim=1)


def add_unsquared_l2(parameters: list[Tensor], gradients: list[Tensor], l2: L2) -> None:
    """Adds the gradient of strength * sum over arrays of their Euclidean norm; it is 0 where an array is 0."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        norm = parameter.norm()
        gradient.add_(parameter / norm.clamp_min(torch.finfo(norm.dtype).tiny), alpha=l2.strength)


def parameter_names(pack: PackSpec) -> list[str]:
    """The names of the parameters, in forward order."""
    shape = pack.run.bank.shape
    return list(transformer.parameter_shapes(pack.run.model, shape.width, shape.n_train_classes))
