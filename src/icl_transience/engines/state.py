"""The state of a pack: everything its future depends on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from icl_transience.engines.interface import DTYPES
from icl_transience.model import initial, transformer
from icl_transience.specs.runs import Lane, PackSpec

NOT_DIVERGED = -1


@dataclass
class State:
    """Everything a pack's future depends on.

    parameters, first_moments, second_moments: name -> [S, …]. sequences_seen: of each lane, in whole batches.
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


def initial_state(pack: PackSpec, device: str = "cpu") -> State:
    """Return the state before the first batch: each lane's own weights, moments zero."""
    dtype = DTYPES[pack.run.numerics]
    lanes = [_initial_parameters(lane) for lane in pack.lanes]
    parameters = {name: torch.stack([lane[name] for lane in lanes]).to(device=device, dtype=dtype) for name in lanes[0]}
    return State(
        parameters=parameters,
        first_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        second_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        sequences_seen=0,
        loss_sum=torch.zeros(len(lanes), device=device, dtype=dtype),
        diverged_at=torch.full((len(lanes),), NOT_DIVERGED, device=device),
    )


def _initial_parameters(lane: Lane) -> transformer.Parameters:
    run = lane.run
    return initial.initial_parameters(run.model, run.bank.shape.width, run.n_labels, lane.seed.init, run.recipe.context)
