"""Recipes turned into sequences: which classes, which exemplars, which labels.

A sequence is C context items and a query: arrays of width C + 1, the query last. Sequence number n of a
seed is always the same, whatever batch it falls in and whatever device draws it.

The bursty recipe (Chan et al. 2022; Singh et al. 2023): the query's class q, a distractor class d != q, B
context items of each, C - 2B items of any class, the context shuffled. Each item's exemplar is drawn
uniformly with replacement.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from icl_transience import counter
from icl_transience.spec import BankShape, Recipe

TRAINING = "training"

# What is drawn: a stream each, so that a new kind of draw leaves the others as they were.
_PAIR, _OTHERS, _ORDER, _EXEMPLARS = range(4)


@dataclass(frozen=True)
class Sequences:
    """N sequences as indices into a bank.

    classes, exemplars, labels: int64 [N, C+1], the query last; labels[:, -1] is the target.
    """

    classes: Tensor
    exemplars: Tensor
    labels: Tensor


def draw(recipe: Recipe, bank: BankShape, seed: int, purpose: str, positions: Tensor) -> Sequences:
    """Sequences number `positions` (int64 [N], any device) of `seed`.

    purpose: `TRAINING` or an evaluator's name; each draws independently of the others from one seed.
    """
    first_class, n_classes = bank.class_range(recipe.classes)
    first_exemplar, n_exemplars = bank.exemplar_range(recipe.exemplars)
    domain = counter.domain(purpose)

    def words(stream: int, count: int) -> list[Tensor]:
        return counter.words(seed, domain, positions, stream, count)

    query_word, distractor_word, label_word, place_word = words(_PAIR, 4)
    query = counter.below(query_word, n_classes)
    distractor = _skip(counter.below(distractor_word, n_classes - 1), [query])
    if recipe.support == "none":
        context = _distinct_others(words(_OTHERS, recipe.context), query, n_classes)
    else:
        n_others = recipe.context - 2 * recipe.burstiness
        others = [counter.below(word, n_classes) for word in words(_OTHERS, n_others)]
        context = [query] * recipe.burstiness + [distractor] * recipe.burstiness + others
        context = _shuffle(context, words(_ORDER, recipe.context))
    classes = torch.stack([*context, query], dim=1)
    exemplars = [counter.below(word, n_exemplars) for word in words(_EXEMPLARS, recipe.context + 1)]

    labels, query, distractor = classes, query[:, None], distractor[:, None]
    if recipe.labels == "relabelled":
        query_label = (label_word & 1)[:, None]
        labels = torch.where(classes == query, query_label, 1 - query_label)
    elif recipe.labels == "swapped":
        labels = torch.where(classes == query, distractor, query)
    elif recipe.labels == "copied":
        place = counter.below(place_word, recipe.context)[:, None]
        columns = torch.arange(recipe.context + 1, device=positions.device)
        labels = torch.where(columns == place, query, classes)
    return Sequences(classes + first_class, torch.stack(exemplars, dim=1) + first_exemplar, labels)


def _skip(number: Tensor, taken: list[Tensor]) -> Tensor:
    """The `number`-th class that is none of `taken` (pairwise different, in ascending order)."""
    for excluded in taken:
        number = number + (number >= excluded)
    return number


def _distinct_others(words: list[Tensor], query: Tensor, n_classes: int) -> list[Tensor]:
    """Pairwise different classes, none the query's, each uniform over what is left, without rejection."""
    drawn, taken = [], query[:, None]
    for word in words:
        left = n_classes - taken.shape[1]
        drawn.append(_skip(counter.below(word, left), list(taken.unbind(1))))
        taken = torch.cat([taken, drawn[-1][:, None]], dim=1).sort(dim=1).values
    return drawn


def _shuffle(items: list[Tensor], words: list[Tensor]) -> list[Tensor]:
    """The items in the order of random words; the item's number breaks ties, so no two sorts can differ."""
    keys = torch.stack([(word << 8) | number for number, word in enumerate(words)], dim=1)
    return list(torch.stack(items, dim=1).gather(1, keys.argsort(dim=1)).unbind(1))
