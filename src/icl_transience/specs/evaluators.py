"""Evaluators by name: the recipe of each, its metrics, and the set of frozen sequences."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from icl_transience.specs.banks import BankSpec
from icl_transience.specs.identity import Identified, identity
from icl_transience.specs.keys import neutral
from icl_transience.specs.recipes import Recipe

EVALUATORS = ("train", "icl", "iwl", "ciwl", "flip", "icl_holdout", "icl_new_exemplar", "icl_holdout_pairs")
# Those of a study that does not say: what the last one needs, few recipes have.
DEFAULT_EVALUATORS = EVALUATORS[:-1]


def evaluator_at(name: str, context: int) -> str:
    """Return the name of an evaluator whose context is `context` items instead of the training one's."""
    return f"{name}@{context}"


def evaluator_parts(evaluator: str) -> tuple[str, int | None]:
    """Return (name among EVALUATORS, context length), the latter None where it is that of training."""
    name, _, context = evaluator.partition("@")
    return name, int(context) if context else None


def in_order(evaluators: Iterable[str]) -> list[str]:
    """Return evaluators as in EVALUATORS, each followed by itself at other context lengths, the shortest first."""

    def place(evaluator: str) -> tuple[int, int]:
        name, context = evaluator_parts(evaluator)
        return EVALUATORS.index(name), context or 0

    return sorted(evaluators, key=place)


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
    "icl_holdout_pairs": "in_context_accuracy",
    "ciwl": "in_context_accuracy",
    "flip": "in_context_accuracy",
}


def default_metric(evaluator: str) -> str:
    """Return the metric that is plotted and summarised of an evaluator at whatever context length."""
    return DEFAULT_METRIC[evaluator_parts(evaluator)[0]]


def evaluator_recipe(evaluator: str, training: Recipe, replacement: bool = True) -> Recipe:
    """Return the recipe of an evaluator, for runs trained on `training`; without input noise, except for `train`.

    train: as trained, from an endless stream. icl: half the context is the query's class, half one distractor,
    relabelled at random with a pair of labels to train on, as a rule 0 and 1; icl_holdout, icl_new_exemplar and
    icl_holdout_pairs the same on classes, exemplars or pairs of labels never trained on.
    iwl: no support. ciwl: as iwl, one context label overwritten with the query's. flip: as icl, the two classes'
    labels exchanged. replacement: whether the items of these two classes are drawn independently, or differ.
    """
    name, other_context = evaluator_parts(evaluator)
    context = other_context or training.context
    two_classes: dict[str, Any] = {"context": context, "burstiness": context // 2, "replacement": replacement}
    relabelled: dict[str, Any] = {**two_classes, "labels": "relabelled", "relabelling": training.relabelling}
    # Classes that were never trained on have no labels to share.
    trained: dict[str, Any] = {**relabelled, "labelling": training.labelling}
    alone: dict[str, Any] = {"context": context, "burstiness": 0, "support": "none", "labelling": training.labelling}
    return {
        "train": replace(training, pool=0),
        "icl": Recipe(**trained),
        "icl_holdout": Recipe(**relabelled, classes="holdout"),
        "icl_new_exemplar": Recipe(**trained, exemplars="holdout"),
        "icl_holdout_pairs": Recipe(**trained, label_pairs="holdout"),
        "iwl": Recipe(**alone),
        "ciwl": Recipe(**alone, labels="copied"),
        "flip": Recipe(**two_classes, labelling=training.labelling, labels="swapped"),
    }[name]


def chance(evaluator: str, recipe: Recipe, n_labels: int) -> float | None:
    """Return what guessing gives on the evaluator's default metric; None where no single number does (`train`).

    recipe: that of training. In-context accuracy: one over the number of different labels in the context.
    """
    name, context = evaluator_parts(evaluator)
    return {
        "icl": 1 / 2,
        "icl_holdout": 1 / 2,
        "icl_new_exemplar": 1 / 2,
        "icl_holdout_pairs": 1 / 2,
        "flip": 1 / 2,
        "ciwl": 1 / (context or recipe.context),
        "iwl": 1 / n_labels,
    }.get(name)


# The running training loss stands beside the evaluators' metrics, under a name no evaluator has.
TRAINING = "training"


@dataclass(frozen=True, kw_only=True)
class SequenceSet(Identified):
    """The frozen sequences of all evaluators of one study on one bank.

    recipe: the training one. evaluators: names as of `evaluator_at`, or of EVALUATORS alone. replacement: as of
    `evaluator_recipe`.
    """

    bank: BankSpec
    recipe: Recipe
    evaluators: tuple[str, ...]
    sequences: int
    seed: int
    replacement: bool = neutral(True)

    @property
    def id(self) -> str:
        """Return its name in files: what its bank is, and its identity."""
        return f"{self.bank.slug}-{identity('sequences', self)}"
