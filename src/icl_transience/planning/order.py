"""Which jobs go first where there are more of them than room: those of experiments that stand first in the study."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from icl_transience.planning.packs import Pack
from icl_transience.specs.runs import Lane
from icl_transience.study.experiments import NamedRun, Study

Key = TypeVar("Key")


@dataclass(frozen=True)
class Order:
    """Priorities as Snakemake has them, the highest first: a method for what each rule's wildcards name.

    The last experiment has 1, the one before it 2, and so on; what several need has the highest of theirs.
    """

    study: Study
    packs: Mapping[str, Pack]

    def experiment(self, experiment: str) -> int:
        """Return the priority of an experiment's tables and figures; 0 of a part of the study that is none."""
        return self._experiments.get(experiment, 0)

    def pack(self, pack_id: str) -> int:
        """Return the priority of a pack's training and evaluation."""
        return self._packs[pack_id]

    def bank(self, bank_id: str) -> int:
        """Return the priority of making a bank, and its encoder."""
        return self._banks[bank_id]

    def set(self, set_id: str) -> int:
        """Return the priority of drawing an evaluator set."""
        return self._sets[set_id]

    @cached_property
    def _experiments(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(reversed(list(self.study.experiments)), start=1)}

    @cached_property
    def _packs(self) -> dict[str, int]:
        lanes: dict[Lane, int] = _highest(
            (lane, self._experiments[name]) for name, one in self.study.experiments.items() for lane in one.lanes()
        )
        # A pack may also hold lanes of other studies.
        return {name: max(lanes.get(lane, 0) for lane in pack.spec.lanes) for name, pack in self.packs.items()}

    @cached_property
    def _banks(self) -> dict[str, int]:
        return _highest((named.run.bank.id, self._experiments[name]) for name, named in self._runs())

    @cached_property
    def _sets(self) -> dict[str, int]:
        return _highest((named.sequence_set.id, self._experiments[name]) for name, named in self._runs())

    def _runs(self) -> Iterator[tuple[str, NamedRun]]:
        return ((name, named) for name, one in self.study.experiments.items() for named in one.runs)


def _highest(priorities: Iterable[tuple[Key, int]]) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for key, priority in priorities:
        found[key] = max(priority, found.get(key, 0))
    return found
