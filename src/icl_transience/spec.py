"""What is to be made, as values: banks, recipes, models, optimizers, runs, lanes, evaluator sets.

Frozen dataclasses that hold fully resolved values, and their identities: the hash of what shapes a file's content
and of nothing else. Only the standard library is imported, so a training job needs no YAML.

A field added after results exist carries `neutral` in its metadata, the value at which it changes nothing; at that
value it stays out of the identity, and earlier results are found again.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

# Bumped by hand when the same values come to mean another content; editing code does not invalidate results.
SEMANTICS = {"bank": 1, "sequences": 1, "training": 1}
# Whose numbers enter a stage's identity: its own, and those of what it is made from.
_MADE_FROM = {"bank": ("bank",), "sequences": ("bank", "sequences"), "training": ("bank", "training")}

T = typing.TypeVar("T")

EVALUATORS = ("train", "icl", "iwl", "ciwl", "flip", "icl_holdout", "icl_new_exemplar")


def evaluator_at(name: str, context: int) -> str:
    """The name of an evaluator whose context is `context` items instead of the training one's."""
    return f"{name}@{context}"


def evaluator_parts(evaluator: str) -> tuple[str, int | None]:
    """(name among EVALUATORS, context length), None where it is that of training."""
    name, _, context = evaluator.partition("@")
    return name, int(context) if context else None


def in_order(evaluators: Iterable[str]) -> list[str]:
    """As in EVALUATORS, each followed by itself at other context lengths, the shortest first."""

    def place(evaluator: str) -> tuple[int, int]:
        name, context = evaluator_parts(evaluator)
        return EVALUATORS.index(name), context or 0

    return sorted(evaluators, key=place)


class StudyError(ValueError):
    """What the user asked for cannot be done; the message says which value, what was expected, what to do."""


class MissingSourceError(StudyError):
    """A bank's source files are not at hand: no folder is named for them, or the file is not in it."""


@dataclass(frozen=True, kw_only=True)
class BankShape:
    """Sizes of a bank [n_classes, n_exemplars, width]; training classes and exemplars come first."""

    n_classes: int
    n_exemplars: int
    n_train_classes: int
    n_train_exemplars: int
    width: int

    def class_range(self, part: str) -> tuple[int, int]:
        """(first class, number of classes) of `part`, "train" or "holdout"."""
        return _part(part, self.n_train_classes, self.n_classes)

    def exemplar_range(self, part: str) -> tuple[int, int]:
        """(first exemplar, number of exemplars) of `part`, "train" or "holdout"."""
        return _part(part, self.n_train_exemplars, self.n_exemplars)


def _part(part: str, n_train: int, n_all: int) -> tuple[int, int]:
    return (0, n_train) if part == "train" else (n_train, n_all - n_train)


@dataclass(frozen=True, kw_only=True)
class _Split:
    """So many classes and exemplars to train on and held out, of `dim` coordinates."""

    classes: int
    holdout_classes: int
    exemplars: int
    holdout_exemplars: int
    dim: int

    @property
    def shape(self) -> BankShape:
        return BankShape(
            n_classes=self.classes + self.holdout_classes,
            n_exemplars=self.exemplars + self.holdout_exemplars,
            n_train_classes=self.classes,
            n_train_exemplars=self.exemplars,
            width=self.dim,
        )


@dataclass(frozen=True, kw_only=True)
class Gaussian(_Split):
    noise: float


@dataclass(frozen=True, kw_only=True)
class Manifold(Gaussian):
    """Gaussian in `latent_dim` coordinates, seen in `dim`; see banks/manifold.py."""

    latent_dim: int
    curvature: float


@dataclass(frozen=True, kw_only=True)
class OneHot:
    """One exemplar a class, a coordinate each; see banks/onehot.py."""

    classes: int
    holdout_classes: int
    value: float

    @property
    def shape(self) -> BankShape:
        n_classes = self.classes + self.holdout_classes
        return BankShape(
            n_classes=n_classes,
            n_exemplars=1,
            n_train_classes=self.classes,
            n_train_exemplars=1,
            width=n_classes,
        )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How the encoder `trained` is trained; see banks/trained.py."""

    epochs: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Omniglot:
    """Drawings of characters. variants: classes of each character, 8 (4 rotations x 2 flips) or 1, as drawn."""

    zips: tuple[str, ...]
    characters: int
    holdout_characters: int
    exemplars: int
    holdout_exemplars: int
    side: int
    encoder: str
    dim: int
    scale: str = field(default="standard", metadata={"neutral": "standard"})
    layout: str = field(default="corrected", metadata={"neutral": "corrected"})
    weights: str = field(default="", metadata={"neutral": ""})
    variants: int = field(default=8, metadata={"neutral": 8})
    trained: Trained | None = None

    @property
    def shape(self) -> BankShape:
        return BankShape(
            n_classes=(self.characters + self.holdout_characters) * self.variants,
            n_exemplars=self.exemplars + self.holdout_exemplars,
            n_train_classes=self.characters * self.variants,
            n_train_exemplars=self.exemplars,
            width=self.dim,
        )


@dataclass(frozen=True, kw_only=True)
class _Cut(_Split):
    """What is taken out of a file."""

    file: str
    scale: str


@dataclass(frozen=True, kw_only=True)
class Tokens(_Cut):
    """Clusters of rows of the embedding matrix `tensor`; see banks/tokens.py."""

    tensor: str
    skip_rows: int
    rows: str
    clusters: int
    members: str
    encoder: str
    skip_last_rows: int = field(default=0, metadata={"neutral": 0})


@dataclass(frozen=True, kw_only=True)
class Imported(_Cut):
    """The leading classes and exemplars of the HDF5 array at `path`; see banks/imported.py."""

    path: str


@dataclass(frozen=True, kw_only=True)
class BankSpec:
    """The section of its own source is set, the others are None. files: SHA-256 of the source files, in order."""

    source: str
    seed: int
    gaussian: Gaussian | None = None
    manifold: Manifold | None = None
    onehot: OneHot | None = None
    omniglot: Omniglot | None = None
    tokens: Tokens | None = None
    imported: Imported | None = None
    files: tuple[str, ...] = ()

    @property
    def parameters(self) -> Gaussian | Manifold | OneHot | Omniglot | Tokens | Imported:
        return getattr(self, self.source)

    @property
    def shape(self) -> BankShape:
        return self.parameters.shape

    @property
    def uses_resnet18(self) -> bool:
        return self.omniglot is not None and self.omniglot.encoder == "resnet18"

    @property
    def slug(self) -> str:
        return f"{self.source}-{self.shape.n_train_classes}x{self.shape.n_train_exemplars}"

    @property
    def id(self) -> str:
        return f"{self.slug}-{identity('bank', self)}"


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


@dataclass(frozen=True, kw_only=True)
class Positions:
    """How a token learns its place.

    kind: "sinusoid", added to the embeddings; "learned", a table of as many places as training sequences have tokens,
    added too; "rotary", queries and keys turned by it; "none". base: of the wavelengths of "sinusoid" and "rotary".
    """

    kind: str = "sinusoid"
    base: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Init:
    distribution: str = "pytorch"
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Model:
    depth: int
    width: int
    heads: int
    mlp_ratio: int
    positions: Positions = Positions()
    init: Init = Init()
    dropout: float = field(default=0.0, metadata={"neutral": 0.0})


# The parts of the model whose L2 can differ; model.component says which arrays are whose.
COMPONENTS = ("embedder", "attention", "mlp", "norm", "unembedding")


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


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training configuration: everything that shapes the weights but the seed. No horizon.

    interventions: in the order in which they come; before the first, `recipe` and `optimizer` hold.
    """

    bank: BankSpec
    recipe: Recipe
    model: Model
    optimizer: Optimizer
    batch_size: int
    numerics: str
    snapshots: Snapshots
    forgetting: Forgetting = field(default=Forgetting(), metadata={"neutral": Forgetting()})
    interventions: tuple[Intervention, ...] = field(default=(), metadata={"neutral": ()})

    @property
    def id(self) -> str:
        return identity("training", self)

    @property
    def n_labels(self) -> int:
        """Labels the model knows."""
        return self.recipe.n_labels(self.bank.shape.n_train_classes)

    @property
    def tensor_shape(self) -> str:
        """Runs with equal values here can train as one batched model: all but what each lane has of its own."""
        values = identity_values(self)
        values["model"].pop("init")
        for key in ("learning_rate", "l2", "clip", "momentum", "weight_decay", "schedule"):
            values["optimizer"].pop(key, None)
        for key in ("forgetting", "interventions"):
            values.pop(key, None)
        values["recipe"] = {"context": self.recipe.context, "labels": self.recipe.labelling.labels}
        return canonical(values)

    @property
    def recipes(self) -> list[Recipe]:
        """All that hold at some time."""
        return [self.recipe, *(change.recipe for change in self.interventions)]

    def at(self, seen: int) -> "Run":
        """This run as the batch that begins at `seen` sequences seen has it: with the recipe and optimizer then."""
        recipe, optimizer = self.recipe, self.optimizer
        for change in self.interventions:
            if round_up(change.at, self.batch_size) <= seen:
                recipe, optimizer = change.recipe, change.optimizer
        return dataclasses.replace(self, recipe=recipe, optimizer=optimizer, interventions=())

    def changes(self, start: int, until: int) -> set[int]:
        """Sequences seen, after `start` and before `until`, at which what holds changes or labels are forgotten."""
        points = {round_up(change.at, self.batch_size) for change in self.interventions}
        if every := round_up(self.forgetting.every, self.batch_size):
            last = round_up(self.forgetting.until, self.batch_size) if self.forgetting.until else until
            points.update(range(start - start % every + every, min(last + 1, until), every))
        return {point for point in points if start < point < until}


@dataclass(frozen=True, kw_only=True, order=True)
class Seed:
    init: int
    data: int

    @property
    def label(self) -> str:
        """As it stands in tables: one number where both are the same."""
        return str(self.init) if self.init == self.data else f"init{self.init}-data{self.data}"


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A run with a seed: the unit that has one curve."""

    run: Run
    seed: Seed


@dataclass(frozen=True, kw_only=True)
class SequenceSet:
    """The frozen sequences of all evaluators of one study on one bank.

    recipe: the training one. evaluators: names as of `evaluator_at`, or of EVALUATORS alone.
    """

    bank: BankSpec
    recipe: Recipe
    evaluators: tuple[str, ...]
    sequences: int
    seed: int

    @property
    def id(self) -> str:
        return f"{self.bank.slug}-{identity('sequences', self)}"


@dataclass(frozen=True, kw_only=True)
class Export:
    """What others' code reads of a run: its evaluators, and its first training sequences with this seed."""

    run: Run
    sequence_set: SequenceSet
    seed: Seed
    training_sequences: int

    @property
    def id(self) -> str:
        return f"{self.run.id}/{self.sequence_set.id}/{self.seed.data}/{self.training_sequences}"


def engine_problem(engine: str, device: str, run: Run) -> str | None:
    """Why `engine` (see engines.py) cannot compute the run on the device, as far as that can be known beforehand."""
    wanted = {"native": "cpu", "graph": "cuda"}.get(engine)
    if wanted and not device.startswith(wanted):
        return f"engine: {engine} is for device {wanted}, got device {device!r}: choose auto or eager"
    unable = {"native": _not_native, "graph": _not_graph}
    problem = next(unable[engine](run), None) if engine in unable else None
    return problem and f"engine: {engine} {problem}: choose auto or eager"


def _not_native(run: Run) -> Iterator[str]:
    if run.numerics == "float64":
        yield "does not compute in float64"
    if run.model.dropout:
        yield "has no dropout"
    if run.model.positions.kind == "rotary":
        yield "has no rotary positions"


def _not_graph(run: Run) -> Iterator[str]:
    """A step is recorded once, so nothing in it may change."""
    if run.recipe.input_noise:
        yield "draws no input noise"
    if run.model.dropout:
        yield "has no dropout"
    if run.interventions or run.forgetting.every or not run.optimizer.schedule.is_flat:
        yield "knows no learning-rate schedules, interventions or forgetting"


def round_up(sequences: int, batch_size: int) -> int:
    """The number of sequences in whole batches that is at least `sequences`."""
    return -(-sequences // batch_size) * batch_size


def canonical(values: Any) -> str:
    """One string for equal values: JSON with sorted keys and no spaces."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def identity_values(value: Any) -> Any:
    """Plain values of a dataclass, without fields at their neutral value and sections that are None."""
    if dataclasses.is_dataclass(value):
        return {
            f.name: identity_values(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if getattr(value, f.name) is not None
            and not ("neutral" in f.metadata and getattr(value, f.name) == f.metadata["neutral"])
        }
    return [identity_values(item) for item in value] if isinstance(value, tuple) else value


def identity(stage: str, value: Any) -> str:
    """Twelve hexadecimal digits that stand for everything that shapes the content."""
    content = canonical({"stage": stage, "semantics": semantics_of(stage), "values": identity_values(value)})
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def semantics_of(stage: str) -> list[int]:
    """The numbers that say what values of this stage mean; see SEMANTICS."""
    return [SEMANTICS[made_from] for made_from in _MADE_FROM[stage]]


def from_values(kind: type[T], values: dict[str, Any]) -> T:
    """The dataclass `kind` from plain values, numbers brought to the declared type (so 30 and 30.0 are one)."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _typed(hints[name], value) for name, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(hint, types.UnionType):  # what may be absent
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    if dataclasses.is_dataclass(hint):
        return from_values(hint, value)
    if typing.get_origin(hint) is tuple:
        return tuple(_typed(typing.get_args(hint)[0], item) for item in value)
    return hint(value)
