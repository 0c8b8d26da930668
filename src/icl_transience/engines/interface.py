"""What every engine has in common: the protocol of a step, and how numbers are kept and multiplied."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor

# What weights, moments and exemplars are kept in.
DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.float32,
    "float64": torch.float64,
}


class Step(Protocol):
    """An engine's step. It changes the state's tensors in place; they may move once, when the step is made.

    settled: whether the state is that after the batch whose loss was yielded last, and whole; so it is at every
    snapshot and at the end. A caller that leaves off earlier does so where it is.
    """

    settled: bool

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        """Step on every batch from sequence number `start` to `until`; yield each lane's loss before the step, [S]."""
        ...


def autocast(numerics: str, device: torch.device) -> torch.autocast:
    """Return a context within which matrix products are in bfloat16, if the numerics say so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=numerics == "bfloat16", cache_enabled=False)


@contextmanager
def tensor_cores(numerics: str) -> Iterator[None]:
    """Compute CUDA's float32 products in tf32 within it, if the numerics say so, and in float32 otherwise."""
    # The type of torch.backends.cudnn does not tell of `conv`.
    matrices, convolutions = torch.backends.cuda.matmul, cast(Any, torch.backends.cudnn).conv
    before = matrices.fp32_precision, convolutions.fp32_precision, matrices.allow_bf16_reduced_precision_reduction
    matrices.fp32_precision = convolutions.fp32_precision = "tf32" if numerics == "tf32" else "ieee"
    # Else parts of a sum over a long inner axis would be added in bfloat16.
    matrices.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matrices.fp32_precision, convolutions.fp32_precision, matrices.allow_bf16_reduced_precision_reduction = before
