"""The header of a safetensors file: which tensors a language model's checkpoint holds, without reading them."""

import functools
import json
import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.store import faults

# The last part of names that quantised checkpoints put beside a layer's weight, or in its place: those of MLX,
# bitsandbytes, GPTQ, AWQ, compressed tensors, FP8, torchao, quanto, ModelOpt, HQQ, QuIP# and others. Gemma's
# `embed_scale` is the model's.
_QUANTISED = re.compile(
    r"(?!embed_scale$)(\w*_)?(q?scales?|q?zeros?|zero_?points?|biases|absmax|amax|scb|quant_map|quant_state|qdata|"
    r"qweight|g_idx|packed|weight_format|codebooks?|codes|lut|qidxs|w_q)(_\w+)?|_data",
    re.IGNORECASE,
)
# What stands between the parts of a name.
_JOINTS = re.compile(r"[./:]")
# Bits of a number, of each type that the safetensors library reads.
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6} | {
    name: bits
    for bits, names in {
        8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
        16: "I16 U16 F16 BF16",
        32: "I32 U32 F32",
        64: "I64 U64 F64 C64",
    }.items()
    for name in names.split()
}
# The safetensors library reads no longer header either.
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file, as the header describes it."""

    dtype: str
    shape: tuple[int, ...]


@functools.cache
def stored_tensors(path: Path) -> dict[str, Stored]:
    """Read the header of a safetensors file: name -> type and shape of each tensor.

    Raises StudyError where the safetensors library would not read the file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size - 8:
                raise ValueError("the header is longer than the file")
            if length > _LARGEST_HEADER:
                raise ValueError(f"the header has {length:,} bytes, at most {_LARGEST_HEADER:,} are read")
            entries = json.loads(file.read(length))
        about = entries.pop("__metadata__", None) or {}
        if not all(isinstance(text, str) for text in about.values()):
            raise ValueError("`__metadata__` of the header is no map of texts")
        tensors = {name: Stored(entry["dtype"], _sizes(entry["shape"])) for name, entry in entries.items()}
        # Tensors lie one after the other, without gaps.
        places = sorted((*_sizes(entry["data_offsets"]), name) for name, entry in entries.items())
        end = 0
        for first, last, name in places:
            if first != end or last < first:
                raise ValueError(f"{name} has bytes {first:,} to {last:,}, expected from {end:,} on")
            _check_bytes(name, tensors[name], last - first)
            end = last
    except (struct.error, ValueError, TypeError, LookupError, AttributeError, RecursionError, OSError) as error:
        wrong = StudyError(f"{path}: not a safetensors file ({error}): get it again")
        raise (faults.unreadable(path, error) or wrong) from error
    if (size := path.stat().st_size) != (expected := 8 + length + end):
        what = "is cut short" if size < expected else "goes on behind its last tensor"
        raise StudyError(f"{path}: {what}, {size:,} of {expected:,} bytes: get it again")
    return tensors


def _check_bytes(name: str, tensor: Stored, n_bytes: int) -> None:
    """Raise ValueError where a tensor has another number of bytes than its shape and type say."""
    if tensor.dtype not in _BITS:
        raise ValueError(f"{name} is {tensor.dtype}, with which no tensor of the file can be read: leave that one out")
    if (bits := math.prod(tensor.shape) * _BITS[tensor.dtype]) != 8 * n_bytes:
        raise ValueError(
            f"{name}, {tensor.dtype} {list(tensor.shape)}, has {n_bytes:,} bytes, expected {bits / 8:,.0f}"
        )


def _sizes(numbers: Any) -> tuple[int, ...]:
    """Return a list of the header as sizes. Raises ValueError where it has other values."""
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{str(numbers)[:100]} are no sizes")
    return tuple(numbers)


def quantisation(array: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that only a quantised array has beside it: scales, zero points, codebooks, codes."""
    layer = array.removesuffix("weight").rstrip("._/:")
    starts = {stem + joint for stem in {array, layer} - {""} for joint in "._/:"}
    rests = [(name, name.removeprefix(start)) for name in names for start in starts if name.startswith(start)]
    # What an underscore joins is one more word of the name, not a part of another's.
    rests = [(name, rest) for name, rest in rests if name[-len(rest) - 1 :][0] != "_" or not _JOINTS.search(rest)]
    if not layer:
        rests += [(name, name) for name in names if not _JOINTS.search(name)]
    return sorted({name for name, rest in rests if is_of_codes(rest)} - {array})


def is_of_codes(name: str) -> bool:
    """Tell whether a name is that of scales, zero points or codes: its last part, or a quantisation's state."""
    *groups, last = _JOINTS.split(name)
    return bool(_QUANTISED.fullmatch(last)) or "quant_state" in groups
