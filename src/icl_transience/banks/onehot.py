"""One-hot classes: a coordinate each, one exemplar a class, any two equally far apart.

Noise around them, fresh at every draw, is the recipe's to add.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from icl_transience.banks.bank import Bank
from icl_transience.specs.banks import BankSpec, OneHot


def build(spec: BankSpec, files: Sequence[Path] = (), log: TextIO | None = None) -> Bank:
    """Make the bank of `spec`: class k is `value` at coordinate k and 0 elsewhere."""
    shape = spec.shape
    return Bank(
        embeddings=spec.parameters_of(OneHot).value * np.eye(shape.n_classes, dtype=np.float32)[:, None],
        n_train_classes=shape.n_train_classes,
        n_train_exemplars=shape.n_train_exemplars,
        often_equal=True,
    )
