"""Omniglot's drawings: read from the public zips, scaled down, rotated and mirrored."""

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from icl_transience.specs.errors import StudyError
from icl_transience.store import zips
from icl_transience.store.zips import Character

N_ROTATIONS, N_FLIPS = 4, 2
VARIANTS = N_ROTATIONS * N_FLIPS
SIDE = 105
_LARGEST_PNG = 1 << 16


def read_drawings(files: Sequence[Path]) -> dict[Character, np.ndarray]:
    """Read every character in the zips: (alphabet, number) -> bool [20, 105, 105], ink True, drawings 1 to 20.

    Raises StudyError where a zip cannot be read, a drawing is missing or of another size, or two zips hold different
    drawings under one name.
    """
    found: dict[Character, dict[int, bytes]] = {}
    for file in files:
        again = "download it again from https://github.com/brendenlake/omniglot/tree/master/python"
        with zips.opened(file, "a readable zip", again) as archive:
            for name, (character, drawing) in zips.drawings(archive, file).items():
                if (size := archive.getinfo(name).file_size) > _LARGEST_PNG:
                    raise StudyError(
                        f"{file}: {name} is said to have {size:,} bytes, a drawing has some hundreds: download it again"
                    )
                png = archive.read(name)
                if found.setdefault(character, {}).setdefault(drawing, png) != png:
                    raise StudyError(
                        f"{file}: {name} differs from the same drawing in another zip: "
                        "use zips of one release of Omniglot"
                    )
    zips.refuse_incomplete(found)
    return {
        (alphabet, number): np.stack([_read_png(pngs[d], f"{alphabet}/character{number:02d}") for d in sorted(pngs)])
        for (alphabet, number), pngs in found.items()
    }


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


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Return uint8 [n, e, s, s, channels] as shades of grey, float32 [n, e, side, side] in [0, 1]."""
    small = np.empty((*images.shape[:2], side, side), np.float32)
    for index in np.ndindex(*images.shape[:2]):
        grey = images[index].astype(np.float32).mean(axis=2) / 255
        small[index] = np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BOX))
    return small


def rotate_and_flip(images: np.ndarray, n_variants: int = VARIANTS) -> np.ndarray:
    """Return all variants of images [n, e, side, side, ...] as [n, n_variants, e, side, side, ...].

    Variant rotation * 2 + flip is `rotation` quarter turns, then a mirror image if `flip` is 1.
    """
    variants = []
    for variant in range(n_variants):
        rotation, flip = divmod(variant, N_FLIPS)
        turned = np.rot90(images, rotation, axes=(2, 3))
        variants.append(turned[:, :, :, ::-1] if flip else turned)
    return np.stack(variants, axis=1)
