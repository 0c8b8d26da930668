"""Recipes turned into sequences: which classes, which exemplars, which labels.

A sequence is C context items and a query: arrays of width C + 1, the query last. Sequence number n of a
seed is always the same, whatever batch it falls in and whatever device draws it.

The bursty recipe (Chan et al. 2022; Singh et al. 2023): the query's class q, a distractor class d != q, B
context items of each, C - 2B items of any class, the context shuffled. Each item's exemplar is drawn
uniformly with replacement. What the code of Chan et al. does instead is in `distinct`, `replacement`, `separate_free`.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience import philox
from icl_transience.sequences import classes as sequences_classes
from icl_transience.sequences.classes import Classes
from icl_transience.specs.banks import BankShape
from icl_transience.specs.recipes import Recipe

TRAINING_STREAM = "training"

# What is drawn: a stream each, so that a new kind of draw leaves the others as they were.
(
    _PAIR,
    _OTHERS,
    _ORDER,
    _EXEMPLARS,
    _LOW_WORDS,
    _KIND,
    _MATCH,
    _LABEL_NOISE,
    _NOISE_LABELS,
    _INPUT_NOISE,
    _EPOCH,
    _LABEL_PAIR,
) = range(12)

# Sequences of a pool that are put in order at a time, at least.
_ORDERED = 1 << 13


@dataclass(frozen=True)
class Sequences:
    """N sequences as indices into a bank.

    classes, exemplars, labels: int64 [N, C+1], the query last; labels[:, -1] is the target.
    """

    classes: Tensor
    exemplars: Tensor
    labels: Tensor


def draw(recipe: Recipe, bank: BankShape, seed: int, purpose: str, numbers: Tensor) -> Sequences:
    """Sequences number `numbers` (int64 [N], any device) of `seed`.

    purpose: `TRAINING_STREAM` or an evaluator's name; each draws independently of the others from one seed.
    """
    key, members = (seed, philox.domain(purpose)), pool_members(recipe, seed, purpose, numbers)
    (_, first), *others = recipe.kinds()
    drawn = _draw(first, bank, key, members)
    if others:
        # Each kind is drawn for every sequence: shapes stay what they are, on a GPU too.
        (word,) = philox.words(*key, members, _KIND, 1)
        bound = 0.0
        for share, kind in others:
            here = philox.bernoulli(word, bound + share) & ~philox.bernoulli(word, bound)
            drawn = _where(here[:, None], _draw(kind, bank, key, members), drawn)
            bound += share
    return drawn


def _where(condition: Tensor, one: Sequences, other: Sequences) -> Sequences:
    return Sequences(
        *(torch.where(condition, getattr(one, part.name), getattr(other, part.name)) for part in fields(Sequences))
    )


def _draw(recipe: Recipe, bank: BankShape, key: tuple[int, int], numbers: Tensor) -> Sequences:
    first_class, n_classes = bank.class_range(recipe.classes)
    first_exemplar, n_exemplars = bank.exemplar_range(recipe.exemplars)
    context, burstiness = recipe.context, recipe.burstiness
    choice = sequences_classes.choice(n_classes, recipe.zipf, recipe.labelling, numbers.device)

    def words(stream: int, count: int) -> list[Tensor]:
        return philox.words(*key, numbers, stream, count)

    query_word, distractor_word, label_word, column_word = words(_PAIR, 4)
    low_query, low_distractor, *low_others = (
        words(_LOW_WORDS, context + 2) if choice.two_words else [None] * (context + 2)
    )
    none = numbers.new_empty(len(numbers), 0)
    query = choice.draw(query_word, low_query, none)
    distractor = choice.draw(distractor_word, low_distractor, query[:, None] if recipe.distinct else none)
    if recipe.support == "none":
        others = zip(words(_OTHERS, context), low_others, strict=True)
        items, order = _of_other_labels(choice, others, query), None
    else:
        n_others = context - (1 + recipe.distractor) * burstiness
        others = [choice.draw(*pair, none) for pair in zip(words(_OTHERS, n_others), low_others, strict=False)]
        items = torch.stack(
            [query] * burstiness + [distractor] * (burstiness if recipe.distractor else 0) + others, dim=1
        )
        order = _order(words(_ORDER, context))
        items = items.gather(1, order)
    positions = torch.cat([items, query[:, None]], dim=1)

    exemplars = _exemplars(recipe, words, positions, order, n_exemplars)
    if recipe.labels == "relabelled":
        labels = _pair_labels(recipe, positions == query[:, None], label_word, *words(_LABEL_PAIR, 1))
    else:
        labels = _labels(recipe, choice, positions, query, distractor, column_word)
    if recipe.label_noise:
        n_labels = recipe.relabelling.labels if recipe.labels == "relabelled" else recipe.n_labels(n_classes)
        coins, random = (torch.stack(words(stream, context + 1), dim=1) for stream in (_LABEL_NOISE, _NOISE_LABELS))
        noisy = philox.bernoulli(coins, recipe.label_noise)
        labels = torch.where(noisy, philox.randint(random, n_labels), labels)
    return Sequences(choice.classes(positions) + first_class, exemplars + first_exemplar, labels)


def _of_other_labels(choice: Classes, words: Iterable[tuple[Tensor, Tensor | None]], query: Tensor) -> Tensor:
    """Places [N, C] of classes with pairwise different labels, none the query's, each drawn from what is left."""
    drawn, taken = [], query[:, None]
    for high, low in words:
        drawn.append(choice.draw(high, low, taken))
        taken = torch.cat([taken, drawn[-1][:, None]], dim=1).sort(dim=1).values
    return torch.stack(drawn, dim=1)


def _order(words: list[Tensor]) -> Tensor:
    """Return a random order of as many items as words, [N, C]; its number breaks ties, so that all sorts agree."""
    keys = torch.stack([(word << 8) | number for number, word in enumerate(words)], dim=1)
    return keys.argsort(dim=1)


def _exemplars(
    recipe: Recipe, words: Callable[[int, int], list[Tensor]], positions: Tensor, order: Tensor | None, n_exemplars: int
) -> Tensor:
    """Exemplars [N, C+1] of the classes at `positions`; order: the context's, where it was shuffled."""
    own = words(_EXEMPLARS, recipe.context + 1)
    n_bursty = (1 + recipe.distractor) * recipe.burstiness
    if not recipe.replacement:
        if recipe.separate_free and order is not None:
            # As if they were of classes of their own.
            free = functional.pad(order >= n_bursty, (0, 1))
            positions = torch.where(free, ~positions, positions)
        return _different_of_a_class(own, positions, n_exemplars)
    exemplars = torch.stack([philox.randint(word, n_exemplars) for word in own], dim=1)
    if not recipe.match or order is None:
        return exemplars
    coin, of_distractor = (word[:, None] for word in words(_MATCH, 2))
    matched = philox.bernoulli(coin, recipe.match)
    repeated = torch.where(order < recipe.burstiness, exemplars[:, -1:], philox.randint(of_distractor, n_exemplars))
    context = torch.where(matched & (order < n_bursty), repeated, exemplars[:, :-1])
    return torch.cat([context, exemplars[:, -1:]], dim=1)


def _different_of_a_class(words: list[Tensor], positions: Tensor, n_exemplars: int) -> Tensor:
    """Exemplars [N, C+1], each uniform over those that no earlier item of its class has."""
    drawn = philox.randint(words[0], n_exemplars)[:, None]
    for item, word in enumerate(words[1:], start=1):
        same = positions[:, :item] == positions[:, item : item + 1]
        # Items of other classes take nothing: a number past the end is never met.
        taken = torch.where(same, drawn, n_exemplars).sort(dim=1).values
        number = philox.randint(word, n_exemplars - same.sum(dim=1))
        for exemplar in taken.unbind(1):
            number = number + (number >= exemplar)
        drawn = torch.cat([drawn, number[:, None]], dim=1)
    return drawn


def _pair_labels(recipe: Recipe, is_query: Tensor, order_word: Tensor, pair_word: Tensor) -> Tensor:
    """Labels [N, C+1] of a pair drawn for each sequence: one where is_query [N, C+1], the other elsewhere."""
    pairs = sequences_classes.label_pairs(recipe.relabelling, recipe.label_pairs, is_query.device)
    smaller, larger = pairs[philox.randint(pair_word, len(pairs))].T[:, :, None]
    return torch.where(is_query == (order_word & 1).bool()[:, None], larger, smaller)


def _labels(
    recipe: Recipe,
    choice: Classes,
    positions: Tensor,
    query: Tensor,
    distractor: Tensor,
    column_word: Tensor,
) -> Tensor:
    """Labels [N, C+1] of the classes at `positions`, as a recipe has them that is not relabelled."""
    is_query = positions == query[:, None]
    of_query = choice.labels(query)[:, None]
    if recipe.labels == "swapped":
        return torch.where(is_query, choice.labels(distractor)[:, None], of_query)
    if recipe.labels == "copied":
        column = philox.randint(column_word, recipe.context)[:, None]
        columns = torch.arange(recipe.context + 1, device=positions.device)
        return torch.where(columns == column, of_query, choice.labels(positions))
    return choice.labels(positions)


def examples(recipe: Recipe, embeddings: Tensor, drawn: Sequences, seed: int, purpose: str, numbers: Tensor) -> Tensor:
    """Return the exemplars that `draw` drew, embedded and with their noise: [N, C+1, I] from embeddings [K, E, I]."""
    found = embeddings[drawn.classes, drawn.exemplars]
    if recipe.input_noise:
        found += input_noise(recipe, embeddings.shape[2], seed, purpose, numbers).to(found.dtype)
    return found


def input_noise(recipe: Recipe, width: int, seed: int, purpose: str, numbers: Tensor) -> Tensor:
    """Return what is added to the exemplars of sequences number `numbers`, float64 [N, C+1, width]."""
    members = pool_members(recipe, seed, purpose, numbers)
    words = philox.table(seed, philox.domain(purpose), members, _INPUT_NOISE, (recipe.context + 1) * width)
    return recipe.input_noise * philox.normal_quantile(philox.to_unit_interval(words)).unflatten(1, (-1, width))


def pool_members(recipe: Recipe, seed: int, purpose: str, numbers: Tensor) -> Tensor:
    """Which sequences of the endless stream come as number `numbers`: these, or a pool's in its epoch's order."""
    if not recipe.pool:
        return numbers
    epochs = _epochs(recipe.pool, seed, philox.domain(purpose), numbers.device)
    block = numbers // epochs.length
    members = torch.empty_like(numbers)
    for number in block.unique().tolist():
        here = block == number
        members[here] = epochs.block(number)[numbers[here] - number * epochs.length]
    return members


@functools.lru_cache(maxsize=256)
def _epochs(pool: int, seed: int, domain: int, device: torch.device) -> "_Epochs":
    return _Epochs(pool, seed, domain, device)


class _Epochs:
    """The order of a pool's sequences in every epoch; some epochs make a block, and the latest one is kept."""

    def __init__(self, pool: int, seed: int, domain: int, device: torch.device):
        self.pool, self.seed, self.domain, self.device = pool, seed, domain, device
        self.length = pool * max(1, _ORDERED // pool)
        self.latest: tuple[int, Tensor] | None = None

    def block(self, number: int) -> Tensor:
        """Members [length] of block `number`: whole epochs one after another, each in random order."""
        if self.latest is None or self.latest[0] != number:
            slots = torch.arange(self.length, device=self.device)
            (words,) = philox.words(self.seed, self.domain, slots + number * self.length, _EPOCH, 1)
            keys = (words << 31) | slots
            self.latest = number, keys.view(-1, self.pool).argsort(dim=1).flatten()
        return self.latest[1]
