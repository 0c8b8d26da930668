"""An array in an HDF5 file: where it is, and whether it holds numbers that are what they say."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.store.safetensors_file import is_of_codes, quantisation
from icl_transience.study.sources.numbers import refuse_codes

# Attributes that say how codes become values, beside those with the names of arrays that do.
_UNPACKING = re.compile(r"(\w*_)?(scaling|offsets?|factor)(_\w+)?", re.IGNORECASE)
# Kinds of links, by their numbers in HDF5's format.
_HARD, _SOFT = 0, 1
# Filters by the numbers that the HDF Group gave them, as far as hdf5plugin has them.
_FILTERS = {
    307: "bzip2",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32018: "FCI",
    32024: "SZ3",
    32026: "Blosc2",
    32028: "SPERR",
}
# Makes a file that can be read here out of one that cannot.
_CONVERT = """
import h5py, hdf5plugin  # pip install hdf5plugin
with h5py.File({file!r}) as old, h5py.File({new!r}, "w") as new:
    new.create_dataset({name!r}, data=old[{name!r}][()], compression="gzip")"""
# Soft links that lead to one another are followed no farther.
_MOST_LINKS = 32


def inspect(path: Path, parameters: Mapping[str, Any]) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the name under which the array of `parameters` stands, and the shapes of all arrays of an HDF5 file.

    Raises StudyError where the file is none, or where the array does not hold plain numbers that were written.
    """
    import h5py

    from icl_transience.store import hdf5_source  # only here: every parse of the Snakefile would wait for h5py

    with hdf5_source.opened(path) as file:
        arrays: dict[str, tuple[int, ...]] = {}
        file.visititems(
            lambda name, item: arrays.update({name: item.shape or ()}) if isinstance(item, h5py.Dataset) else None
        )
        name = _followed(file, parameters["path"])
        array = file[name] if name else None
        if not isinstance(array, h5py.Dataset):
            return parameters["path"].strip("/"), arrays
        if array.shape is None:
            raise StudyError(f"{path}: {name} is empty, without a shape: name another array, or write it again")
        arrays.setdefault(name, array.shape)
        _refuse_no_plain_numbers(path, name, array, arrays)
        _refuse_filters(path, name, array)
        if len(array.shape) == 3:
            _refuse_unwritten(path, name, array, parameters)
    return name, arrays


def _followed(file: Any, path: str) -> str:
    """Return the name of an object of the file after following soft links; empty where there is none.

    External links are not followed: an array is what stands in this file.
    """
    import h5py

    parts, name, links = [part for part in path.split("/") if part not in ("", ".")], "", 0
    while parts:
        group, part = file[name or "/"], parts.pop(0)
        if not isinstance(group, h5py.Group) or not group.id.links.exists(part.encode()):
            return ""
        kind = group.id.links.get_info(part.encode()).type
        if kind == _HARD:
            name = f"{name}/{part}".lstrip("/")
            continue
        if kind != _SOFT or (links := links + 1) > _MOST_LINKS:
            return ""
        target = group.id.links.get_val(part.encode()).decode()
        parts = [step for step in target.split("/") if step not in ("", ".")] + parts
        name = "" if target.startswith("/") else name
    return name


def _refuse_no_plain_numbers(path: Path, name: str, array: Any, names: Mapping[str, Any]) -> None:
    """Raise StudyError where an h5py.Dataset is not numbers that lie in its own file and mean what they say."""
    import h5py

    if array.external or array.is_virtual:
        raise StudyError(
            f"{path}: the numbers of {name} lie in other files (external or virtual storage), which neither its "
            "SHA-256 covers nor a stranger's file may read: copy them into one file"
        )
    if h5py.check_enum_dtype(array.dtype) is not None:
        raise StudyError(
            f"{path}: {name} holds names of numbers ({array.dtype}, enumerated), expected numbers that are real "
            "(floating-point, or integers such as pixels): name another array, or write the coordinates as float32"
        )
    beside = [f"attribute {key}" for key in _unpacking(array.attrs)] + quantisation(name, names)
    if array.dtype.kind in "iu":
        # Codes may share what unpacks them with other arrays of the group.
        *groups, _ = name.split("/")
        above = ["/".join(groups[:depth]) for depth in range(len(groups) + 1)]
        for group in above:
            beside += [
                f"attribute {key} of {group or 'the file'}" for key in _unpacking(array.file[group or "/"].attrs)
            ]
        beside += [other for other in names if other.rpartition("/")[0] in above and is_of_codes(other)]
    refuse_codes(path, name, array.dtype, list(dict.fromkeys(beside)))


def _unpacking(attributes: Any) -> Iterator[str]:
    """Yield the attributes that say how codes become values, unless by leaving them as they are."""
    import numpy as np

    for key in attributes:
        if not (is_of_codes(key) or _UNPACKING.fullmatch(key)):
            continue
        value = np.asarray(attributes[key]) if attributes.get_id(key).shape is not None else np.empty(0)
        # Texts, such as scale="standard", describe; objects that are none are references to other arrays.
        if value.dtype.kind in "SU" or (value.dtype == object and all(isinstance(one, str) for one in value.flat)):
            continue
        same = 1 if re.search("scal|factor", key, re.IGNORECASE) else 0
        if value.dtype.kind not in "biuf" or (value != same).any():
            yield key


def _refuse_filters(path: Path, name: str, array: Any) -> None:
    """Raise StudyError where the array is compressed in a way that cannot be read here."""
    import h5py

    layout = array.id.get_create_plist()
    for number in range(layout.get_nfilters()):
        code, _, _, said = layout.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            written = said.decode(errors="replace").partition(";")[0]
            called = f"{_FILTERS.get(code) or written or 'no name'}"
            brings = (
                "which the package `hdf5plugin` brings" if code in _FILTERS else "which no package is known for here"
            )
            raise StudyError(
                f"{path}: {name} is compressed by HDF5 filter {code} ({called}), which is not part of h5py, {brings}: "
                f"write it again with gzip, and say `bank.imported.file: {path.stem}-gzip.h5`:"
                + _CONVERT.format(file=path.name, new=f"{path.stem}-gzip.h5", name=name)
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
