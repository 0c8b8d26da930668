"""What each job of a plan takes of a machine, and where new segments end."""

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
    """How fast a study's lanes train and are evaluated under a configuration (config.yaml)."""

    config: Mapping[str, Any]
    study: Study

    @property
    def machine(self) -> tuple[str, float | None]:
        """Return the device, and the model GFLOP/s that one job reaches on it; None stands for a careful guess."""
        return self.config["device"], self.config["gflops"]

    def segment_end(self, pack: PackSpec, start: int) -> int:
        """Return where a new segment from `start` ends, in sequences seen, if the horizon is not nearer."""
        minutes = self.config["segment_minutes"]
        if minutes is None:
            return start + self.config["segment_sequences"]
        return resources.segment_end(pack, self.sets_of(pack), start, minutes, *self.machine)

    def sets_of(self, pack: PackSpec) -> list[SequenceSet]:
        """Return the evaluator sets on which lanes of the pack are evaluated in this study."""
        return list(dict.fromkeys(one for lane in pack.lanes for one in self._sets_of_lanes.get(lane, ())))

    @cached_property
    def _sets_of_lanes(self) -> dict[Lane, list[SequenceSet]]:
        sets: dict[Lane, list[SequenceSet]] = {}
        for experiment in self.study.experiments.values():
            for named in experiment.runs:
                for seed in experiment.seeds:
                    sets.setdefault(Lane(run=named.run, seed=seed), []).append(named.sequence_set)
        return sets


@dataclass(frozen=True)
class Jobs:
    """What the jobs of a plan take: a method for each rule, its arguments named as the rule's wildcards."""

    pace: Pace
    banks: Mapping[str, BankSpec]
    sets: Mapping[str, SequenceSet]
    packs: Mapping[str, Pack]
    sources: SourceFiles

    def bank(self, bank_id: str) -> Job:
        """Return what making a bank takes."""
        bank, table = self.banks[bank_id], 0
        if isinstance(bank.parameters, Tokens):
            (file,) = self.sources.of_bank(bank_id)
            rows, width = safetensors_file.stored_tensors(Path(file))[bank.parameters.tensor].shape
            table = rows * width
        return self._limited(resources.bank(bank, table))

    def encoder(self, bank_id: str) -> Job:
        """Return what training a bank's encoder takes."""
        return self._limited(resources.encoder(self.banks[bank_id]))

    def sequences(self, set_id: str) -> Job:
        """Return what drawing an evaluator set takes."""
        return self._limited(resources.sequences(self.sets[set_id]))

    def train(self, pack: str, start: str | int, end: str | int) -> Job:
        """Return what training a segment takes. start, end: sequences seen, numbers or as a file's name has them."""
        train, evaluations = self._segment(pack, int(start), int(end))
        return self._limited(train, *evaluations.values())

    def evaluate(self, pack: str, set: str, start: str | int, end: str | int) -> Job:
        """Return what evaluating a segment on a set takes. set: its id. start, end: as in `train`."""
        train, evaluations = self._segment(pack, int(start), int(end))
        own = evaluations.pop(set)
        return self._limited(own, train, *evaluations.values())

    def _segment(self, pack_id: str, start: int, end: int) -> tuple[Job, dict[str, Job]]:
        """Return (training, set id -> evaluation) of a segment, which a cluster runs as one job."""
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
