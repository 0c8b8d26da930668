"""TODO"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from icl_transience.engines import optimizers
from icl_transience.engines.state import State
from icl_transience.model import initial
from icl_transience.sequences import draw
from icl_transience.specs.runs import Lane, PackSpec

# Batches in one drawing of indices.
DRAW_BATCHES = 256


def constant_intervals(pack: PackSpec, start: int, until: int) -> Iterator[tuple[int, int]]:
    """(first, end) of the parts of `start` … `until` within which no lane's recipe, optimizer or labels are changed."""
    changes = set().union(*(lane.run.changes(start, until) for lane in pack.lanes))
    return itertools.pairwise([start, *sorted(changes), until])


def lanes_at(pack: PackSpec, seen: int) -> list[Lane]:
    """The pack's lanes with the recipe and optimizer that hold for the batch that begins at `seen`."""
    return [replace(lane, run=lane.run.at(seen)) for lane in pack.lanes]


def updates(pack: PackSpec, seen: int, arrays: list[list[optimizers.Arrays]]) -> list[optimizers.Update]:
    """Each lane's, for the batch that begins at `seen`. arrays: of each lane, parameters and both moments."""
    batch_size, found = pack.run.batch_size, []
    for lane, of_this in zip(lanes_at(pack, seen), arrays, strict=True):
        steps = dict.fromkeys(of_this[0].named, seen // batch_size)
        # An optimizer that has just begun corrects its moments for it.
        steps["label_embedding"] -= lane.run.forgetting.latest(batch_size, seen) // batch_size
        found.append(optimizers.Update(lane.run.optimizer, batch_size, *of_this, steps))
    return found


def reset_label_embeddings(pack: PackSpec, state: "State", seen: int) -> None:
    """Draws the label embeddings of the lanes anew that forget them at `seen`, with moments of 0."""
    for number, lane in enumerate(pack.lanes):
        run = lane.run
        times = run.forgetting.times(run.batch_size, seen)
        if times and run.forgetting.latest(run.batch_size, seen) == seen:
            name = "label_embedding"
            sizes = run.bank.shape.width, run.n_labels
            drawn = initial.initial_parameters(run.model, *sizes, lane.seed.init, run.recipe.context, times)
            state.parameters[name][number].copy_(drawn[name])
            state.first_moments[name][number].zero_()
            state.second_moments[name][number].zero_()


def of_lane(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """name -> the tensor of one lane, without the lane axis."""
    return {name: tensor[number] for name, tensor in tensors.items()}


def drawn(
    lanes: Sequence[Lane], batch_size: int, embeddings: Tensor, start: int, until: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows of the flattened bank, labels), int64 [S, n, C+1] each, of the sequences from number `start` on.

    They come for many batches at once, which changes none of them.
    """
    chunk = batch_size * DRAW_BATCHES
    for first in range(start, until, chunk):
        positions = torch.arange(first, min(first + chunk, until), device=embeddings.device)
        found = [_draw(lane, positions) for lane in lanes]
        rows = torch.stack([lane.classes * embeddings.shape[1] + lane.exemplars for lane in found])
        yield rows, torch.stack([lane.labels for lane in found])


def _draw(lane: Lane, positions: Tensor) -> draw.Sequences:
    run = lane.run
    return draw.draw(run.recipe, run.bank.shape, lane.seed.data, draw.TRAINING, positions)


def noise(lane: Lane, start: int, embeddings: Tensor) -> Tensor:
    """The input noise of the batch from sequence number `start` on, [B, C+1, I], of the embeddings' kind."""
    run, positions = lane.run, torch.arange(start, start + lane.run.batch_size, device=embeddings.device)
    drawn = draw.input_noise(run.recipe, embeddings.shape[-1], lane.seed.data, draw.TRAINING, positions)
    return drawn.to(embeddings.dtype)
