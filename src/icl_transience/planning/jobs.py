"""What each job of the workflow takes of a machine, and how long new segments are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from icl_transience.planning import resources
from icl_transience.planning.packs import Pack
from icl_transience.planning.resources import Job
from icl_transience.planning.source_files import SourceFiles
from icl_transience.specs.banks import BankSpec, Tokens
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.runs import Lane, PackSpec
from icl_transience.store import safetensors_file
from icl_transience.study.experiments import Study


@dataclass(frozen=True)
class Pace:
    """How fast a study's lanes train and answer under a configuration."""

    config: Mapping[str, Any]
    study: Study

    @property
    def machine(self) -> tuple[str, float | None]:
        """The device, and the model GFLOP/s that one job reaches on it; None is a careful guess."""
        return self.config["device"], self.config["gflops"]

    def segment_end(self, pack: PackSpec, start: int) -> int:
        """Return where a new segment from `start` ends, in sequences seen, if the horizon is not nearer."""
        minutes = self.config["segment_minutes"]
        if minutes is None:
            return start + self.config["segment_sequences"]
        return resources.segment_end(pack, self.sets_of(pack), start, minutes, *self.machine)

    def sets_of(self, pack: PackSpec) -> list[SequenceSet]:
        """Return the sets that lanes of the pack answer in this study."""
        return list(dict.fromkeys(one for lane in pack.lanes for one in self._sets_of_lanes.get(lane, ())))

    @cached_property
    def _sets_of_lanes(self) -> dict[Lane, list[SequenceSet]]:
        found: dict[Lane, list[SequenceSet]] = {}
        for experiment in self.study.experiments.values():
            for named in experiment.runs:
                for seed in experiment.seeds:
                    found.setdefault(Lane(run=named.run, seed=seed), []).append(named.sequence_set)
        return found


@dataclass(frozen=True)
class Jobs:
    """What the jobs of a plan take; a method a rule."""

    pace: Pace
    banks: Mapping[str, BankSpec]
    sets: Mapping[str, SequenceSet]
    packs: Mapping[str, Pack]
    sources: SourceFiles

    def bank(self, bank_id: str) -> Job:
        bank, table = self.banks[bank_id], 0
        if isinstance(bank.parameters, Tokens):
            (file,) = self.sources.of_bank(bank_id)
            rows, width = safetensors_file.stored_tensors(Path(file))[bank.parameters.tensor].shape
            table = rows * width
        return self._limited(resources.bank(bank, table))

    def encoder(self, bank_id: str) -> Job:
        return self._limited(resources.encoder(self.banks[bank_id]))

    def sequences(self, set_id: str) -> Job:
        return self._limited(resources.sequences(self.sets[set_id]))

    def train(self, pack: str, start: str | int, end: str | int) -> Job:
        """start, end: sequences seen, also as a file's name has them. The names are those of the rule's wildcards."""
        train, evaluations = self._segment(pack, int(start), int(end))
        return self._limited(train, *evaluations.values())

    def evaluate(self, pack: str, set: str, start: str | int, end: str | int) -> Job:
        """As `train`; set: the evaluator set's id."""
        train, evaluations = self._segment(pack, int(start), int(end))
        own = evaluations.pop(set)
        return self._limited(own, train, *evaluations.values())

    def _segment(self, pack_id: str, start: int, end: int) -> tuple[Job, dict[str, Job]]:
        """Return (training, set -> evaluation) of a segment, which a cluster runs as one job."""
        pack, machine = self.packs[pack_id].spec, self.pace.machine
        sets = self.pace.sets_of(pack)
        evaluations = {one.id: resources.evaluate(pack, one, start, end, *machine) for one in sets}
        return resources.train(pack, start, end, *machine), evaluations

    def _limited(self, job: Job, *others: Job) -> Job:
        """Add the limits of config.yaml, of which that of time also holds for the `others` in its cluster job."""
        config = self.pace.config
        return replace(
            job,
            memory=config["memory"],
            time_limit=config["time_limit"],
            others=sum(other.minutes for other in others),
        )
