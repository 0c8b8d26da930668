"""Omniglot drawings (Lake, Salakhutdinov & Tenenbaum, Science 2015) as classes, read from the public zips.

A class is a character under one of 4 rotations and 2 flips: class = (character * 4 + rotation) * 2 + flip,
characters in the bank's own order, those held out last; or, with one variant of each, a character as it was drawn.
All variants of a character are on one side of the split. Drawing numbers are put in one seeded order for all
characters, those held out last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from PIL import Image

from icl_transience.banks import encoders, resnet, trained
from icl_transience.banks.bank import CONTACT_SIDE, Bank, ImageBank, contact_sheet, seeded
from icl_transience.banks.drawings import N_FLIPS, VARIANTS, downsample, read_drawings, rotate_and_flip
from icl_transience.specs.banks import BankSpec, Omniglot
from icl_transience.specs.errors import StudyError
from icl_transience.store.zips import N_DRAWINGS
from icl_transience.system.progress import Progress

# Of ImageNet's images, as torchvision's weights expect.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layout:
    """Which picture every exemplar of a bank is.

    character: int64 [classes], indices into the bank's order of characters.
    variant: int64 [classes, exemplars], rotation * 2 + flip.
    drawing: int64 [classes, exemplars], indices into the bank's order of drawings.
    """

    character: np.ndarray
    variant: np.ndarray
    drawing: np.ndarray

    def pick(self, of_all: np.ndarray) -> np.ndarray:
        """Arrange an array [characters, variants, drawings, ...] as [classes, exemplars, ...]."""
        return of_all[self.character[:, None], self.variant, self.drawing]


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
    character, variant = np.divmod(np.arange(n_characters * omniglot.variants), omniglot.variants)
    shape = (len(character), n_exemplars)
    return Layout(
        character,
        np.broadcast_to(variant[:, None], shape),
        np.broadcast_to(np.arange(n_exemplars), shape),
    )


def build(spec: BankSpec, files: Sequence[Path], log: TextIO | None = None) -> Bank | ImageBank:
    """Make the bank of `spec` from its files: the zips, then the file that its encoder reads, if any.

    That file has the weights of `resnet18`, or of the trained encoder. log: gets the progress of `resnet18`.
    """
    omniglot = spec.parameters_of(Omniglot)
    placed = layout(omniglot)
    names, numbers, drawings = _chosen(spec, files[: len(omniglot.zips)])
    if omniglot.encoder == "none":
        return _images(spec, placed, names, numbers, drawings)
    if omniglot.encoder == "resnet18":
        embeddings = placed.pick(_resnet18(drawings, omniglot.variants, files[-1], log))
    else:
        images = placed.pick(rotate_and_flip(downsample(drawings, omniglot.side), omniglot.variants))
        if omniglot.encoder == "trained":
            embeddings = trained.embed(trained.load(files[-1], spec), images)
        else:
            embeddings = images.reshape(*images.shape[:2], -1)
    training = embeddings[: spec.shape.n_train_classes, : spec.shape.n_train_exemplars]
    if omniglot.encoder == "pca":
        encode = encoders.fit_pca(training, omniglot.dim)
    else:
        encode = encoders.fit_scale(training, omniglot.scale)
    return Bank(
        embeddings=encode(embeddings),
        n_train_classes=spec.shape.n_train_classes,
        n_train_exemplars=omniglot.exemplars,
        **_tables(omniglot, placed, names, numbers),
        contact=_contact(spec, placed, drawings),
        often_equal=omniglot.encoder != "pca",
    )


def _images(spec: BankSpec, placed: Layout, names: list[str], numbers: np.ndarray, drawings: np.ndarray) -> ImageBank:
    """Return the bank of the drawings themselves, each once: shares of ink in 255 parts."""
    omniglot = spec.parameters_of(Omniglot)
    stored = np.empty((*drawings.shape[:2], omniglot.side, omniglot.side, 1), np.uint8)
    for number, of_character in enumerate(drawings):
        stored[number, ..., 0] = np.round(255 * downsample(of_character, omniglot.side))
    return ImageBank(
        images=stored,
        views=omniglot.variants,
        n_train_classes=spec.shape.n_train_classes,
        n_train_exemplars=omniglot.exemplars,
        **_tables(omniglot, placed, names, numbers),
        contact=_contact(spec, placed, drawings),
    )


def _tables(omniglot: Omniglot, placed: Layout, names: list[str], numbers: np.ndarray) -> dict[str, Any]:
    """Return the tables of classes and exemplars: which characters, orientations and drawings they are."""
    rotation, flip = np.divmod(placed.variant, N_FLIPS)
    class_table = {"character": np.array(names, dtype=object)[placed.character]}
    if omniglot.layout == "corrected":
        class_table |= {"rotation": rotation[:, 0], "flip": flip[:, 0]}
        return {"class_table": class_table, "exemplar_table": {"drawing": numbers[placed.drawing[0]]}}
    # These differ from class to class: [classes, exemplars].
    exemplar_table = {"rotation": rotation, "flip": flip, "drawing": numbers[placed.drawing]}
    return {"class_table": class_table, "exemplar_table": exemplar_table}


def _contact(spec: BankSpec, placed: Layout, drawings: np.ndarray) -> np.ndarray:
    """Draw the contact sheet: uint8 [rows, columns, side, side], ink 255."""
    rows, columns = np.ix_(*contact_sheet(spec.shape))
    shown = Layout(placed.character[rows[:, 0]], placed.variant[rows, columns], placed.drawing[rows, columns])
    characters, shown_characters = np.unique(shown.character, return_inverse=True)
    small = rotate_and_flip(downsample(drawings[characters], CONTACT_SIDE))
    return np.round(255 * replace(shown, character=shown_characters).pick(small)).astype(np.uint8)


def training_images(spec: BankSpec, files: Sequence[Path]) -> np.ndarray:
    """Return the images an encoder is trained on: float32 [classes, exemplars, side, side], training ones only."""
    _, _, drawings = _chosen(spec, files)
    omniglot = spec.parameters_of(Omniglot)
    variants = rotate_and_flip(downsample(drawings, omniglot.side), omniglot.variants)
    images = layout(omniglot).pick(variants)
    return images[: spec.shape.n_train_classes, : spec.shape.n_train_exemplars]


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


def _resnet18(drawings: np.ndarray, n_variants: int, weights: Path, log: TextIO | None) -> np.ndarray:
    """Embed bool [characters, drawings, 105, 105] by ResNet-18: float32 [characters, variants, drawings, 512].

    Images are prepared as by torchvision's transforms: grey levels resized bilinearly to 224 x 224, three equal
    channels, ImageNet's mean and standard deviation.
    """
    model = resnet.load_resnet18(weights)
    progress = Progress("resnet18", 0, drawings[..., 0, 0].size * n_variants, 1, log, unit="images")
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    embeddings, seen = [], 0
    for of_character in drawings:
        grey = [Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)) for ink in of_character]
        large = np.stack([np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)) for image in grey])
        # [variants, drawings, 224, 224]
        variants = torch.from_numpy(np.ascontiguousarray(rotate_and_flip(large[None], n_variants)[0]))
        of_variants = []
        for batch in variants:
            images = ((batch[:, None] / 255).expand(-1, 3, -1, -1) - mean) / std
            with torch.inference_mode():
                of_variants.append(model(images))
            seen += len(batch)
            progress(seen)
        embeddings.append(torch.stack(of_variants))
    return torch.stack(embeddings).numpy()
