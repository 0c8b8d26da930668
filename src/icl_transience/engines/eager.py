"""TODO"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience.engines import optimizers
from icl_transience.engines.interface import autocast, tensor_cores
from icl_transience.engines.lanes import (
    constant_intervals,
    drawn,
    lanes_at,
    noise,
    of_lane,
    reset_label_embeddings,
    updates,
)
from icl_transience.engines.state import State
from icl_transience.model import transformer
from icl_transience.specs.model import Model
from icl_transience.specs.runs import PackSpec


class EagerStep:
    """Forward by model.py, backward by autograd."""

    def __init__(self, pack: PackSpec, state: "State", embeddings: Tensor):
        self.pack, self.state, self.embeddings = pack, state, embeddings
        self.parameters = state.parameters
        self.geometry = transformer.Geometry(
            pack.run.model, pack.run.recipe.context, embeddings.dtype, embeddings.device
        )
        parts = (state.parameters, state.first_moments, state.second_moments)
        self.arrays = [
            [optimizers.separate(of_lane(part, number)) for part in parts] for number in range(len(pack.lanes))
        ]
        self.updates = updates(pack, state.sequences_seen, self.arrays)

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        for first, last in constant_intervals(self.pack, start, until):
            reset_label_embeddings(self.pack, self.state, first)
            self.updates = updates(self.pack, first, self.arrays)
            for exemplars, labels in self.batches(first, last):
                yield self.step(exemplars, labels, first)
                first += self.pack.run.batch_size

    def batches(self, start: int, until: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(exemplars [S, B, C+1, I], labels [S, B, C+1]) of each batch from sequence number `start` on."""
        batch_size, flat = self.pack.run.batch_size, self.embeddings.flatten(0, 1)
        for first, last in constant_intervals(self.pack, start, until):
            lanes = lanes_at(self.pack, first)
            for rows, labels in drawn(lanes, batch_size, self.embeddings, first, last):
                for place in range(0, rows.shape[1], batch_size):
                    index = rows[:, place : place + batch_size]
                    exemplars = flat.index_select(0, index.flatten()).view(*index.shape, -1)
                    for number, lane in enumerate(lanes):
                        if lane.run.recipe.input_noise:
                            exemplars[number] += noise(lane, first, self.embeddings)
                    first += batch_size
                    yield exemplars, labels[:, place : place + batch_size]

    def step(self, exemplars: Tensor, labels: Tensor, start: int) -> Tensor:
        """exemplars [S, B, C+1, I], labels [S, B, C+1], of the batch from sequence number `start` on. Returns [S]."""
        for tensor in self.parameters.values():
            tensor.requires_grad_()
        run, drop = self.pack.run, transformer.keep_all
        if run.model.dropout:
            seeds = [lane.seed.data for lane in self.pack.lanes]
            drop = transformer.Dropout(run.model.dropout, seeds, start)
        with tensor_cores(run.numerics):
            with autocast(run.numerics, exemplars.device):
                loss = query_loss(self.parameters, run.model, self.geometry, exemplars, labels, drop)
            # Lanes share no tensor, so the gradient of the sum is each lane's own.
            found = torch.autograd.grad(loss.sum(), list(self.parameters.values()))
        for tensor in self.parameters.values():
            tensor.requires_grad_(False)
        gradients = dict(zip(self.parameters, found, strict=True))
        for number, update in enumerate(self.updates):
            of_this = of_lane(gradients, number)
            update(of_this, update.gradients(optimizers.separate(of_this)), start + run.batch_size)
        return loss.detach()


def query_loss(
    parameters: transformer.Parameters,
    model: Model,
    geometry: transformer.Geometry,
    exemplars: Tensor,
    labels: Tensor,
    drop: transformer.Drop = transformer.keep_all,
) -> Tensor:
    """Mean cross-entropy at the query, [S]. exemplars [S, B, C+1, I]; labels [S, B, C+1], the target last."""
    logits = transformer.query_logits(parameters, model, geometry, exemplars, labels[:, :, :-1], drop)
    targets = labels[:, :, -1]
    loss = functional.cross_entropy(logits.flatten(0, 1).to(exemplars.dtype), targets.flatten(), reduction="none")
    return loss.view(targets.shape).mean(dim=1)
