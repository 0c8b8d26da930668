"""How a run is trained: the keys of its optimizer, snapshots, forgetting, freezing and interventions.

Of interventions there are two kinds. `interventions` change recipe and optimizer in mid-training;
`activation_interventions` are those of specs/interventions.py, done to the model's activations while it trains.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from icl_transience.specs import interventions
from icl_transience.specs.identity import round_up
from icl_transience.specs.keys import Key, neutral
from icl_transience.specs.model import PART_OF
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
        Key(
            "lambda of the exemplar projection or image encoder, label table and learned positions; null = strength",
            minimum=0,
        ),
    ] = None
    encoder: Annotated[
        float | None,
        Key("lambda of the image encoder alone (`model.embedder: resnet`); null = that of embedder", minimum=0),
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
        if own is None and component in PART_OF:
            return self.of(PART_OF[component])
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

    every: 0 is never. until: 0 is as long as training goes on. unembedding: whether it is drawn anew with them.
    """

    every: Annotated[
        int,
        Key("sequences seen from one time to the next, in whole batches; 0 = never", unit="sequences seen", minimum=0),
    ] = 0
    until: Annotated[
        int,
        Key("sequences seen after which it stops; 0 = as long as training goes on", unit="sequences seen", minimum=0),
    ] = 0
    unembedding: Annotated[
        bool, Key("whether the unembedding's weights and biases, by which labels are read, are drawn anew as well")
    ] = neutral(False)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the names of the parameters that are drawn anew; none where it is never."""
        if not self.every:
            return ()
        return ("label_embedding", *(("unembedding.weight", "unembedding.bias") if self.unembedding else ()))

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
class StrengthAt:
    """The strength of an activation intervention at a time. at: sequences seen."""

    at: int
    strength: float


@dataclass(frozen=True, kw_only=True)
class ActivationIntervention:
    """What is done to activations in the forward pass of every training batch; gradients flow through it.

    strength: points in order of time; see `strength_at`. operations: what is done; none of it is a graft.
    """

    strength: Annotated[
        tuple[StrengthAt, ...],
        Key(
            "how much of it is done, from 0 to 1: a number, or [[sequences seen, strength], …], linear between points "
            "and constant before the first and after the last; two points at one time are a step",
            default=1,
            any_form=True,
        ),
    ] = (StrengthAt(at=0, strength=1.0),)
    operations: Annotated[interventions.Intervention, Key(beside=True)]

    def strength_at(self, batch_size: int, seen: int) -> float:
        """Return the strength in the batch that begins at `seen` sequences seen; points lie at whole batches."""
        before = self.strength[0]
        for point in self.strength:
            start, end = (round_up(one.at, batch_size) for one in (before, point))
            if seen < end:
                passed = (seen - start) / (end - start) if seen > start else 0.0
                return before.strength + passed * (point.strength - before.strength)
            before = point
        return before.strength

    def at(self, batch_size: int, seen: int) -> interventions.Intervention:
        """Return what is done to the batch that begins at `seen` sequences seen; nothing at strength 0."""
        strength = self.strength_at(batch_size, seen)
        if not strength:
            return interventions.Intervention()
        return self.operations if strength == 1 else self.operations.scaled(strength)


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """Parameters that do not move for some time: no gradient, L2 or weight decay reaches them, nor do moments change.

    The norm that `clip` bounds is that of the gradient of what moves. A frozen array's optimizer counts its own steps.
    parameters: their names, in forward order; a study may name components. until: 0 is as long as training goes on.
    """

    parameters: Annotated[
        tuple[str, ...],
        Key(
            "which do not move: embedder, encoder, attention, mlp, norm, unembedding (components, as of L2), "
            "parameters by name, or blocks.0.*; [] = none",
            unique=True,
        ),
    ] = ()
    from_: Annotated[
        int, Key("sequences seen from which on, rounded up to whole batches", unit="sequences seen", minimum=0)
    ] = 0
    until: Annotated[
        int,
        Key(
            "sequences seen from which on they move again; 0 = as long as training goes on",
            unit="sequences seen",
            minimum=0,
        ),
    ] = 0

    def bounds(self, batch_size: int) -> list[int]:
        """Return the sequences seen at which it begins and ends, in whole batches; nothing where it is none."""
        if not self.parameters:
            return []
        return [round_up(point, batch_size) for point in ((self.from_, self.until) if self.until else (self.from_,))]

    def holds(self, batch_size: int, seen: int) -> bool:
        """Return whether it holds for the batch that begins at `seen` sequences seen."""
        begin, *end = self.bounds(batch_size) or [seen + 1]
        return begin <= seen and (not end or seen < end[0])

    def frozen_sequences(self, batch_size: int, seen: int) -> int:
        """Return during how many of the first `seen` sequences it held."""
        begin, *end = self.bounds(batch_size) or [seen]
        return max(min([seen, *end]) - begin, 0)


@dataclass(frozen=True, kw_only=True)
class StartFrom:
    """Initial weights are those of another run's snapshot, of the same seed's lane; moments and batches begin at 0.

    As a study writes it. What a Run has is the id of the run, and a number of sequences seen; "" is random weights.
    """

    run: Annotated[
        str,
        Key(
            "a run of this experiment, or EXPERIMENT/RUN of this study, with the same tensor shapes and the same "
            "seeds; '' = random weights"
        ),
    ] = ""
    at: Annotated[
        int | str,
        Key("at which of its snapshots, in sequences seen; end: its last one up to its horizon", minimum=0),
    ] = "end"

    @property
    def sequences_seen(self) -> int:
        """Return `at` as a number. Raises ValueError where a study's `end` has not been resolved."""
        return int(self.at)

    def __bool__(self) -> bool:
        """Return whether there is such a run."""
        return bool(self.run)


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
