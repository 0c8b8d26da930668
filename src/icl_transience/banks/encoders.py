"""From pixels to embeddings."""

from collections.abc import Callable

import numpy as np

Encoder = Callable[[np.ndarray], np.ndarray]


def fit_pca(training: np.ndarray, dim: int) -> Encoder:
    """Principal components of the training images, at one global scale.

    training: float32 [classes, exemplars, pixels], training classes and exemplars only. The encoder maps
    [..., pixels] to float32 [..., dim]: centred, projected on the `dim` leading components and divided by one
    number, so that a coordinate of the training images has mean square 1 on average; the spectrum is kept.
    """
    flat = training.reshape(-1, training.shape[-1]).astype(np.float64)
    mean = flat.mean(axis=0)
    centred = flat - mean
    _, components = np.linalg.eigh(centred.T @ centred)  # ascending
    components = components[:, ::-1][:, :dim]
    # An eigenvector's sign is arbitrary and differs between LAPACK builds: the largest entry is made positive.
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, np.arange(dim)])
    scale = np.sqrt(np.mean((centred @ components) ** 2))

    def encode(images: np.ndarray) -> np.ndarray:
        return ((images - mean) @ components / scale).astype(np.float32)

    return encode
