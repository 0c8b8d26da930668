"""The zips of a bank of Omniglot drawings, and the weights of its encoder."""

import functools
import os
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.store import zips
from icl_transience.study.sources.files import PUBLIC, in_folder, public_characters

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
    # Keys of another encoder stay out of the bank's identity.
    encoder = parameters["encoder"]
    if encoder == "resnet18":
        paths.append(_weights(parameters["weights"], folder))
        parameters["side"] = 105  # it embeds whole drawings
    else:
        parameters["weights"] = ""
    if encoder != "trained":
        parameters.pop("trained", None)
    if encoder == "none":
        # An image has as many numbers as pixels, and no scale but its own.
        parameters |= {"dim": parameters["side"] ** 2, "scale": "standard"}
    return parameters, paths


def _weights(name: str, folder: Path | None) -> Path:
    if folder is not None and (name not in PUBLIC or os.path.isfile(folder / name)):
        return in_folder(folder, name, "bank.omniglot.weights", "omniglot")
    if name not in PUBLIC:
        raise StudyError(
            f"`bank.omniglot.weights` names {name}, which is no public file: name its folder, with the zips, in "
            "ICL_OMNIGLOT or as `omniglot:` in config.yaml"
        )
    return Path(name)


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
