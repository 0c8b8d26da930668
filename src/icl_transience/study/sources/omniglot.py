"""The zips of a bank of Omniglot drawings, and the weights of its encoder."""

import functools
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.store import zips
from icl_transience.study.sources.encoders import settled
from icl_transience.study.sources.files import in_folder, public_characters

# Omniglot: zips.


def resolve_omniglot(parameters: dict[str, Any], folder: Path | None) -> tuple[dict[str, Any], list[Path]]:
    """Return the zips, and the weights of `resnet18`, from the folder; what is public may be missing there."""
    names = parameters["zips"]
    if folder is None:
        paths, there = [Path(name) for name in names], public_characters(names)
    else:
        paths = [in_folder(folder, name, "bank.omniglot.zips", "omniglot") for name in names]
        there = len(_characters(tuple(paths)))
    wanted = parameters["characters"] + parameters["holdout_characters"]
    if wanted > there:
        raise StudyError(
            f"`bank.omniglot.characters` + `holdout_characters` is {wanted}, but "
            f"{', '.join(parameters['zips'])} hold {there} characters: ask for fewer or name more zips"
        )
    return settled(parameters, "omniglot", folder, paths)


@functools.cache
def _characters(files: tuple[Path, ...]) -> set[zips.Character]:
    """Return the distinct characters that the zips list. Raises StudyError where a job could not read them all."""
    found: dict[zips.Character, set[int]] = {}
    for path in files:
        with zips.opened(path, "a readable zip", "download it again") as archive:
            for character, drawing in zips.drawings(archive, path).values():
                found.setdefault(character, set()).add(drawing)
    zips.refuse_incomplete(found)
    return set(found)
