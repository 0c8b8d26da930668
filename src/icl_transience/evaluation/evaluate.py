"""What a snapshot answers on the evaluators' frozen sequences.

Letters for shapes as in model/transformer.py; here S counts snapshots times lanes, since snapshots are lanes to the
model.
"""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from icl_transience.engines import select
from icl_transience.engines.answers import Forward
from icl_transience.engines.interface import DTYPES
from icl_transience.evaluation.images import ImageExamples
from icl_transience.evaluation.metrics import mean_and_error, metrics
from icl_transience.evaluation.strategy import StrategyEvaluation
from icl_transience.model import transformer
from icl_transience.specs.code_digest import digest
from icl_transience.specs.compute import EVALUATION_BATCH, snapshots_at_a_time
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import METRICS, STRATEGY, SequenceSet, evaluator_parts
from icl_transience.specs.runs import PackSpec
from icl_transience.store import hdf5, segment_file
from icl_transience.store.metrics_file import metrics_identity


@torch.no_grad()
def evaluate(
    parameters: transformer.Parameters,
    forward: Forward,
    examples: Tensor,
    labels: Tensor,
    batch: int = EVALUATION_BATCH,
) -> Tensor:
    """Return mean and standard error over the sequences of every metric: [S, len(METRICS), 2].

    parameters: name -> [S, …]. examples [N, C+1, I], or of each lane [S, N, C+1, I], and labels int64 [N, C+1], the
    target last. A lane whose parameters are not all finite has no answer: NaN throughout.
    """
    forward.load(parameters)
    parts = []
    for first in range(0, len(labels), batch):
        part = slice(first, first + batch)
        parts.append(metrics(forward(examples[..., part, :, :], labels[part]), labels[part]))
    result = torch.stack(mean_and_error(torch.cat(parts, dim=1)), dim=-1)
    result[~all_finite(parameters)] = torch.nan
    return result


def all_finite(parameters: Mapping[str, Tensor]) -> Tensor:
    """Return bool [S]: whether every parameter of the lane is a finite number."""
    return torch.stack([value.flatten(1).isfinite().all(dim=1) for value in parameters.values()]).all(dim=0)


def write_metrics(
    path: Path,
    pack: PackSpec,
    segment: Path,
    sequence_set: SequenceSet,
    sequences_file: Path,
    device: str = "cpu",
    engine: str = "auto",
    bank: np.ndarray | None = None,
) -> None:
    """Evaluate every snapshot of a segment, and its end, on every evaluator of a set, and write the metrics.

    sequences_seen [n], is_scheduled [n]: false at an end that is no snapshot; {evaluator}/mean and
    {evaluator}/standard_error [n, S, len(METRICS)], their columns named in the attribute `metrics`; the segment's
    training loss and divergence are carried along for the tables. strategy/… stands beside the evaluators where the set
    has one. bank: the images, where sequences are of images.
    """
    forwards = {
        context: select.forward_for(pack.run, torch.device(device), EVALUATION_BATCH, engine, context)
        for context in {evaluator_parts(name)[1] for name in sequence_set.evaluators}
    }
    identity = metrics_identity(hdf5.read_attribute(segment, "identity"), sequence_set.id)
    with (
        hdf5.writing(path, "metrics", identity, kept=True) as file,
        segment_file.opened(segment, pack) as trained,
        hdf5.reading(sequences_file, "sequences", sequence_set.id) as frozen,
    ):
        file.attrs["made_of"] = made_of(segment, sequences_file)
        file.attrs["metrics"] = list(METRICS)
        # A study whose horizon the end is asks for it; another one passes it over.
        points, file["is_scheduled"] = trained.points
        file["sequences_seen"] = points
        file["train_loss/sequences_seen"] = trained.loss_sequences_seen
        file["train_loss/value"] = trained.loss
        file["diverged_at"] = trained.diverged_at
        sets = {name: read_sequences(frozen, name, pack, device) for name in sequence_set.evaluators}
        images = images_of(pack, {name: inputs for name, (inputs, _) in sets.items()}, bank, device, engine)
        of_strategy = None
        if STRATEGY in sequence_set.curves:
            sequences = sets[sequence_set.strategy.evaluator]
            of_strategy = StrategyEvaluation.of(pack.run, sequence_set, frozen, sequences)
        results: dict[str, list[Tensor]] = {name: [] for name in sequence_set.curves}
        together = snapshots_at_a_time(len(pack.lanes), device)
        for first in range(0, len(points), together):
            rows = range(first, min(first + together, len(points)))
            # Of all snapshots one after another, [n * S, …]: to the model they are lanes.
            read = [trained.parameters_at(row) for row in rows]
            parameters = {name: torch.cat([one[name] for one in read]).to(device) for name in read[0]}
            encoded = images.of(parameters) if images else {}
            for name, (inputs, labels) in sets.items():
                examples = encoded.get(name, inputs)
                forward = forwards[evaluator_parts(name)[1]]
                found = evaluate(parameters, forward, examples, labels).cpu()
                results[name] += found.unflatten(0, (len(rows), -1)).unbind()
            if of_strategy:
                found = of_strategy.evaluate(parameters).cpu()
                found[~all_finite(parameters).cpu()] = torch.nan
                results[STRATEGY] += found.unflatten(0, (len(rows), -1)).unbind()
        for name, rows in results.items():
            stacked = torch.stack(rows).numpy()
            file[f"{name}/mean"], file[f"{name}/standard_error"] = stacked[..., 0], stacked[..., 1]


def read_sequences(frozen: h5py.File, evaluator: str, pack: PackSpec, device: str) -> tuple[Tensor, Tensor]:
    """Read an evaluator's examples [N, C+1, I] and labels [N, C+1].

    Of a bank of images, in place of examples: their rows in the bank, see ImageExamples. Raises StoreError where a
    label is none of the model's.
    """
    labels = hdf5.array(frozen, f"{evaluator}/labels")
    n_labels = pack.run.n_labels
    if labels.min() < 0 or labels.max() >= n_labels:
        raise hdf5.unusable(
            Path(frozen.filename),
            f"labels of {evaluator} lie outside 0 … {n_labels - 1}, the labels of {pack.id}",
        )
    labels = torch.from_numpy(labels).to(device=device, dtype=torch.int64)
    if pack.run.bank.images:
        classes, exemplars = (
            torch.from_numpy(hdf5.array(frozen, f"{evaluator}/{part}")).to(device=device, dtype=torch.int64)
            for part in ("classes", "exemplars")
        )
        return classes * pack.run.bank.shape.n_exemplars + exemplars, labels
    examples = torch.from_numpy(hdf5.array(frozen, f"{evaluator}/examples"))
    return examples.to(device=device, dtype=DTYPES[pack.run.numerics]), labels


def images_of(
    pack: PackSpec, inputs: Mapping[str, Tensor], bank: np.ndarray | None, device: str, engine: str = "auto"
) -> ImageExamples | None:
    """Return what encodes the images of sequences, None where exemplars are embeddings; inputs: as read.

    Raises StudyError where the bank of images is not given.
    """
    if pack.run.bank.images is None:
        return None
    if bank is None:
        raise StudyError(f"{pack.id}: its sequences are of images, in bank {pack.run.bank.id}: give its file as --bank")
    return ImageExamples(pack.run, torch.from_numpy(bank).to(device), inputs, engine)


def made_of(segment: Path, sequences_file: Path) -> str:
    """Return everything that a segment's metrics are a function of: the content of both files, and the code."""
    contents = (hdf5.read_attribute(path, "checksum") for path in (segment, sequences_file))
    return " ".join([*contents, digest("metrics")])
