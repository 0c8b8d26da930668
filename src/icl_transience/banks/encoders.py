"""Linear encoders: from pixels, or others' features, to embeddings."""

from collections.abc import Callable

import numpy as np

from icl_transience.specs.errors import StudyError

Encoder = Callable[[np.ndarray], np.ndarray]


def fit_pca(training: np.ndarray, dim: int) -> Encoder:
    """Fit an encoder by principal components, at one global scale.

    training: float32 [classes, exemplars, pixels], training classes and exemplars only.

    Returns an encoder of [..., pixels] to float32 [..., dim]: it centres, projects on the `dim` leading components and
    divides by one number, so that coordinates of the training images have mean square 1 on average. One number keeps
    the spectrum.
    """
    flat = _rows(training)
    mean = flat.mean(axis=0)
    flat -= mean
    values, vectors = np.linalg.eigh(flat.T @ flat)  # ascending
    components = _basis(values[::-1], vectors[:, ::-1])[:, :dim]
    scale = np.sqrt(np.mean((flat @ components) ** 2))
    return _in_parts(lambda images: ((images - mean) @ components / scale).astype(np.float32))


def _in_parts(encode: Encoder) -> Encoder:
    """Return an encoder that works a class at a time: intermediate arrays of all of them exceed the bank."""
    return lambda images: np.stack([encode(part) for part in images]) if images.ndim > 2 else encode(images)


def fit_scale(training: np.ndarray, scale: str) -> Encoder:
    """Fit an encoder that changes scale alone.

    training: float32 [classes, exemplars, dim], training classes and exemplars only.
    scale: `raw` changes nothing; `standard` centres and divides by one number, so that coordinates of `training` have
    mean square 1 on average.
    """
    if scale == "raw":
        return lambda exemplars: exemplars.astype(np.float32)
    flat = _rows(training)
    mean = flat.mean(axis=0)
    flat -= mean
    unit = np.sqrt(np.mean(np.square(flat, out=flat)))
    return _in_parts(lambda exemplars: ((exemplars - mean) / unit).astype(np.float32))


def _rows(training: np.ndarray) -> np.ndarray:
    """Return [..., width] as float64 [N, width]. Raises StudyError where all rows are equal: they have no scale."""
    flat = training.reshape(-1, training.shape[-1])
    if (flat == flat[0]).all():
        raise StudyError(
            "all training exemplars of the bank are one and the same point"
            f"{', zeros' if not flat[0].any() else ''}: there is nothing to learn: was the source's file written?"
        )
    return flat.astype(np.float64)


def _basis(values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return eigenvectors [n, n] in an order and with signs that do not depend on rounding, and so on a LAPACK build.

    values: eigenvalues, descending. Images in all orientations have pairs of equal eigenvalues, and a solver returns
    any basis of their space. Here the first vector of such a space is the projection of the pixel that lies closest to
    it (the first of several), and the next one likewise in the remaining space. Entry `pixel` is positive.
    """
    starts = np.flatnonzero(values[:-1] - values[1:] > 1e-9 * values[0]) + 1
    basis = []
    for space in np.split(vectors, starts, axis=1):
        for _ in range(space.shape[1]):
            weight = (space**2).sum(axis=1)
            pixel = np.argmax(weight > (1 - 1e-6) * weight.max())
            vector = space @ space[pixel] / np.sqrt(weight[pixel])
            basis.append(vector)
            space = space - np.outer(vector, vector @ space)
    return np.stack(basis, axis=1)
