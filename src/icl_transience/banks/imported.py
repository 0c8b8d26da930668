"""Exemplars that someone else made: an array [class, exemplar, dim] in a file of HDF5 or NumPy, such as features.

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
from icl_transience.store import faults, hdf5, hdf5_source
from icl_transience.store.zips import ZIP_DAMAGE

# Numbers beyond it stand for what is missing: netCDF fills arrays with 9.97e36, others with the type's largest number.
_FILL = 1e30


def build(spec: BankSpec, files: Sequence[Path], log: TextIO | None = None) -> Bank:
    """Make the bank of `spec` from an array. Raises StudyError where an entry is no finite number, or a fill value."""
    imported, shape, path = spec.parameters_of(Imported), spec.shape, files[0]
    try:
        array, said = _read(path, imported.path, (slice(shape.n_classes), slice(shape.n_exemplars)))
    except StudyError:
        raise
    except (OSError, ValueError, EOFError, *ZIP_DAMAGE) as error:
        damaged = StudyError(f"{path}: {imported.path} cannot be read ({error}): get the file again")
        raise (faults.unreadable(path, error) or damaged) from error
    name = imported.path or "the array"
    with np.errstate(over="ignore"):  # told apart below
        exemplars = array.astype(np.float32)
    if bad := int((~np.isfinite(exemplars)).sum()):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(exemplars))[0])
        raise StudyError(
            f"{path}: {name} has {bad} entries that are no finite float32 numbers, the first at {where} "
            f"({array[where]}): repair the file, or ask for fewer classes or exemplars"
        )
    filled = np.isin(array, said) | (np.abs(exemplars) > _FILL)
    if filled.any():
        where = tuple(int(i) for i in np.argwhere(filled)[0])
        raise StudyError(
            f"{path}: {int(filled.sum()):,} of {filled.size:,} entries of {name} are fill values, which stand for what "
            f"was never written, the first at {where} ({array[where]}): write the whole array, or ask for classes and "
            "exemplars that are there"
        )
    training = exemplars[: shape.n_train_classes, : shape.n_train_exemplars]
    return Bank(
        embeddings=encoders.fit_scale(training, imported.scale)(exemplars),
        n_train_classes=shape.n_train_classes,
        n_train_exemplars=shape.n_train_exemplars,
        often_equal=array.dtype.kind in "iu",
    )


def _read(path: Path, name: str, part: tuple[slice, slice]) -> tuple[np.ndarray, list[float]]:
    """Read the part [classes, exemplars, dim] of an array, and what its file says are its fill values."""
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name.strip("/")][part], []
    if path.suffix.lower() == ".npy":
        return np.array(np.load(path, allow_pickle=False, mmap_mode="r")[part]), []
    with hdf5_source.opened(path) as file:
        array = hdf5.dataset(file, name)
        found = [array.attrs[key] for key in ("_FillValue", "missing_value") if key in array.attrs]
        said = [np.ravel(values) for values in found if not isinstance(values, h5py.Empty)]
        return array[part], [float(value) for values in said if values.dtype.kind in "iuf" for value in values]
