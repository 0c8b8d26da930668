"""What each job of a plan takes of a machine, how many lanes a new pack has, and where new segments end."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from icl_transience.planning import modelled, resources
from icl_transience.planning.circuits import CircuitsPlan
from icl_transience.planning.packs import Pack
from icl_transience.planning.rates import Rates
from icl_transience.planning.resources import START_MINUTES, Job
from icl_transience.planning.source_files import SourceFiles
from icl_transience.specs.banks import BankSpec, Tokens
from icl_transience.specs.compute import training_flop
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.identity import round_up
from icl_transience.specs.runs import Lane, PackSpec
from icl_transience.store import safetensors_file
from icl_transience.study.experiments import Study

# By default a segment takes at most so many minutes, and more than two thirds of them; longer where a lane would have
# more segments than this: each has a checkpoint, as large as three snapshots, and costs the scheduler as any other.
MOST_MINUTES = 15
MOST_SEGMENTS_OF_A_LANE = 24
# By default seeds of a run train as one job on a CPU while all of them take no longer than this: a lane that takes some
# seconds spends as many on starting Python, while a long one is better off on a core of its own.
SHORT_SECONDS = 120
# A pack that trains for less is not cut for the sake of other cores: most of its time a new job would be starting.
WORTH_A_START_SECONDS = 30


@dataclass(frozen=True)
class Pace:
    """How fast a study's lanes train and are evaluated under a configuration (config.yaml).

    cores: of the machine that plans; how many lanes a new pack has by default depends on it. What is registered stays
    as it is, so that jobs find the same packs on any machine.
    """

    config: Mapping[str, Any]
    study: Study
    rates: Rates
    cores: int

    def machine(self, pack: PackSpec) -> tuple[str, float | None]:
        """Return the device, and the model GFLOP/s that a pack's jobs reach on it; None stands for a careful guess."""
        gflops = self.config["gflops"]
        if gflops is None and self.rates.kind == "cuda":
            # A guess for all shapes was six times off: GPUs take as long for a small model as for a large one.
            gflops = self.rates.of(pack).flops / 1e9
        return self.config["device"], gflops

    def percent(self, pack: PackSpec) -> int:
        """Return the share of a GPU that a pack's jobs take, of its time or its memory: 25, 50 or 100 %.

        Jobs on one GPU have 100 % together, so that small packs of an engine that waits for the host share one. An
        image encoder has the whole: what its kernels and activations take is not in the model of a step.
        """
        if pack.run.model.encodes_images:
            return 100
        busy = modelled.busy_share(pack, self.rates.engine(pack))
        share = max(busy, resources.training_megabytes(pack) / self.config["gpu_memory"])
        return next((percent for percent in (25, 50) if 100 * share <= percent), 100)

    def seconds(self, pack: PackSpec, sequences: int) -> float:
        """Return how long a pack is expected to train on so many sequences a lane, at its rate or a careful guess."""
        rate = self.rates.of(pack)
        if not rate.is_known:
            return resources.train(pack, 0, sequences, *self.machine(pack)).seconds
        return len(pack.lanes) * sequences * training_flop(pack.run) / rate.flops

    def lanes_per_pack(self, lanes: Sequence[Lane], horizon: int, new: int) -> int:
        """Return how many lanes a new pack may have.

        lanes: those that may train together. horizon: the farthest of them, in sequences seen. new: how many lanes of
        the study have no pack. Unless config.yaml says so: on CUDA all, in packs that its memory has room for; on a
        CPU, where packing gains no speed, one, or as many as train within SHORT_SECONDS in all and leave no core
        without a pack; but all cores share these lanes where that is WORTH_A_START_SECONDS, so that the first
        experiment is there first.
        """
        if given := self.config["lanes_per_pack"]:
            return given
        if self.rates.kind == "cuda":
            most = resources.lanes_on_gpu(PackSpec(lanes=(lanes[0],)), self.config["gpu_memory"])
            return math.ceil(len(lanes) / math.ceil(len(lanes) / most))
        seconds = self.seconds(PackSpec(lanes=(lanes[0],)), horizon)
        shared = max(math.ceil(len(lanes) / self.cores), math.floor(WORTH_A_START_SECONDS / seconds))
        most = max(1, min(new // self.cores, math.floor(SHORT_SECONDS / seconds), shared, len(lanes)))
        # As many packs, as equal as can be.
        return math.ceil(len(lanes) / math.ceil(len(lanes) / most))

    def segment_end(self, pack: PackSpec, horizon: int) -> Callable[[int], int]:
        """Return the function that says where a new segment of a pack from a start ends, in sequences seen.

        horizon: up to which the pack will train; a segment ends there at the latest. As config.yaml says; else see
        `_usual_length`, or shorter, for `time_limit`.
        """
        sets = self.sets_of(pack)
        if (minutes := self.config["segment_minutes"]) is not None:
            return lambda start: resources.segment_end(pack, sets, start, minutes, *self.machine(pack))
        if (sequences := self.config["segment_sequences"]) is not None:
            return lambda start: start + sequences
        length = round_up(max(1, math.ceil(self._usual_length(pack, horizon))), pack.run.batch_size)
        if (limit := self.config["time_limit"]) is None:
            return lambda start: start + length
        # What is left of it where each job in a cluster job asks for START_MINUTES, and SAFETY times its own.
        within = max(1, (limit - START_MINUTES * (1 + len(sets))) / resources.SAFETY)
        return lambda start: min(start + length, resources.segment_end(pack, sets, start, within, *self.machine(pack)))

    def _usual_length(self, pack: PackSpec, horizon: int) -> float:
        """Return how long new segments of a pack are, in sequences: 10 to 15 minutes, at most 24 up to a horizon.

        The distance of snapshots times or over a power of two, or one and a half times that: so lengths are the same
        for rates that differ a little, and most ends are snapshots, which are evaluated in any case.
        """
        every = pack.run.snapshots.every
        within = _rounded_down(60 * MOST_MINUTES / self.seconds(pack, 1), every)
        return max(within, _rounded_up(horizon / MOST_SEGMENTS_OF_A_LANE, every))

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


def _rounded_down(length: float, every: int) -> float:
    """Return the largest of `every` times 2^k or 1.5 x 2^k, for whole k, that is not above `length`."""
    power = every * 2.0 ** math.floor(math.log2(length / every))
    return 1.5 * power if 1.5 * power <= length else power


def _rounded_up(length: float, every: int) -> float:
    """Return the smallest of `every` times 2^k or 1.5 x 2^k, for whole k, that is not below `length`."""
    below = _rounded_down(length, every)
    if below == length:
        return below
    # Steps are 1.5 and 4/3, in turn.
    is_power = math.log2(below / every).is_integer()
    return below * (1.5 if is_power else 4 / 3)


@dataclass(frozen=True)
class Jobs:
    """What the jobs of a plan take: a method for each rule, its arguments named as the rule's wildcards."""

    pace: Pace
    banks: Mapping[str, BankSpec]
    sets: Mapping[str, SequenceSet]
    packs: Mapping[str, Pack]
    sources: SourceFiles
    inside: CircuitsPlan

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
        others = [job for other, job in evaluations.items() if other != set]
        return self._limited(evaluations[set], train, *others, beside=others)

    def circuits(self, pack: str, circuits: str, start: str | int, end: str | int) -> Job:
        """Return what measuring inside a segment's snapshots takes. circuits: a spec's id. Else as in `train`."""
        spec = self.inside.specs[circuits]
        train, of_segment = self._segment(pack, int(start), int(end))
        if not spec.others:
            others = [job for other, job in of_segment.items() if other != circuits]
            return self._limited(of_segment[circuits], train, *others, beside=others)
        given = self.packs[pack].spec, spec, self.sets[spec.set], int(start), int(end)
        job = resources.circuits(*given, *self.pace.machine(self.packs[pack].spec))
        return self._limited(replace(job, gpu_percent=train.gpu_percent))

    def _segment(self, pack_id: str, start: int, end: int) -> tuple[Job, dict[str, Job]]:
        """Return (training, id of a set or of circuits -> job) of a segment, which a cluster runs as one job.

        Counted once: Snakemake asks for each resource of each of these jobs.
        """
        if (pack_id, start, end) not in self._segments:
            pack = self.packs[pack_id].spec
            machine = self.pace.machine(pack)
            sets = self.pace.sets_of(pack)
            evaluations = {one.id: resources.evaluate(pack, one, start, end, *machine) for one in sets}
            plain = [spec for spec in self.inside.of_segment(pack_id, start) if not spec.others]
            evaluations |= {
                spec.id: resources.circuits(pack, spec, self.sets[spec.set], start, end, *machine) for spec in plain
            }
            train = resources.train(pack, start, end, *machine)
            percent = self.pace.percent(pack) if train.gpu else 0
            # A job that asked for more than training would wait until all training is done.
            evaluations = {name: replace(job, gpu_percent=percent) for name, job in evaluations.items()}
            self._segments[pack_id, start, end] = replace(train, gpu_percent=percent), evaluations
        return self._segments[pack_id, start, end]

    @cached_property
    def _segments(self) -> dict[tuple[str, int, int], tuple[Job, dict[str, Job]]]:
        return {}

    def _limited(self, job: Job, *others: Job, beside: Sequence[Job] = ()) -> Job:
        """Add the limits of config.yaml, which also hold for the `others` in its cluster job.

        beside: those of them that may run at the same time.
        """
        config = self.pace.config
        return replace(
            job,
            memory=config["memory"],
            time_limit=config["time_limit"],
            others=sum(other.minutes for other in others),
            beside=sum(other.megabytes + resources.SNAKEMAKE_MB for other in beside),
        )
