"""How a training sequence is composed: the keys of a recipe, and the kinds of sequence that are mixed in it."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated

from icl_transience.specs.keys import Key, SeedNumber, neutral


@dataclass(frozen=True, kw_only=True)
class Zipf:
    """Class of rank r (from 1) with probability proportional to r**-alpha, at 0 every class alike.

    ranks: "permuted" (rank -> class by a permutation that `seed` draws) or "identity" (the bank's order).
    """

    alpha: Annotated[
        float,
        Key("class of rank r comes with probability proportional to r**-alpha; 0 = all alike", minimum=0, maximum=8),
    ] = 0.0
    ranks: Annotated[
        str, Key("which class has which rank: a random order, or the bank's own", choices=("permuted", "identity"))
    ] = "permuted"
    seed: Annotated[SeedNumber, Key("draws that order")] = 0


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """Training class -> label: `labels` labels with equally many classes each (or one more), drawn by `seed`.

    At 0 labels every class has its own, the class's number.
    """

    labels: Annotated[
        int, Key("labels the classes share evenly; 0 = a label for every class", unit="labels", minimum=0)
    ] = 0
    seed: Annotated[SeedNumber, Key("draws which classes share one")] = 0


@dataclass(frozen=True, kw_only=True)
class Relabelling:
    """The labels that a relabelled sequence's two classes get: a pair of 0 to labels - 1, in random order.

    Of the labels * (labels - 1) / 2 pairs a share is never trained on; every label stands in a pair that is.
    """

    labels: Annotated[
        int,
        Key("relabelled sequences get two of that many labels", unit="labels", minimum=2, maximum=1000),
    ] = 2
    holdout_share: Annotated[
        float,
        Key("of all pairs of these labels, kept out of training for icl_holdout_pairs", minimum=0, below=1),
    ] = 0.0
    seed: Annotated[SeedNumber, Key("draws which pairs are kept out")] = 0

    @property
    def n_pairs(self) -> int:
        """Return the number of pairs, whichever of the two comes first."""
        return self.labels * (self.labels - 1) // 2

    @property
    def n_holdout_pairs(self) -> int:
        """Return how many pairs are kept out of training."""
        return round(self.holdout_share * self.n_pairs)


@dataclass(frozen=True, kw_only=True)
class _Composition:
    """What the kinds of sequence in a mixture may differ in; the words are those of Recipe."""

    burstiness: Annotated[
        int,
        Key(
            "context items of the query's class, and as many of a distractor class (B)",
            default=3,
            unit="items",
            minimum=0,
        ),
    ]
    distractor: Annotated[
        bool,
        Key("whether as many items as of the query's class are of one other class; otherwise their places are free"),
    ] = neutral(True)
    support: Annotated[
        str,
        Key(
            "none: the context's classes have pairwise different labels, none the query's, so that "
            "only the weights know the answer",
            choices=("bursty", "none"),
        ),
    ] = neutral("bursty")
    labels: Annotated[
        str,
        Key(
            "classes: their own; relabelled: query and distractor get 0 and 1, or another pair of `relabelling`, at "
            "random, so that only the context knows the answer; swapped: the two exchange theirs, the "
            "target with them; copied: the query's stands in the context once",
            choices=("classes", "relabelled", "swapped", "copied"),
        ),
    ] = neutral("classes")
    match: Annotated[
        float,
        Key(
            "probability that a sequence's bursty items repeat the query's exemplar, and the distractor's one exemplar",
            minimum=0,
            maximum=1,
        ),
    ] = neutral(0.0)
    replacement: Annotated[
        bool, Key("whether items of one class are drawn independently; otherwise their exemplars differ")
    ] = neutral(True)
    distinct: Annotated[
        bool,
        Key(
            "whether the distractor's class bears another label than the query's; otherwise both are drawn "
            "independently, and may be the same, as in Chan et al.'s code"
        ),
    ] = neutral(True)
    separate_free: Annotated[
        bool,
        Key(
            "whether, without replacement, the free items are drawn apart from the other items, so that they may "
            "repeat an exemplar of these, as in Chan et al.'s code"
        ),
    ] = neutral(False)


COMPOSITION = tuple(f.name for f in dataclasses.fields(_Composition))


@dataclass(frozen=True, kw_only=True)
class Component(_Composition):
    """A kind of sequence mixed into a recipe, in `share` of all sequences."""

    share: Annotated[float, Key("of all sequences; 0 leaves it out", minimum=0, maximum=1, required=True)]


@dataclass(frozen=True, kw_only=True)
class Recipe(_Composition):
    """How a sequence is composed.

    support: "bursty": `burstiness` items of the query's class and, with a distractor, as many of a class with another
    label, the rest any classes; "none": classes of pairwise different labels, none the query's.
    labels: "classes"; "relabelled" (query and distractor get a pair of `relabelling` at random, as a rule 0 and 1);
    "swapped" (the two exchange labels, the target with them); both need a context of these two alone, 2 * burstiness =
    context; "copied" (one context label is overwritten with the query's).
    match: the probability that a sequence's bursty items are all the query's exemplar, and the distractor's all one.
    replacement: whether items of one class are drawn independently; otherwise their exemplars differ pairwise, and
    with separate_free those of free items only from each other's.
    distinct: whether query and distractor must bear different labels.
    classes, exemplars, label_pairs: the part of the bank and of `relabelling` to draw from, "train" or "holdout".
    zipf, labelling: how often a class comes, and what it is called.
    relabelling: what the two classes of a relabelled sequence are called, in training and in evaluators.
    label_noise: the probability that a label, the target or any other, is replaced by one drawn at random.
    input_noise: standard deviation of Gaussian noise on every coordinate of every exemplar.
    pool: sequences number 0 to pool - 1 are all there are, in a new order every epoch; 0 is an endless stream.
    mixture: other kinds of sequence; this one fills what their shares leave.
    """

    context: Annotated[
        int, Key("exemplar-label pairs before the query (C)", default=8, unit="pairs", minimum=1, maximum=255)
    ]
    # Of evaluators alone; training draws from the part that is to train on.
    classes: str = neutral("train")
    exemplars: str = neutral("train")
    label_pairs: str = neutral("train")
    zipf: Annotated[Zipf, Key("how often a class comes")] = neutral(Zipf())
    labelling: Annotated[Labelling, Key("what a class is called")] = neutral(Labelling())
    relabelling: Annotated[Relabelling, Key("which labels relabelled sequences get, in evaluators too")] = neutral(
        Relabelling()
    )
    label_noise: Annotated[
        float, Key("probability that a label, the target too, is replaced by a random one", minimum=0, maximum=1)
    ] = neutral(0.0)
    input_noise: Annotated[
        float, Key("standard deviation of Gaussian noise on every coordinate of every exemplar", minimum=0)
    ] = neutral(0.0)
    pool: Annotated[
        int,
        Key(
            "different training sequences, in a new order every epoch; 0 = an endless stream",
            unit="sequences",
            minimum=0,
            maximum=4194304,
        ),
    ] = neutral(0)
    mixture: Annotated[
        tuple[
            Annotated[
                Component,
                Key(
                    "a kind of sequence in a mixture; what it does not say is as in the recipe it is mixed into",
                    inherits="as in the recipe",
                ),
            ],
            ...,
        ],
        Key(
            "other kinds of sequence by name, each in its share of all; what they leave is composed as above",
            names=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$",
        ),
    ] = neutral(())

    def kinds(self) -> list[tuple[float, "Recipe"]]:
        """Return (share, recipe without a mixture) of every kind of sequence, this one's own first."""
        own = dataclasses.replace(self, mixture=())
        others = [
            (part.share, dataclasses.replace(own, **{name: getattr(part, name) for name in COMPOSITION}))
            for part in self.mixture
        ]
        return [(1 - math.fsum(share for share, _ in others), own), *others]

    def n_labels(self, n_classes: int) -> int:
        """Return the number of labels of `n_classes` training classes."""
        return self.labelling.labels or n_classes
