"""The file that a bank is imported from: HDF5, or NumPy's .npy and .npz; its array and sizes."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.study.sources import hdf5_array, numpy_array
from icl_transience.study.sources.files import in_folder, is_pickled

# What makes a file of NumPy's out of one of PyTorch's.
CONVERT = """
import numpy, torch
array = torch.load("{file}", map_location="cpu", weights_only=True)
numpy.save("{stem}.npy", array.float().numpy())"""


def refuse_unsaid(parameters: Mapping[str, Any]) -> None:
    """Raise StudyError where a study does not say what has no default."""
    if "scale" not in parameters:
        raise StudyError(
            "`bank.imported.scale` is not said, and there is no default: say `raw` for the numbers as they are in "
            f"{parameters['file']}, or `standard` to centre them and divide by one number (a coordinate's mean square "
            "is 1, as other sources have it)"
        )


def resolve_imported(parameters: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Return the parameters with the array's name as its file has it, and the file's path.

    Raises StudyError where the array cannot be the bank that `parameters` ask for.
    """
    path = in_folder(folder, parameters["file"], "bank.imported.file", "imported")
    if is_pickled(path):
        raise StudyError(
            f"{path}: a file of PyTorch's is a pickle, whose reading may run what a stranger wrote: convert it, and "
            f"say `bank.imported.file: {path.stem}.npy`:{CONVERT.format(file=path.name, stem=path.stem)}"
        )
    kind = numpy_array if path.suffix.lower() in numpy_array.SUFFIXES else hdf5_array
    name, arrays = kind.inspect(path, parameters)
    if name not in arrays:
        there = ", ".join(f"{found} {list(shape)}" for found, shape in arrays.items()) or "no array"
        raise StudyError(
            f"`bank.imported.path` is {parameters['path']!r}, which is not an array in {path}"
            f"{did_you_mean(name, list(arrays))} (there is {there})"
        )
    shape, said = arrays[name], name or "the array"
    if len(shape) != 3:
        raise StudyError(f"{path}: {said} is {list(shape)}, expected [class, exemplar, dim]: name another array")
    asked = {
        "classes": parameters["classes"] + parameters["holdout_classes"],
        "exemplars": parameters["exemplars"] + parameters["holdout_exemplars"],
    }
    swapped = _swapped(shape, (*asked.values(), parameters["dim"]))
    for (key, number), there in zip(asked.items(), shape, strict=False):
        if number > there:
            raise StudyError(
                f"`bank.imported.{key}` + `holdout_{key}` is {number}, but {said} in {path.name} has {there}: "
                f"{swapped or 'ask for fewer'}"
            )
    if parameters["dim"] != shape[2]:
        raise StudyError(
            f"`bank.imported.dim` is {parameters['dim']}, but {said} in {path.name} has {shape[2]} coordinates: "
            f"{swapped or f'say {shape[2]}'}"
        )
    # The only array of an .npy has no name; whatever a study says, it is one bank.
    return parameters | ({} if name else {"path": ""}), [path]


def _swapped(shape: Sequence[int], asked: Sequence[int]) -> str:
    """Return what to do where an array would fit with its axes in another order; "" where it would not.

    asked: classes and exemplars at least, and coordinates.
    """
    for order in itertools.permutations(range(3)):
        classes, exemplars, dim = (shape[axis] for axis in order)
        if classes >= asked[0] and exemplars >= asked[1] and dim == asked[2]:
            return (
                f"it is {list(shape)}, expected [class, exemplar, dim]: if its axes are in another order, write it "
                f"again as array.transpose{order}, which has what is asked for; if they are not, ask for fewer"
            )
    return ""
