"""What the lanes of a pack have at each batch: their data, recipe, optimizer, and label embeddings drawn anew."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from icl_transience.engines.images import images_at
from icl_transience.engines.optimizers import LaneArrays, LaneOptimizer
from icl_transience.engines.state import State
from icl_transience.model import initial
from icl_transience.sequences import draw
from icl_transience.specs.runs import Lane, PackSpec

# Batches whose indices are drawn at a time.
DRAW_BATCHES = 256


class Batch(NamedTuple):
    """A batch of every lane, as indices.

    start: sequence number of its first sequence. lanes: with the recipe and optimizer that hold for it. begins: whether
    these hold from here on, or labels are forgotten here; so it is for the first batch of a call, too.
    rows: of the flattened bank, labels: the target last; int64 [S, B, C+1] each, or as an engine arranges them.
    """

    start: int
    lanes: list[Lane]
    begins: bool
    rows: Tensor
    labels: Tensor


def exemplars(batch: Batch, embeddings: Tensor) -> Tensor:
    """Gather a batch's exemplars [S, B, C+1, I] from the bank's embeddings and add their noise; rows [S, B, C+1].

    Of a bank of images: these, as they are turned and flipped, float32 [S, B, C+1, P, P, Q].
    """
    if batch.lanes[0].run.bank.images:
        return images_at(batch.lanes[0].run, embeddings, batch.rows)
    flat = embeddings.flatten(0, 1)
    gathered = flat.index_select(0, batch.rows.flatten()).view(*batch.rows.shape, -1)
    for number, lane in enumerate(batch.lanes):
        if lane.run.recipe.input_noise:
            gathered[number] += input_noise(lane, batch.start, embeddings)
    return gathered


def by_batch(indices: Tensor, batch_size: int) -> Tensor:
    """[S, n, C+1] -> [batches, S, B, C+1]."""
    return indices.unflatten(1, (-1, batch_size)).transpose(0, 1)


def batches(
    pack: PackSpec,
    embeddings: Tensor,
    start: int,
    until: int,
    arrange: Callable[[Tensor, int], Tensor] = by_batch,
) -> Iterator[Batch]:
    """Yield the batches from sequence number `start` to `until`, and what holds for each.

    arrange: from indices [S, n, C+1] of many batches and the batch size to one entry a batch.
    """
    batch_size = pack.run.batch_size
    for first, last in constant_intervals(pack, start, until):
        lanes, begins = lanes_at(pack, first), True
        for rows, labels in index_chunks(lanes, batch_size, embeddings, first, last):
            for indices in zip(arrange(rows, batch_size), arrange(labels, batch_size), strict=True):
                yield Batch(first, lanes, begins, *indices)
                first, begins = first + batch_size, False


def constant_intervals(pack: PackSpec, start: int, until: int) -> Iterator[tuple[int, int]]:
    """(first, end) of the parts of `start` … `until` within which no lane's recipe, optimizer or labels are changed."""
    changes: set[int] = set()
    for lane in pack.lanes:
        changes |= lane.run.changes(start, until)
    return itertools.pairwise([start, *sorted(changes), until])


def lanes_at(pack: PackSpec, seen: int) -> list[Lane]:
    """Return the pack's lanes with the recipe and optimizer that hold for the batch that begins at `seen`."""
    return [replace(lane, run=lane.run.at(seen)) for lane in pack.lanes]


def begin_interval(pack: PackSpec, state: State, arrays: Sequence[LaneArrays], seen: int) -> list[LaneOptimizer]:
    """Put in force what holds from `seen` on: forget labels where it is time, and return each lane's optimizer."""
    reset_label_embeddings(pack, state, seen)
    return lane_optimizers(pack, arrays, seen)


def lane_optimizers(pack: PackSpec, arrays: Sequence[LaneArrays], seen: int) -> list[LaneOptimizer]:
    """Each lane's optimizer for the batch that begins at `seen`."""
    steps = lane_steps(pack, arrays[0].parameters, seen)
    return [
        LaneOptimizer(lane.run.optimizer, pack.run.batch_size, of_lane, taken)
        for lane, of_lane, taken in zip(lanes_at(pack, seen), arrays, steps, strict=True)
    ]


def lane_steps(pack: PackSpec, names: Iterable[str], seen: int) -> list[dict[str, int]]:
    """Return, a lane each, name -> steps that the array has taken before the batch at `seen`, of those that move."""
    batch_size, found, names = pack.run.batch_size, [], list(names)
    for lane in lanes_at(pack, seen):
        freeze = lane.run.freeze
        steps = dict.fromkeys(names, seen // batch_size)
        # An optimizer that has just begun corrects its moments for it.
        for name in lane.run.forgetting.parameters:
            steps[name] -= lane.run.forgetting.latest(batch_size, seen) // batch_size
        for name in freeze.parameters:
            steps[name] -= freeze.frozen_sequences(batch_size, seen) // batch_size
            if freeze.holds(batch_size, seen):
                del steps[name]
        found.append(steps)
    return found


def reset_label_embeddings(pack: PackSpec, state: State, seen: int) -> None:
    """Draw anew what lanes forget at `seen`: label embeddings, with the unembedding or not; their moments are 0."""
    for number, lane in enumerate(pack.lanes):
        run = lane.run
        times = run.forgetting.times(run.batch_size, seen)
        if times and run.forgetting.latest(run.batch_size, seen) == seen:
            sizes = run.bank.shape.width, run.n_labels
            seed, context, names = lane.seed.init, run.recipe.context, run.forgetting.parameters
            redrawn = initial.initial_parameters(run.model, *sizes, seed, context, times, names=names)
            for name in names:
                state.parameters[name][number].copy_(redrawn[name])
                state.first_moments[name][number].zero_()
                state.second_moments[name][number].zero_()


def select_lane(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Name -> the tensor of one lane, without the lane axis."""
    return {name: tensor[number] for name, tensor in tensors.items()}


def index_chunks(
    lanes: Sequence[Lane], batch_size: int, embeddings: Tensor, start: int, until: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows of the flattened bank, labels), int64 [S, n, C+1] each, of the sequences from number `start` on.

    They are drawn for many batches at once, and on a GPU for all lanes of one recipe, which saves calls and changes no
    number.
    """
    chunk = batch_size * DRAW_BATCHES
    for first in range(start, until, chunk):
        yield draw_indices(lanes, embeddings, first, min(first + chunk, until))


def draw_indices(lanes: Sequence[Lane], embeddings: Tensor, start: int, until: int) -> tuple[Tensor, Tensor]:
    """Return (rows of the flattened bank, labels), int64 [S, until - start, C+1] each, of sequences from `start` on."""
    device = embeddings.device
    # A lane at a time stays in a CPU's cache; a GPU waits for the host at so many small calls.
    alike = (lambda lane: lane) if device.type == "cpu" else (lambda lane: lane.run.recipe)
    rows, labels = [], []
    for _, group in itertools.groupby(lanes, alike):
        same = list(group)
        run, seeds = same[0].run, tuple(lane.seed.data for lane in same)
        drawn = draw.draw_lanes(run.recipe, run.bank.shape, seeds, draw.TRAINING_STREAM, start, until, device)
        of_bank = drawn.classes * embeddings.shape[1] + drawn.exemplars
        rows.append(of_bank.unflatten(0, (len(same), -1)))
        labels.append(drawn.labels.unflatten(0, (len(same), -1)))
    return torch.cat(rows), torch.cat(labels)


def input_noise(lane: Lane, start: int, embeddings: Tensor) -> Tensor:
    """Draw the input noise of the batch from sequence number `start` on, [B, C+1, I], in the embeddings' type."""
    run, positions = lane.run, torch.arange(start, start + lane.run.batch_size, device=embeddings.device)
    drawn = draw.input_noise(run.recipe, embeddings.shape[-1], lane.seed.data, draw.TRAINING_STREAM, positions)
    return drawn.to(embeddings.dtype)
