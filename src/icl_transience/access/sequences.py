"""Sequences as arrays: an evaluator's frozen ones, or one's own.

Letters for shapes as in model/transformer.py; N sequences.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from icl_transience.specs.errors import StudyError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """Sequences as the model reads them: an evaluator's, or your own.

    examples: float32 [N, C+1, I], embedded exemplars, the query last; of a bank of images [N, C+1, side, side,
    channels] in [0, 1]. labels: int [N, C+1], the target last.
    classes, exemplars: int [N, C+1], their numbers in the bank; None where they are not from it.
    """

    examples: np.ndarray
    labels: np.ndarray
    classes: np.ndarray | None = None
    exemplars: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raise StudyError where examples and labels are not of one shape."""
        if self.examples.ndim not in (3, 5) or self.labels.shape != self.examples.shape[:2]:
            raise StudyError(
                f"sequences: examples are {list(self.examples.shape)} and labels {list(self.labels.shape)}, expected "
                "[N, C+1, I] and [N, C+1], or images [N, C+1, side, side, channels]"
            )

    def __len__(self) -> int:
        """Return N."""
        return len(self.examples)

    def inputs(self, dtype: "torch.dtype | None" = None) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return what a module takes: examples as they are here and the context's labels, int64 [N, C]; copies.

        dtype: of the examples; None: float32.
        """
        import torch

        labels = torch.tensor(self.labels[:, :-1], dtype=torch.int64)
        return torch.tensor(self.examples, dtype=dtype or torch.float32), labels

    @property
    def targets(self) -> np.ndarray:
        """The right answers, int [N]."""
        return self.labels[:, -1]
