"""Where exemplars come from: the keys of each source, and the sizes of a bank made from it."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from icl_transience.specs.keys import Key, neutral


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


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """Sizes of the images of a bank of images.

    side: pixels. channels: 1 is grey, 3 are red, green and blue. views: classes that one stored class makes, by
    rotations and flips; class k of the bank is stored class k // views under view k % views.
    """

    side: int
    channels: int
    views: int

    @property
    def width(self) -> int:
        """Return the numbers that an image has."""
        return self.side**2 * self.channels

    @property
    def measured_side(self) -> int:
        """Return the pixels a side of the shades of grey on which the bank's quality is measured.

        Larger images are averaged over boxes: quality is that of their coarse pixels, and all of them fit memory.
        """
        return min(self.side, 28)


def _part(part: str, n_train: int, n_all: int) -> tuple[int, int]:
    return (0, n_train) if part == "train" else (n_train, n_all - n_train)


# Sizes that several sources have.
_Classes = Annotated[int, Key("classes to train on", unit="classes", minimum=2)]
_HoldoutClasses = Annotated[int, Key("classes kept back, for icl_holdout", unit="classes", minimum=0)]
_Exemplars = Annotated[int, Key("exemplars of a class to train on", unit="exemplars", minimum=1)]
_HoldoutExemplars = Annotated[
    int, Key("exemplars of a class kept back, for icl_new_exemplar", unit="exemplars", minimum=0)
]
_Dim = Annotated[int, Key("coordinates of an exemplar", unit="coordinates", minimum=1)]


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A number of classes and exemplars to train on and held out, of `dim` coordinates."""

    classes: _Classes
    holdout_classes: _HoldoutClasses
    exemplars: _Exemplars
    holdout_exemplars: _HoldoutExemplars
    dim: _Dim

    @property
    def shape(self) -> BankShape:
        """Return the sizes of the bank."""
        return BankShape(
            n_classes=self.classes + self.holdout_classes,
            n_exemplars=self.exemplars + self.holdout_exemplars,
            n_train_classes=self.classes,
            n_train_exemplars=self.exemplars,
            width=self.dim,
        )


@dataclass(frozen=True, kw_only=True)
class Gaussian(_Split):
    """Exemplars that scatter about their class's mean; see banks/gaussian.py."""

    source: ClassVar[str] = "gaussian"

    classes: Annotated[_Classes, Key(default=1200)]
    holdout_classes: Annotated[_HoldoutClasses, Key(default=100)]
    exemplars: Annotated[_Exemplars, Key(default=20)]
    holdout_exemplars: Annotated[_HoldoutExemplars, Key(default=10)]
    dim: Annotated[_Dim, Key(default=14)]
    noise: Annotated[
        float,
        Key("within-class over between-class standard deviation (Reddy's epsilon)", default=0.5, minimum=0),
    ]


@dataclass(frozen=True, kw_only=True)
class Manifold(Gaussian):
    """Gaussian in `latent_dim` coordinates, seen in `dim`; see banks/manifold.py."""

    source: ClassVar[str] = "manifold"

    classes: Annotated[_Classes, Key(default=1600)]
    exemplars: Annotated[_Exemplars, Key(default=16)]
    holdout_exemplars: Annotated[_HoldoutExemplars, Key(default=4)]
    dim: Annotated[_Dim, Key(default=64)]
    noise: Annotated[
        float,
        Key("within-class over between-class standard deviation, in latent coordinates", default=0.5, minimum=0),
    ]
    latent_dim: Annotated[
        int, Key("coordinates in which a class is Gaussian", default=6, unit="coordinates", minimum=1)
    ]
    curvature: Annotated[
        float,
        Key(
            "standard deviation over latents, in radians, of the angle behind each coordinate; small = nearly linear",
            default=2.6,
            unit="radians",
            above=0,
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class OneHot:
    """One exemplar a class, a coordinate each; see banks/onehot.py."""

    source: ClassVar[str] = "onehot"

    classes: Annotated[_Classes, Key("classes to train on, a coordinate each", default=800)]
    holdout_classes: Annotated[
        _HoldoutClasses, Key("classes kept back, for icl_holdout; a coordinate each", default=100)
    ]
    value: Annotated[
        float,
        Key(
            "of the coordinate that is not 0; the root of the number of classes gives mean square 1, as other sources "
            "have",
            default=1,
            above=0,
        ),
    ]

    @property
    def shape(self) -> BankShape:
        """Return the sizes of the bank."""
        n_classes = self.classes + self.holdout_classes
        return BankShape(
            n_classes=n_classes,
            n_exemplars=1,
            n_train_classes=self.classes,
            n_train_exemplars=1,
            width=n_classes,
        )


@dataclass(frozen=True, kw_only=True)
class Tokens(_Split):
    """Clusters of rows of the embedding matrix `tensor`; see banks/tokens.py."""

    source: ClassVar[str] = "tokens"

    file: Annotated[
        str,
        Key(
            "*.safetensors file, index of a sharded checkpoint, or folder of either, in the folder "
            "`tokens` of config.yaml or ICL_TOKENS; empty = that folder is the checkpoint",
            default="",
        ),
    ]
    tensor: Annotated[
        str, Key("name of the embedding matrix [tokens, dim]; empty = the one that is named as usual", default="")
    ]
    skip_rows: Annotated[
        int, Key("leading rows left out: special and unused tokens", default=0, unit="rows", minimum=0)
    ]
    skip_last_rows: Annotated[
        int,
        Key(
            "trailing rows left out: what pads the vocabulary to a round number, and added tokens",
            unit="rows",
            minimum=0,
        ),
    ] = neutral(0)
    rows: Annotated[
        str,
        Key(
            "as in the file, or each divided by its norm, which gives clusters of more equal sizes",
            default="raw",
            choices=("raw", "unit"),
        ),
    ]
    clusters: Annotated[
        int, Key("of k-means; those with enough members are classes", default=2000, unit="clusters", minimum=2)
    ]
    classes: Annotated[_Classes, Key(default=400)]
    holdout_classes: Annotated[_HoldoutClasses, Key(default=50)]
    exemplars: Annotated[_Exemplars, Key(default=8)]
    holdout_exemplars: Annotated[_HoldoutExemplars, Key(default=2)]
    members: Annotated[
        str,
        Key(
            "which rows of a cluster are exemplars: nearest to the centroid, or farthest from each other",
            default="nearest",
            choices=("nearest", "farthest"),
        ),
    ]
    encoder: Annotated[
        str,
        Key(
            "pca: principal components, one scale for all; table: the rows themselves",
            default="pca",
            choices=("pca", "table"),
        ),
    ]
    scale: Annotated[
        str,
        Key(
            "of encoder table: centred and divided by one number (a coordinate's mean square is 1), or as in the file",
            default="standard",
            choices=("standard", "raw"),
        ),
    ]
    dim: Annotated[_Dim, Key("coordinates of an exemplar after encoding", default=64)]


@dataclass(frozen=True, kw_only=True)
class Imported(_Split):
    """The leading classes and exemplars of an array in a file of HDF5 or NumPy; see banks/imported.py."""

    source: ClassVar[str] = "imported"

    file: Annotated[
        str,
        Key(
            "HDF5 file, or NumPy's .npy or .npz, in the folder `imported` of config.yaml or ICL_IMPORTED",
            default="embeddings.h5",
        ),
    ]
    path: Annotated[
        str,
        Key(
            "of the array [class, exemplar, dim] in the file; training classes and exemplars first; an .npy has but "
            "one",
            default="embeddings",
        ),
    ]
    classes: Annotated[_Classes, Key(default=1600)]
    holdout_classes: Annotated[_HoldoutClasses, Key(default=100)]
    exemplars: Annotated[_Exemplars, Key(default=16)]
    holdout_exemplars: Annotated[_HoldoutExemplars, Key(default=4)]
    scale: Annotated[
        str,
        Key(
            "centred and divided by one number (a coordinate's mean square is 1), or as in the file; to be said",
            choices=("standard", "raw"),
        ),
    ]
    dim: Annotated[_Dim, Key("coordinates of an exemplar in the file", default=64)]
