"""Files that anybody can download, and files in the folder of a source."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icl_transience.specs.errors import MissingSourceError, StudyError, did_you_mean


@dataclass(frozen=True)
class Public:
    """A file that anybody can download. characters: of Omniglot, how many it holds."""

    url: str
    sha256: str
    characters: int = 0


_OMNIGLOT_URL = "https://github.com/brendenlake/omniglot/raw/master/python"
PUBLIC = {
    "images_background_small1.zip": Public(
        f"{_OMNIGLOT_URL}/images_background_small1.zip",
        "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
        136,
    ),
    "images_background_small2.zip": Public(
        f"{_OMNIGLOT_URL}/images_background_small2.zip",
        "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
        156,
    ),
    "images_background.zip": Public(
        f"{_OMNIGLOT_URL}/images_background.zip",
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
        964,
    ),
    "images_evaluation.zip": Public(
        f"{_OMNIGLOT_URL}/images_evaluation.zip",
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
        659,
    ),
    "resnet18-f37072fd.pth": Public(
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
}
# Greek and Latin stand in both small zips, and all of these in images_background.zip.
_IN_BOTH_SMALL = 136 + 156 - 242


def in_folder(folder: Path, name: str, key: str, source: str) -> Path:
    """Return the file `name` in the source's folder. Raises MissingSourceError with what is there instead."""
    if os.path.isfile(path := inside(folder, name, f"`{key}`")):
        return path
    there = sorted(found.name for found in folder.iterdir() if found.is_file())
    listed = f" (there are {', '.join(there[:20])}{', …' if len(there) > 20 else ''})" if there else ""
    raise MissingSourceError(
        f"`{key}` names {name}, which is not in {folder}{did_you_mean(name, there)}{listed}: put it there, "
        f"or name another folder in ICL_{source.upper()} or as `{source}:` in config.yaml"
    )


def is_pickled(path: Path) -> bool:
    """Tell whether a file is by its name one that PyTorch has pickled, such as pytorch_model.bin."""
    return path.suffix.lower() in (".bin", ".pt", ".pth")


def inside(folder: Path, name: str, where: str) -> Path:
    """`name` in the folder or below it; a study or a checkpoint may come from a stranger and reads nothing else."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise StudyError(
            f"{where} names {name!r}, which leads out of {folder}: say it relative to that folder, without `..`, or "
            "make another folder the source's own"
        )
    return folder / name


def public_characters(zips: Sequence[str]) -> int:
    """Return how many characters the public zips of these names hold together."""
    if "images_background.zip" in zips:
        zips = [name for name in zips if "small" not in name]
    total = sum(PUBLIC[name].characters for name in zips)
    return total - _IN_BOTH_SMALL if sum("small" in name for name in zips) == 2 else total
