"""The HDF5 file that a bank is imported from: its array and sizes."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.store.safetensors_file import quantisation
from icl_transience.study.sources.files import in_folder

# Imported: an array in an HDF5 file.


def resolve_imported(parameters: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[Path]]:
    import h5py

    path = in_folder(folder, parameters["file"], "bank.imported.file", "imported")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StudyError(f"{path}: not an HDF5 file ({error}): get it again") from error
    with file:
        arrays: dict[str, tuple[int, ...]] = {}
        # Soft and external links are not visited: an array is what stands in this file.
        file.visititems(
            lambda name, item: arrays.update({name: item.shape}) if isinstance(item, h5py.Dataset) else None
        )
        if (name := parameters["path"].strip("/")) in arrays:
            _refuse_no_plain_numbers(path, name, file[name], arrays)
            if len(arrays[name]) == 3:
                _refuse_unwritten(path, name, file[name], parameters)
    if name not in arrays:
        there = ", ".join(f"{found} {list(shape)}" for found, shape in arrays.items()) or "no array"
        raise StudyError(
            f"`bank.imported.path` is {parameters['path']!r}, which is not an array in {path}"
            f"{did_you_mean(name, list(arrays))} (there is {there})"
        )
    if len(arrays[name]) != 3:
        raise StudyError(f"{path}: {name} is {list(arrays[name])}, expected [class, exemplar, dim]: name another array")
    asked = {
        "classes": parameters["classes"] + parameters["holdout_classes"],
        "exemplars": parameters["exemplars"] + parameters["holdout_exemplars"],
    }
    for (key, number), there in zip(asked.items(), arrays[name], strict=False):
        if number > there:
            raise StudyError(
                f"`bank.imported.{key}` + `holdout_{key}` is {number}, but {name} in {path.name} has {there}: "
                "ask for fewer"
            )
    if parameters["dim"] != arrays[name][2]:
        raise StudyError(
            f"`bank.imported.dim` is {parameters['dim']}, but {name} in {path.name} has {arrays[name][2]} coordinates: "
            f"say {arrays[name][2]}"
        )
    return parameters, [path]


def _refuse_no_plain_numbers(path: Path, name: str, array: Any, names: Iterable[str]) -> None:
    """Raise StudyError where an h5py.Dataset is not numbers that lie in its own file and mean what they say."""
    import h5py

    if array.external or array.is_virtual:
        raise StudyError(
            f"{path}: the numbers of {name} lie in other files (external or virtual storage), which neither its "
            "SHA-256 covers nor a stranger's file may read: copy them into one file"
        )
    of_names = h5py.check_enum_dtype(array.dtype) is not None
    if array.dtype.kind not in "iuf" or of_names:
        raise StudyError(
            f"{path}: {name} holds {f'names of numbers ({array.dtype}, enumerated)' if of_names else array.dtype}, "
            "expected numbers that are real (floating-point, or integers such as pixels): name another array, or write "
            "the coordinates as float32"
        )
    # Packed as netCDF does, or quantised.
    beside = [f"attribute {key}" for key in ("scale_factor", "add_offset", "scale", "zero_point") if key in array.attrs]
    beside += quantisation(name, names)
    if beside:
        raise StudyError(
            f"{path}: {name} holds {array.dtype} and has {', '.join(beside[:5])} beside it: these are codes, expected "
            "the embeddings themselves: write the unpacked coordinates as float32 into an array of their own"
        )


def _refuse_unwritten(path: Path, name: str, array: Any, parameters: Mapping[str, Any]) -> None:
    """Raise StudyError where a part that the bank takes was never written, so that HDF5 gives its fill value."""
    import h5py

    asked = [parameters[key] + parameters[f"holdout_{key}"] for key in ("classes", "exemplars")] + [array.shape[2]]
    asked = [min(wanted, there) for wanted, there in zip(asked, array.shape, strict=True)]
    if array.chunks:
        wanted = math.prod(-(-size // chunk) for size, chunk in zip(asked, array.chunks, strict=True))
        stored: list[tuple[int, ...]] = []
        array.id.chunk_iter(lambda chunk: stored.append(chunk.chunk_offset))
        written = sum(all(start < size for start, size in zip(offset, asked, strict=True)) for offset in stored)
    else:
        wanted, written = 1, int(array.id.get_space_status() != h5py.h5d.SPACE_STATUS_NOT_ALLOCATED)
    if written < wanted:
        part = f"{wanted - written:,} of its {wanted:,} chunks ({1 - written / wanted:.0%}) were" if written else "was"
        raise StudyError(
            f"{path}: {name}: {part} never written, and HDF5 gives {array.fillvalue} in place of what is missing: "
            "write the whole array, or ask for classes and exemplars that are there"
        )
