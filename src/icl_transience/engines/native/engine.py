"""TODO"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience.engines import optimizers
from icl_transience.engines.lanes import (
    constant_intervals,
    drawn,
    lanes_at,
    noise,
    of_lane,
    reset_label_embeddings,
    updates,
)
from icl_transience.engines.native import compiler
from icl_transience.engines.native.program import Recording, program_for
from icl_transience.engines.state import State
from icl_transience.specs.runs import PackSpec


class NativeStep:
    """Lane after lane through one native.Program: a lane is computed as if it were alone, to the last bit.

    The state's tensors become views of one array [S, all parameters] a part, so that Adam goes over a lane at once.
    """

    def __init__(self, pack: PackSpec, state: "State", embeddings: Tensor):
        """Raises native.Unavailable."""
        run = pack.run
        self.pack, self.state, self.embeddings = pack, state, embeddings
        self.program = program_for(run, run.batch_size, run.recipe.context)
        parts = (state.parameters, state.first_moments, state.second_moments)
        flat_parts = [flattened(part) for part in parts]
        gradients = {name: torch.zeros_like(tensor[:1]) for name, tensor in state.parameters.items()}
        # One lane's at a time: the update follows a lane's backward.
        (flat_gradient,) = flattened(gradients)
        self.gradients = optimizers.joined(flat_gradient, of_lane(gradients, 0))
        self.loss = torch.zeros(len(pack.lanes))
        self.arrays, self.calls = [], []
        for number in range(len(pack.lanes)):
            self.arrays.append(
                [
                    optimizers.joined(flat[number], of_lane(part, number))
                    for flat, part in zip(flat_parts, parts, strict=True)
                ]
            )
            parameters, loss = of_lane(state.parameters, number), self.loss[number : number + 1]
            recording = Recording(self.program, parameters, self.gradients.named, loss)
            self.calls.append([*recording.forward, *recording.backward])

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        for first, last in constant_intervals(self.pack, start, until):
            reset_label_embeddings(self.pack, self.state, first)
            yield from self._stretch(first, last)

    def _stretch(self, start: int, until: int) -> Iterator[Tensor]:
        """`losses` while nothing changes but the learning rate."""
        program, bank = self.program, self.embeddings.flatten(0, 1)
        lanes, steps = lanes_at(self.pack, start), []
        for calls, update in zip(self.calls, updates(self.pack, start, self.arrays), strict=True):
            steps.append((calls, update, update.gradients(self.gradients)))
        for chunk in drawn(lanes, program.batch_size, self.embeddings, start, until):
            rows, labels = (self._columns(part) for part in chunk)
            for batch in range(rows.shape[1]):
                after = start + program.batch_size
                for lane, (calls, update, gradients) in enumerate(steps):
                    torch.index_select(bank, 0, rows[lane, batch].view(-1), out=program.exemplars)
                    if lanes[lane].run.recipe.input_noise:
                        items = program.exemplars.view(-1, program.columns, bank.shape[1])
                        items[:, : program.batch_size] += noise(lanes[lane], start, bank).transpose(0, 1)
                    program.labels.copy_(labels[lane, batch, :-1])
                    program.targets.copy_(labels[lane, batch, -1])
                    for call in calls:
                        call()
                    update(self.gradients.named, gradients, after)
                start = after
                yield self.loss.clone()

    def _columns(self, part: Tensor) -> Tensor:
        """int64 [S, n, C+1] -> [S, batches, C+1, B'], B' the batch in whole vectors; see native.Program."""
        batches = part.unflatten(1, (-1, self.program.batch_size)).transpose(2, 3)
        return functional.pad(batches, (0, self.program.columns - self.program.batch_size)).contiguous()


def flattened(tensors: dict[str, Tensor]) -> Tensor:
    """One array [S, P] that holds all of `tensors` [S, …], which are replaced by views of it.

    Each begins at a whole vector; what lies between is 0, and Adam leaves it so.
    """
    lanes = len(next(iter(tensors.values())))
    sizes = [compiler.aligned(tensor[0].numel()) for tensor in tensors.values()]
    flat = torch.zeros(lanes, sum(sizes))
    for (name, tensor), part in zip(tensors.items(), flat.split(sizes, dim=1), strict=True):
        view = part[:, : tensor[0].numel()].unflatten(1, tensor.shape[1:])
        tensors[name] = view.copy_(tensor)
    return flat
