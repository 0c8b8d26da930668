"""The optimizer as tables that kernels read: what an array's step is, and a batch's learning rates and corrections.

parts.update reads them. A clock counts an array's steps: 0 counts batches; 1, of arrays that are forgotten, from when
they were last; 2, of arrays that are frozen at some time, leaves that out; an array that is frozen now has -1. None is
forgotten and frozen: `study.while_training` refuses that.
Nothing here needs Triton.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from icl_transience.engines.lanes import lanes_at
from icl_transience.engines.optimizers import learning_rate
from icl_transience.specs.model import COMPONENTS, component
from icl_transience.specs.runs import PackSpec, Run
from icl_transience.specs.training import Optimizer

CLOCKS = 3
STATICS = 9


def statics(pack: PackSpec, names: Sequence[str], seen: int) -> Tensor:
    """Return what holds from `seen` on of each array, [S, arrays, STATICS] float32.

    beta1, 1 - beta1, beta2, 1 - beta2, epsilon, the factor of L2 in the gradient, AdamW's weight decay, the clock, and
    whether the lane's gradients are stored: see `stores`.
    """
    rows = {run: [_of_array(run, name, seen) for name in names] for run in _runs(pack, seen)}
    return torch.tensor([rows[lane.run] for lane in lanes_at(pack, seen)])


def _runs(pack: PackSpec, seen: int) -> set[Run]:
    """Return what lanes have in common: seeds of a run have the same rows."""
    return {lane.run for lane in lanes_at(pack, seen)}


def _of_array(run: Run, name: str, seen: int) -> list[float]:
    optimizer = run.optimizer
    squared = optimizer.l2.form == "squared"
    frozen = name in run.freeze.parameters
    clock = 2 if frozen else int(name in run.forgetting.parameters)
    return [
        *(optimizer.beta1, 1 - optimizer.beta1, optimizer.beta2, 1 - optimizer.beta2, optimizer.epsilon),
        2 * optimizer.l2.of(component(name)) if squared else 0.0,
        optimizer.weight_decay if optimizer.name == "adamw" else 0.0,
        -1.0 if frozen and run.freeze.holds(run.batch_size, seen) else float(clock),
        float(stores(optimizer)),
    ]


def extras(pack: PackSpec, names: Sequence[str], seen: int) -> Tensor:
    """Return [S, arrays + 2]: lambda of unsquared L2 of each array, the largest norm (0 is any), `stores`."""
    rows = {}
    for run in _runs(pack, seen):
        l2 = run.optimizer.l2
        own = [l2.of(component(name)) if l2.form == "unsquared" else 0.0 for name in names]
        rows[run] = [*own, run.optimizer.clip, float(stores(run.optimizer))]
    return torch.tensor([rows[lane.run] for lane in lanes_at(pack, seen)])


def stores(optimizer: Optimizer) -> bool:
    """Return whether a lane's step needs all its gradients before any of its weights moves."""
    l2 = optimizer.l2
    return bool(optimizer.clip) or (l2.form == "unsquared" and any(l2.of(part) for part in COMPONENTS))


def dynamics(pack: PackSpec, first: int, batches: int) -> Tensor:
    """Return what a step of each batch from `first` on is, [batches, S, CLOCKS, 3] float64.

    The learning rate, that over the first moment's correction, and 1 / the second's. The optimizer does not change.
    """
    of_runs = {run: _of_run(run, first, batches) for run in _runs(pack, first)}
    return torch.stack([of_runs[lane.run] for lane in lanes_at(pack, first)], dim=1)


def _of_run(run: Run, first: int, batches: int) -> Tensor:
    optimizer, size = run.optimizer, run.batch_size
    flat = optimizer.schedule.is_flat
    seen = [first + size * (number + 1) for number in range(batches)]
    rates = [learning_rate(optimizer, size, first if flat else end) for end in (seen[:1] if flat else seen)]
    forgotten, frozen = run.forgetting.latest(size, first) // size, run.freeze.frozen_sequences(size, first) // size
    starts = torch.tensor([0, forgotten, frozen], dtype=torch.float64)
    steps = torch.arange(first // size + 1, first // size + batches + 1, dtype=torch.float64)[:, None] - starts
    first_correction, second_correction = (
        torch.tensor([[_correction(beta, step) for step in of_batch] for of_batch in steps.tolist()], dtype=steps.dtype)
        for beta in (optimizer.beta1, optimizer.beta2)
    )
    rate = torch.tensor(rates, dtype=torch.float64)[:, None].expand_as(steps)
    return torch.stack([rate, rate / first_correction, 1 / second_correction], dim=2)


def _correction(beta: float, step: float) -> float:
    """Return 1 - beta^step; 1 for a clock that nothing has, which may stand at 0 or below.

    One by one: PyTorch's power of many may differ in the last bit by how many they are.
    """
    return 1 - beta**step if step > 0 else 1.0
