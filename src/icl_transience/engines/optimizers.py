"""From gradients to weights, a lane at a time: L2, clipping, learning-rate schedules, update rules.

The gradient is that of the loss with its L2 term; `clip` shortens it, all arrays together, to that norm at most; then
    adam     Kingma & Ba (2015)
    adamw    the same, and every weight shrinks by learning rate * weight_decay of itself (Loshchilov & Hutter 2019)
    sgd      velocity = momentum * velocity + gradient, which is kept where Adam keeps its first moments
The learning rate of a batch is a pure function of the sequences seen, so nothing has to be carried along.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from icl_transience.specs.identity import round_up
from icl_transience.specs.model import component
from icl_transience.specs.training import Optimizer

# As in torch.nn.utils.clip_grad_norm_: a gradient of norm 0 has no direction to keep.
_CLIP_EPSILON = 1e-6


def learning_rate(optimizer: Optimizer, batch_size: int, seen: int) -> float:
    """The rate of the batch with whose end `seen` sequences have been seen, n in

        warm-up        n / warmup, below 1
        constant       1
        inverse_sqrt   sqrt(warmup / n)
        cosine         final + (1 - final) * (1 + cos(pi * x)) / 2, x from 0 at warmup to 1 at length, and then `final`

    times the optimizer's `learning_rate`; warmup and length in whole batches.
    """
    schedule = optimizer.schedule
    if schedule.is_flat:
        return optimizer.learning_rate
    warmup, length = (round_up(part, batch_size) for part in (schedule.warmup, schedule.length))
    if seen < warmup:
        share = seen / warmup
    elif schedule.kind == "inverse_sqrt":
        share = math.sqrt(warmup / seen)
    elif schedule.kind == "cosine":
        passed = min((seen - warmup) / (length - warmup), 1.0)
        share = schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * passed)) / 2
    else:
        share = 1.0
    return optimizer.learning_rate * share


# From names to a lane's arrays of these names, or to fewer arrays that hold the same numbers.
Select = Callable[[Sequence[str]], list[Tensor]]


@dataclass(frozen=True)
class Arrays:
    """A lane's arrays of one kind (parameters, gradients, moments): by name, and as many at once."""

    named: Mapping[str, Tensor]
    select: Select


def separate(named: Mapping[str, Tensor]) -> Arrays:
    """Arrays that are apart in memory."""
    return Arrays(named, lambda names: [named[name] for name in names])


def joined(flat: Tensor, named: Mapping[str, Tensor]) -> Arrays:
    """Arrays that are views of `flat` [P] and fill it in their order; neighbours are selected as one."""
    starts = [tensor.storage_offset() - flat.storage_offset() for tensor in named.values()]
    places = dict(zip(named, itertools.pairwise([*starts, len(flat)]), strict=True))

    def select(names: Sequence[str]) -> list[Tensor]:
        pieces: list[tuple[int, int]] = []
        for first, end in (places[name] for name in names):
            if pieces and pieces[-1][1] == first:
                pieces[-1] = pieces[-1][0], end
            else:
                pieces.append((first, end))
        return [flat[first:end] for first, end in pieces]

    return Arrays(named, select)


@dataclass(frozen=True)
class _Group:
    """Arrays that take the same step: `decay` times them is the gradient of their squared L2."""

    names: list[str]
    decay: float
    parameters: list[Tensor]
    first_moments: list[Tensor]
    second_moments: list[Tensor]
    counts: list[Tensor]


class Update:
    """How a lane's gradients change its weights and moments, in place.

    parameters, first_moments, second_moments: the lane's. steps: name -> steps that the array has taken before.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        batch_size: int,
        parameters: Arrays,
        first_moments: Arrays,
        second_moments: Arrays,
        steps: Mapping[str, int],
    ):
        self.optimizer, self.batch_size, self.parameters = optimizer, batch_size, parameters
        squared = optimizer.l2.form == "squared"
        strengths = {name: optimizer.l2.of(component(name)) for name in parameters.named}
        decays = {name: 2 * strength if squared else 0.0 for name, strength in strengths.items()}
        self.unsquared = {name: strength for name, strength in strengths.items() if strength and not squared}
        # Where it must stand in the gradient: clipping has to see it, and AdamW's step has another decay in its place.
        self.decays_first = bool(optimizer.clip) or optimizer.name == "adamw"
        self.groups: list[_Group] = []
        for names in _alike({name: (decays[name], steps[name]) for name in parameters.named}):
            kinds = [kind.select(names) for kind in (parameters, first_moments, second_moments)]
            device = kinds[0][0].device
            counts = [torch.tensor(float(steps[names[0]]), device=device) for _ in kinds[0]]
            self.groups.append(_Group(names, decays[names[0]], *kinds, counts))

    @property
    def counts(self) -> list[Tensor]:
        """Of steps done; they are counted up in place."""
        return [count for group in self.groups for count in group.counts]

    def gradients(self, gradients: Arrays) -> list[list[Tensor]]:
        """Those of each group, as a step takes them."""
        return [gradients.select(group.names) for group in self.groups]

    def __call__(self, named: Mapping[str, Tensor], gradients: Sequence[list[Tensor]], seen: int) -> None:
        """One step. named: name -> gradient, of the loss alone; gradients: the same by groups, see `gradients`; both
        are used up. seen: sequences seen with the end of this batch."""
        optimizer = self.optimizer
        add_unsquared_l2(self.parameters.named, named, self.unsquared)
        for group, of_group in zip(self.groups, gradients, strict=True):
            if self.decays_first and group.decay:
                for parameter, gradient in zip(group.parameters, of_group, strict=True):
                    gradient.add_(parameter, alpha=group.decay)
        if optimizer.clip:
            clip([gradient for of_group in gradients for gradient in of_group], optimizer.clip)
        rate = learning_rate(optimizer, self.batch_size, seen)
        for group, of_group in zip(self.groups, gradients, strict=True):
            step(optimizer, rate, 0.0 if self.decays_first else group.decay, group, of_group)


def _alike(treatments: Mapping[str, tuple[float, int]]) -> Iterable[list[str]]:
    """Names that are treated alike, in their order."""
    groups: dict[tuple[float, int], list[str]] = {}
    for name, treatment in treatments.items():
        groups.setdefault(treatment, []).append(name)
    return groups.values()


def add_unsquared_l2(
    parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strengths: Mapping[str, float]
) -> None:
    """Adds the gradient of the sum over `strengths` of strength * the array's Euclidean norm.

    It is 0 where an array is 0.
    """
    for name, strength in strengths.items():
        norm = parameters[name].norm()
        gradients[name].add_(parameters[name] / norm.clamp_min(torch.finfo(norm.dtype).tiny), alpha=strength)


def clip(gradients: Sequence[Tensor], largest: float) -> None:
    """Shortens all gradients alike so that their common norm is `largest` at most."""
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    share = (largest / (norm + _CLIP_EPSILON)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(share)


def step(optimizer: Optimizer, rate: float, decay: float, arrays: _Group, gradients: list[Tensor]) -> None:
    """One step of the update rule in place; `decay` times the parameters is added to the gradients."""
    if optimizer.name == "sgd":
        sgd(
            arrays.parameters,
            gradients,
            arrays.first_moments,
            fused=True,
            lr=rate,
            momentum=optimizer.momentum,
            weight_decay=decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        return
    decoupled = optimizer.name == "adamw"
    adam(
        arrays.parameters,
        gradients,
        arrays.first_moments,
        arrays.second_moments,
        [],
        arrays.counts,
        fused=True,
        capturable=arrays.counts[0].is_cuda,
        decoupled_weight_decay=decoupled,
        amsgrad=False,
        maximize=False,
        lr=rate,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        eps=optimizer.epsilon,
        weight_decay=optimizer.weight_decay if decoupled else decay,
    )
