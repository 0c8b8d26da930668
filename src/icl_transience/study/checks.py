"""What the values of a run rule out together, though each is right by itself: a line with a remedy for each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from icl_transience.specs.banks import BankSpec, Images, Omniglot, OneHot, Tokens
from icl_transience.specs.encoder import ResNet
from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.evaluators import evaluator_parts
from icl_transience.specs.experiment import axis_of_numbers, levels
from icl_transience.specs.identity import from_values, round_up
from icl_transience.specs.model import Model
from icl_transience.specs.recipes import Relabelling
from icl_transience.specs.runs import Run
from icl_transience.study.neutral import kinds_of


def not_evaluated(where: str, names: Iterable[str], evaluated: Sequence[str]) -> list[str]:
    """Return what to say of evaluators that are asked for but not evaluated. where: the key path of the section."""
    return [
        f"`{where}.evaluators` has {name!r}{did_you_mean(name, list(evaluated))}, expected what is evaluated "
        f"({', '.join(evaluated)}): add it to `evaluation`, or leave it out"
        for name in names
        if name not in evaluated
    ]


def _impossible_recipe(recipe: Mapping[str, Any], bank: BankSpec) -> Iterable[str]:
    """Yield each way in which the values of a recipe contradict each other or the bank."""
    context, n_classes, n_exemplars = recipe["context"], bank.shape.n_train_classes, bank.shape.n_train_exemplars
    n_labels = recipe["labelling"]["labels"] or n_classes
    if n_labels > n_classes or n_labels < 2:
        yield (
            f"`recipe.labelling.labels` is {n_labels}: expected 0, a label for every class, or from 2 to as many as "
            f"there are classes to train on, {n_classes}"
        )
    yield from _impossible_relabelling(from_values(Relabelling, recipe["relabelling"]), n_labels)
    shares = {name: part["share"] for name, part in recipe["mixture"].items()}
    if math.fsum(shares.values()) >= 1:
        yield (
            f"`recipe.mixture`: the shares of {', '.join(shares)} sum to {math.fsum(shares.values()):g}, which leaves "
            "nothing for the recipe itself: make them smaller, or make one of them the recipe"
        )
    for path, kind in kinds_of(recipe).items():
        yield from _impossible_kind(path, kind, context, n_labels, n_exemplars)


def _impossible_relabelling(relabelling: Relabelling, n_labels: int) -> Iterable[str]:
    """Yield what is wrong with the pairs of labels. n_labels: those that the model knows."""
    labels, share, n_pairs = relabelling.labels, relabelling.holdout_share, relabelling.n_pairs
    if labels > n_labels:
        yield (
            f"`recipe.relabelling.labels` is {labels}, but the model knows the labels of the training classes, "
            f"{n_labels}: expected at most as many"
        )
    if share and not relabelling.n_holdout_pairs:
        yield (
            f"`recipe.relabelling.holdout_share` is {share:g}, which is none of the {n_pairs} pairs of {labels} "
            "labels: make it larger, or 0"
        )
    if n_pairs - relabelling.n_holdout_pairs < labels - 1:
        yield (
            f"`recipe.relabelling.holdout_share` is {share:g}, which leaves {n_pairs - relabelling.n_holdout_pairs} of "
            f"{n_pairs} pairs to train on: expected at least {labels - 1}, so that each of {labels} labels "
            "stands in one"
        )


def _impossible_kind(
    path: str, kind: Mapping[str, Any], context: int, n_labels: int, n_exemplars: int
) -> Iterable[str]:
    burstiness, labels = kind["burstiness"], kind["labels"]
    bursty = kind["support"] == "bursty"
    if bursty and kind["distractor"] and 2 * burstiness > context:
        yield (
            f"`{path}.burstiness` is {burstiness}: {burstiness} items of the query's class and as many of the "
            f"distractor do not fit `recipe.context` {context}: at most {context // 2}"
        )
    if bursty and not kind["distractor"] and burstiness > context:
        yield f"`{path}.burstiness` is {burstiness}: that many items do not fit `recipe.context` {context}"
    if not bursty and n_labels <= context:
        yield (
            f"`{path}.support` is none, which needs {context + 1} different labels, but there are {n_labels}: "
            "ask for more classes or labels, or for a shorter `recipe.context`"
        )
    if labels in ("relabelled", "swapped") and not (bursty and kind["distractor"] and 2 * burstiness == context):
        yield (
            f"`{path}.labels` is {labels}, which needs a context of two classes alone: make `burstiness` half of "
            f"`recipe.context`, {context}, with `support: bursty` and `distractor: true`"
        )
    if labels in ("relabelled", "swapped") and not kind["distinct"]:
        yield (
            f"`{path}.labels` is {labels}, which needs two classes, and `{path}.distinct` is false, so they may be "
            "one: leave one of them out"
        )
    if bursty and not kind["replacement"]:
        # Free items may all coincide with the query's class, the distractor too unless its class must differ.
        items = (1 + kind["distractor"]) * burstiness
        alike = 1 + (burstiness if kind["distinct"] else items)
        most = max(alike, context - items) if kind["separate_free"] else alike + context - items
        if most > n_exemplars:
            yield (
                f"`{path}.replacement` is false: up to {most} items of a sequence can be of one class, but the bank "
                f"has {n_exemplars} exemplars to train on: ask for more exemplars or a shorter `recipe.context`"
            )
        if kind["match"]:
            yield (
                f"`{path}.match` is {kind['match']:g}, so items repeat an exemplar, and `{path}.replacement` is false, "
                "so none does: leave one of them out"
            )


def impossible_parts(values: Mapping[str, Any], bank: BankSpec, batch_size: int) -> Iterable[str]:
    """Yield each way in which what an intervention can change contradicts itself or the bank."""
    yield from _impossible_recipe(values["recipe"], bank)
    yield from _impossible_optimizer(values["optimizer"], batch_size)


def _impossible_optimizer(optimizer: Mapping[str, Any], batch_size: int) -> Iterable[str]:
    """Yield each way in which the values of an optimizer contradict each other."""
    name, schedule = optimizer["name"], optimizer["schedule"]
    if optimizer["momentum"] and name != "sgd":
        yield (
            f"`optimizer.momentum` is {optimizer['momentum']:g}, which is sgd's, but `optimizer.name` is {name}: "
            "say `beta1`, or leave it out"
        )
    if optimizer["weight_decay"] and name != "adamw":
        yield (
            f"`optimizer.weight_decay` is {optimizer['weight_decay']:g}, which is adamw's, but `optimizer.name` is "
            f"{name}: say `name: adamw`, or `optimizer.l2.strength` for a penalty in the loss"
        )
    warmup, length = (round_up(schedule[key], batch_size) for key in ("warmup", "length"))
    if schedule["kind"] == "inverse_sqrt" and not warmup:
        yield (
            "`optimizer.schedule.kind` is inverse_sqrt, which is sqrt(warmup / sequences seen), but "
            "`optimizer.schedule.warmup` is 0: give it one"
        )
    if schedule["kind"] == "cosine" and length <= warmup:
        yield (
            f"`optimizer.schedule.length` is {schedule['length']}, in which a cosine is to end, but "
            f"`optimizer.schedule.warmup` is {schedule['warmup']}: make it longer than the warm-up by a batch at least"
        )


def impossible_interventions(periods: Mapping[str, Mapping[str, Any]], run: Run) -> Iterable[str]:
    """Yield each way in which the values with an intervention contradict each other, or those before it."""
    names: dict[int, str] = {}
    before = run.optimizer.name
    for name, period in periods.items():
        path, recipe = f"interventions.{name}", period["recipe"]
        twin = names.setdefault(round_up(period["at"], run.batch_size), name)
        if twin != name:
            yield f"`{path}.at` is {period['at']}, and {twin} comes before the same batch: make them one"
        for key, now, first in (
            ("context", recipe["context"], run.recipe.context),
            ("labelling.labels", recipe["labelling"]["labels"], run.recipe.labelling.labels),
        ):
            if now != first:
                yield (
                    f"`{path}.recipe.{key}` is {now}, but the model was made for {first}: "
                    "what shapes its tensors cannot change in mid-training"
                )
        if "sgd" in {before, period["optimizer"]["name"]} and before != period["optimizer"]["name"]:
            yield (
                f"`{path}.optimizer.name` is {period['optimizer']['name']} after {before}, which keeps other moments: "
                "adam and adamw can follow each other, sgd only itself"
            )
        before = period["optimizer"]["name"]
        yield from (f"with `{path}`: {problem}" for problem in impossible_parts(period, run.bank, run.batch_size))


def impossible(run: Run, evaluators: Iterable[str], evaluation: Mapping[str, Any]) -> Iterable[str]:
    """Yield each way in which model, evaluators and bank of a run contradict each other.

    evaluators: names as of `evaluator_at`. evaluation: the study's section of that name.
    """
    yield from _impossible_model(run.model)
    yield from _impossible_encoder(run)
    for name, contexts in evaluation["contexts"].items():
        yield from _impossible_contexts(name, contexts, run, evaluation["evaluators"])
    for evaluator in evaluators:
        yield from _impossible_evaluator(evaluator, run)
        if not evaluation["replacement"]:
            yield from _too_few_exemplars(evaluator, run)
    yield from _impossible_bank(run.bank)


def _impossible_model(model: Model) -> Iterable[str]:
    if model.width % model.heads:
        yield f"`model.heads` is {model.heads}, which does not divide `model.width` {model.width}"
    if model.positions.kind == "rotary" and model.width // model.heads % 2:
        yield (
            f"`model.positions.kind` is rotary, which turns pairs of coordinates, but a head has {model.width} / "
            f"{model.heads}: make `model.width` / `model.heads` even"
        )


def unequal_groups(model: Model) -> Iterable[str]:
    """Yield that an encoder's groups of blocks are not all described: then it has no parameters to be named."""
    resnet = model.resnet
    if model.encodes_images and len({len(resnet.channels), len(resnet.blocks), len(resnet.strides)}) > 1:
        yield (
            f"`model.resnet` has {len(resnet.channels)} `channels`, {len(resnet.blocks)} `blocks` and "
            f"{len(resnet.strides)} `strides`: expected one of each for every group of blocks, so set all three"
        )


def _impossible_encoder(run: Run) -> Iterable[str]:
    """Yield what does not fit each other of the bank's images and the embedder that is to encode them."""
    model, resnet, l2 = run.model, run.model.resnet, run.optimizer.l2
    if run.bank.images and not model.encodes_images:
        yield (
            f"`model.embedder` is {model.embedder}, but the bank holds images (`bank.{run.bank.source}.encoder: "
            "none`): say `model.embedder: resnet`, or choose an encoder that makes embeddings of them"
        )
    if not run.bank.images and model.encodes_images:
        yield (
            "`model.embedder` is resnet, which encodes images, but the bank holds embeddings: leave it out, or let a "
            "bank of omniglot or images have `encoder: none`"
        )
    if not model.encodes_images:
        if resnet != ResNet():
            yield "`model.resnet` is given, but `model.embedder` is linear: say `embedder: resnet`, or leave it out"
        if l2.encoder is not None:
            yield (
                f"`optimizer.l2.encoder` is {l2.encoder:g}, but `model.embedder` is linear: say `optimizer.l2.embedder`"
            )
        return
    yield from unequal_groups(model)
    if resnet.channels[-1] != model.width:
        yield (
            f"`model.resnet.channels` ends in {resnet.channels[-1]}, but their means over the image go into the "
            f"residual stream, `model.width` {model.width}: make them equal"
        )
    for key, value in (("kernel", resnet.kernel), ("pool", resnet.pool)):
        if value % 2 == 0:
            yield f"`model.resnet.{key}` is {value}: expected an odd number, which has a middle"
    if any(recipe.input_noise for recipe in run.recipes):
        yield (
            "`recipe.input_noise` is added to embeddings, but `model.embedder: resnet` makes them of images while it "
            "trains: leave it out"
        )


def _impossible_contexts(name: str, contexts: Sequence[int], run: Run, evaluators: Sequence[str]) -> Iterable[str]:
    """Yield what is wrong with the other context lengths of an evaluator. evaluators: those of the study."""
    longest = max(contexts, default=0)
    if run.model.positions.kind == "learned" and longest > run.recipe.context:
        yield (
            f"`evaluation.contexts.{name}` has {longest}, but `model.positions.kind: learned` knows the places of "
            f"`recipe.context` {run.recipe.context} and no more: leave longer ones out, or choose other positions"
        )
    if contexts and name not in evaluators:
        yield f"`evaluation.contexts.{name}` is given, but `evaluation.evaluators` lacks `{name}`: add it there"
    if run.recipe.context in contexts:
        yield (
            f"`evaluation.contexts.{name}` has {run.recipe.context}, which is `recipe.context` and evaluated "
            "anyway: leave it out"
        )


def _impossible_evaluator(evaluator: str, run: Run) -> Iterable[str]:
    bank, section = run.bank, f"bank.{run.bank.source}"
    name, other_context = evaluator_parts(evaluator)
    context = other_context or run.recipe.context
    where = "recipe.context" if other_context is None else f"evaluation.contexts.{name}"
    if (name.startswith("icl") or name == "flip") and context % 2:
        yield (
            f"`evaluation.evaluators` has `{name}`, half of whose context is the query's class, but "
            f"`{where}` is {context}: make it even or leave `{name}` out"
        )
    if name in ("iwl", "ciwl") and run.n_labels <= context:
        many = f"`{section}` has {bank.shape.n_train_classes}: ask for more classes"
        if run.recipe.labelling.labels:
            many = f"`recipe.labelling.labels` is {run.n_labels}: ask for more labels"
        yield f"`evaluation.evaluators` has `{evaluator}`, which needs {context + 1} different classes, but {many}"
    if name == "icl_holdout" and bank.shape.class_range("holdout")[1] < 2:
        key = "holdout_characters" if bank.source == "omniglot" else "holdout_classes"
        yield f"`evaluation.evaluators` has `icl_holdout`, but `{section}.{key}` leaves fewer than 2 classes"
    if name == "icl_holdout_pairs" and not run.recipe.relabelling.n_holdout_pairs:
        yield (
            "`evaluation.evaluators` has `icl_holdout_pairs`, but `recipe.relabelling.holdout_share` keeps no pair of "
            "labels out of training: give it, and more than 2 `recipe.relabelling.labels`"
        )
    if name == "icl_new_exemplar" and bank.shape.exemplar_range("holdout")[1] < 1:
        one_hot = isinstance(bank.parameters, OneHot)
        key = "a one-hot class has one exemplar" if one_hot else f"`{section}.holdout_exemplars` is 0"
        yield f"`evaluation.evaluators` has `icl_new_exemplar`, but {key}"


def _too_few_exemplars(evaluator: str, run: Run) -> Iterable[str]:
    """Yield whether a class has fewer exemplars than an evaluator without replacement shows of it."""
    name, other_context = evaluator_parts(evaluator)
    items = (other_context or run.recipe.context) // 2 + 1
    part = "holdout" if name == "icl_new_exemplar" else "train"
    found = run.bank.shape.exemplar_range(part)[1]
    if (name.startswith("icl") or name == "flip") and found < items:
        yield (
            f"`evaluation.replacement` is false, and `{evaluator}` shows {items} items of the query's class, but there "
            f"are {found} {part} exemplars of it: ask for more of them, or leave `{name}` out"
        )


def _impossible_bank(bank: BankSpec) -> Iterable[str]:
    parameters, section = bank.parameters, f"bank.{bank.source}"
    if isinstance(parameters, Omniglot | Images | Tokens) and parameters.encoder == "pca" and parameters.scale == "raw":
        yield f"`{section}.scale` is 'raw', but `{section}.encoder: pca` sets its own scale: leave `scale` out"
    if isinstance(parameters, Omniglot):
        yield from _impossible_omniglot(section, parameters)
    if bank.pictures:
        yield from _impossible_fixed_encoder(section, bank.pictures)


def _impossible_omniglot(section: str, omniglot: Omniglot) -> Iterable[str]:
    drawings = omniglot.exemplars + omniglot.holdout_exemplars
    if drawings > 20:
        yield f"`{section}.exemplars` + `holdout_exemplars` is {drawings}: a character has 20 drawings"
    if omniglot.layout == "released" and omniglot.variants == 1:
        yield f"`{section}.variants` is 1, but `{section}.layout: released` mixes all 8 up: leave one of them out"
    if omniglot.layout == "released" and omniglot.encoder == "none":
        yield (
            f"`{section}.layout` is released, whose classes mix the variants of a character, but `{section}.encoder: "
            "none` stores every drawing once and makes a class by one variant: say `layout: corrected`, or a fixed "
            "encoder (pca, pixels, resnet18, trained)"
        )


def _impossible_fixed_encoder(section: str, pictures: Omniglot | Images) -> Iterable[str]:
    image, dim, encoder = pictures.image_shape, pictures.dim, pictures.encoder
    said = f"{image.side} x {image.side}" + (f" x {image.channels}" if image.channels > 1 else "")
    if encoder == "pca" and dim > image.width:
        yield f"`{section}.dim` is {dim}: {said} pixels have at most {image.width} components"
    if encoder == "pixels" and dim != image.width:
        yield f"`{section}.dim` is {dim}, but `encoder: pixels` gives {said}: say {image.width}"
    if encoder == "resnet18" and dim != 512:
        yield f"`{section}.dim` is {dim}, but `encoder: resnet18` gives 512: say so"


def refuse_other_axes(where: str, axes: Sequence[str], places: Sequence[Mapping[str, Any]]) -> None:
    """Raise StudyError where runs do not differ along one axis of numbers alone. places: of each run, axis -> level."""
    if len(axes) != 1 or axis_of_numbers(levels(axes, places)) is None:
        found = f"there are {', '.join(axes)}" if axes else "there is none"
        raise StudyError(
            f"`{where}` is true, but the experiment's runs differ along other things than one axis of numbers "
            f"({found}): leave it out, or declare one such axis under `axes`"
        )
