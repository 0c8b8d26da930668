"""Measures and interventions at every snapshot of a segment, and the file of what they give.

store/circuits_file.py has its layout. What another file of the segment holds already is taken from there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from icl_transience.circuits import measures
from icl_transience.circuits.interventions import logits
from icl_transience.circuits.network import Network
from icl_transience.engines.answers import answers
from icl_transience.engines.interface import autocast, tensor_cores
from icl_transience.evaluation.evaluate import all_finite, images_of, read_sequences
from icl_transience.evaluation.metrics import mean_and_error, metrics
from icl_transience.model.transformer import Parameters
from icl_transience.specs.circuits import (
    PATTERNS,
    CircuitsSpec,
    NamedIntervention,
    part_of_intervention,
    part_of_measure,
)
from icl_transience.specs.code_digest import digest
from icl_transience.specs.compute import EVALUATION_BATCH
from icl_transience.specs.evaluators import METRICS
from icl_transience.specs.measures import ATTRIBUTION, COMPOSITIONS, HEAD_MEASURES
from icl_transience.specs.runs import PackSpec
from icl_transience.store import hdf5, segment_file
from icl_transience.store.circuits_file import Earlier, circuits_identity

# Of a file: name -> what stands there.
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class OtherSnapshot:
    """A snapshot from which grafts come: parameters, name -> [S, …], and what they are made of.

    exemplars: of each evaluator's sequences, what its image encoders make of them, [S, N, C+1, D], if it has any.
    """

    parameters: Parameters
    made_of: str
    exemplars: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CircuitsJob:
    """What is to be measured, and from what.

    others: name -> snapshot, of as many lanes as the pack has. bank: the images, where sequences are of images.
    """

    pack: PackSpec
    spec: CircuitsSpec
    segment: Path
    sequences: Path
    others: Mapping[str, OtherSnapshot] = field(default_factory=dict)
    device: str = "cpu"
    bank: np.ndarray | None = None

    @cached_property
    def identity(self) -> str:
        """The identity of the file."""
        return circuits_identity(hdf5.read_attribute(self.segment, "identity"), self.spec.id)

    @cached_property
    def made_of(self) -> str:
        """All that measures are a function of: the content of both files, and the code."""
        contents = (hdf5.read_attribute(path, "checksum") for path in (self.segment, self.sequences))
        return " ".join([*contents, digest("circuits")])

    @cached_property
    def made_of_all(self) -> str:
        """The same of the whole file: with the snapshots that grafts take."""
        return " ".join([self.made_of, *(f"{name}={self.others[name].made_of}" for name in sorted(self.others))])


def write_circuits(path: Path, job: CircuitsJob) -> dict[str, int]:
    """Measure what no earlier file holds, at every snapshot of the segment and its end; write the file.

    Return how many parts were `measured` and how many `taken` from earlier files.
    """
    earlier = Earlier(path, hdf5.read_attribute(job.segment, "identity"))
    counts = {"measured": 0, "taken": 0}
    with (
        hdf5.writing(path, "circuits", job.identity, kept=True) as file,
        segment_file.opened(job.segment, job.pack) as trained,
        hdf5.reading(job.sequences, "sequences", job.spec.set) as frozen,
    ):
        file.attrs["made_of"], file.attrs["metrics"] = job.made_of_all, list(METRICS)
        # Groups come in the order of the alphabet.
        file.attrs["interventions"] = [one.name for one in job.spec.circuits.interventions]
        points, scheduled = trained.points
        file["sequences_seen"], file["is_scheduled"] = points, scheduled
        wanted = parts_of(job)
        missing = {}
        for name, part in wanted.items():
            if earlier.copy(part, job.made_of, file, name):
                counts["taken"] += 1
            else:
                missing[name] = part
        counts["measured"] = len(missing)
        if not missing:
            return counts
        sequences = {name: EvaluatorSequences.read(frozen, name, job) for name in job.spec.circuits.evaluators}
        images = images_of(job.pack, {name: one.examples for name, one in sequences.items()}, job.bank, job.device)
        if images:
            others = {name: replace(one, exemplars=images.of(one.parameters)) for name, one in job.others.items()}
            job = replace(job, others=others)
        found: dict[str, list[np.ndarray]] = {}
        for row in range(len(points)):
            parameters = {name: value.to(job.device) for name, value in trained.parameters_at(row).items()}
            encoded = images.of(parameters) if images else {}
            read = {name: replace(one, examples=encoded.get(name, one.examples)) for name, one in sequences.items()}
            for name, value in measured(job, parameters, read, missing).items():
                found.setdefault(name, []).append(value)
        for name, rows in found.items():
            file[name] = np.stack(rows)
        for name, part in missing.items():
            # Of one layer there is no composition: an empty group says that it was looked for.
            item = file[name] if name in file else file.create_group(name)
            item.attrs["part"], item.attrs["made_of"] = part, job.made_of
    return counts


def parts_of(job: CircuitsJob) -> dict[str, str]:
    """Return name in the file -> what it is, of everything that the spec asks for."""
    circuits, parts = job.spec.circuits, {}
    for measure in circuits.measures:
        if measure in COMPOSITIONS:
            parts[f"composition/{measure}"] = part_of_measure(measure)
            continue
        for evaluator in circuits.evaluators:
            parts[f"measures/{evaluator}/{measure}"] = part_of_measure(measure, evaluator)
    for one in circuits.interventions:
        grafts = {graft.from_: job.others[graft.from_].made_of for graft in one.intervention.graft}
        for evaluator in circuits.evaluators:
            part = part_of_intervention(one.intervention, evaluator, grafts)
            parts[f"interventions/{one.name}/{evaluator}"] = part
    return parts


@dataclass(frozen=True)
class EvaluatorSequences:
    """An evaluator's sequences: examples [N, C+1, I], labels int64 [N, C+1], same_class bool [N, C].

    examples: of each lane, [S, N, C+1, D], where image encoders made them.
    """

    examples: Tensor
    labels: Tensor
    same_class: Tensor

    @classmethod
    def read(cls, frozen: h5py.File, evaluator: str, job: CircuitsJob) -> "EvaluatorSequences":
        """Read an evaluator's sequences. Raises StoreError as `read_sequences` does."""
        examples, labels = read_sequences(frozen, evaluator, job.pack, job.device)
        classes = torch.from_numpy(hdf5.array(frozen, f"{evaluator}/classes")).to(job.device)
        return cls(examples, labels, classes[:, :-1] == classes[:, -1:])

    def network(self, parameters: Parameters, job: CircuitsJob) -> Network:
        """Return the model on sequences as long as these."""
        return Network(parameters, job.pack.run.model, self.labels.shape[1] - 1)


@torch.no_grad()
def measured(
    job: CircuitsJob, parameters: Parameters, sequences: Mapping[str, EvaluatorSequences], missing: Iterable[str]
) -> Arrays:
    """Return name in the file -> array of one snapshot, [S, …], of what is missing. A diverged lane is NaN throughout.

    parameters: name -> [S, …].
    """
    missing, found = set(missing), dict[str, Tensor]()
    numerics, device = job.pack.run.numerics, torch.device(job.device)
    with tensor_cores(numerics), autocast(numerics, device):
        for evaluator, of_evaluator in sequences.items():
            network = of_evaluator.network(parameters, job)
            top = f"measures/{evaluator}"
            names = [name.removeprefix(f"{top}/") for name in missing if name.startswith(f"{top}/")]
            if names:
                found |= {f"{top}/{name}": value for name, value in _measures(network, of_evaluator, names).items()}
            for one in job.spec.circuits.interventions:
                if (name := f"interventions/{one.name}/{evaluator}") in missing:
                    mean, error = _metrics(job, network, of_evaluator, one, evaluator)
                    found |= {f"{name}/mean": mean, f"{name}/standard_error": error}
    names = [name for name in COMPOSITIONS if f"composition/{name}" in missing]
    if names:
        network = Network(parameters, job.pack.run.model, job.pack.run.recipe.context)
        for (name, layer, later), value in measures.compositions(network).items():
            if name in names:
                found[f"composition/{name}/{layer}-{later}"] = value
    finite = all_finite(parameters)
    for value in found.values():
        value[~finite] = torch.nan
    # Three digits of attention are what a picture shows.
    half = {name for name in found if name.endswith(f"/{PATTERNS}")}
    return {
        name: value.cpu().numpy().astype(np.float16 if name in half else np.float64) for name, value in found.items()
    }


def _measures(network: Network, sequences: EvaluatorSequences, names: Sequence[str]) -> dict[str, Tensor]:
    """Return measure, or attribution/{part} -> value."""
    found = measures.measure(
        network,
        sequences.examples,
        sequences.labels,
        [name for name in (*HEAD_MEASURES, "argmax_in_context", ATTRIBUTION) if name in names],
        sequences.same_class,
        with_patterns=PATTERNS in names,
    )
    values = dict(found.heads)
    if found.argmax_in_context is not None:
        values["argmax_in_context"] = found.argmax_in_context
    if found.patterns is not None:
        values[PATTERNS] = found.patterns
    return values | {f"{ATTRIBUTION}/{part}": value for part, value in (found.attribution or {}).items()}


def _exemplars(other: OtherSnapshot, evaluator: str, part: slice) -> Tensor | None:
    """Return what another snapshot's image encoders make of part of an evaluator's sequences."""
    return other.exemplars[evaluator][:, part] if other.exemplars else None


def _metrics(
    job: CircuitsJob, network: Network, sequences: EvaluatorSequences, one: NamedIntervention, evaluator: str
) -> tuple[Tensor, Tensor]:
    """Return mean and standard error over sequences of every metric under an intervention, [S, len(METRICS)] each."""
    parts = []
    # Split as evaluation splits them: another size of batch may round otherwise.
    for first in range(0, len(sequences.labels), EVALUATION_BATCH):
        part = slice(first, first + EVALUATION_BATCH)
        examples, labels = sequences.examples[..., part, :, :], sequences.labels[part]
        others = {
            name: replace(sequences.network(other.parameters, job), exemplars=_exemplars(other, evaluator, part))
            for name, other in job.others.items()
        }
        found = logits(network, examples, labels, one.intervention, others).to(examples.dtype)
        parts.append(metrics(answers(found, labels), labels))
    values = torch.cat(parts, dim=1)
    # A lane that has no peak has nothing to graft from.
    for graft in one.intervention.graft:
        values[~all_finite(job.others[graft.from_].parameters)] = torch.nan
    return mean_and_error(values)


def other_snapshots(
    pack: PackSpec, at: Mapping[str, Sequence[int | None]], segments: Iterable[Path], device: str = "cpu"
) -> dict[str, OtherSnapshot]:
    """Return name -> snapshot, of each lane where `at` says, in sequences seen; read from these segments.

    at: name -> of each lane, where; None: nowhere (a lane without a peak), so NaN. Raises StoreError where a snapshot
    is in none of the segments.
    """
    wanted = {point for points in at.values() for point in points if point is not None}
    known: dict[int, tuple[Parameters, str]] = {}
    for path in segments:
        with segment_file.opened(path, pack) as trained:
            points, _ = trained.points
            for row in np.flatnonzero(np.isin(points, list(wanted))).tolist():
                known[int(points[row])] = trained.parameters_at(row), str(hdf5.read_attribute(path, "checksum"))
    if lacking := wanted - known.keys():
        raise hdf5.StoreError(
            f"pack {pack.id}: there are no snapshots at {sorted(lacking)} sequences seen to graft from"
        )
    some = next(iter(known.values()))[0] if known else {}

    def joined(points: Sequence[int | None], lane_of: Callable[[int | None, int, str], Tensor]) -> Parameters:
        return {name: torch.stack([lane_of(point, lane, name) for lane, point in enumerate(points)]) for name in some}

    def lane_of(point: int | None, lane: int, name: str) -> Tensor:
        if point is None:
            return torch.full_like(some[name][lane], torch.nan, device=device)
        return known[point][0][name][lane].to(device)

    return {
        name: OtherSnapshot(
            joined(points, lane_of),
            " ".join(f"{point} {known[point][1]}" if point is not None else "none" for point in points),
        )
        for name, points in at.items()
    }
