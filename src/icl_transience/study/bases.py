"""Bases: files of defaults that studies share. `extends: chan` lays a study's defaults over those of a base.

A base may extend another one. It is part of no identity: what counts are the values that a run ends up with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.store import layout
from icl_transience.study import json_schema, schema
from icl_transience.study.document import read_yaml

FOLDER = "bases"


@dataclass(frozen=True)
class Base:
    """A base that a study extends, or that its base does. name: where it stands beside the study's own file."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        """Return the file's text."""
        return self.path.read_text(encoding="utf-8")


def defaults_of(document: Mapping[str, Any], path: Path, folder: Path | None = None) -> tuple[dict, tuple[Base, ...]]:
    """Return the defaults of a study with those of its bases beneath, and the bases, the study's own first.

    document: the study's, read from `path`. folder: of the bases with a name alone; as a rule that beside the study.
    Raises StudyError where a base is not there, is wrong, or extends itself.
    """
    defaults, bases = dict(document.get("defaults", {})), list[Base]()
    folder = path.parent / FOLDER if folder is None else folder
    named_by, inside = path, ""
    while extended := document.get("extends", ""):
        base = _find(extended, named_by, inside, folder)
        chain = [path.name, *(one.name for one in bases), base.name]
        if base.path.resolve() in [path.resolve(), *(one.path.resolve() for one in bases)]:
            raise StudyError(
                f"{named_by}: `extends` comes back to itself ({' -> '.join(chain)}): leave one of them out"
            )
        document = read_yaml(base.path)
        schema.check(document, json_schema.base_schema(), str(base.path))
        defaults = schema.merge(document.get("defaults", {}), defaults)
        bases.append(base)
        named_by, inside = base.path, base.name.removesuffix(base.path.name)
    return defaults, tuple(bases)


def _find(extended: str, named_by: Path, inside: str, folder: Path) -> Base:
    """Return the base that the file `named_by` extends. inside: where that stands beside the study, "" or "bases/"."""
    if extended.endswith((".yaml", ".yml")):
        base = Base(inside + extended, named_by.parent / extended)
        if base.name == layout.ARCHIVED_STUDY:
            raise StudyError(
                f"{named_by}: `extends` is {extended!r}, which is what archives call the study itself: rename the base"
            )
        if not base.path.is_file():
            raise StudyError(f"{named_by}: `extends` is {extended!r}, but there is no such file beside it: correct it")
        return base
    base = Base(f"{FOLDER}/{extended}.yaml", folder / f"{extended}.yaml")
    if not base.path.is_file():
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        there = f"there are {', '.join(known)}" if known else "there is none"
        raise StudyError(
            f"{named_by}: `extends` is {extended!r}, which is not in {folder}{did_you_mean(extended, known)} "
            f"({there}; a name that ends in .yaml is a file beside this one)"
        )
    return base
