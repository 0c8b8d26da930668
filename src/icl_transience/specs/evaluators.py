"""Evaluators by name: the recipe of each, its metrics, and the set of frozen sequences."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from icl_transience.specs.banks import BankSpec
from icl_transience.specs.identity import Identified, identity
from icl_transience.specs.keys import Key, neutral
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

# Where a model stands between two ideal predictors, under this name beside the evaluators: the weight of the copier,
# from 0 to 1, and how far the model is from each, in nats; evaluation/strategy.py defines them.
STRATEGY = "strategy"
STRATEGY_METRICS = ("copier_weight", "copier_divergence", "memoriser_divergence")


def metrics_of(name: str) -> tuple[str, ...]:
    """Return the metrics of an evaluator, or those of the strategy."""
    return STRATEGY_METRICS if name == STRATEGY else METRICS


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
    STRATEGY: "copier_weight",
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
# What is no evaluator has other names in transience.csv and runs.csv: final_training_loss, at_peak_copier_weight.
_COLUMNS = {TRAINING: "training_loss", STRATEGY: "copier_weight"}


def column_of(name: str) -> str:
    """Return what columns of transience.csv call an evaluator, the training loss or the strategy, after final_."""
    return _COLUMNS.get(name, name)


def evaluator_of_column(column: str) -> str:
    """Return what `column_of` was given."""
    return next((name for name, of_name in _COLUMNS.items() if of_name == column), column)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Between which predictors models stand, and on which sequences they are asked; see evaluation/strategy.py."""

    predictors: Annotated[
        str,
        Key(
            "ideal predictors between which snapshots stand: exact, of Gaussian classes as they were drawn; "
            "empirical, of any bank of embeddings by means and scatter of its training exemplars",
            choices=("none", "exact", "empirical"),
        ),
    ] = neutral("none")
    evaluator: Annotated[
        str,
        Key(
            "on whose sequences; both predictors must know an answer, and on those of `train` they mostly agree",
            choices=("train", "icl", "icl_new_exemplar", "icl_holdout_pairs", "flip"),
        ),
    ] = neutral("flip")
    floor: Annotated[
        float,
        Key(
            "share of every answer, the model's too, that is spread evenly over all labels, since the copier excludes "
            "labels that are not in the context",
            above=0,
            maximum=0.1,
        ),
    ] = neutral(0.001)


@dataclass(frozen=True, kw_only=True)
class SequenceSet(Identified):
    """The frozen sequences of all evaluators of one study on one bank.

    recipe: the training one. evaluators: names as of `evaluator_at`, or of EVALUATORS alone. replacement: as of
    `evaluator_recipe`. strategy: between which predictors snapshots stand, if any are asked for.
    """

    bank: BankSpec
    recipe: Recipe
    evaluators: tuple[str, ...]
    sequences: int
    seed: int
    replacement: bool = neutral(True)
    strategy: Strategy = neutral(Strategy())

    @property
    def curves(self) -> tuple[str, ...]:
        """Return the names under which curves.csv has what snapshots answer."""
        return (*self.evaluators, STRATEGY) if self.strategy.predictors != "none" else self.evaluators

    @property
    def id(self) -> str:
        """Return its name in files: what its bank is, and its identity."""
        return f"{self.bank.slug}-{identity('sequences', self)}"
