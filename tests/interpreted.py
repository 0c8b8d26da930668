"""Engine `triton` on a CPU: where there is no CUDA device its kernels run in Triton's interpreter.

conftest.py says so before anything imports triton. Skips the importing file where triton is missing.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed (envs/requirements-gpu-test.txt; `make test-all` does)")

from builders import changed, tiny_run

from icl_transience.engines.state import State, initial_state
from icl_transience.engines.triton.engine import TritonStep
from icl_transience.engines.triton.parts import INTERPRETED
from icl_transience.specs.model import parameter_shapes
from icl_transience.specs.runs import PackSpec, Run

SMALL = {"model.width": 32, "model.heads": 4, "model.depth": 1, "recipe.context": 2, "model.mlp_ratio": 0}
needs_interpreter = pytest.mark.skipif(
    not INTERPRETED.value, reason="there is a CUDA device: triton's kernels are compiled for it, not interpreted"
)


def small(**changes: Any) -> Run:
    """The smallest run whose tiles are whole, with changes by dotted path."""
    return changed(tiny_run(), SMALL | changes)


def bank_of(run: Run) -> torch.Tensor:
    """Fresh random exemplars."""
    shape = run.bank.shape
    return torch.randn(shape.n_classes, shape.n_exemplars, shape.width)


def fresh_parameters(run: Run, lanes: int) -> dict[str, torch.Tensor]:
    """Random everywhere, norms and biases too, so that no gradient is 0 by the values it meets."""
    shapes = parameter_shapes(run.model, run.bank.shape.width, run.n_labels, run.recipe.context)
    return {
        name: name.endswith(".scale")
        + torch.randn(lanes, *size) / (size[0] if len(size) > 1 and "label" not in name else 4) ** 0.5
        for name, size in shapes.items()
    }


class Poisoned(TritonStep):
    """A step in which nothing may be read that was not written before: its every buffer holds NaN.

    So does all of `matrices`, the rounded parameters of blocks, that is no matrix: nothing reads vectors there.
    """

    def __init__(self, *given: Any):
        super().__init__(*given)
        for buffer in (*self.buffers.values(), *self.operands, self.losses_):
            buffer.fill_(torch.nan)
        self.gradients = torch.full_like(self.parameters, torch.nan)

    def _begin(self, seen: int) -> Callable[[], None]:
        replay = super()._begin(seen)
        if self.rounds:
            first = self.layout.offsets["blocks.0.norm1.scale"]
            matrix = torch.zeros(self.matrices.shape[1], dtype=torch.bool)
            for name, value in self.state.parameters.items():
                if name.startswith("blocks.") and value.ndim == 3:
                    at = self.layout.offsets[name] - first
                    matrix[at : at + value[0].numel()] = True
            assert not matrix.all()
            self.matrices[:, ~matrix.to(self.matrices.device)] = torch.nan
        return replay


def trained(spec: PackSpec, bank: torch.Tensor, batches: int, kind=Poisoned) -> tuple[State, torch.Tensor]:
    """(state after so many batches, losses [batches, S])."""
    state = initial_state(spec)
    return state, torch.stack(list(kind(spec, state, bank).losses(0, batches * spec.run.batch_size)))
