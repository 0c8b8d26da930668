"""Exemplars that someone else made: an array [class, exemplar, dim] in an HDF5 file, such as the authors' features.

Classes and exemplars are taken in the file's order, those to train on first, as the study says how many.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import h5py
import numpy as np

from icl_transience.banks import encoders
from icl_transience.banks.bank import Bank
from icl_transience.specs.banks import BankSpec, Imported
from icl_transience.specs.errors import StudyError
from icl_transience.store import hdf5


def build(spec: BankSpec, files: Sequence[Path], log: TextIO | None = None) -> Bank:
    """Make the bank of `spec` from an HDF5 file. Raises StudyError where an entry is not a finite number."""
    imported, shape, path = spec.parameters_of(Imported), spec.shape, files[0]
    with h5py.File(path, "r") as file:
        array = hdf5.dataset(file, imported.path)[: shape.n_classes, : shape.n_exemplars]
    with np.errstate(over="ignore"):  # told apart below
        exemplars = array.astype(np.float32)
    if bad := int((~np.isfinite(exemplars)).sum()):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(exemplars))[0])
        raise StudyError(
            f"{path}: {imported.path} has {bad} entries that are no finite float32 numbers, the first at {where} "
            f"({array[where]}): repair the file, or ask for fewer classes or exemplars"
        )
    training = exemplars[: shape.n_train_classes, : shape.n_train_exemplars]
    return Bank(
        embeddings=encoders.fit_scale(training, imported.scale)(exemplars),
        n_train_classes=shape.n_train_classes,
        n_train_exemplars=shape.n_train_exemplars,
    )
