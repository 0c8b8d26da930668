"""What a run was made with, in words, for the foot of its figures."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from icl_transience.specs.evaluators import Strategy
from icl_transience.specs.model import COMPONENTS, PART_OF, Model
from icl_transience.specs.recipes import Recipe, Relabelling
from icl_transience.specs.runs import Run
from icl_transience.specs.training import L2, ActivationIntervention, Optimizer
from icl_transience.study.experiments import NamedRun


def describe(named: NamedRun) -> list[str]:
    """Return what a run was made with: bank, sequences, model, initial weights, optimizer, L2, ideal predictors."""
    run, shape = named.run, named.run.bank.shape
    model, optimizer = run.model, run.optimizer
    mlp = f"MLP {model.mlp_ratio}x" if model.mlp_ratio else "attention only"
    weights = {
        "pytorch": "uniform ±1/√fan-in (PyTorch's default)",
        "lecun_normal": "LeCun normal",
    }[model.init.distribution]
    images = run.bank.images
    width = f"{images.side} × {images.side} pixels" if images else f"{shape.width}-d"
    return [
        f"{run.bank.source}, {shape.n_train_classes:,} classes × {shape.n_train_exemplars} exemplars, {width}",
        *_describe_recipe(run.recipe),
        f"{model.depth} layers, width {model.width}, {mlp}" + _describe_rest(model),
        f"initial weights {weights} × {model.init.scale:g}",
        f"{_describe_optimizer(optimizer)}, batch {run.batch_size}",
        _describe_l2(optimizer.l2),
        *_describe_events(run),
        *_describe_strategy(named.sequence_set.strategy),
    ]


def _describe_rest(model: Model) -> str:
    """Return what few models have."""
    layout = "" if model.positions.layout == "interleaved" else ", positions: sines, then cosines"
    positions = layout if model.positions.kind == "sinusoid" else f", positions {model.positions.kind}"
    positions += ", biases in attention" if model.attention_bias else ""
    if model.encodes_images:
        positions += f", image encoder of channels {' '.join(map(str, model.resnet.channels))}"
    return positions + (f", dropout {model.dropout:g}" if model.dropout else "")


def _describe_optimizer(optimizer: Optimizer) -> str:
    names = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
    words, schedule = [f"{names[optimizer.name]} {optimizer.learning_rate:g}"], optimizer.schedule
    if optimizer.momentum:
        words.append(f"momentum {optimizer.momentum:g}")
    if optimizer.weight_decay:
        words.append(f"weight decay {optimizer.weight_decay:g}")
    if schedule.warmup:
        words.append(f"warm-up {schedule.warmup:,}")
    if schedule.kind == "inverse_sqrt":
        words.append("then √(warm-up/n)")
    if schedule.kind == "cosine":
        words.append(f"cosine to × {schedule.final:g} at {schedule.length:,}")
    if optimizer.clip:
        words.append(f"gradients clipped at {optimizer.clip:g}")
    return ", ".join(words)


def _describe_l2(l2: L2) -> str:
    penalty = {"squared": "λ·Σθ² (squared)", "unsquared": "λ·Σ‖θ‖ (unsquared)"}[l2.form]
    # An image encoder is named where it has a strength of its own.
    parts = (part for part in COMPONENTS if part not in PART_OF or l2.of(part) != l2.of(PART_OF[part]))
    strengths = {part: l2.of(part) for part in parts}
    if not any(strengths.values()):
        return "no L2"
    if len(set(strengths.values())) == 1:
        return f"L2 {penalty}, λ = {l2.of('mlp'):g}"
    return f"L2 {penalty}, λ = " + ", ".join(f"{value:g} ({part})" for part, value in strengths.items() if value)


def _describe_events(run: Run) -> Iterator[str]:
    """Yield what changes in mid-training."""
    if run.forgetting.every:
        until = f" until {run.forgetting.until:,}" if run.forgetting.until else ""
        what = "label embeddings and the unembedding" if run.forgetting.unembedding else "label embeddings"
        yield f"{what} drawn anew every {run.forgetting.every:,} sequences{until}"
    recipe, optimizer = run.recipe, run.optimizer
    for change in run.interventions:
        now = [*_describe_recipe(change.recipe)] if change.recipe != recipe else []
        if change.optimizer != optimizer:
            now += [_describe_optimizer(change.optimizer), _describe_l2(change.optimizer.l2)]
        yield f"from {change.at:,} sequences on: {', '.join(now)}"
        recipe, optimizer = change.recipe, change.optimizer
    for one in run.activation_interventions:
        yield f"while training: {_describe_operations(one)}"
    if run.freeze.parameters:
        until = f" until {run.freeze.until:,}" if run.freeze.until else ""
        yield f"frozen from {run.freeze.from_:,} sequences on{until}: {_shortened(run.freeze.parameters)}"
    if run.start_from:
        yield f"starts from run {run.start_from.run} at {run.start_from.sequences_seen:,} sequences"


def _describe_strategy(strategy: Strategy) -> Iterator[str]:
    """Yield between which predictors the model stands, and on which sequences."""
    if strategy.predictors != "none":
        yield f"{strategy.predictors} predictors on sequences of {strategy.evaluator}, floor {strategy.floor:g}"


def _describe_operations(one: ActivationIntervention) -> str:
    """Return an intervention on activations and its strength over time."""
    words = []
    for field in fields(one.operations):
        for operation in getattr(one.operations, field.name):
            places = operation if isinstance(operation, str) else _shortened(operation.place)
            words.append(f"{field.name} {places}")
    varies = len(one.strength) > 1
    strengths = [f"{point.strength:g}" + (f" at {point.at:,}" if varies else "") for point in one.strength]
    return f"{', '.join(words)}, strength {' -> '.join(strengths)}"


def _shortened(names: Sequence[str]) -> str:
    """Return names in a row, of many the first ones and how many more there are."""
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _describe_recipe(recipe: Recipe) -> Iterator[str]:
    """Yield what sequences are like, beyond the plain bursty recipe only where they are."""
    (share, own), *others = recipe.kinds()
    kinds = [(f"{share:.3g} of: " if others else "") + _describe_kind(own)]
    kinds += [f"{share:.3g} of: {_describe_kind(kind)}" for share, kind in others]
    yield f"context {recipe.context}, {'; '.join(kinds)}"
    if recipe.zipf.alpha:
        yield f"Zipf α = {recipe.zipf.alpha:g} ({recipe.zipf.ranks} ranks)"
    if recipe.labelling.labels:
        yield f"{recipe.labelling.labels:,} labels"
    if (relabelling := recipe.relabelling) != Relabelling():
        kept_out = relabelling.n_holdout_pairs
        held_out = f", {kept_out} of {relabelling.n_pairs} held out" if kept_out else ""
        yield f"relabelling with pairs of {relabelling.labels} labels{held_out}"
    if recipe.label_noise:
        yield f"label noise {recipe.label_noise:g}"
    if recipe.input_noise:
        yield f"input noise σ = {recipe.input_noise:g}"
    if recipe.pool:
        yield f"a pool of {recipe.pool:,} sequences"


def _describe_kind(recipe: Recipe) -> str:
    words = [f"burstiness {recipe.burstiness}" if recipe.support == "bursty" else "no support"]
    if not recipe.distractor:
        words.append("no distractor")
    if recipe.labels != "classes":
        words.append(f"labels {recipe.labels}")
    if recipe.match:
        words.append(f"exemplars match with p = {recipe.match:g}")
    if not recipe.distinct:
        words.append("classes independent")
    if not recipe.replacement:
        words.append("different exemplars, free items apart" if recipe.separate_free else "different exemplars")
    return ", ".join(words)
