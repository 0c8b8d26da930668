"""What a snapshot answers on the evaluators' frozen sequences.

Letters for shapes as in model.py; here S counts snapshots times lanes, since snapshots are lanes to the model.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icl_transience import code, engines, segments, sequences, store
from icl_transience import model as transformer
from icl_transience.packs import PackSpec
from icl_transience.spec import Recipe, SequenceSet, canonical, evaluator_parts, identity_values

# Each is a mean over sequences. "in context" restricts the answer to the labels that stand in the context, "out of
# context" to those that do not; both are 0 where the target is not among the labels left.
METRICS = (
    "loss",
    "accuracy",
    "in_context_accuracy",
    "out_of_context_accuracy",
    "target_probability",
    "in_context_target_probability",
    "out_of_context_target_probability",
    "context_probability",
)

# What is plotted and summarised of each evaluator unless a study says otherwise.
DEFAULT_METRIC = {
    "train": "accuracy",
    "iwl": "accuracy",
    "icl": "in_context_accuracy",
    "icl_holdout": "in_context_accuracy",
    "icl_new_exemplar": "in_context_accuracy",
    "ciwl": "in_context_accuracy",
    "flip": "in_context_accuracy",
}


# Sequences answered at a time.
BATCH = 64


def default_metric(evaluator: str) -> str:
    """What is plotted and summarised of an evaluator at whatever context length."""
    return DEFAULT_METRIC[evaluator_parts(evaluator)[0]]


def evaluator_recipe(evaluator: str, training: Recipe) -> Recipe:
    """The recipe of an evaluator, for runs trained on `training`; its exemplars are without noise, but for `train`.

    train: as trained, from an endless stream. icl: half the context is the query's class, half one distractor,
    relabelled 0 and 1 at random; icl_holdout and icl_new_exemplar the same on classes or exemplars never trained on.
    iwl: no support. ciwl: as iwl, one context label overwritten with the query's. flip: as icl, the two classes'
    labels exchanged.
    """
    name, other_context = evaluator_parts(evaluator)
    context = other_context or training.context
    holdout_pairs = {"context": context, "burstiness": context // 2}
    # Classes that were never trained on have no labels to share.
    pairs = {**holdout_pairs, "labelling": training.labelling}
    alone = {"context": context, "burstiness": 0, "support": "none", "labelling": training.labelling}
    return {
        "train": replace(training, pool=0),
        "icl": Recipe(**pairs, labels="relabelled"),
        "icl_holdout": Recipe(**holdout_pairs, labels="relabelled", classes="holdout"),
        "icl_new_exemplar": Recipe(**pairs, labels="relabelled", exemplars="holdout"),
        "iwl": Recipe(**alone),
        "ciwl": Recipe(**alone, labels="copied"),
        "flip": Recipe(**pairs, labels="swapped"),
    }[name]


def chance(evaluator: str, recipe: Recipe, n_labels: int) -> float | None:
    """What guessing gives on the evaluator's default metric; None where no single number does (`train`).

    recipe: that of training. In-context accuracy: one over the number of different labels in the context.
    """
    name, context = evaluator_parts(evaluator)
    return {
        "icl": 1 / 2,
        "icl_holdout": 1 / 2,
        "icl_new_exemplar": 1 / 2,
        "flip": 1 / 2,
        "ciwl": 1 / (context or recipe.context),
        "iwl": 1 / n_labels,
    }.get(name)


def metrics(answers: engines.Answers, labels: Tensor) -> Tensor:
    """Every metric of every sequence: [S, B, len(METRICS)], float64, from arithmetic in the logits' own type.

    labels int64 [B, C+1], the target last.
    """
    context, targets = labels[:, :-1], labels[:, -1]
    # A label that stands in the context twice is one answer.
    seen_before = (context[:, :, None] == context[:, None, :]).tril(-1).any(-1)
    inside = answers.inside.masked_fill(seen_before, -torch.inf)
    log_inside, log_outside = inside.logsumexp(-1), answers.log_outside
    log_total = torch.logaddexp(log_inside, log_outside)

    target_in_context = (context == targets[:, None]).any(-1)
    best_inside, place = inside.max(-1)
    label_inside = context.expand(*inside.shape).gather(-1, place.unsqueeze(-1)).squeeze(-1)
    # Equal logits: the lower label, as argmax over all would have it.
    first_inside = (best_inside == answers.best_outside) & (label_inside < answers.label_outside)
    label = label_inside.where((best_inside > answers.best_outside) | first_inside, answers.label_outside)

    def correct(answer: Tensor) -> Tensor:
        return (answer == targets).to(inside.dtype)

    target = answers.target
    columns = {
        "loss": log_total - target,
        "accuracy": correct(label),
        "in_context_accuracy": correct(label_inside) * target_in_context,
        "out_of_context_accuracy": correct(answers.label_outside) * ~target_in_context,
        "target_probability": (target - log_total).exp(),
        "in_context_target_probability": (target - log_inside).exp().where(target_in_context, 0.0),
        "out_of_context_target_probability": (target - log_outside).exp().where(~target_in_context, 0.0),
        "context_probability": (log_inside - log_total).exp(),
    }
    return torch.stack([columns[name] for name in METRICS], dim=-1).double()


@torch.no_grad()
def evaluate(
    parameters: transformer.Parameters,
    forward: engines.Forward,
    examples: Tensor,
    labels: Tensor,
    batch: int = BATCH,
) -> Tensor:
    """Mean and standard error over the sequences of every metric: [S, len(METRICS), 2].

    parameters: name -> [S, …]. examples [N, C+1, I] and labels int64 [N, C+1], the target last. A lane whose
    parameters are not all finite has no answer: NaN throughout.
    """
    forward.load(parameters)
    parts = []
    for first in range(0, len(examples), batch):
        part = slice(first, first + batch)
        parts.append(metrics(forward(examples[part], labels[part]), labels[part]))
    values = torch.cat(parts, dim=1)
    standard_error = values.std(dim=1, correction=0) / len(examples) ** 0.5
    result = torch.stack([values.mean(dim=1), standard_error], dim=-1)
    result[~all_finite(parameters)] = torch.nan
    return result


def all_finite(parameters: Mapping[str, Tensor]) -> Tensor:
    """bool [S]: whether every parameter of the lane is a finite number."""
    return torch.stack([value.flatten(1).isfinite().all(dim=1) for value in parameters.values()]).all(dim=0)


def write_sequences(path: Path, sequence_set: SequenceSet, bank: np.ndarray) -> None:
    """Draws every evaluator's sequences and writes them, embedded: a top-level group an evaluator.

    examples float32 [N, C+1, D], labels int32 [N, C+1] (the target last), classes and exemplars int32 [N, C+1].
    """
    with store.writing(path, "sequences", sequence_set.id) as file:
        file.attrs["spec"] = canonical(identity_values(sequence_set))
        for name in sequence_set.evaluators:
            recipe = evaluator_recipe(name, sequence_set.recipe)
            positions = torch.arange(sequence_set.sequences)
            source = sequence_set.seed, f"evaluator/{name}", positions
            drawn = sequences.draw(recipe, sequence_set.bank.shape, *source)
            group = file.create_group(name)
            group.attrs["recipe"] = canonical(identity_values(recipe))
            for part in ("classes", "exemplars", "labels"):
                group[part] = getattr(drawn, part).numpy().astype(np.int32)
            group["examples"] = sequences.examples(recipe, torch.from_numpy(bank), drawn, *source).numpy()


def write_metrics(
    path: Path,
    pack: PackSpec,
    segment: Path,
    sequence_set: SequenceSet,
    sequences_file: Path,
    device: str = "cpu",
    engine: str = "auto",
) -> None:
    """Evaluates every snapshot of a segment on every evaluator of a set and writes the metrics.

    sequences_seen [n]; {evaluator}/mean and {evaluator}/standard_error [n, S, len(METRICS)], their columns named in
    the attribute `metrics`; the segment's training loss and divergence are carried along for the tables.
    """
    dtype = engines.DTYPES[pack.run.numerics]
    forwards = {
        context: engines.forward_for(pack.run, torch.device(device), BATCH, engine, context)
        for context in {evaluator_parts(name)[1] for name in sequence_set.evaluators}
    }
    identity = metrics_identity(store.read_attribute(segment, "identity"), sequence_set.id)
    with (
        store.writing(path, "metrics", identity, kept=True) as file,
        segments.opened(segment, pack) as trained,
        store.reading(sequences_file, "sequences", sequence_set.id) as frozen,
    ):
        file.attrs["made_of"] = made_of(segment, sequences_file)
        file.attrs["metrics"] = list(METRICS)
        file["sequences_seen"] = trained.sequences_seen
        file["train_loss/sequences_seen"] = trained.loss_sequences_seen
        file["train_loss/value"] = trained.loss
        file["diverged_at"] = trained.diverged_at
        sets = {
            name: (
                torch.from_numpy(frozen[name]["examples"][()]).to(device=device, dtype=dtype),
                torch.from_numpy(frozen[name]["labels"][()]).to(device=device, dtype=torch.int64),
            )
            for name in sequence_set.evaluators
        }
        for name, (_, labels) in sets.items():
            if labels.min() < 0 or labels.max() >= pack.run.n_labels:
                raise store.unusable(
                    sequences_file,
                    f"labels of {name} lie outside 0 … {pack.run.n_labels - 1}, the labels of {pack.id}",
                )
        results: dict[str, list[Tensor]] = {name: [] for name in sets}
        for row in range(len(trained.sequences_seen)):
            parameters = {name: value.to(device) for name, value in trained.parameters(row).items()}
            for name, (examples, labels) in sets.items():
                forward = forwards[evaluator_parts(name)[1]]
                results[name].append(evaluate(parameters, forward, examples, labels).cpu())
        shape = (0, len(pack.lanes), len(METRICS), 2)
        for name, rows in results.items():
            stacked = torch.stack(rows).numpy() if rows else np.empty(shape)
            file[f"{name}/mean"], file[f"{name}/standard_error"] = stacked[..., 0], stacked[..., 1]


def metrics_identity(segment_identity: str, set_id: str) -> str:
    return f"{segment_identity}/{set_id}"


def made_of(segment: Path, sequences_file: Path) -> str:
    """Everything that a segment's metrics are a function of: the content of both files, and the code."""
    contents = (store.read_attribute(path, "checksum") for path in (segment, sequences_file))
    return " ".join([*contents, code.digest("metrics")])
