"""From gradients to weights, a lane at a time: L2, clipping, learning-rate schedules, update rules.

The gradient is that of the loss with its L2 term; `clip` shortens it, all arrays together, to that norm at most; then
    adam     Kingma & Ba (2015)
    adamw    the same, and every weight shrinks by learning rate * weight_decay of itself (Loshchilov & Hutter 2019)
    sgd      velocity = momentum * velocity + gradient, which is kept where Adam keeps its first moments
The learning rate of a batch is a pure function of the sequences seen, so nothing has to be carried along.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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
    """Return the learning rate of the batch with whose end `seen` sequences have been seen.

    With n for `seen` it is

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


@dataclass(frozen=True)
class LaneArrays:
    """A lane's parameters, gradients and moments, each name -> contiguous array.

    flat, spans: where each of the four is one array [P], that array, and the part of it that belongs to a name. A step
    then takes neighbours as one. A span may be longer than its array: what follows the array in it is 0 and stays 0.
    """

    parameters: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    first_moments: Mapping[str, Tensor]
    second_moments: Mapping[str, Tensor]
    flat: Sequence[Tensor] | None = None
    spans: Mapping[str, slice] = field(default_factory=dict)

    def group(self, names: Sequence[str], decay: float, steps: int) -> "ParameterGroup":
        """Return the group of these names; see ParameterGroup."""
        if self.flat:
            pieces = joined([self.spans[name] for name in names])
            lists = [[part[piece] for piece in pieces] for part in self.flat]
        else:
            parts = (self.parameters, self.gradients, self.first_moments, self.second_moments)
            lists = [[part[name] for name in names] for part in parts]
        counts = [torch.tensor(float(steps), device=array.device) for array in lists[0]]
        return ParameterGroup(*lists, counts=counts, decay=decay)


def joined(spans: Sequence[slice]) -> list[slice]:
    """Join spans [first, end) of which one begins where the one before it ends."""
    pieces: list[slice] = []
    for span in spans:
        if pieces and pieces[-1].stop == span.start:
            pieces[-1] = slice(pieces[-1].start, span.stop)
        else:
            pieces.append(span)
    return pieces


@dataclass(frozen=True)
class ParameterGroup:
    """Arrays that take the same step, as torch's optimizers have groups.

    counts: steps taken before, an array's each, counted up in place. decay * array is the gradient of its squared L2.
    """

    parameters: list[Tensor]
    gradients: list[Tensor]
    first_moments: list[Tensor]
    second_moments: list[Tensor]
    counts: list[Tensor]
    decay: float


class LaneOptimizer:
    """The optimizer of one lane: changes its weights and moments in place by what stands in its gradients.

    A step is `add_l2`, `clip_gradients`, `step`, in this order. steps: name -> steps that the array has taken before,
    of the arrays that move; the others stay as they are, and clipping does not see their gradients.
    """

    def __init__(self, optimizer: Optimizer, batch_size: int, arrays: LaneArrays, steps: Mapping[str, int]):
        self.optimizer, self.batch_size, self.arrays = optimizer, batch_size, arrays
        self.unsquared, alike = _terms(optimizer, steps)
        self.decays_first = _decays_first(optimizer)
        self.groups = [arrays.group(names, decay, done) for (decay, done), names in alike.items()]

    def add_l2(self) -> None:
        """Add the gradient of the L2 term to the loss's, but for what `step` adds itself."""
        add_unsquared_l2(self.arrays.parameters, self.arrays.gradients, self.unsquared)
        for group in self.groups:
            if self.decays_first and group.decay:
                for parameter, gradient in zip(group.parameters, group.gradients, strict=True):
                    gradient.add_(parameter, alpha=group.decay)

    def clip_gradients(self) -> None:
        """Shorten the gradient to the optimizer's `clip`, if it has one."""
        if self.optimizer.clip:
            clip([gradient for group in self.groups for gradient in group.gradients], self.optimizer.clip)

    def step(self, seen: int) -> None:
        """Take the step with whose end `seen` sequences have been seen."""
        rate = learning_rate(self.optimizer, self.batch_size, seen)
        for group in self.groups:
            step(self.optimizer, rate, 0.0 if self.decays_first else group.decay, group)


def _decays_first(optimizer: Optimizer) -> bool:
    """Say whether L2 must stand in the gradient: clipping has to see it, and AdamW's step has another decay there."""
    return bool(optimizer.clip) or optimizer.name == "adamw"


def _terms(
    optimizer: Optimizer, steps: Mapping[str, int]
) -> tuple[dict[str, float], dict[tuple[float, int], list[str]]]:
    """Return (name -> strength of the unsquared L2, where there is one; (decay, steps) -> names that have them)."""
    squared = optimizer.l2.form == "squared"
    strengths = {name: optimizer.l2.of(component(name)) for name in steps}
    alike: dict[tuple[float, int], list[str]] = {}
    for name, strength in strengths.items():
        alike.setdefault((2 * strength if squared else 0.0, steps[name]), []).append(name)
    return {name: strength for name, strength in strengths.items() if strength and not squared}, alike


class PackOptimizer:
    """The optimizers of a pack's lanes on arrays [S, …]: neighbours that have the same one take its step together.

    Lanes of other optimizers take a step of their own, in the same kernel with other numbers: were the numbers arrays
    [S, 1] of a step that is composed of PyTorch's operations, it would read and write 72 bytes a parameter and not 28,
    and a lane's bits would depend on which lanes are beside it.
    """

    def __init__(
        self,
        lanes: Sequence[tuple[Optimizer, Mapping[str, int]]],
        batch_size: int,
        parameters: Mapping[str, Tensor],
        first_moments: Mapping[str, Tensor],
        second_moments: Mapping[str, Tensor],
    ):
        """Lay out the steps. lanes: optimizer and steps of each, as LaneOptimizer has them."""
        self.batch_size = batch_size
        self.groups: list[tuple[Optimizer, slice, dict[str, float], list[tuple[list[str], ParameterGroup]]]] = []
        first = 0
        for (optimizer, steps), same in itertools.groupby(lanes):
            here = slice(first, first + len(list(same)))
            unsquared, alike = _terms(optimizer, steps)
            groups = []
            for (decay, done), names in alike.items():
                parts = ([part[name][here] for name in names] for part in (parameters, first_moments, second_moments))
                values, first_of, second_of = parts
                # One array for all of them: each by itself would be a copy to the device.
                counts = torch.full((len(names),), float(done), device=values[0].device).unbind()
                group = ParameterGroup(values, [], first_of, second_of, counts=list(counts), decay=decay)
                groups.append((names, group))
            self.groups.append((optimizer, here, unsquared, groups))
            first = here.stop

    @property
    def counts(self) -> list[Tensor]:
        """Counts of steps of all groups."""
        return [count for *_, groups in self.groups for _, group in groups for count in group.counts]

    def step(self, gradients: Mapping[str, Tensor], seen: int) -> None:
        """Take every lane's step with whose end `seen` sequences have been seen; gradients [S, …], changed in place."""
        for optimizer, here, unsquared, groups in self.groups:
            decays_first, whole = _decays_first(optimizer), []
            for names, group in groups:
                whole.append(replace(group, gradients=[gradients[name][here] for name in names]))
            named = {
                name: (value, gradient)
                for (names, _), group in zip(groups, whole, strict=True)
                for name, value, gradient in zip(names, group.parameters, group.gradients, strict=True)
            }
            norms = lane_norms([named[name][0] for name in unsquared]) if unsquared else ()
            for (name, strength), norm in zip(unsquared.items(), norms, strict=True):
                value, gradient = named[name]
                gradient.add_(value / by_lane(norm.clamp_min(torch.finfo(norm.dtype).tiny), value), alpha=strength)
            for group in whole:
                if not (decays_first and group.decay):
                    continue
                for gradient, value in zip(group.gradients, group.parameters, strict=True):
                    gradient.add_(value, alpha=group.decay)
            if optimizer.clip:
                own = [gradient for _, gradient in named.values()]
                norm = lane_norms([lane_norms(own).T.contiguous()])[0]
                share = (optimizer.clip / (norm + _CLIP_EPSILON)).clamp(max=1.0)
                for gradient in own:
                    gradient.mul_(by_lane(share, gradient))
            rate = learning_rate(optimizer, self.batch_size, seen)
            for group in whole:
                step(optimizer, rate, 0.0 if decays_first else group.decay, group)


def lane_norms(arrays: Sequence[Tensor]) -> Tensor:
    """Return the norm of each lane's part of arrays [S, …] as [arrays, S], by kernels that take many parts at a time.

    A part is summed in pieces of a fixed size, so that its bits do not depend on how many lanes there are; PyTorch's
    norm along an axis splits it by their number.
    """
    parts = [part for array in arrays for part in array.unbind()]
    return torch.stack(torch.ops.aten._foreach_norm.Scalar(parts)).view(len(arrays), -1)


def by_lane(values: Tensor, like: Tensor) -> Tensor:
    """View values [S] so that they multiply the lanes of `like` [S, …]."""
    return values.view(-1, *[1] * (like.ndim - 1))


def add_unsquared_l2(
    parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strengths: Mapping[str, float]
) -> None:
    """Add the gradient of the sum over `strengths` of strength * the array's Euclidean norm.

    It is 0 where an array is 0.
    """
    for name, strength in strengths.items():
        norm = parameters[name].norm()
        gradients[name].add_(parameters[name] / norm.clamp_min(torch.finfo(norm.dtype).tiny), alpha=strength)


def clip(gradients: Sequence[Tensor], largest: float) -> None:
    """Shorten all gradients alike so that their common norm is `largest` at most."""
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    share = (largest / (norm + _CLIP_EPSILON)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(share)


def step(optimizer: Optimizer, rate: float, decay: float, group: ParameterGroup) -> None:
    """Take one step of the update rule in place; `decay` times the parameters is added to the gradients."""
    if optimizer.name == "sgd":
        sgd(
            group.parameters,
            group.gradients,
            list[Tensor | None](group.first_moments),
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
        group.parameters,
        group.gradients,
        group.first_moments,
        group.second_moments,
        [],
        group.counts,
        fused=True,
        capturable=group.counts[0].is_cuda,
        decoupled_weight_decay=decoupled,
        amsgrad=False,
        maximize=False,
        lr=rate,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        eps=optimizer.epsilon,
        weight_decay=optimizer.weight_decay if decoupled else decay,
    )
