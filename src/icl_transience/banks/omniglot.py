"""Omniglot drawings (Lake, Salakhutdinov & Tenenbaum, Science 2015) as classes, read from the public zips.

A class is a character under one of 4 rotations and 2 flips: class = (character * 4 + rotation) * 2 + flip,
characters in the bank's own order, those held out last. All eight variants of a character are on one side of
the split. Drawing numbers are put in one seeded order for all characters, those held out last.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from icl_transience.banks import encoders
from icl_transience.banks.bank import Bank, seeded
from icl_transience.spec import BankSpec, StudyError

N_ROTATIONS, N_FLIPS, N_DRAWINGS = 4, 2, 20
VARIANTS = N_ROTATIONS * N_FLIPS
SIDE = 105
_DRAWING = re.compile(r"[^/]+/([^/]+)/character(\d+)/\d+_(\d+)\.png$")

Character = tuple[str, int]


def build(spec: BankSpec, files: Sequence[Path]) -> Bank:
    """The bank of `spec` from the zips `files`; a character found in several zips counts once."""
    omniglot = spec.omniglot
    drawings = read_drawings(files)
    characters = sorted(drawings)
    wanted = omniglot.characters + omniglot.holdout_characters
    if wanted > len(characters):
        raise StudyError(
            f"bank.omniglot.characters + holdout_characters = {wanted}, but {', '.join(f.name for f in files)} "
            f"hold {len(characters)} distinct characters: ask for fewer or name more zips"
        )
    order = seeded(spec.seed, "omniglot/characters").permutation(len(characters))[:wanted]
    drawing_order = seeded(spec.seed, "omniglot/drawings").permutation(N_DRAWINGS)
    drawing_order = drawing_order[: omniglot.exemplars + omniglot.holdout_exemplars]
    images = np.stack([downsample(drawings[characters[i]][drawing_order], omniglot.side) for i in order])
    variants = rotate_and_flip(images)  # [characters, 8, exemplars, side, side]
    pixels = variants.reshape(wanted * VARIANTS, len(drawing_order), -1)
    n_train_classes = omniglot.characters * VARIANTS
    encoder = encoders.fit_pca(pixels[:n_train_classes, : omniglot.exemplars], omniglot.dim)
    names = ["{}/{:02d}".format(*characters[i]) for i in order]
    return Bank(
        embeddings=encoder(pixels),
        n_train_classes=n_train_classes,
        n_train_exemplars=omniglot.exemplars,
        class_table={
            "character": np.repeat(np.array(names, dtype=object), VARIANTS),
            "rotation": np.tile(np.repeat(np.arange(N_ROTATIONS), N_FLIPS), wanted),
            "flip": np.tile(np.arange(N_FLIPS), wanted * N_ROTATIONS),
        },
        exemplar_table={"drawing": drawing_order + 1},
    )


def read_drawings(files: Sequence[Path]) -> dict[Character, np.ndarray]:
    """(alphabet, number) -> bool [20, 105, 105], ink True, drawings 1…20 in order.

    Raises StudyError where a zip cannot be read, a drawing is missing or of another size, or two zips
    disagree on a drawing.
    """
    found: dict[Character, dict[int, bytes]] = {}
    for file in files:
        try:
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if match := _DRAWING.match(name):
                        alphabet, number, drawing = match[1], int(match[2]), int(match[3])
                        png = archive.read(name)
                        if found.setdefault((alphabet, number), {}).setdefault(drawing, png) != png:
                            raise StudyError(
                                f"{file}: {name} differs from the same drawing in another zip: "
                                "use zips of one release of Omniglot"
                            )
        except (zipfile.BadZipFile, zlib.error, OSError) as error:
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
    try:
        with Image.open(io.BytesIO(png)) as image:
            pixels = np.asarray(image.convert("1"), dtype=bool)
    except (OSError, SyntaxError) as error:  # both are what Pillow raises for a damaged PNG
        raise StudyError(f"Omniglot drawing of {name} is damaged ({error}): download its zip again") from error
    if pixels.shape != (SIDE, SIDE):
        raise StudyError(f"Omniglot drawing of {name} is {pixels.shape[::-1]}, expected {SIDE} x {SIDE} pixels")
    return ~pixels


def downsample(drawings: np.ndarray, side: int) -> np.ndarray:
    """bool [n, 105, 105] -> float32 [n, side, side], the ink fraction of each box of whole pixels."""
    small = [Image.fromarray(ink.astype(np.float32)).resize((side, side), Image.Resampling.BOX) for ink in drawings]
    return np.stack([np.asarray(image) for image in small])


def rotate_and_flip(images: np.ndarray) -> np.ndarray:
    """[n, e, side, side] -> [n, 8, e, side, side]: variant rotation * 2 + flip, quarter turns then mirror."""
    variants = []
    for rotation in range(N_ROTATIONS):
        turned = np.rot90(images, rotation, axes=(2, 3))
        variants += [turned, turned[..., ::-1]]
    return np.stack(variants, axis=1)
