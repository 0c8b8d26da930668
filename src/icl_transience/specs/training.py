"""How a run is trained: the keys of its optimizer, snapshots, forgetting and interventions."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from icl_transience.specs.identity import round_up
from icl_transience.specs.keys import Key, neutral
from icl_transience.specs.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class L2:
    """strength * sum of squares over all arrays ("squared"), or * sum of the arrays' norms ("unsquared").

    The components (see COMPONENTS) that have a number have that strength instead.
    """

    strength: Annotated[float, Key("lambda of the penalty added to the loss, over all weights", minimum=0)] = 0.0
    form: Annotated[
        str,
        Key(
            "squared: lambda * sum of squares; unsquared: lambda * sum over arrays of the norm, as in "
            "the authors' code",
            choices=("squared", "unsquared"),
        ),
    ] = "squared"
    embedder: Annotated[
        float | None,
        Key("lambda of the exemplar projection, the label table and learned positions; null = strength", minimum=0),
    ] = None
    attention: Annotated[float | None, Key("lambda of the attentions' weights; null = strength", minimum=0)] = None
    mlp: Annotated[float | None, Key("lambda of the MLPs' weights and biases; null = strength", minimum=0)] = None
    norm: Annotated[float | None, Key("lambda of the norms' scales and biases; null = strength", minimum=0)] = None
    unembedding: Annotated[
        float | None, Key("lambda of the unembedding's weights and biases; null = strength", minimum=0)
    ] = None

    def of(self, component: str) -> float:
        """Return the strength for a component of the model."""
        own = getattr(self, component)
        return self.strength if own is None else own


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over time, as a share of `learning_rate`; see engines/optimizers.py."""

    kind: Annotated[
        str,
        Key(
            "of the learning rate after n sequences seen, past the warm-up: constant; sqrt(warmup / "
            "n); half a cosine from 1 to `final`",
            choices=("constant", "inverse_sqrt", "cosine"),
        ),
    ] = "constant"
    warmup: Annotated[
        int, Key("sequences seen in which the learning rate rises linearly", unit="sequences seen", minimum=0)
    ] = 0
    length: Annotated[
        int,
        Key(
            "of cosine: sequences seen when `final` is reached, warm-up included; constant from then on",
            unit="sequences seen",
            minimum=0,
        ),
    ] = 0
    final: Annotated[float, Key("of cosine: share of the learning rate that is left", minimum=0, maximum=1)] = 0.0

    @property
    def is_flat(self) -> bool:
        """Return whether the learning rate is the same all along."""
        return self.kind == "constant" and not self.warmup


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """From gradients to steps; see engines/optimizers.py. clip: largest norm of a lane's gradient, 0 is none."""

    name: Annotated[str, Key("the update rule", choices=("adam", "adamw", "sgd"))] = "adam"
    learning_rate: Annotated[float, Key("at its highest, which `schedule` multiplies", default=0.001, above=0)]
    beta1: Annotated[float, Key("decay of the first moment", minimum=0, below=1)] = 0.9
    beta2: Annotated[float, Key("decay of the second moment", minimum=0, below=1)] = 0.999
    epsilon: Annotated[float, Key("added to the root of the second moment", above=0)] = 1e-8
    momentum: Annotated[float, Key("of sgd: velocity = momentum * velocity + gradient", minimum=0, below=1)] = neutral(
        0.0
    )
    weight_decay: Annotated[
        float, Key("of adamw: a step also takes learning rate * weight_decay of every weight off it", minimum=0)
    ] = neutral(0.0)
    clip: Annotated[
        float, Key("largest norm of the gradient, L2 included, of all of a lane's arrays together; 0 = any", minimum=0)
    ] = neutral(0.0)
    schedule: Annotated[Schedule, Key("the learning rate over time, as a share of `learning_rate`")] = neutral(
        Schedule()
    )
    l2: Annotated[L2, Key("the penalty on large weights that is added to the loss")] = L2()


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """What holds for batches that begin at `at` sequences seen or later: the whole recipe and optimizer."""

    at: Annotated[
        int,
        Key(
            "sequences seen from which on it holds, rounded up to whole batches; every intervention needs it",
            unit="sequences seen",
            minimum=0,
        ),
    ]
    recipe: Annotated[Recipe, Key("what changes of the recipe")]
    optimizer: Annotated[Optimizer, Key("what changes of the optimizer")]


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """The label embeddings are drawn anew whenever `every` more sequences have been seen, up to `until`.

    every: 0 is never. until: 0 is as long as training goes on.
    """

    every: Annotated[
        int,
        Key("sequences seen from one time to the next, in whole batches; 0 = never", unit="sequences seen", minimum=0),
    ] = 0
    until: Annotated[
        int,
        Key("sequences seen after which it stops; 0 = as long as training goes on", unit="sequences seen", minimum=0),
    ] = 0

    def times(self, batch_size: int, seen: int) -> int:
        """Return how often they have been drawn anew for the batch that begins at `seen` sequences seen."""
        if not self.every:
            return 0
        last = min(seen, round_up(self.until, batch_size)) if self.until else seen
        return last // round_up(self.every, batch_size)

    def latest(self, batch_size: int, seen: int) -> int:
        """Return the sequences seen when they were drawn last, 0 being the start."""
        return self.times(batch_size, seen) * round_up(self.every, batch_size)


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """When the parameters are kept, in sequences seen; see `points`."""

    first: Annotated[
        int,
        Key(
            "sequences seen at the first snapshot after the start (0 is always one)",
            default=4096,
            unit="sequences seen",
            minimum=1,
        ),
    ]
    per_doubling: Annotated[
        int,
        Key("snapshots a doubling, until they are `every` apart", default=2, unit="snapshots", minimum=1, maximum=1000),
    ]
    every: Annotated[
        int, Key("sequences between snapshots from then on", default=64000, unit="sequences seen", minimum=1)
    ]

    def points(self, batch_size: int, after: int, until: int) -> list[int]:
        """Return the sequences seen at the snapshots in (after, until], and 0 if `after` is 0; whole batches.

        From `first` on in a geometric series of `per_doubling` a doubling while its steps are below `every`,
        then at multiples of `every`. Nothing depends on `until` but where the list ends.
        """
        points = {0} if after == 0 else set()
        for point in self._series():
            rounded = round_up(point, batch_size)
            if rounded > until:
                break
            if rounded > after:
                points.add(rounded)
        return sorted(points)

    def at_most(self, batch_size: int, until: int) -> int:
        """Return a bound on the number of points until there, without listing them."""
        doublings = math.log2(max(until / self.first, 1))
        return min(until // batch_size, math.ceil(self.per_doubling * doublings) + until // self.every) + 2

    def _series(self) -> Iterator[int]:
        ratio, step, point = 2 ** (1 / self.per_doubling), 0, self.first
        while point * (ratio - 1) < self.every:
            yield point
            step += 1
            point = math.ceil(self.first * 2 ** (step / self.per_doubling))
        # The last geometric point may lie on either side of the first multiple.
        number = point // self.every + (point % self.every > 0)
        while True:
            yield number * self.every
            number += 1
