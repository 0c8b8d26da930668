"""The state of a pack: everything its future depends on."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from icl_transience.engines.interface import DTYPES
from icl_transience.model import encoder, initial, transformer
from icl_transience.specs.runs import Lane, PackSpec, Run

NOT_DIVERGED = -1


@dataclass
class State:
    """Everything a pack's future depends on.

    parameters, first_moments, second_moments: name -> [S, …]. statistics: the running ones of an image encoder, which
    no optimizer touches; name -> [S, …], else empty. sequences_seen: of each lane, in whole batches.
    loss_sum: [S], over the batches since the last recorded value (one every LOSS_BATCHES), so that a value does not end
    where a segment does. diverged_at: int64 [S], sequences seen at the first recorded value that was not finite, or
    NOT_DIVERGED.
    """

    parameters: transformer.Parameters
    first_moments: transformer.Parameters
    second_moments: transformer.Parameters
    sequences_seen: int
    loss_sum: Tensor
    diverged_at: Tensor
    statistics: transformer.Parameters = field(default_factory=dict)

    @property
    def weights(self) -> transformer.Parameters:
        """All that a snapshot holds and the model computes with: parameters, and statistics after them."""
        return {**self.parameters, **self.statistics}


def initial_state(pack: PackSpec, device: str = "cpu") -> State:
    """Return the state before the first batch: each lane's own weights, moments zero."""
    dtype = DTYPES[pack.run.numerics]
    lanes = [_initial_parameters(lane) for lane in pack.lanes]
    parameters = {name: torch.stack([lane[name] for lane in lanes]).to(device=device, dtype=dtype) for name in lanes[0]}
    statistics = {
        name: torch.stack([value] * len(lanes)).to(device=device, dtype=dtype)
        for name, value in _initial_statistics(pack.run).items()
    }
    return State(
        parameters=parameters,
        statistics=statistics,
        first_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        second_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        sequences_seen=0,
        loss_sum=torch.zeros(len(lanes), device=device, dtype=dtype),
        diverged_at=torch.full((len(lanes),), NOT_DIVERGED),
    )


def _initial_parameters(lane: Lane) -> transformer.Parameters:
    run = lane.run
    return initial.initial_parameters(
        run.model,
        run.bank.shape.width,
        run.n_labels,
        lane.seed.init,
        run.recipe.context,
        channels=run.bank.images.channels if run.bank.images else 1,
    )


def _initial_statistics(run: Run) -> transformer.Parameters:
    images = run.bank.images
    return encoder.initial_statistics(run.model.resnet, images.channels) if images else {}
