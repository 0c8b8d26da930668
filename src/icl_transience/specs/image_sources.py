"""Sources of drawings and other pictures: their keys, and the sizes of a bank made from one, embedded or of images."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from icl_transience.specs.keys import Key, neutral
from icl_transience.specs.sources import BankShape, ImageShape


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How the encoder `trained` is trained; see banks/trained.py."""

    epochs: Annotated[
        int, Key("times that the encoder `trained` sees every training drawing", default=8, unit="epochs", minimum=1)
    ]
    batch_size: Annotated[int, Key("drawings in a step of its training", default=64, unit="drawings", minimum=2)]
    learning_rate: Annotated[
        float, Key("of its training (Adam) at the highest; it rises to it and falls to 0", default=0.005, above=0)
    ]


_Zip = Annotated[
    str,
    Key(
        choices=(
            "images_background_small1.zip",
            "images_background_small2.zip",
            "images_background.zip",
            "images_evaluation.zip",
        )
    ),
]


# Keys that both sources have.
_Encoder = Annotated[
    str,
    Key(
        "from pixels to embeddings: principal components; the pixels; ResNet-18 trained on "
        "ImageNet; a small ResNet trained here on the bank's training classes; none = the bank holds images, each "
        "drawing once, for a model whose embedder is trained with it",
        default="pca",
        choices=("pca", "pixels", "resnet18", "trained", "none"),
    ),
]
_Dim = Annotated[
    int,
    Key(
        "coordinates of an exemplar after encoding: side x side (x channels) for pixels, 512 for resnet18; of no "
        "effect for none",
        default=64,
        unit="coordinates",
        minimum=1,
    ),
]
_Scale = Annotated[
    str,
    Key(
        "centred and divided by one number (a coordinate's mean square is 1), or as the encoder "
        "gives them; pca has its own",
        choices=("standard", "raw"),
    ),
]
_Weights = Annotated[
    str, Key("of resnet18: torchvision's published file, beside the source's own", default="resnet18-f37072fd.pth")
]


class _Pictures:
    """What both sources are: images of a number of classes, stored once, under one or several views."""

    variants: int
    exemplars: int
    holdout_exemplars: int
    side: int
    encoder: str
    dim: int

    @property
    def stored(self) -> tuple[int, int]:
        """Return how many classes are stored to train on, and in all; each is as many classes as it has variants."""
        raise NotImplementedError

    @property
    def n_channels(self) -> int:
        """Return the numbers of a pixel."""
        raise NotImplementedError

    @property
    def image_shape(self) -> ImageShape:
        """Return the sizes of the images that the bank holds or that are embedded."""
        return ImageShape(side=self.side, channels=self.n_channels, views=self.variants)

    @property
    def images(self) -> ImageShape | None:
        """Return the sizes of its images where the bank holds images; None where it holds embeddings."""
        return self.image_shape if self.encoder == "none" else None

    @property
    def stored_classes(self) -> int:
        """Return how many classes are stored in all."""
        return self.stored[1]

    @property
    def shape(self) -> BankShape:
        """Return the sizes of the bank."""
        n_train, n_all = self.stored
        return BankShape(
            n_classes=n_all * self.variants,
            n_exemplars=self.exemplars + self.holdout_exemplars,
            n_train_classes=n_train * self.variants,
            n_train_exemplars=self.exemplars,
            width=self.images.width if self.images else self.dim,
        )


@dataclass(frozen=True, kw_only=True)
class Omniglot(_Pictures):
    """Drawings of characters; a character is as many classes as it has variants, turned and flipped, or as drawn."""

    source: ClassVar[str] = "omniglot"

    zips: Annotated[
        tuple[_Zip, ...],
        Key(
            "files of the public data set to read, from the folder `omniglot` of config.yaml or ICL_OMNIGLOT",
            default=("images_background_small1.zip", "images_background_small2.zip"),
            fewest=1,
            unique=True,
        ),
    ]
    characters: Annotated[
        int,
        Key(
            "characters to train on; each is as many classes as it has `variants`",
            default=200,
            unit="characters",
            minimum=1,
        ),
    ]
    holdout_characters: Annotated[
        int, Key("characters kept back, for icl_holdout", default=42, unit="characters", minimum=0)
    ]
    variants: Annotated[
        int, Key("of a character, a class each: 4 rotations x 2 flips, or as it was drawn", choices=(8, 1))
    ] = neutral(8)
    exemplars: Annotated[
        int, Key("drawings of a character to train on", default=10, unit="drawings", minimum=1, maximum=20)
    ]
    holdout_exemplars: Annotated[
        int, Key("drawings kept back, for icl_new_exemplar", default=10, unit="drawings", minimum=0, maximum=19)
    ]
    side: Annotated[int, Key("pixels a side after box downsampling", default=28, unit="pixels", minimum=4, maximum=105)]
    encoder: _Encoder
    dim: _Dim
    scale: _Scale = neutral("standard")
    layout: Annotated[
        str,
        Key(
            "released: the authors' released classes, for comparison with published curves: an index "
            "mix-up makes each of them 20 turned and flipped copies of 3 drawings, and puts some "
            "characters on both sides of the split",
            choices=("corrected", "released"),
        ),
    ] = neutral("corrected")
    weights: _Weights = neutral("")
    trained: Annotated[Trained | None, Key("how the encoder `trained` is trained")] = None

    @property
    def stored(self) -> tuple[int, int]:
        """See _Pictures."""
        return self.characters, self.characters + self.holdout_characters

    @property
    def n_channels(self) -> int:
        """See _Pictures."""
        return 1


@dataclass(frozen=True, kw_only=True)
class Images(_Pictures):
    """Pictures in a folder for each class, as most data sets of images are kept; see banks/images.py."""

    source: ClassVar[str] = "images"

    file: Annotated[
        str,
        Key(
            "folder that has a folder of .png, .jpg or .jpeg files for each class, or a zip of one, in the folder "
            "`images` of config.yaml or ICL_IMAGES; empty = that folder itself",
            default="",
        ),
    ]
    classes: Annotated[
        int,
        Key(
            "folders of images to train on; each is as many classes as it has `variants`",
            default=40,
            unit="folders",
            minimum=1,
        ),
    ]
    holdout_classes: Annotated[int, Key("folders kept back, for icl_holdout", default=10, unit="folders", minimum=0)]
    exemplars: Annotated[int, Key("images of a folder to train on", default=16, unit="images", minimum=1)]
    holdout_exemplars: Annotated[
        int, Key("images of a folder kept back, for icl_new_exemplar", default=4, unit="images", minimum=0)
    ]
    small_classes: Annotated[
        str,
        Key(
            "a folder with fewer images than `exemplars` + `holdout_exemplars`: the study is refused, or the folder is "
            "left out. Of one with more, as many are drawn",
            default="refused",
            choices=("refused", "left_out"),
        ),
    ]
    variants: Annotated[
        int, Key("of a folder, a class each: 4 rotations x 2 flips, or as the images are", default=1, choices=(1, 8))
    ]
    side: Annotated[
        int,
        Key(
            "pixels a side, to which the largest square in the middle of an image is brought: averaged over boxes, or "
            "enlarged bilinearly",
            default=28,
            unit="pixels",
            minimum=4,
            maximum=512,
        ),
    ]
    channels: Annotated[int, Key("shades of grey, or red, green and blue", default=1, choices=(1, 3))]
    mixed_sizes: Annotated[
        str,
        Key(
            "images of different sizes: brought to `side` all the same, or refused",
            default="resized",
            choices=("resized", "refused"),
        ),
    ]
    encoder: _Encoder
    dim: _Dim
    scale: Annotated[_Scale, Key(default="standard")]
    weights: _Weights = neutral("")
    trained: Annotated[Trained | None, Key("how the encoder `trained` is trained")] = None

    @property
    def stored(self) -> tuple[int, int]:
        """See _Pictures."""
        return self.classes, self.classes + self.holdout_classes

    @property
    def n_channels(self) -> int:
        """See _Pictures."""
        return self.channels
