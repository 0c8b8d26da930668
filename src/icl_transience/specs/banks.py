"""TODO"""

from dataclasses import dataclass, field
from typing import TypeVar

from icl_transience.specs.identity import Identified, identity


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


OneSource = TypeVar("OneSource", Gaussian, Manifold, OneHot, Omniglot, Tokens, Imported)


@dataclass(frozen=True, kw_only=True)
class BankSpec(Identified):
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

    def parameters_of(self, kind: type[OneSource]) -> OneSource:
        """Return the parameters of a bank that is of this source. Raises TypeError where it is of another."""
        parameters = self.parameters
        if not isinstance(parameters, kind):
            raise TypeError(f"bank {self.id} is of source {self.source}, expected {kind.__name__}")
        return parameters

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
