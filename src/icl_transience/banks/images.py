"""Images of any kind as classes: a folder for each class, in a folder or in a zip; see store/image_files.py.

Folders and the images in them are taken in a seeded order, those held out last. A class is a folder under one of its
variants, by rotations and flips: class = folder * variants + variant; all variants of a folder are on one side of the
split. Images are brought to one size and to grey or RGB: `image_files.pixels` says how.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from icl_transience.banks.bank import CONTACT_SIDE, contact_sheet, seeded
from icl_transience.banks.drawings import N_FLIPS
from icl_transience.banks.pictures import LARGE, Pictures, build, contact_of, straight
from icl_transience.specs.banks import BankSpec, Images
from icl_transience.store import image_files

__all__ = ["build", "pictures"]


def pictures(spec: BankSpec, files: Sequence[Path]) -> Pictures:
    """Choose the images of a bank by its seed, from the folder or zip that comes first in `files`."""
    parameters, shape = spec.parameters_of(Images), spec.shape
    chosen = choose(spec, files[0])
    placed = straight(parameters.stored_classes, parameters.variants, shape.n_exemplars)
    rotation, flip = np.divmod(placed.variant[:, 0], N_FLIPS)
    rows, columns = np.ix_(*contact_sheet(shape))
    shown = [list(chosen)[number] for number in np.unique(placed.stored[rows])]
    sheet = _read(files[0], [chosen[name][: columns.size] for name in shown], CONTACT_SIDE, parameters.channels)
    contact = contact_of(np.stack(list(sheet)) / np.float32(255), placed, rows, columns)
    every = list(chosen.values())
    return Pictures(
        placed=placed,
        small=lambda: (
            images / np.float32(255) for images in _read(files[0], every, parameters.side, parameters.channels)
        ),
        large=lambda: _read(files[0], every, LARGE, parameters.channels),
        contact=contact if parameters.channels == 3 else contact[..., 0],
        class_table={
            "folder": np.array(list(chosen), dtype=object)[placed.stored],
            "rotation": rotation,
            "flip": flip,
        },
        exemplar_table={"file": np.array(every, dtype=object)[placed.stored]},
    )


def choose(spec: BankSpec, path: Path) -> dict[str, tuple[str, ...]]:
    """Return folder -> names of its images that the bank has, in the bank's order."""
    parameters, wanted = spec.parameters_of(Images), spec.shape.n_exemplars
    folders = {name: found for name, found in image_files.checked(path).classes.items() if len(found) >= wanted}
    order = seeded(spec.seed, "images/folders").permutation(len(folders))[: parameters.stored_classes]
    of_folder = seeded(spec.seed, "images/images")
    chosen = {}
    for name in [list(folders)[number] for number in order]:
        found = folders[name]
        chosen[name] = tuple(found[number] for number in of_folder.permutation(len(found))[:wanted])
    return chosen


def _read(path: Path, classes: Sequence[Sequence[str]], side: int, channels: int) -> Iterator[np.ndarray]:
    """Yield the images of each class, uint8 [images, side, side, channels]."""
    with image_files.opened(path) as images:
        for names in classes:
            yield np.stack([image_files.pixels(images.read(name), f"{path}: {name}", side, channels) for name in names])
