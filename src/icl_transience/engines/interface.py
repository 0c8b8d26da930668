"""TODO"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

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
    """An engine's step. It updates the state's tensors in place, which may move once, when the step is made."""

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        """Steps on every batch from sequence number `start` to `until`; each lane's loss before it, [S]."""


def autocast(numerics: str, device: torch.device) -> torch.autocast:
    """Within it matrix products are in bfloat16, if those are the numerics."""
    return torch.autocast(device.type, torch.bfloat16, enabled=numerics == "bfloat16", cache_enabled=False)


@contextmanager
def tensor_cores(numerics: str) -> Iterator[None]:
    """Within it CUDA's float32 products are in tf32, if those are the numerics, and in float32 otherwise."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32" if numerics == "tf32" else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before
