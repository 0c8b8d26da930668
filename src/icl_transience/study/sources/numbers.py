"""What an array of exemplars may hold: numbers that are the coordinates themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError


def refuse_codes(path: Path, name: str, dtype: Any, beside: Sequence[str]) -> None:
    """Raise StudyError where an array's type (NumPy's) is not that of coordinates.

    beside: what the file has beside the array as codes have it: scales, offsets.
    """
    if dtype.kind not in "iuf":
        raise StudyError(
            f"{path}: {name} holds {dtype}, expected numbers that are real (floating-point, or integers such as "
            "pixels): name another array, or write the coordinates as float32"
        )
    if beside:
        raise StudyError(
            f"{path}: {name} holds {dtype} and has {', '.join(beside[:5])} beside it: these are codes, expected "
            "the embeddings themselves: write the unpacked coordinates as float32 into an array of their own"
        )
    if dtype.kind in "iu" and dtype.itemsize == 2:
        raise StudyError(
            f"{path}: {name} holds {dtype}: integers of 16 bits are mostly the bits of float16 or bfloat16: write "
            '`array.view("float16").astype("float32")`, or of bfloat16 '
            '`(array.view("uint16").astype("uint32") << 16).view("float32")`; where they are numbers, '
            '`array.astype("float32")`'
        )
