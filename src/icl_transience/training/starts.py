"""Initial weights that are another run's: of the same seed's lane, at one of its snapshots."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import torch

from icl_transience.engines.state import State
from icl_transience.specs.runs import Lane, PackSpec, snapshot_names
from icl_transience.store import hdf5
from icl_transience.training import checkpoint

# A lane by what it is named after in other lanes: the id of its run, and its seed.
_Source = tuple[str, object]


def load(state: State, pack: PackSpec, sources: Sequence[Path]) -> str:
    """Put the weights of the snapshots that lanes start from in place of those drawn for them.

    state: before the first batch. sources: segments that hold the snapshots. Returns the code that trained these, as
    segments record it; "" where no lane starts from any. Raises StoreError where a snapshot is in none of the segments,
    or a segment is not whole.
    """
    codes = list[str]()
    left = {place: lane for place, lane in enumerate(pack.lanes) if lane.run.start_from}
    for path in sources:
        if left:
            with hdf5.reading(path, "segment") as file:
                copied = [place for place, lane in left.items() if _copied(file, lane, state, place)]
                for place in copied:
                    del left[place]
                if copied:
                    codes += str(file.attrs.get("made_training_code", checkpoint.NOT_RECORDED)).split(", ")
    if left:
        lane = next(iter(left.values()))
        start = lane.run.start_from
        raise hdf5.StoreError(
            f"seed {lane.seed.label} starts from run {start.run} at {start.sequences_seen:,} sequences seen, which is "
            f"in none of the segments given ({', '.join(map(str, sources)) or 'none'}): give the one that holds it "
            "after --sources"
        )
    return ", ".join(dict.fromkeys(codes))


def _copied(file: h5py.File, lane: Lane, state: State, place: int) -> bool:
    """Copy the snapshot that a lane starts from into its place of the state; return whether the segment has it."""
    start = lane.run.start_from
    places = _places(PackSpec.from_json(str(file.attrs["spec"])))
    (rows,) = np.nonzero(hdf5.array(file, "snapshots/sequences_seen") == start.sequences_seen)
    source = places.get((start.run, lane.seed))
    if source is None or not len(rows):
        return False
    for name in snapshot_names(PackSpec(lanes=(lane,))):
        weights = cast(np.ndarray, hdf5.dataset(file, f"snapshots/parameters/{name}")[rows[0], source])
        state.weights[name][place].copy_(torch.from_numpy(weights))
    return True


def _places(pack: PackSpec) -> dict[_Source, int]:
    return {(lane.run.id, lane.seed): place for place, lane in enumerate(pack.lanes)}
