"""Which classes: how often each comes (uniform or Zipf), and which label it bears.

A class is drawn as a number on a line along which every class is as long as it is likely. Leaving labels out closes
the gaps where their classes lay, so that what is left keeps its proportions and no draw is ever rejected.

Letters: N sequences, K classes, M labels left out.
"""

import decimal
import functools
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from icl_transience import philox
from icl_transience.specs.recipes import Labelling, Zipf

# The length of all classes together where they are not equally long: no class's probability is rounded by more than
# 2**-48, of 12,800 classes at alpha = 2 the rarest by a millionth of itself.
_LENGTH = 1 << 48


class Classes(Protocol):
    """K classes on a line, at places 0 to K - 1. wide: whether a draw takes two words."""

    wide: bool

    def draw(self, high: Tensor, low: Tensor | None, excluded: Tensor) -> Tensor:
        """A place [N] from words [N], of a class that has none of the labels of the classes at `excluded`.

        excluded: places [N, M] in ascending order, their labels pairwise different.
        """

    def classes(self, places: Tensor) -> Tensor:
        """The classes at places of any shape."""

    def labels(self, places: Tensor) -> Tensor:
        """The labels of the classes at places of any shape."""


def choice(n_classes: int, zipf: Zipf, labelling: Labelling, device: torch.device) -> Classes:
    """The classes 0 to n_classes - 1 as these say. Made once, then remembered."""
    if not zipf.alpha and not labelling.labels:
        return UniformClasses(n_classes)
    return _weighted(n_classes, zipf, labelling, device)


@dataclass(frozen=True)
class UniformClasses:
    """Every class is as likely as any other, and is its own label."""

    n_classes: int
    wide = False

    def draw(self, high: Tensor, low: Tensor | None, excluded: Tensor) -> Tensor:
        number = philox.below(high, self.n_classes - excluded.shape[1])
        for place in excluded.unbind(1):
            number = number + (number >= place)
        return number

    def classes(self, places: Tensor) -> Tensor:
        return places

    def labels(self, places: Tensor) -> Tensor:
        return places


@dataclass(frozen=True, eq=False)
class WeightedClasses:
    """Classes of different lengths, those of one label side by side.

    order, label [K]: class and label at each place. end [K]: where the class ends. label_start, label_length [K]: of
    all classes with the label of the class at that place. length: of all together, under 2**60.
    """

    order: Tensor
    label: Tensor
    end: Tensor
    label_start: Tensor
    label_length: Tensor
    length: int
    wide = True

    def draw(self, high: Tensor, low: Tensor | None, excluded: Tensor) -> Tensor:
        gaps = self.label_length[excluded]
        return self.place(philox.below_wide(high, low, self.length - gaps.sum(1)), excluded)

    def place(self, number: Tensor, excluded: Tensor) -> Tensor:
        """The place [N] where number [N] lies once the gaps of `excluded` are closed."""
        for start, length in zip(
            self.label_start[excluded].unbind(1), self.label_length[excluded].unbind(1), strict=True
        ):
            number = number + length * (number >= start)
        return torch.searchsorted(self.end, number, right=True)

    def classes(self, places: Tensor) -> Tensor:
        return self.order[places]

    def labels(self, places: Tensor) -> Tensor:
        return self.label[places]


@functools.lru_cache(maxsize=64)
def _weighted(n_classes: int, zipf: Zipf, labelling: Labelling, device: torch.device) -> WeightedClasses:
    label = class_labels(n_classes, labelling)
    length = class_lengths(n_classes, zipf)
    order = label.argsort(stable=True)
    label, length = label[order], length[order]
    n_labels = int(label.max()) + 1
    of_label = torch.zeros(n_labels, dtype=torch.int64).index_add_(0, label, length)
    start = of_label.cumsum(0) - of_label
    tensors = (order, label, length.cumsum(0), start[label], of_label[label])
    return WeightedClasses(*(tensor.to(device) for tensor in tensors), length=int(length.sum()))


def class_labels(n_classes: int, labelling: Labelling) -> Tensor:
    """The label of every class, int64 [K]: its place in a permutation drawn by the labelling's seed, modulo labels."""
    if not labelling.labels:
        return torch.arange(n_classes)
    return permutation(labelling.seed, "labels of classes", n_classes).argsort() % labelling.labels


def class_lengths(n_classes: int, zipf: Zipf) -> Tensor:
    """What every class's probability is in proportion to, int64 [K], each at least 1.

    In decimal arithmetic, whose logarithm and exponential are rounded correctly: the same numbers on every machine.
    """
    if not zipf.alpha:
        return torch.ones(n_classes, dtype=torch.int64)
    with decimal.localcontext(prec=28):
        alpha = decimal.Decimal(zipf.alpha)
        of_rank = [(-alpha * decimal.Decimal(rank).ln()).exp() for rank in range(1, n_classes + 1)]
        total = sum(of_rank)
        lengths = torch.tensor([max(1, round(_LENGTH * part / total)) for part in of_rank])
    if zipf.ranks == "identity":
        return lengths
    by_class = torch.empty_like(lengths)
    by_class[permutation(zipf.seed, "ranks of classes", n_classes)] = lengths
    return by_class


def permutation(seed: int, name: str, count: int) -> Tensor:
    """The numbers 0 to count - 1 in an order that `seed` draws for `name`, int64 [count]."""
    (words,) = philox.words(seed, philox.domain(name), torch.arange(count), 0, 1)
    # The number breaks ties of words.
    return ((words << 31) | torch.arange(count)).argsort()
