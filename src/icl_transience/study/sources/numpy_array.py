"""An array in a file of NumPy's: .npy, or one of several in .npz. Headers alone are read; pickles never."""

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from icl_transience.specs.errors import StudyError
from icl_transience.store import faults, zips
from icl_transience.store.safetensors_file import is_of_codes, quantisation
from icl_transience.study.sources.numbers import refuse_codes

SUFFIXES = (".npy", ".npz")


def inspect(path: Path, parameters: Mapping[str, Any]) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the name of the array of `parameters`, and the shapes of all arrays of the file.

    The only array of an .npy has no name. Raises StudyError where the file is none of NumPy's, or where the array does
    not hold plain numbers.
    """
    name = parameters["path"].strip("/") if path.suffix.lower() == ".npz" else ""
    try:
        headers = dict(_members(path) if name else _single(path))
    except StudyError:
        raise
    except (ValueError, EOFError, SyntaxError, OverflowError, *zips.ZIP_DAMAGE) as error:
        wrong = StudyError(f"{path}: not a file of NumPy's arrays ({error}): get it again")
        raise (faults.unreadable(path, error) or wrong) from error
    if name in headers:
        dtype = headers[name][1]
        beside = quantisation(name, headers) if name else []
        if dtype.kind in "iu":
            beside += [other for other in headers if is_of_codes(other)]
        refuse_codes(path, name or "the array", dtype, list(dict.fromkeys(beside)))
    return name, {each: shape for each, (shape, _) in headers.items()}


def _single(path: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], Any]]]:
    with path.open("rb") as file:
        yield "", _header(file, path.stat().st_size)


def _members(path: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], Any]]]:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        zips.refuse_unpackable(path, members)
        for member in members:
            with archive.open(member) as file:
                yield member.filename.removesuffix(".npy"), _header(file, member.file_size)


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], Any]:
    """Return shape and type of an array. Raises ValueError where its file is of another size."""
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if (version := npy.read_magic(file)) not in readers:
        raise ValueError(f"version {version} of the format is for names that no array of numbers has")
    shape, _, dtype = readers[version](file)
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and size != expected:
        raise ValueError(f"{size:,} of {expected:,} bytes")
    return shape, dtype
