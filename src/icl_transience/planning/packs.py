"""Plan packs: which lanes train together, and where their training may stop and resume.

Pure functions of what a study asks for and of the packs that are registered; see registry.py for those on disk. A
registered pack only grows: its lanes stay in it, new lanes form new packs, and boundaries are only appended.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import round_up
from icl_transience.specs.runs import Lane, PackSpec, Run, Seed

# Most training jobs that one call plans. Snakemake needs a millisecond and 14 kB for each.
MOST_SEGMENTS = 100_000


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Lanes that train together. boundaries: sequences seen at which segments meet, 0 first."""

    spec: PackSpec
    boundaries: tuple[int, ...]

    def segments(self, horizon: int) -> list[tuple[int, int]]:
        """Return (start, end), in sequences seen, of each segment that training to `horizon` takes, in order."""
        pairs = itertools.pairwise(self.boundaries)
        return [(start, end) for start, end in pairs if start < horizon]


def plan(
    wanted: Mapping[Lane, int],
    registered: Mapping[str, Pack],
    *,
    packing: str,
    lanes_per_pack: Callable[[Sequence[Lane], int, int], int],
    segment_end: Callable[[PackSpec, int], Callable[[int], int]],
) -> dict[str, Pack]:
    """Return pack id -> pack, for every pack that holds a wanted lane, or one from which such a pack starts.

    wanted: lane -> horizon, in sequences seen. registered: pack id -> pack; its lanes stay where they are. The
    other lanes are grouped by run (`packing` "run") or by tensor shape and horizon, in the order given, at most
    lanes_per_pack(lanes of the group, their largest horizon, number of lanes in all groups) a pack; a lane that
    starts from another's snapshot does not join its pack, see `_generations`. segment_end(pack, horizon)(start):
    where a segment from `start` should end. Boundaries grow up to the largest horizon of a pack, in whole batches.
    Raises StudyError where that takes more than MOST_SEGMENTS new segments.
    """
    home = {lane: pack_id for pack_id in sorted(registered, reverse=True) for lane in registered[pack_id].spec.lanes}
    packs = {home[lane]: registered[home[lane]] for lane in wanted if lane in home}
    groups: dict[tuple[object, int], list[Lane]] = {}
    generation = _generations(wanted)
    for lane in wanted:
        if lane not in home:
            # A lane would train on to the horizon of others, which may be far.
            alike = lane.run.id if packing == "run" else (lane.run.tensor_shape, wanted[lane])
            groups.setdefault((alike, generation(lane.run)), []).append(lane)
    new = sum(map(len, groups.values()))
    for lanes in groups.values():
        most = lanes_per_pack(lanes, max(wanted[lane] for lane in lanes), new)
        for first in range(0, len(lanes), most):
            pack = Pack(spec=PackSpec(lanes=tuple(lanes[first : first + most])), boundaries=(0,))
            packs[pack.spec.id] = pack
    horizons = {pack_id: max(wanted.get(lane, 0) for lane in pack.spec.lanes) for pack_id, pack in packs.items()}
    for pack_id, at in other_sources(packs, registered):
        packs[pack_id] = registered[pack_id]
        horizons[pack_id] = max(at, 1, horizons.get(pack_id, 0))
    _refuse_too_many_segments(packs, horizons, segment_end)
    return {pack_id: _extended(pack, horizons[pack_id], segment_end) for pack_id, pack in packs.items()}


def _generations(lanes: Iterable[Lane]) -> Callable[[Run], int]:
    """Return the function from a run to how many runs it starts from, one after the other; 0 where it begins by itself.

    Packs hold runs of one generation, so that no pack waits for itself.
    """
    by_id: dict[str, Run] = {}

    def generation(run: Run | None) -> int:
        if run is None or not run.start_from:
            return 0
        if not by_id:
            by_id.update({lane.run.id: lane.run for lane in lanes})
        return 1 + generation(by_id.get(run.start_from.run))

    return generation


def other_sources(packs: Mapping[str, Pack], registered: Mapping[str, Pack]) -> Iterator[tuple[str, int]]:
    """Yield (pack id, snapshot) of the registered packs with lanes that lanes of `packs` start from, but not in these.

    Such are of seeds that the study no longer has, and that train on beside others.
    """
    if not any(lane.run.start_from for pack in packs.values() for lane in pack.spec.lanes):
        return
    here, elsewhere = lanes_by_run(packs), lanes_by_run(registered)
    left, known = list(packs.values()), set(packs)
    while left:
        for lane in left.pop().spec.lanes:
            source = (lane.run.start_from.run, lane.seed)
            if lane.run.start_from and source not in here and source in elsewhere:
                pack_id, _ = elsewhere[source]
                yield pack_id, lane.run.start_from.sequences_seen
                if pack_id not in known:
                    known.add(pack_id)
                    left.append(registered[pack_id])


def lanes_by_run(packs: Mapping[str, Pack]) -> dict[tuple[str, Seed], tuple[str, int]]:
    """Return (id of its run, seed) -> (pack id, index in the pack) of every lane of some packs."""
    ids = {lane.run: "" for pack in packs.values() for lane in pack.spec.lanes}
    ids = {run: run.id for run in ids}
    return {
        (ids[lane.run], lane.seed): (pack_id, place)
        for pack_id in sorted(packs, reverse=True)
        for place, lane in enumerate(packs[pack_id].spec.lanes)
    }


def _refuse_too_many_segments(
    packs: Mapping[str, Pack], horizons: Mapping[str, int], segment_end: Callable[[PackSpec, int], Callable[[int], int]]
) -> None:
    """Raise StudyError where more than MOST_SEGMENTS segments are to be appended.

    They are counted, not listed: a long horizon in short segments has more of them than any memory holds.
    """
    total, lengths = 0, []
    for pack_id, pack in packs.items():
        begun = pack.boundaries[-1]
        if (left := horizons[pack_id] - begun) > 0:
            end = segment_end(pack.spec, horizons[pack_id])(begun)
            lengths.append(round_up(end - begun, pack.spec.run.batch_size))
            total += -(-left // lengths[-1])
    if total > MOST_SEGMENTS:
        raise StudyError(
            f"training to `horizon` {max(horizons.values()):,} in segments of {min(lengths):,} sequences takes "
            f"{total:,} jobs, expected at most {MOST_SEGMENTS:,}: raise `segment_sequences` (or `segment_minutes`), or "
            "`lanes_per_pack`, in config.yaml, lower `horizon`, or train fewer lanes"
        )


def _extended(pack: Pack, horizon: int, segment_end: Callable[[PackSpec, int], Callable[[int], int]]) -> Pack:
    """Return the pack with boundaries up to `horizon`."""
    if pack.boundaries[-1] >= horizon:
        return pack
    batch_size, boundaries = pack.spec.run.batch_size, list(pack.boundaries)
    end_after = segment_end(pack.spec, horizon)
    while boundaries[-1] < horizon:
        boundaries.append(round_up(min(end_after(boundaries[-1]), horizon), batch_size))
    return replace(pack, boundaries=tuple(boundaries))


def order_lanes(lanes: Iterable[tuple[Lane, int]]) -> dict[Lane, int]:
    """Return lane -> the largest horizon asked of it, in order of first mention."""
    wanted: dict[Lane, int] = {}
    for lane, horizon in lanes:
        wanted[lane] = max(horizon, wanted.get(lane, 0))
    return wanted


def lane_places(packs: Mapping[str, Pack], lanes: Sequence[Lane]) -> dict[Lane, tuple[str, int]]:
    """Return lane -> (pack id, the lane's index in the pack)."""
    places: dict[Lane, tuple[str, int]] = {}
    for pack_id in sorted(packs, reverse=True):
        places |= {lane: (pack_id, place) for place, lane in enumerate(packs[pack_id].spec.lanes)}
    return {lane: places[lane] for lane in lanes}
