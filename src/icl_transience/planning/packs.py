"""Lanes -> packs on disk: which lanes train together, and where their training may stop and resume.

A folder results/packs/{pack} with its pack.json is registered once and only grows: a lane found in one stays
there forever, new lanes form new packs, boundaries are only appended.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import canonical, round_up, semantics_of
from icl_transience.specs.runs import Lane, PackSpec
from icl_transience.store import atomic, locks
from icl_transience.store.layout import SEGMENT

SCHEMA_VERSION = 1
INDEX = "pack.json"
# Jobs of training that one call plans; Snakemake needs a millisecond and 14 kB for each.
MOST_SEGMENTS = 100_000


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A pack and the sequences seen at which its segments meet, 0 first."""

    spec: PackSpec
    boundaries: tuple[int, ...]

    def segments(self, horizon: int) -> list[tuple[int, int]]:
        """Return (from, to) of every segment that training to `horizon` takes, in order."""
        pairs = itertools.pairwise(self.boundaries)
        return [(start, end) for start, end in pairs if start < horizon]


def plan(
    wanted: Mapping[Lane, int],
    registered: Mapping[str, Pack],
    *,
    packing: str,
    lanes_per_pack: int,
    segment_end: Callable[[PackSpec, int], int],
) -> dict[str, Pack]:
    """Return pack id -> pack, for every pack that holds a wanted lane; a pure function.

    wanted: lane -> horizon. Lanes of a registered pack stay there; the others are grouped by run (or by tensor
    shape) in the order given. Boundaries grow up to the largest horizon, in whole batches: segment_end(pack, start) is
    where a segment from `start` should end.
    """
    home = {lane: pack_id for pack_id in sorted(registered, reverse=True) for lane in registered[pack_id].spec.lanes}
    packs = {home[lane]: registered[home[lane]] for lane in wanted if lane in home}
    groups: dict[str, list[Lane]] = {}
    for lane in wanted:
        if lane not in home:
            groups.setdefault(lane.run.id if packing == "run" else lane.run.tensor_shape, []).append(lane)
    for lanes in groups.values():
        for first in range(0, len(lanes), lanes_per_pack):
            pack = Pack(spec=PackSpec(lanes=tuple(lanes[first : first + lanes_per_pack])), boundaries=(0,))
            packs[pack.spec.id] = pack
    horizons = {pack_id: max(wanted.get(lane, 0) for lane in pack.spec.lanes) for pack_id, pack in packs.items()}
    _refuse_too_many_segments(packs, horizons, segment_end)
    return {pack_id: _extended(pack, horizons[pack_id], segment_end) for pack_id, pack in packs.items()}


def _refuse_too_many_segments(
    packs: Mapping[str, Pack], horizons: Mapping[str, int], segment_end: Callable[[PackSpec, int], int]
) -> None:
    """Raise StudyError where training takes more segments than one call plans.

    They are counted, not listed: a long horizon in short segments has more of them than any memory holds.
    """
    total, lengths = 0, []
    for pack_id, pack in packs.items():
        begun = pack.boundaries[-1]
        if (left := horizons[pack_id] - begun) > 0:
            lengths.append(round_up(segment_end(pack.spec, begun) - begun, pack.spec.run.batch_size))
            total += -(-left // lengths[-1])
    if total > MOST_SEGMENTS:
        raise StudyError(
            f"training to `horizon` {max(horizons.values()):,} in segments of {min(lengths):,} sequences takes "
            f"{total:,} jobs, expected at most {MOST_SEGMENTS:,}: raise `segment_sequences` (or `segment_minutes`) in "
            "config.yaml, lower `horizon`, or train fewer lanes"
        )


def _extended(pack: Pack, horizon: int, segment_end: Callable[[PackSpec, int], int]) -> Pack:
    """Return a pack with boundaries up to the horizon."""
    batch_size, boundaries = pack.spec.run.batch_size, list(pack.boundaries)
    while boundaries[-1] < horizon:
        boundaries.append(round_up(min(segment_end(pack.spec, boundaries[-1]), horizon), batch_size))
    return replace(pack, boundaries=tuple(boundaries))


def read_registered(folder: Path) -> dict[str, Pack]:
    """Return every pack under `folder` (results/packs); a folder without index or segments is none.

    Raises StudyError where an index is not what its folder says.
    """
    read = {path.name: _read(path) for path in sorted(folder.glob("*")) if path.is_dir()}
    return {pack_id: pack for pack_id, pack in read.items() if pack is not None}


def _read(folder: Path) -> Pack | None:
    """Return the pack of a folder: from its index, or, where that is lost or damaged, from its segments."""
    index = folder / INDEX
    if not index.exists():
        return _rebuilt(folder)
    try:
        document = json.loads(index.read_text(encoding="utf-8"))
        version, semantics, boundaries = document["schema"], document["semantics"], tuple(document["boundaries"])
        whole = document["checksum"] == _checksum(document)
    except (KeyError, TypeError, ValueError):
        return _rebuilt(folder)
    if not whole:
        return _rebuilt(folder)
    if version != SCHEMA_VERSION:
        raise StudyError(f"{index}: schema version {version}, expected {SCHEMA_VERSION}: use the software that made it")
    return _pack(folder, json.dumps(document["spec"]), semantics, boundaries)


def _checksum(document: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def _pack(folder: Path, text: str, semantics: list[int], boundaries: tuple[int, ...]) -> Pack | None:
    """Return the pack of a folder, or None if it was made when training meant something else."""
    if semantics != semantics_of("training"):
        return None
    try:
        pack = Pack(spec=PackSpec.from_json(text), boundaries=boundaries)
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"{folder}: its lanes are not what this version of the software trains ({error}): move the folder away"
        ) from error
    if pack.spec.id != folder.name:
        raise StudyError(
            f"{folder} holds pack {pack.spec.id}: give the folder that name, or move it away to train its lanes again"
        )
    return pack


def _rebuilt(folder: Path) -> Pack | None:
    """Return the pack of a folder that has lost its index, from the segments (or their kept links) in it."""
    from icl_transience.store import hdf5

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

    Raises StudyError where another workflow has registered other packs for the same lanes since the plan was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(folder / ".lock", wait=True):
        registered = read_registered(folder)
        homes = {lane: pack_id for pack_id, pack in registered.items() for lane in pack.spec.lanes}
        for pack_id, pack in planned.items():
            current = registered.get(pack_id)
            if current is None and any(lane in homes for lane in pack.spec.lanes):
                raise StudyError(f"{folder}: another workflow has registered lanes of {pack_id}: run the command again")
            if current is not None and pack.boundaries[: len(current.boundaries)] != current.boundaries:
                raise StudyError(f"{folder}: another workflow has extended {pack_id}: run the command again")
            # Where it is as it should be, nothing is written.
            atomic.write_text(folder / pack_id / INDEX, _index(pack))


def _index(pack: Pack) -> str:
    document = {
        "schema": SCHEMA_VERSION,
        "semantics": semantics_of("training"),
        "spec": json.loads(pack.spec.json),
        "boundaries": list(pack.boundaries),
    }
    return json.dumps(document | {"checksum": _checksum(document)}, indent=1, sort_keys=True)


def order_lanes(lanes: Iterable[tuple[Lane, int]]) -> dict[Lane, int]:
    """Return lane -> the largest horizon asked of it, in order of first mention."""
    wanted: dict[Lane, int] = {}
    for lane, horizon in lanes:
        wanted[lane] = max(horizon, wanted.get(lane, 0))
    return wanted


def lane_places(packs: Mapping[str, Pack], lanes: Sequence[Lane]) -> dict[Lane, tuple[str, int]]:
    """Return lane -> (pack id, the lane's place in it)."""
    places: dict[Lane, tuple[str, int]] = {}
    for pack_id in sorted(packs, reverse=True):
        places |= {lane: (pack_id, place) for place, lane in enumerate(packs[pack_id].spec.lanes)}
    return {lane: places[lane] for lane in lanes}
