"""The file of what was measured inside the snapshots of a segment.

results/packs/{pack}/circuits-{circuits}-{from}-{to}.h5:

sequences_seen [n]; is_scheduled [n], false at a segment's end that is no snapshot. Then, as far as they were asked for:

    measures/{evaluator}/{measure}           [n, S, L, H] of each head, or [n, S] of the whole model
    measures/{evaluator}/attribution/{part}  [n, S]; parts: block0.head0, block0.mlp, embedding, positions, bias
    measures/{evaluator}/patterns            [n, S, L, H, T, T] float16, mean attention
    composition/{measure}/{layer}-{later}    [n, S, H, H]: head of the layer, of the later one
    interventions/{name}/{evaluator}/mean and .../standard_error   [n, S, metrics]

Names of interventions stand in the attribute `interventions`, in the study's order.

n snapshots, S lanes of the pack, L layers, H heads. What has no meaning, and all of a diverged lane, is NaN. Each of
these has two attributes: `part` says what it is, and `made_of` of what it was made, so that a job for another file of
the same segment takes over what stands in this one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from icl_transience.specs.evaluators import in_order
from icl_transience.store import hdf5, layout


@dataclass(frozen=True)
class SegmentCircuits:
    """What was measured inside a segment's snapshots and end; arrays as in the file, by name in their group.

    measures: (evaluator, measure or attribution/{part}) -> array. composition: (measure, layer, later layer) -> array.
    interventions: (name, evaluator) -> (mean, standard error).
    """

    sequences_seen: np.ndarray
    is_scheduled: np.ndarray
    measures: Mapping[tuple[str, str], np.ndarray]
    composition: Mapping[tuple[str, int, int], np.ndarray]
    interventions: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]


def circuits_identity(segment_identity: str, circuits_id: str) -> str:
    """Return the identity of what a spec asks of a segment."""
    return f"{segment_identity}/{circuits_id}"


def read_circuits(path: Path, identity: str) -> SegmentCircuits:
    """Read a file of this identity. Raises StoreError where it is not what its name promises."""
    with hdf5.reading(path, "circuits", identity) as file:
        measures: dict[tuple[str, str], np.ndarray] = {}
        for evaluator, group in _by_evaluator(_groups(file, "measures")):
            for name, item in group.items():
                if isinstance(item, h5py.Group):
                    measures |= {(evaluator, f"{name}/{part}"): hdf5.array(item, part) for part in map(str, item)}
                else:
                    measures[evaluator, name] = hdf5.array(group, name)
        composition: dict[tuple[str, int, int], np.ndarray] = {}
        for name, group in _groups(file, "composition"):
            for layers in map(str, group):
                layer, later = map(int, layers.split("-"))
                composition[name, layer, later] = hdf5.array(group, layers)
        groups = dict(_groups(file, "interventions"))
        interventions = {
            (name, evaluator): (hdf5.array(found, "mean"), hdf5.array(found, "standard_error"))
            for name in map(str, np.asarray(file.attrs["interventions"]).tolist())
            for evaluator, found in _by_evaluator(_groups(groups[name]))
        }
        return SegmentCircuits(
            sequences_seen=hdf5.array(file, "sequences_seen"),
            is_scheduled=hdf5.array(file, "is_scheduled"),
            measures=measures,
            composition=composition,
            interventions=interventions,
        )


def _by_evaluator(groups: Iterable[tuple[str, h5py.Group]]) -> list[tuple[str, h5py.Group]]:
    """Return groups that are named by evaluators, in order."""
    named = dict(groups)
    return [(name, named[name]) for name in in_order(named)]


def _groups(file: h5py.Group, name: str = "") -> Iterator[tuple[str, h5py.Group]]:
    """Yield the groups in a file, or in a group of it that need not be there."""
    if name and name not in file:
        return
    group = file[name] if name else file
    assert isinstance(group, h5py.Group)
    for inner in sorted(group):
        item = group[inner]
        if isinstance(item, h5py.Group):
            yield inner, item


class Earlier:
    """What other files of a segment hold, under both of their names; files that are damaged are passed over."""

    def __init__(self, path: Path, segment_identity: str):
        """Look beside `path`, the file to make."""
        _, start, end = path.name.rsplit("-", 2)
        self.found: dict[tuple[str, str], tuple[Path, str]] = {}
        folders = (path.parent, path.parent / layout.KEPT)
        for other in sorted(one for folder in folders for one in folder.glob(f"circuits-*-{start}-{end}")):
            try:
                with hdf5.reading(other, "circuits", aside=False) as file:
                    if str(file.attrs["identity"]).startswith(f"{segment_identity}/"):
                        file.visititems(lambda name, item, other=other: self._add(other, name, item))
            except hdf5.StoreError:
                continue  # It is made again, not read.

    def _add(self, path: Path, name: str, item: h5py.HLObject) -> None:
        if "part" in item.attrs:
            self.found.setdefault((str(item.attrs["part"]), str(item.attrs["made_of"])), (path, name))

    def copy(self, part: str, made_of: str, file: h5py.File, name: str) -> bool:
        """Copy what is there of a part into `file` under `name`; say whether it was."""
        if (part, made_of) not in self.found:
            return False
        path, known_as = self.found[part, made_of]
        with h5py.File(path, "r") as other:
            file.require_group(name.rpartition("/")[0])
            other.copy(other[known_as], file, name)
        return True
