"""Which classes: how often each comes (uniform or Zipf), and which label it bears.

A class is drawn by inverting the cumulative distribution: a number below the total weight falls on a class as often as
the class's weight says. Leaving labels out takes their mass away, so that what is left keeps its proportions and no
draw is ever rejected. Weights are integers, so all of it is exact.

Letters: N sequences, K classes, M labels left out. A class's position is where it stands in the cumulative order.
"""

import decimal
import functools
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from icl_transience import philox
from icl_transience.specs.recipes import Labelling, Relabelling, Zipf

# The weight of all classes together where they are not equally likely: no class's probability is rounded by more than
# 2**-48, of 12,800 classes at alpha = 2 the rarest by a millionth of itself.
_TOTAL_WEIGHT = 1 << 48


class Classes(Protocol):
    """K classes at positions 0 to K - 1. two_words: whether a draw takes two words."""

    two_words: ClassVar[bool]

    def draw(self, high: Tensor, low: Tensor | None, excluded: Tensor) -> Tensor:
        """Draw positions [N] from words [N], of classes that have none of the labels of the classes at `excluded`.

        excluded: positions [N, M] in ascending order, their labels pairwise different.
        """
        ...

    def classes(self, positions: Tensor) -> Tensor:
        """Return the classes at positions of any shape."""
        ...

    def labels(self, positions: Tensor) -> Tensor:
        """Return the labels of the classes at positions of any shape."""
        ...


def choice(n_classes: int, zipf: Zipf, labelling: Labelling, device: torch.device) -> Classes:
    """Return the classes 0 to n_classes - 1 as these say. Made once, then remembered."""
    if not zipf.alpha and not labelling.labels:
        return UniformClasses(n_classes)
    return _weighted(n_classes, zipf, labelling, device)


@dataclass(frozen=True)
class UniformClasses:
    """Every class is as likely as any other, and is its own label."""

    two_words: ClassVar[bool] = False
    n_classes: int

    def draw(self, high: Tensor, low: Tensor | None, excluded: Tensor) -> Tensor:
        """See Classes."""
        number = philox.randint(high, self.n_classes - excluded.shape[1])
        for position in excluded.unbind(1):
            number = number + (number >= position)
        return number

    def classes(self, positions: Tensor) -> Tensor:
        """See Classes."""
        return positions

    def labels(self, positions: Tensor) -> Tensor:
        """See Classes."""
        return positions


@dataclass(frozen=True, eq=False)
class WeightedClasses:
    """Classes of different weights, those of one label side by side.

    order, label [K]: class and label at each position. cumulative [K]: weight of all classes up to this position.
    label_start, label_weight [K]: of all classes with the label of the class at that position, the weight before them
    and their own. total_weight: of all together, under 2**60.
    """

    two_words: ClassVar[bool] = True
    order: Tensor
    label: Tensor
    cumulative: Tensor
    label_start: Tensor
    label_weight: Tensor
    total_weight: int

    def draw(self, high: Tensor, low: Tensor | None, excluded: Tensor) -> Tensor:
        """See Classes."""
        excluded_mass = self.label_weight[excluded].sum(1)
        return self.invert(philox.randint_wide(high, low, self.total_weight - excluded_mass), excluded)

    def invert(self, number: Tensor, excluded: Tensor) -> Tensor:
        """Return the position [N] on which number [N] falls, counted without the mass of `excluded`."""
        starts, masses = self.label_start[excluded].unbind(1), self.label_weight[excluded].unbind(1)
        for start, mass in zip(starts, masses, strict=True):
            number = number + mass * (number >= start)
        return torch.searchsorted(self.cumulative, number, right=True)

    def classes(self, positions: Tensor) -> Tensor:
        """See Classes."""
        return self.order[positions]

    def labels(self, positions: Tensor) -> Tensor:
        """See Classes."""
        return self.label[positions]


@functools.lru_cache(maxsize=64)
def _weighted(n_classes: int, zipf: Zipf, labelling: Labelling, device: torch.device) -> WeightedClasses:
    label = class_labels(n_classes, labelling)
    weight = class_weights(n_classes, zipf)
    order = label.argsort(stable=True)
    label, weight = label[order], weight[order]
    n_labels = int(label.max()) + 1
    of_label = torch.zeros(n_labels, dtype=torch.int64).index_add_(0, label, weight)
    start = of_label.cumsum(0) - of_label
    tensors = (order, label, weight.cumsum(0), start[label], of_label[label])
    return WeightedClasses(*(tensor.to(device) for tensor in tensors), total_weight=int(weight.sum()))


def class_labels(n_classes: int, labelling: Labelling) -> Tensor:
    """Return the label of every class, int64 [K]: its rank in a permutation that the seed draws, modulo labels."""
    if not labelling.labels:
        return torch.arange(n_classes)
    return permutation(labelling.seed, "labels of classes", n_classes).argsort() % labelling.labels


def class_weights(n_classes: int, zipf: Zipf) -> Tensor:
    """Return what every class's probability is in proportion to, int64 [K], each at least 1.

    In decimal arithmetic, whose logarithm and exponential are rounded correctly: the same numbers on every machine.
    """
    if not zipf.alpha:
        return torch.ones(n_classes, dtype=torch.int64)
    with decimal.localcontext(prec=28):
        alpha = decimal.Decimal(zipf.alpha)
        of_rank = [(-alpha * decimal.Decimal(rank).ln()).exp() for rank in range(1, n_classes + 1)]
        total = sum(of_rank)
        weights = torch.tensor([max(1, round(_TOTAL_WEIGHT * part / total)) for part in of_rank])
    if zipf.ranks == "identity":
        return weights
    by_class = torch.empty_like(weights)
    by_class[permutation(zipf.seed, "ranks of classes", n_classes)] = weights
    return by_class


@functools.lru_cache(maxsize=64)
def label_pairs(relabelling: Relabelling, part: str, device: torch.device) -> Tensor:
    """Return the pairs of labels of a part, "train" or "holdout", int64 [P, 2], the smaller label first.

    In an order that the seed draws, pairs are kept out of training until there are enough, without those that have a
    label's last pair.
    """
    labels = range(relabelling.labels)
    pairs = [(one, other) for one in labels for other in labels if one < other]
    left, holdout = [relabelling.labels - 1] * relabelling.labels, set()
    for number in permutation(relabelling.seed, "pairs of labels", len(pairs)).tolist():
        one, other = pairs[number]
        if len(holdout) < relabelling.n_holdout_pairs and left[one] > 1 and left[other] > 1:
            holdout.add(number)
            left[one] -= 1
            left[other] -= 1
    chosen = [pair for number, pair in enumerate(pairs) if (number in holdout) == (part == "holdout")]
    return torch.tensor(chosen, device=device)


def permutation(seed: int, name: str, count: int) -> Tensor:
    """Return the numbers 0 to count - 1 in an order that `seed` draws for `name`, int64 [count]."""
    (words,) = philox.words(seed, philox.domain(name), torch.arange(count), 0, 1)
    # The number breaks ties of words.
    return ((words << 31) | torch.arange(count)).argsort()
