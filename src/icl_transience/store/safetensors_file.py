"""The header of a safetensors file: which tensors a language model's checkpoint holds, without reading them."""

import functools
import json
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError

# Names that quantised checkpoints put beside a layer's weight, or in its place: MLX; bitsandbytes; GPTQ and AWQ;
# compressed tensors and FP8; torchao, quanto and others.
_QUANTISED = re.compile(
    r"scales?|biases|(nested_)?(absmax|quant_map)|quant_state(\..+)?|SCB|weight_format|qweight|qzeros|zeros|g_idx|packed|"
    r"scale_inv|zero_points?|codebooks?|_data|_scale|_zero_point"
)
# The safetensors library reads no longer header either.
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file, as the header describes it."""

    dtype: str
    shape: tuple[int, ...]


@functools.cache
def stored_tensors(path: Path) -> dict[str, Stored]:
    """Read the header of a safetensors file: name -> type and shape of each tensor. Raises StudyError without one."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size - 8:
                raise ValueError("the header is longer than the file")
            if length > _LARGEST_HEADER:
                raise ValueError(f"the header has {length:,} bytes, at most {_LARGEST_HEADER:,} are read")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        tensors = {name: Stored(entry["dtype"], _sizes(entry["shape"])) for name, entry in entries.items()}
        end = max((_sizes(entry["data_offsets"])[1] for entry in entries.values()), default=0)
    except (struct.error, ValueError, TypeError, LookupError, AttributeError, RecursionError, OSError) as error:
        raise StudyError(f"{path}: not a safetensors file ({error}): get it again") from error
    if path.stat().st_size < 8 + length + end:
        raise StudyError(f"{path}: is cut short, {path.stat().st_size:,} of {8 + length + end:,} bytes: get it again")
    return tensors


def _sizes(numbers: Any) -> tuple[int, ...]:
    """Return a list of the header as sizes. Raises ValueError where it has other values."""
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{str(numbers)[:100]} are no sizes")
    return tuple(numbers)


def quantisation(array: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that only a quantised array has beside it: scales, zero points, codebooks, codes."""
    layer = array.removesuffix("weight").rstrip("._/")
    starts = [stem + joint for stem in {array, layer} - {""} for joint in "._/"]
    rests = ((name, name.removeprefix(start)) for name in names for start in starts if name.startswith(start))
    return sorted({name for name, rest in rests if _QUANTISED.fullmatch(rest)})
