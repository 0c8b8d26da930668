"""TODO"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from icl_transience.specs.identity import round_up
from icl_transience.specs.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class L2:
    """strength * sum of squares over all arrays ("squared"), or * sum of the arrays' norms ("unsquared").

    The components (see COMPONENTS) that have a number have that strength instead.
    """

    strength: float = 0.0
    form: str = "squared"
    embedder: float | None = None
    attention: float | None = None
    mlp: float | None = None
    norm: float | None = None
    unembedding: float | None = None

    def of(self, component: str) -> float:
        own = getattr(self, component)
        return self.strength if own is None else own


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over time, as a share of `learning_rate`; see optimizers.learning_rate."""

    kind: str = "constant"
    warmup: int = 0
    length: int = 0
    final: float = 0.0

    @property
    def is_flat(self) -> bool:
        return self.kind == "constant" and not self.warmup


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """From gradients to steps; see optimizers.py. clip: largest norm of a lane's gradient, 0 is none."""

    name: str = "adam"
    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    momentum: float = field(default=0.0, metadata={"neutral": 0.0})
    weight_decay: float = field(default=0.0, metadata={"neutral": 0.0})
    clip: float = field(default=0.0, metadata={"neutral": 0.0})
    schedule: Schedule = field(default=Schedule(), metadata={"neutral": Schedule()})
    l2: L2 = L2()


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """What holds for batches that begin at `at` sequences seen or later: the whole recipe and optimizer."""

    at: int
    recipe: Recipe
    optimizer: Optimizer


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """The label embeddings are drawn anew whenever `every` more sequences have been seen, up to `until`; 0 is never,
    and for `until` as long as training goes on."""

    every: int = 0
    until: int = 0

    def times(self, batch_size: int, seen: int) -> int:
        """How often they have been drawn anew for the batch that begins at `seen`."""
        if not self.every:
            return 0
        last = min(seen, round_up(self.until, batch_size)) if self.until else seen
        return last // round_up(self.every, batch_size)

    def latest(self, batch_size: int, seen: int) -> int:
        """Sequences seen when they were drawn last, 0 being the start."""
        return self.times(batch_size, seen) * round_up(self.every, batch_size)


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    first: int
    per_doubling: int
    every: int

    def points(self, batch_size: int, after: int, until: int) -> list[int]:
        """Sequences seen at the snapshots in (after, until], and 0 if `after` is 0; whole batches.

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
        """No fewer than the points until there, counted and not listed."""
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
