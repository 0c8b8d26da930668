"""The reference engine: the model's functions forward, autograd backward, on any device and in any precision."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience.circuits.interventions import tap_of
from icl_transience.circuits.network import Network
from icl_transience.engines.interface import DTYPES, autocast, tensor_cores
from icl_transience.engines.lanes import Batch, batches, begin_interval, exemplars, lane_optimizers, select_lane
from icl_transience.engines.optimizers import LaneArrays
from icl_transience.engines.state import State
from icl_transience.model import encoder, transformer
from icl_transience.model.places import Tap, chain, untouched
from icl_transience.specs.model import Model
from icl_transience.specs.runs import PackSpec


class EagerStep:
    """Train all lanes of a pack as one batched model."""

    settled = True

    def __init__(self, pack: PackSpec, state: State, embeddings: Tensor):
        self.pack, self.state, self.embeddings = pack, state, embeddings
        dtype = DTYPES[pack.run.numerics]
        self.geometry = transformer.Geometry(pack.run.model, pack.run.recipe.context, dtype, embeddings.device)
        # The state's own memory, as leaves of autograd: what it adds up in `grad` stays at one address.
        self.parameters = {name: value.detach().requires_grad_() for name, value in state.parameters.items()}
        self.network = Network(self.parameters, pack.run.model, pack.run.recipe.context)
        self.gradients = {name: torch.zeros_like(value) for name, value in state.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.grad = self.gradients[name]
        self.arrays = [
            LaneArrays(
                parameters=select_lane(state.parameters, number),
                gradients=select_lane(self.gradients, number),
                first_moments=select_lane(state.first_moments, number),
                second_moments=select_lane(state.second_moments, number),
            )
            for number in range(len(pack.lanes))
        ]
        self.optimizers = lane_optimizers(pack, self.arrays, state.sequences_seen)

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        """See interface.Step."""
        for batch in batches(self.pack, self.embeddings, start, until):
            if batch.begins:
                self.optimizers = begin_interval(self.pack, self.state, self.arrays, batch.start)
            yield self.train_step(self.exemplars(batch), batch.labels, batch.start)

    def train_step(self, exemplars: Tensor, labels: Tensor, start: int) -> Tensor:
        """Take one step of every lane.

        exemplars [S, B, C+1, I], or images, labels [S, B, C+1]: the batch from sequence number `start` on. Returns each
        lane's loss before the step, [S].
        """
        run = self.pack.run
        for gradient in self.gradients.values():
            gradient.zero_()
        with tensor_cores(run.numerics):
            with autocast(run.numerics, exemplars.device):
                if run.model.encodes_images:
                    exemplars = self.encoded(exemplars, start)
                tap = chain(self.activations(exemplars, labels, start), self.dropout(start))
                loss = query_loss(self.parameters, run.model, self.geometry, exemplars, labels, tap)
            # Lanes share no tensor, so the gradient of the sum is each lane's own.
            loss.sum().backward()
        for optimizer in self.optimizers:
            optimizer.add_l2()
            optimizer.clip_gradients()
            optimizer.step(start + run.batch_size)
        return loss.detach()

    def exemplars(self, batch: Batch) -> Tensor:
        """Return the batch's exemplars with their noise, [S, B, C+1, I]."""
        return exemplars(batch, self.embeddings)

    def encoded(self, images: Tensor, start: int) -> Tensor:
        """Return what the lanes' encoders make of images [S, B, C+1, P, P, Q], [S, B, C+1, D]; move their statistics.

        All images of a lane's batch are one batch to its encoder; one that is frozen encodes as at evaluation.
        """
        found = []
        for number, (lane, of_lane) in enumerate(zip(self.pack.lanes, images, strict=True)):
            frozen = lane.run.encoder_frozen_at(start)
            weights = select_lane({**self.parameters, **self.state.statistics}, number)
            of_lane = of_lane.flatten(0, 1).to(self.geometry.positions.dtype)
            with torch.set_grad_enabled(not frozen):
                embedded, statistics = encoder.encode_lane(weights, lane.run.model.resnet, of_lane, not frozen)
            for name, value in statistics.items():
                encoder.moved(self.state.statistics[name][number], value)
            found.append(embedded.view(*images.shape[1:3], -1))
        return torch.stack(found)

    def activations(self, exemplars: Tensor, labels: Tensor, start: int) -> Tap:
        """Return what is done to the activations of the batch from sequence number `start` on.

        Of all lanes alike: lanes that train together have the same interventions.
        """
        done = self.pack.run.activations_at(start)
        return tap_of(self.network, exemplars, labels, done) if done else untouched

    def dropout(self, start: int) -> Tap:
        """Return the dropout of the batch from sequence number `start` on."""
        if not self.pack.run.model.dropout:
            return untouched
        seeds = [lane.seed.data for lane in self.pack.lanes]
        return transformer.Dropout(self.pack.run.model.dropout, seeds, start)


def query_loss(
    parameters: transformer.Parameters,
    model: Model,
    geometry: transformer.Geometry,
    exemplars: Tensor,
    labels: Tensor,
    tap: Tap = untouched,
) -> Tensor:
    """Mean cross-entropy at the query, [S]. exemplars [S, B, C+1, I]; labels [S, B, C+1], the target last."""
    logits = transformer.query_logits(parameters, model, geometry, exemplars, labels[:, :, :-1], tap)
    targets = labels[:, :, -1]
    loss = functional.cross_entropy(logits.flatten(0, 1).to(exemplars.dtype), targets.flatten(), reduction="none")
    return loss.view(targets.shape).mean(dim=1)
