"""Omniglot's drawings: read from the public zips, scaled down, rotated and mirrored."""

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from icl_transience.specs.errors import StudyError
from icl_transience.store.atomic import ZIP_DAMAGE

N_ROTATIONS, N_FLIPS, N_DRAWINGS = 4, 2, 20
VARIANTS = N_ROTATIONS * N_FLIPS
SIDE = 105
_DRAWING = re.compile(r"[^/]+/([^/]+)/character(\d{1,4})/\d+_(\d{1,4})\.png\Z", re.ASCII)
_LARGEST_PNG = 1 << 16

Character = tuple[str, int]


def read_drawings(files: Sequence[Path]) -> dict[Character, np.ndarray]:
    """Read every character in the zips: (alphabet, number) -> bool [20, 105, 105], ink True, drawings 1 to 20.

    Raises StudyError where a zip cannot be read, a drawing is missing or of another size, or two zips hold different
    drawings under one name.
    """
    found: dict[Character, dict[int, bytes]] = {}
    for file in files:
        try:
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if match := _DRAWING.match(name):
                        alphabet, number, drawing = match[1], int(match[2]), int(match[3])
                        if (size := archive.getinfo(name).file_size) > _LARGEST_PNG:
                            raise StudyError(
                                f"{file}: {name} is said to have {size:,} bytes, a drawing has some hundreds: "
                                "download it again"
                            )
                        png = archive.read(name)
                        if found.setdefault((alphabet, number), {}).setdefault(drawing, png) != png:
                            raise StudyError(
                                f"{file}: {name} differs from the same drawing in another zip: "
                                "use zips of one release of Omniglot"
                            )
        except StudyError:
            raise
        except ZIP_DAMAGE as error:
            raise StudyError(
                f"{file}: not a readable zip ({error}): download it again from "
                "https://github.com/brendenlake/omniglot/tree/master/python"
            ) from error
    characters = {}
    for (alphabet, number), pngs in found.items():
        if sorted(pngs) != list(range(1, N_DRAWINGS + 1)):
            raise StudyError(
                f"Omniglot character {alphabet}/character{number:02d} has drawings {sorted(pngs)}, "
                f"expected 1 to {N_DRAWINGS}: a zip is incomplete, download it again"
            )
        images = [_read_png(pngs[d], f"{alphabet}/character{number:02d}") for d in sorted(pngs)]
        characters[alphabet, number] = np.stack(images)
    if not characters:
        raise StudyError(f"no Omniglot drawings in {', '.join(map(str, files))}")
    return characters


def _read_png(png: bytes, name: str) -> np.ndarray:
    """Decode a drawing: bool [105, 105], ink True."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            # A few bytes can say that they are a picture of gigabytes: first its size, then its pixels.
            if image.size != (SIDE, SIDE):
                raise StudyError(f"Omniglot drawing of {name} is {image.size}, expected {SIDE} x {SIDE} pixels")
            pixels = np.asarray(image.convert("1"), dtype=bool)
    except (OSError, SyntaxError, zlib.error, Image.DecompressionBombError) as error:  # Pillow's, of a damaged PNG
        raise StudyError(f"Omniglot drawing of {name} is damaged ({error}): download its zip again") from error
    return ~pixels


def downsample(drawings: np.ndarray, side: int) -> np.ndarray:
    """Scale bool [..., 105, 105] down to float32 [..., side, side]: the share of ink in each box of whole pixels."""
    flat = drawings.reshape(-1, SIDE, SIDE)
    small = [Image.fromarray(ink.astype(np.float32)).resize((side, side), Image.Resampling.BOX) for ink in flat]
    return np.stack([np.asarray(image) for image in small]).reshape(*drawings.shape[:-2], side, side)


def rotate_and_flip(images: np.ndarray, n_variants: int = VARIANTS) -> np.ndarray:
    """Return all variants of images [n, e, side, side] as [n, n_variants, e, side, side].

    Variant rotation * 2 + flip is `rotation` quarter turns, then a mirror image if `flip` is 1.
    """
    variants = []
    for variant in range(n_variants):
        rotation, flip = divmod(variant, N_FLIPS)
        turned = np.rot90(images, rotation, axes=(2, 3))
        variants.append(turned[..., ::-1] if flip else turned)
    return np.stack(variants, axis=1)
