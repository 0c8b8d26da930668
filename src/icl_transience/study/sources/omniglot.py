"""The zips of a bank of Omniglot drawings, and the weights of its encoder."""

import functools
import os
import re
import zipfile
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.store.atomic import ZIP_DAMAGE
from icl_transience.study.sources.files import PUBLIC, in_folder, public_characters

_CHARACTER = re.compile(r"([^/]+/character\d+)/[^/]+\.png$")


# Omniglot: zips.


def resolve_omniglot(parameters: dict[str, Any], folder: Path | None) -> tuple[dict[str, Any], list[Path]]:
    """Return the zips, and the weights of `resnet18`, from the folder; what is public may be missing there."""
    zips = parameters["zips"]
    if folder is None:
        paths, there = [Path(name) for name in zips], public_characters(zips)
    else:
        paths = [in_folder(folder, name, "bank.omniglot.zips", "omniglot") for name in zips]
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
def _characters(zips: tuple[Path, ...]) -> set[str]:
    """Return the distinct characters that the zips list, as "Alphabet/characterNN"."""
    found = set()
    for path in zips:
        try:
            with zipfile.ZipFile(path) as archive:
                found |= {match[1] for name in archive.namelist() if (match := _CHARACTER.search(name))}
        except ZIP_DAMAGE as error:
            raise StudyError(f"{path}: not a readable zip ({error}): download it again") from error
    return found
