"""The folder of images, or zip of one, of a bank of source `images`: whether it has what is asked for."""

from pathlib import Path
from typing import Any

from icl_transience.specs.errors import MissingSourceError, StudyError, did_you_mean
from icl_transience.store import image_files
from icl_transience.study.sources.encoders import settled
from icl_transience.study.sources.files import inside


def resolve_images(parameters: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Return the parameters and the path of the folder or zip. Raises StudyError where it has too few images."""
    path = _found(parameters["file"], folder)
    images = image_files.checked(path)
    if parameters["mixed_sizes"] == "refused" and len(images.sizes) > 1:
        listed = ", ".join(f"{name} {width} x {height}" for (width, height), name in images.sizes.items())
        raise StudyError(
            f"{path}: images are of {len(images.sizes)} sizes or more ({listed}), and `bank.images.mixed_sizes` is "
            "refused: make them of one size, or say `resized`"
        )
    wanted = parameters["exemplars"] + parameters["holdout_exemplars"]
    small = {name: len(found) for name, found in images.classes.items() if len(found) < wanted}
    if small and parameters["small_classes"] == "refused":
        listed = ", ".join(f"{name} {count}" for name, count in list(small.items())[:5])
        raise StudyError(
            f"{path}: {len(small)} of {len(images.classes)} folders have fewer than {wanted} .png, .jpg or .jpeg files "
            f"(`bank.images.exemplars` + `holdout_exemplars`), such as {listed}: ask for fewer, add images, or say "
            "`small_classes: left_out`"
        )
    classes, there = parameters["classes"] + parameters["holdout_classes"], len(images.classes) - len(small)
    if classes > there:
        raise StudyError(
            f"`bank.images.classes` + `holdout_classes` is {classes}, but {path} has {there} folders with {wanted} "
            "images or more: ask for fewer classes or exemplars"
        )
    # By what the images hold, not by what their folder is called.
    return settled(parameters | {"file": ""}, "images", folder, [path])


def _found(name: str, folder: Path) -> Path:
    """Return the path of a folder or a zip. Raises MissingSourceError with what is there instead."""
    path = inside(folder, name, "`bank.images.file`")
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".zip"):
        return path
    if path.is_file():
        raise StudyError(f"`bank.images.file` names {path}, expected a folder, or a zip: unpack it, or name another")
    there = sorted(one.name for one in folder.iterdir() if one.is_dir() or one.suffix.lower() == ".zip")
    listed = f" (there are {', '.join(there[:20])}{', …' if len(there) > 20 else ''})" if there else ""
    raise MissingSourceError(
        f"`bank.images.file` names {name}, which is not in {folder}{did_you_mean(name, there)}{listed}: put it there, "
        "or name another folder in ICL_IMAGES or as `images:` in config.yaml"
    )
