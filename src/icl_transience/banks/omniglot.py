"""Omniglot drawings (Lake, Salakhutdinov & Tenenbaum, Science 2015) as classes, read from the public zips.

A class is a character under one of 4 rotations and 2 flips: class = (character * 4 + rotation) * 2 + flip,
characters in the bank's own order, those held out last; or, with one variant of each, a character as it was drawn.
All variants of a character are on one side of the split. Drawing numbers are put in one seeded order for all
characters, those held out last.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from icl_transience.banks.bank import CONTACT_SIDE, contact_sheet, seeded
from icl_transience.banks.drawings import N_FLIPS, VARIANTS, downsample, read_drawings
from icl_transience.banks.pictures import LARGE, Layout, Pictures, build, contact_of, straight
from icl_transience.specs.banks import BankSpec, Omniglot
from icl_transience.specs.errors import StudyError
from icl_transience.store.zips import N_DRAWINGS

__all__ = ["build", "layout", "pictures"]


def layout(omniglot: Omniglot) -> Layout:
    """Return which picture every exemplar is, in the layout that the bank asks for.

    `corrected`: a class is a character under one rotation and flip, an exemplar one of its drawings.

    `released`: the authors' released feature extraction writes an index as [character, drawing, variant] and reads it
    as [class, exemplar]. So a class is 20 pictures in a row: two and a half drawings of one character in all
    orientations. It then takes classes to be numbered by variant, then character. So the split is by runs of these
    classes, and characters at the ends of a run are on both sides of it.
    """
    n_characters = omniglot.characters + omniglot.holdout_characters
    n_exemplars = omniglot.exemplars + omniglot.holdout_exemplars
    if omniglot.layout == "released":
        by_variant = np.arange(n_characters * VARIANTS).reshape(VARIANTS, n_characters)
        parts = by_variant[:, : omniglot.characters], by_variant[:, omniglot.characters :]
        classes = np.concatenate([part.ravel() for part in parts])
        picture = classes[:, None] * N_DRAWINGS + np.arange(n_exemplars)
        character, drawing, variant = np.unravel_index(picture, (n_characters, N_DRAWINGS, VARIANTS))
        return Layout(character[:, 0], variant, drawing)
    return straight(n_characters, omniglot.variants, n_exemplars)


def pictures(spec: BankSpec, files: Sequence[Path]) -> Pictures:
    """Read the drawings of a bank from the zips, which come first in `files`."""
    omniglot = spec.parameters_of(Omniglot)
    placed = layout(omniglot)
    names, numbers, drawings = _chosen(spec, files[: len(omniglot.zips)])
    rotation, flip = np.divmod(placed.variant, N_FLIPS)
    class_table = {"character": np.array(names, dtype=object)[placed.stored]}
    if omniglot.layout == "corrected":
        class_table |= {"rotation": rotation[:, 0], "flip": flip[:, 0]}
        exemplar_table = {"drawing": numbers[placed.drawing[0]]}
    else:  # these differ from class to class: [classes, exemplars]
        exemplar_table = {"rotation": rotation, "flip": flip, "drawing": numbers[placed.drawing]}
    rows, columns = np.ix_(*contact_sheet(spec.shape))
    shown = downsample(drawings[np.unique(placed.stored[rows])], CONTACT_SIDE)[..., None]
    return Pictures(
        placed=placed,
        small=lambda: (downsample(of_character, omniglot.side)[..., None] for of_character in drawings),
        large=lambda: map(_large, drawings),
        contact=contact_of(shown, placed, rows, columns)[..., 0],
        class_table=class_table,
        exemplar_table=exemplar_table,
    )


def _large(drawings: np.ndarray) -> np.ndarray:
    """Enlarge the drawings of a character, bool [drawings, 105, 105], bilinearly; uint8, ink 0; see Pictures."""
    grey = [Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)) for ink in drawings]
    large = [np.asarray(image.resize((LARGE, LARGE), Image.Resampling.BILINEAR)) for image in grey]
    return np.stack(large)[..., None]


def _chosen(spec: BankSpec, zips: Sequence[Path]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Choose characters and drawings by the bank's seed.

    Returns names of characters, numbers of drawings (1 to 20), and the drawings, bool [characters, drawings, 105, 105].
    A character that is in several zips counts once. The released layout needs all twenty drawings.
    """
    omniglot = spec.parameters_of(Omniglot)
    drawings = read_drawings(zips)
    characters = sorted(drawings)
    wanted = omniglot.characters + omniglot.holdout_characters
    if wanted > len(characters):
        raise StudyError(
            f"bank.omniglot.characters + holdout_characters = {wanted}, but {', '.join(f.name for f in zips)} "
            f"hold {len(characters)} distinct characters: ask for fewer or name more zips"
        )
    order = seeded(spec.seed, "omniglot/characters").permutation(len(characters))[:wanted]
    drawing_order = seeded(spec.seed, "omniglot/drawings").permutation(N_DRAWINGS)
    if omniglot.layout == "corrected":
        drawing_order = drawing_order[: omniglot.exemplars + omniglot.holdout_exemplars]
    names = ["{}/{:02d}".format(*characters[i]) for i in order]
    chosen = np.stack([drawings[characters[i]][drawing_order] for i in order])
    blank = np.argwhere(chosen.all(axis=(2, 3)) | ~chosen.any(axis=(2, 3)))
    if len(blank):
        character, drawing = blank[0]
        raise StudyError(
            f"{', '.join(f.name for f in zips)}: {len(blank)} of {chosen[..., 0, 0].size} drawings are blank, the "
            f"first is drawing {drawing_order[drawing] + 1} of {names[character]}; expected ink on paper: "
            "download the zips again"
        )
    return names, drawing_order + 1, chosen
