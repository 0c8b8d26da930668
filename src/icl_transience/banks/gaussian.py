"""Gaussian classes (Reddy 2023): x = (mu_k + epsilon * eta) / sqrt(1 + epsilon^2), mu and eta standard normal.

Every coordinate has unit variance over classes and exemplars together; `noise` is epsilon, the within-class
standard deviation relative to that between classes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icl_transience.banks.bank import Bank, seeded
from icl_transience.spec import BankSpec


def build(spec: BankSpec, files: Sequence[Path] = ()) -> Bank:
    """The bank of `spec`: training classes and exemplars first, those held out after them."""
    gaussian = spec.gaussian
    n_classes = gaussian.classes + gaussian.holdout_classes
    n_exemplars = gaussian.exemplars + gaussian.holdout_exemplars
    centres = seeded(spec.seed, "gaussian/centres").standard_normal((n_classes, 1, gaussian.dim), np.float32)
    noise = seeded(spec.seed, "gaussian/noise").standard_normal((n_classes, n_exemplars, gaussian.dim), np.float32)
    embeddings = (centres + gaussian.noise * noise) / np.sqrt(1 + gaussian.noise**2)
    return Bank(
        embeddings=embeddings.astype(np.float32),
        n_train_classes=gaussian.classes,
        n_train_exemplars=gaussian.exemplars,
    )
