"""What a source of pictures is made to say by its encoder: keys of other encoders, and the file of its weights."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.study.sources.files import PUBLIC, in_folder

# Pixels a side of what `resnet18` embeds, of each source: Omniglot's whole drawings; what its network takes.
_SIDES = {"omniglot": 105, "images": 224}


def settled(
    parameters: dict[str, Any], source: str, folder: Path | None, paths: Sequence[Path]
) -> tuple[dict[str, Any], list[Path]]:
    """Return the parameters without what another encoder's keys say, and the paths with the weights of `resnet18`.

    So keys of other encoders stay out of the bank's identity. folder: the source's. paths: its files.
    """
    encoder, paths = parameters["encoder"], list(paths)
    if encoder == "resnet18":
        paths.append(_weights(parameters["weights"], source, folder))
        parameters["side"] = _SIDES[source]
    else:
        parameters["weights"] = ""
    if encoder != "trained":
        parameters.pop("trained", None)
    if encoder == "none":
        # An image has as many numbers as pixels and channels, and no scale but its own.
        parameters |= {"dim": parameters["side"] ** 2 * parameters.get("channels", 1), "scale": "standard"}
    return parameters, paths


def _weights(name: str, source: str, folder: Path | None) -> Path:
    if folder is not None and (name not in PUBLIC or os.path.isfile(folder / name)):
        return in_folder(folder, name, f"bank.{source}.weights", source)
    if name not in PUBLIC:
        raise StudyError(
            f"`bank.{source}.weights` names {name}, which is no public file: name its folder, with the zips, in "
            f"ICL_{source.upper()} or as `{source}:` in config.yaml"
        )
    return Path(name)
