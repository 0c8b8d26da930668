"""TODO"""

import dataclasses
import math
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Zipf:
    """Class of rank r (from 1) with probability proportional to r**-alpha, at 0 every class alike.

    ranks: "permuted" (rank -> class by a permutation that `seed` draws) or "identity" (the bank's order).
    """

    alpha: float = 0.0
    ranks: str = "permuted"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """Training class -> label: `labels` labels with equally many classes each (or one more), drawn by `seed`.

    At 0 labels every class has its own, the class's number.
    """

    labels: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class _Composition:
    """What the kinds of sequence in a mixture may differ in; the words are those of Recipe."""

    burstiness: int
    distractor: bool = field(default=True, metadata={"neutral": True})
    support: str = field(default="bursty", metadata={"neutral": "bursty"})
    labels: str = field(default="classes", metadata={"neutral": "classes"})
    match: float = field(default=0.0, metadata={"neutral": 0.0})
    replacement: bool = field(default=True, metadata={"neutral": True})


COMPOSITION = tuple(f.name for f in dataclasses.fields(_Composition))


@dataclass(frozen=True, kw_only=True)
class Component(_Composition):
    """A kind of sequence mixed into a recipe, in `share` of all sequences."""

    share: float


@dataclass(frozen=True, kw_only=True)
class Recipe(_Composition):
    """How a sequence is composed.

    support: "bursty": `burstiness` items of the query's class and, with a distractor, as many of a class with another
    label, the rest any classes; "none": classes of pairwise different labels, none the query's.
    labels: "classes"; "relabelled" (query and distractor get 0 and 1 at random); "swapped" (the two exchange
    labels, the target with them); both need a context of these two alone, 2 * burstiness = context; "copied" (one
    context label is overwritten with the query's).
    match: the probability that a sequence's bursty items are all the query's exemplar, and the distractor's all one.
    replacement: whether items of one class are drawn independently; otherwise their exemplars differ pairwise.
    classes, exemplars: the part of the bank to draw from, "train" or "holdout".
    zipf, labelling: how often a class comes, and what it is called.
    label_noise: the probability that a label, the target or any other, is replaced by one drawn at random.
    input_noise: standard deviation of Gaussian noise on every coordinate of every exemplar.
    pool: sequences number 0 to pool - 1 are all there are, in a new order every epoch; 0 is an endless stream.
    mixture: other kinds of sequence; this one fills what their shares leave.
    """

    context: int
    classes: str = field(default="train", metadata={"neutral": "train"})
    exemplars: str = field(default="train", metadata={"neutral": "train"})
    zipf: Zipf = field(default=Zipf(), metadata={"neutral": Zipf()})
    labelling: Labelling = field(default=Labelling(), metadata={"neutral": Labelling()})
    label_noise: float = field(default=0.0, metadata={"neutral": 0.0})
    input_noise: float = field(default=0.0, metadata={"neutral": 0.0})
    pool: int = field(default=0, metadata={"neutral": 0})
    mixture: tuple[Component, ...] = field(default=(), metadata={"neutral": ()})

    def kinds(self) -> list[tuple[float, "Recipe"]]:
        """(share, recipe without a mixture) of every kind of sequence, this one's own first."""
        own = dataclasses.replace(self, mixture=())
        others = [
            (part.share, dataclasses.replace(own, **{name: getattr(part, name) for name in COMPOSITION}))
            for part in self.mixture
        ]
        return [(1 - math.fsum(share for share, _ in others), own), *others]

    def n_labels(self, n_classes: int) -> int:
        """How many labels `n_classes` training classes have."""
        return self.labelling.labels or n_classes
