"""Gaussian classes on a curved manifold: like images, near in few ways and far in many, and not linearly separable.

A class is Gaussian (see gaussian.py) in `latent_dim` coordinates z, seen through random Fourier features (Rahimi &
Recht, 2007): x = sqrt(2) cos(z W + b), W normal with standard deviation curvature / sqrt(latent_dim), b uniform on
[0, 2 pi), `dim` of them. Every coordinate has mean square 1 over W and b. The larger `curvature`, the farther apart
near neighbours are: copying by similarity grows harder and memorising easier.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from icl_transience.banks import gaussian
from icl_transience.banks.bank import Bank, seeded
from icl_transience.specs.banks import BankSpec, Manifold


def build(spec: BankSpec, files: Sequence[Path] = (), log: TextIO | None = None) -> Bank:
    """Make the bank of `spec`: training classes and exemplars first, those held out after them."""
    manifold, shape = spec.parameters_of(Manifold), spec.shape
    latent = gaussian.exemplars(spec.seed, "manifold", shape, manifold.latent_dim, manifold.noise)
    directions = seeded(spec.seed, "manifold/directions").standard_normal((manifold.latent_dim, shape.width))
    phases = seeded(spec.seed, "manifold/phases").uniform(0, 2 * np.pi, shape.width)
    angles = latent @ (directions * manifold.curvature / np.sqrt(manifold.latent_dim)) + phases
    return Bank(
        embeddings=(np.sqrt(2) * np.cos(angles)).astype(np.float32),
        n_train_classes=shape.n_train_classes,
        n_train_exemplars=shape.n_train_exemplars,
    )
