"""From pictures to a bank, whatever source they are from: views as classes, encoders, or the images themselves."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from icl_transience.banks import encoders, resnet, trained
from icl_transience.banks.bank import Bank, ImageBank
from icl_transience.banks.drawings import rotate_and_flip
from icl_transience.specs.banks import BankSpec, Images, Omniglot
from icl_transience.system.progress import Progress

# Of ImageNet's images, as torchvision's weights expect.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Pixels a side that ResNet-18 takes.
LARGE = 224


@dataclass(frozen=True)
class Layout:
    """Which picture every exemplar of a bank is.

    stored: int64 [classes], indices into the bank's order of characters or folders.
    variant: int64 [classes, exemplars], rotation * 2 + flip.
    drawing: int64 [classes, exemplars], indices into the bank's order of drawings.
    """

    stored: np.ndarray
    variant: np.ndarray
    drawing: np.ndarray

    def pick(self, of_all: np.ndarray) -> np.ndarray:
        """Arrange an array [stored classes, variants, drawings, ...] as [classes, exemplars, ...]."""
        return of_all[self.stored[:, None], self.variant, self.drawing]


def straight(n_stored: int, n_variants: int, n_exemplars: int) -> Layout:
    """Return the layout in which class k is stored class k // n_variants under variant k % n_variants."""
    stored, variant = np.divmod(np.arange(n_stored * n_variants), n_variants)
    shape = len(stored), n_exemplars
    return Layout(stored, np.broadcast_to(variant[:, None], shape), np.broadcast_to(np.arange(n_exemplars), shape))


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures that a bank is made from, in the bank's order, each once.

    small: yields those of each stored class, float32 [drawings, side, side, channels] in [0, 1]. large: the same for
    ResNet-18, uint8 [drawings, LARGE, LARGE, channels], paper 255.
    contact, class_table, exemplar_table: as of Bank.
    """

    placed: Layout
    small: Callable[[], Iterator[np.ndarray]]
    large: Callable[[], Iterator[np.ndarray]]
    contact: np.ndarray
    class_table: Mapping[str, np.ndarray]
    exemplar_table: Mapping[str, np.ndarray]


def of_source(spec: BankSpec, files: Sequence[Path]) -> Pictures:
    """Return the pictures of a bank by the module that is named like its source."""
    return importlib.import_module(f"icl_transience.banks.{spec.source}").pictures(spec, files)


def build(spec: BankSpec, files: Sequence[Path], log: TextIO | None = None) -> Bank | ImageBank:
    """Make the bank of `spec` from its files: the source's, then the file that its encoder reads, if any.

    That file has the weights of `resnet18`, or of the trained encoder. log: gets the progress of `resnet18`.
    """
    pictures, parameters, shape = of_source(spec, files), _parameters(spec), spec.shape
    if images := parameters.images:
        size = parameters.stored_classes, shape.n_exemplars, images.side, images.side, images.channels
        stored = np.empty(size, np.uint8)
        for number, of_class in enumerate(pictures.small()):
            stored[number] = np.round(255 * of_class)
        return ImageBank(
            images=stored,
            views=images.views,
            n_train_classes=shape.n_train_classes,
            n_train_exemplars=shape.n_train_exemplars,
            contact=pictures.contact,
            class_table=pictures.class_table,
            exemplar_table=pictures.exemplar_table,
        )
    if parameters.encoder == "resnet18":
        embeddings = pictures.placed.pick(_resnet18(spec, pictures.large(), files[-1], log))
    else:
        small = _all(spec, pictures)
        if parameters.encoder == "trained":
            embeddings = trained.embed(trained.load(files[-1], spec), small)
        else:
            embeddings = small.reshape(*small.shape[:2], -1)
    training = embeddings[: shape.n_train_classes, : shape.n_train_exemplars]
    if parameters.encoder == "pca":
        encode = encoders.fit_pca(training, parameters.dim)
    else:
        encode = encoders.fit_scale(training, parameters.scale)
    return Bank(
        embeddings=encode(embeddings),
        n_train_classes=shape.n_train_classes,
        n_train_exemplars=shape.n_train_exemplars,
        contact=pictures.contact,
        often_equal=parameters.encoder != "pca",
        class_table=pictures.class_table,
        exemplar_table=pictures.exemplar_table,
    )


def training_images(spec: BankSpec, files: Sequence[Path]) -> np.ndarray:
    """Return what an encoder is trained on: float32 [classes, exemplars, side, side, channels], training ones only."""
    return _all(spec, of_source(spec, files))[: spec.shape.n_train_classes, : spec.shape.n_train_exemplars]


def _parameters(spec: BankSpec) -> Omniglot | Images:
    if spec.pictures is None:
        raise TypeError(f"bank {spec.id} is of source {spec.source}, expected one of pictures")
    return spec.pictures


def _all(spec: BankSpec, pictures: Pictures) -> np.ndarray:
    """Return all images in all variants, float32 [classes, exemplars, side, side, channels]."""
    variants = _parameters(spec).image_shape.views
    return pictures.placed.pick(rotate_and_flip(np.stack(list(pictures.small())), variants))


def _resnet18(spec: BankSpec, large: Iterator[np.ndarray], weights: Path, log: TextIO | None) -> np.ndarray:
    """Embed pictures by ResNet-18: float32 [stored classes, variants, drawings, 512].

    Images are prepared as by torchvision's transforms: three channels, equal ones of grey, ImageNet's mean and standard
    deviation. large: as of Pictures.
    """
    model, variants = resnet.load_resnet18(weights), _parameters(spec).image_shape.views
    images = _parameters(spec).stored_classes * spec.shape.n_exemplars * variants
    progress = Progress("resnet18", 0, images, 1, log, unit="images")
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    embeddings, seen = [], 0
    for of_class in large:
        # [variants, drawings, channels, LARGE, LARGE]
        views = np.moveaxis(rotate_and_flip(of_class[None], variants)[0], -1, 2)
        of_variants = []
        for batch in torch.from_numpy(np.ascontiguousarray(views)):
            images = ((batch / 255).expand(-1, 3, -1, -1) - mean) / std
            with torch.inference_mode():
                of_variants.append(model(images))
            seen += len(batch)
            progress(seen)
        embeddings.append(torch.stack(of_variants))
    return torch.stack(embeddings).numpy()


def contact_of(small: np.ndarray, placed: Layout, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the contact sheet, uint8 [rows, columns, side, side, channels], of images in [0, 1].

    rows: int [rows, 1], classes. columns: int [1, columns], exemplars; see bank.contact_sheet. small: float32 [shown,
    drawings, side, side, channels], of the stored classes that these rows are of, each once, in their order.
    """
    shown = Layout(placed.stored[rows[:, 0]], placed.variant[rows, columns], placed.drawing[rows, columns])
    picked = np.unique(shown.stored, return_inverse=True)[1]
    sheet = Layout(picked, shown.variant, shown.drawing).pick(rotate_and_flip(small))
    return np.round(255 * sheet).astype(np.uint8)
