"""Gaussian classes (Reddy 2023): x = (mu_k + epsilon * eta) / sqrt(1 + epsilon^2), mu and eta standard normal.

Every coordinate has unit variance over classes and exemplars together; `noise` is epsilon, the within-class
standard deviation relative to that between classes. Reddy's coordinates are these over sqrt(dim), and exemplars
there are fresh at every draw. A bank holds a fixed number of them; fresh ones are a bank with noise 0 and one
exemplar a class, and noise in the recipe.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from icl_transience.banks.bank import Bank, seeded
from icl_transience.specs.banks import BankShape, BankSpec, Gaussian


def build(spec: BankSpec, files: Sequence[Path] = (), log: TextIO | None = None) -> Bank:
    """Make the bank of `spec`: training classes and exemplars first, those held out after them."""
    shape = spec.shape
    return Bank(
        embeddings=exemplars(spec.seed, "gaussian", shape, shape.width, spec.parameters_of(Gaussian).noise),
        n_train_classes=shape.n_train_classes,
        n_train_exemplars=shape.n_train_exemplars,
    )


def exemplars(seed: int, name: str, shape: BankShape, dim: int, noise: float) -> np.ndarray:
    """Draw Gaussian classes, float32 [classes, exemplars, dim]; different names draw independently."""
    centres = seeded(seed, f"{name}/centres").standard_normal((shape.n_classes, 1, dim), np.float32)
    within = seeded(seed, f"{name}/noise").standard_normal((shape.n_classes, shape.n_exemplars, dim), np.float32)
    return (centres + np.float32(noise) * within) / np.float32(np.sqrt(1 + noise**2))
