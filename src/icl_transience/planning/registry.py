"""The packs that stand in results/packs: read them, register planned ones.

A folder results/packs/{pack} says in its pack.json which lanes train there and at which sequences seen their segments
meet. A lost or damaged pack.json is rebuilt from the segments beside it. A folder that this version of the software
cannot read stands in nobody's way: it is skipped, and said to be.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_transience.planning.packs import Pack
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import canonical, semantics_of
from icl_transience.specs.runs import PackSpec
from icl_transience.store import atomic, locks
from icl_transience.store.layout import SEGMENT

SCHEMA_VERSION = 1
INDEX = "pack.json"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A folder of results/packs that cannot be read, and why."""

    folder: Path
    reason: str

    def __str__(self) -> str:
        """Return one line that names the folder, says why it is skipped and what to do."""
        return f"pack {str(self.folder)!r} is skipped: {' '.join(self.reason.split())}"


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What stands in results/packs. packs: by id. skipped: folders that cannot be read, in the order of their names."""

    packs: dict[str, Pack]
    skipped: tuple[Skipped, ...]

    def refuse(self, planned: Iterable[str]) -> None:
        """Raise StudyError where a planned pack would be written into a folder that is skipped."""
        planned = set(planned)
        problems = [
            f"{one.folder}: lanes of this study are to train there, but {one.reason}"
            for one in self.skipped
            if one.folder.name in planned
        ]
        if problems:
            raise StudyError("\n".join(problems))


class _UnreadableError(Exception):
    """Why a pack's folder cannot be read; what is wrong, and the remedy."""


def read_registered(folder: Path) -> Registered:
    """Read every pack under `folder` (results/packs). A folder without index and segments is none."""
    found: dict[str, Pack] = {}
    skipped: list[Skipped] = []
    for path in sorted(folder.glob("*")):
        if not path.is_dir():
            continue
        try:
            pack = _read(path)
        except _UnreadableError as problem:
            skipped.append(Skipped(folder=path, reason=str(problem)))
        else:
            if pack is not None:
                found[path.name] = pack
    return Registered(packs=found, skipped=tuple(skipped))


def _read(folder: Path) -> Pack | None:
    """Return the pack of a folder: from its index, or, where that is lost or damaged, from its segments."""
    index = folder / INDEX
    if not index.exists():
        return _rebuilt(folder)
    try:
        document = json.loads(index.read_text(encoding="utf-8"))
        version = document["schema"]
    except (KeyError, TypeError, ValueError):
        return _rebuilt(folder)
    # First of all: how another version of the software arranges the rest is not known here.
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise _UnreadableError(f"schema version {version}, expected {SCHEMA_VERSION}: use the software that made it")
    try:
        spec, semantics, boundaries = document["spec"], document["semantics"], tuple(document["boundaries"])
        whole = document["checksum"] == checksum(document)
    except (KeyError, TypeError, ValueError):
        return _rebuilt(folder)
    return _pack(folder, json.dumps(spec), semantics, boundaries) if whole else _rebuilt(folder)


def checksum(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an index, its checksum excluded."""
    content = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def _pack(folder: Path, text: str, semantics: list[int], boundaries: tuple[int, ...]) -> Pack | None:
    """Return the pack of a folder; None if it was made when training meant something else."""
    if semantics != semantics_of("training"):
        return None
    try:
        pack = Pack(spec=PackSpec.from_json(text), boundaries=boundaries)
        pack_id = pack.spec.id
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        problem = f"unknown or missing: {error}" if isinstance(error, KeyError) else str(error)
        raise _UnreadableError(
            f"its lanes are not what this version of the software trains ({problem}): use the software that made it, "
            "or move the folder away"
        ) from error
    if pack_id != folder.name:
        raise _UnreadableError(
            f"it holds pack {pack_id}: give the folder that name, or move it away to train its lanes again"
        )
    return pack


def _rebuilt(folder: Path) -> Pack | None:
    """Return the pack of a folder that has lost its index, from the segments (or their kept links) in it."""
    from icl_transience.store import hdf5  # only here: every parse of the Snakefile would wait for h5py

    segments = {match[0]: match for path in folder.rglob("*.h5") if (match := SEGMENT.match(path.name))}
    if not segments:
        return None
    ends = {int(match[group]) for match in segments.values() for group in (1, 2)}
    for path in (path for name in sorted(segments) for path in sorted(folder.rglob(name))):
        try:
            text, semantics = (hdf5.read_attribute(path, name, aside=False) for name in ("spec", "semantics"))
        except hdf5.StoreError:
            continue  # a damaged one; the others say the same
        return _pack(folder, text, json.loads(semantics), tuple(sorted(ends | {0})))
    return None


def register(folder: Path, planned: Mapping[str, Pack]) -> None:
    """Write the index of every planned pack that is new or has grown, under a lock.

    Raises StudyError where another workflow has registered other packs for the same lanes since the plan was made, or
    where a planned pack's folder cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(folder / ".lock", wait=True):
        registered = read_registered(folder)
        registered.refuse(planned)
        homes = {lane: pack_id for pack_id, pack in registered.packs.items() for lane in pack.spec.lanes}
        for pack_id, pack in planned.items():
            current = registered.packs.get(pack_id)
            if current is None and any(lane in homes for lane in pack.spec.lanes):
                raise StudyError(f"{folder}: another workflow has registered lanes of {pack_id}: run the command again")
            if current is not None and pack.boundaries[: len(current.boundaries)] != current.boundaries:
                raise StudyError(f"{folder}: another workflow has extended {pack_id}: run the command again")
            # Where it is as it should be, nothing is written.
            atomic.write_text(folder / pack_id / INDEX, _index(pack))


def _index(pack: Pack) -> str:
    """Return the text of a pack's index."""
    document = {
        "schema": SCHEMA_VERSION,
        "semantics": semantics_of("training"),
        "spec": json.loads(pack.spec.json),
        "boundaries": list(pack.boundaries),
    }
    return json.dumps(document | {"checksum": checksum(document)}, indent=1, sort_keys=True)
