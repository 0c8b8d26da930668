"""A bank: exemplars of classes, embedded or as images, whatever their source."""

import functools
import hashlib
import importlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np

from icl_transience import philox
from icl_transience.banks import drawings, quality
from icl_transience.specs.banks import BankShape, BankSpec
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.specs.sources import ImageShape
from icl_transience.store import hdf5

# Of a contact sheet: rows of classes, columns of exemplars, pixels a side of one image.
CONTACT_ROWS, CONTACT_COLUMNS, CONTACT_SIDE = 10, 8, 35
# A bank with so large a share of exemplars that are also another class's is refused, with a smaller one warned of.
SHARED_BY_CLASSES = 0.05
# So large a share of exemplars with the same value of a coordinate is warned of, unless that is its nature.
COMMON = 0.2
_HASHED_ROWS, _SAMPLED_ROWS = 1024, 2000


@dataclass(frozen=True, kw_only=True)
class _Exemplars:
    """Exemplars with their split: training classes and exemplars come first, those held out after them.

    class_table, exemplar_table: a column for each property of a class or an exemplar, such as a character's name, a
    rotation or a drawing's number. Where classes have different exemplars, a column of exemplar_table is
    [classes, exemplars].
    contact: the contact sheet, uint8 [rows, columns, side, side], with channels last where they are three, where
    exemplars are images; see `contact_sheet`.
    warnings: what is unusual in the bank, a sentence each, for its quality card.
    often_equal: whether coordinates of many exemplars are equal by nature, as pixels' and rectified features' are.
    """

    n_train_classes: int
    n_train_exemplars: int
    class_table: Mapping[str, np.ndarray] = field(default_factory=dict)
    exemplar_table: Mapping[str, np.ndarray] = field(default_factory=dict)
    contact: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    often_equal: bool = False

    def _sizes(self, n_classes: int, n_exemplars: int, width: int) -> BankShape:
        return BankShape(
            n_classes=n_classes,
            n_exemplars=n_exemplars,
            n_train_classes=self.n_train_classes,
            n_train_exemplars=self.n_train_exemplars,
            width=width,
        )


@dataclass(frozen=True, kw_only=True)
class Bank(_Exemplars):
    """Embedded exemplars: float32 [classes, exemplars, dim]."""

    embeddings: np.ndarray

    @property
    def shape(self) -> BankShape:
        """Sizes of the bank and of its split."""
        return self._sizes(*self.embeddings.shape)

    @property
    def stored(self) -> dict[str, np.ndarray]:
        """The name and the array under which its file has the exemplars."""
        return {"embeddings": self.embeddings}

    def classes(self) -> Iterator[np.ndarray]:
        """Yield the exemplars of each class, [exemplars, width]."""
        yield from self.embeddings

    def measured(self) -> np.ndarray:
        """Return what its quality is measured on: training classes and exemplars, float32 [classes, exemplars, dim]."""
        return self.embeddings[: self.n_train_classes, : self.n_train_exemplars]


@dataclass(frozen=True, kw_only=True)
class ImageBank(_Exemplars):
    """Images, each stored once: uint8 [stored classes, exemplars, side, side, channels], ink or brightness 255.

    views: classes that a stored class makes; class k is stored class k // views under view k % views, which is
    rotation * 2 + flip as in banks/drawings.py.
    """

    images: np.ndarray
    views: int
    often_equal: bool = True

    @property
    def shape(self) -> BankShape:
        """Sizes of the bank and of its split."""
        n_stored, n_exemplars, *of_image = self.images.shape
        return self._sizes(n_stored * self.views, n_exemplars, math.prod(of_image))

    @property
    def stored(self) -> dict[str, np.ndarray]:
        """The name and the array under which its file has the exemplars."""
        return {"images": self.images}

    def classes(self) -> Iterator[np.ndarray]:
        """Yield the exemplars of each class, [exemplars, width]."""
        for images in self.images:
            for view in drawings.rotate_and_flip(images[None], self.views)[0]:
                yield view.reshape(len(images), -1)

    def measured(self) -> np.ndarray:
        """Return what its quality is measured on: training classes and exemplars, float32 [classes, exemplars, pixels].

        See ImageShape.measured_side.
        """
        n_stored, side = self.n_train_classes // self.views, self.images.shape[2]
        measured = ImageShape(side=side, channels=self.images.shape[4], views=self.views).measured_side
        small = drawings.shrunk(self.images[:n_stored, : self.n_train_exemplars], measured)
        return drawings.rotate_and_flip(small, self.views).reshape(self.n_train_classes, self.n_train_exemplars, -1)


AnyBank = TypeVar("AnyBank", Bank, ImageBank)


def contact_sheet(shape: BankShape) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the classes and exemplars on a contact sheet: training ones, classes evenly spread."""
    rows, columns = min(CONTACT_ROWS, shape.n_train_classes), min(CONTACT_COLUMNS, shape.n_train_exemplars)
    return np.linspace(0, shape.n_train_classes - 1, rows).astype(int), np.arange(columns)


def checked(bank: AnyBank, files: Sequence[Path] = ()) -> AnyBank:
    """Return the bank with warnings of equal exemplars and constant coordinates added.

    Exemplars are equal where all their coordinates are: without a tolerance the scale of a bank does not matter.
    files: where the exemplars are from, for messages.

    Raises StudyError where a coordinate is not finite. Raises it too where, in one part of the bank (training or
    held-out exemplars of training or held-out classes), a share of SHARED_BY_CLASSES or more of the exemplars equals
    an exemplar of another class: no model can tell their classes apart.
    """
    shape, source = bank.shape, ", ".join(path.name for path in files) or "the bank"
    n_classes, n_exemplars, width = shape.n_classes, shape.n_exemplars, shape.width
    if isinstance(bank, Bank) and (bad := sum(int((~np.isfinite(part)).sum()) for part in bank.embeddings)):
        raise StudyError(
            f"{source}: {bad:,} of {n_classes * n_exemplars * width:,} coordinates of the bank's exemplars are not "
            "finite, expected numbers within float32's range: repair the source's file, or ask for a smaller scale or "
            "less noise"
        )
    group = _equal(bank.classes(), n_classes * n_exemplars).reshape(n_classes, n_exemplars)
    # In how many classes each group stands: pairs (group, class), each once.
    pairs = np.unique(group * n_classes + np.arange(n_classes)[:, None])
    shared = np.bincount(pairs // n_classes)[group] > 1
    zero = np.stack([~part.any(axis=1) for part in bank.classes()])
    warnings = [*bank.warnings]
    for name, part in _parts(shape):
        count, size = int(shared[part].sum()), shared[part].size
        if not count:
            continue
        first = np.argwhere(shared[part])[0] + [axis.start for axis in part]
        index = tuple(first.tolist())
        other = next(one for one in np.argwhere(group == group[index]).tolist() if one[0] != index[0])
        said = (
            f"{source}: {count:,} of {size:,} {name} ({count / size:.1%}) are equal to an exemplar of another class, "
            f"such as exemplar {index[1]} of class {index[0]} to exemplar {other[1]} of class {other[0]}; "
            f"{int(zero[part].sum()):,} are all zeros"
        )
        if count >= SHARED_BY_CLASSES * size:
            raise StudyError(
                f"{said}: fewer than {SHARED_BY_CLASSES:.0%} are expected to be: write the source's file whole, leave "
                "such classes out, or give every class exemplars of its own"
            )
        warnings.append(said)
    same = sum(n_exemplars - len(np.unique(of_class)) for of_class in group)
    if same:
        warnings.append(
            f"{source}: {same:,} of {group.size:,} exemplars repeat another exemplar of their class "
            f"(in {sum(len(np.unique(of_class)) < n_exemplars for of_class in group):,} of {n_classes:,} classes)"
        )
    if zero.any():
        warnings.append(f"{source}: {int(zero.sum()):,} of {group.size:,} exemplars are all zeros")
    constant, first_class = np.ones(width, dtype=bool), next(bank.classes())
    for part in bank.classes():
        constant &= (part == first_class[0]).all(axis=0)
    if constant.any():
        warnings.append(f"{source}: {int(constant.sum()):,} of {width:,} coordinates are the same in all exemplars")
    if isinstance(bank, Bank) and not bank.often_equal:
        warnings += _common_values(bank.embeddings.reshape(-1, width)[:, ~constant], source)
    return replace(bank, warnings=tuple(warnings))


def _common_values(rows: np.ndarray, source: str) -> list[str]:
    """Return a warning where a value stands in more than a share COMMON of rows [N, dim] in some coordinate."""
    # Evenly spread rows say where to count: sorting all of them would take longer than making the bank.
    sample = np.sort(rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED_ROWS)).astype(int)], axis=0)
    often = max(2, int(len(sample) * COMMON * 0.75))
    suspects = np.flatnonzero((sample[often - 1 :] == sample[: len(sample) - often + 1]).any(axis=0))
    counts = np.array([np.unique(rows[:, column], return_counts=True)[1].max() for column in suspects])
    if not (counts > COMMON * len(rows)).any():
        return []
    return [
        f"{source}: in {int((counts > COMMON * len(rows)).sum()):,} coordinates more than {COMMON:.0%} of the "
        f"exemplars have the same value, up to {int(counts.max()):,} of {len(rows):,}: are they features that are "
        "often zero, or is a part of the source's file not written?"
    ]


def equal_rows(rows: np.ndarray) -> np.ndarray:
    """Give equal rows of float32 [N, width], and no others, equal numbers; return these, int64 [N].

    Rows are compared by a hash of 64 bits; zeros of different sign are equal. Takes about 40 bytes of memory a row.
    """
    return _equal((rows[first : first + _HASHED_ROWS] for first in range(0, len(rows), _HASHED_ROWS)), len(rows))


def _equal(parts: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Give equal rows equal numbers, as `equal_rows` does. parts: [n, width] each, `count` rows in all."""

    def digests() -> Iterator[int]:
        for part in parts:
            # The sum turns negative zeros into zeros.
            for row in np.ascontiguousarray(part if part.dtype == np.uint8 else part + np.float32(0)):
                yield int.from_bytes(hashlib.blake2b(row, digest_size=8).digest())

    return np.unique(np.fromiter(digests(), np.uint64, count), return_inverse=True)[1]


def _parts(shape: BankShape) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Yield name and (classes, exemplars), as slices, of each of a bank's four parts that is not empty."""
    words = {"train": "training", "holdout": "held-out"}
    for classes, of_classes in words.items():
        for exemplars, of_exemplars in words.items():
            (k, n_k), (e, n_e) = shape.class_range(classes), shape.exemplar_range(exemplars)
            if n_k and n_e:
                yield (
                    f"{of_exemplars} exemplars of {of_classes} classes",
                    (slice(k, k + n_k), slice(e, e + n_e)),
                )


def seeded(seed: int, name: str) -> np.random.Generator:
    """Return NumPy's Philox generator for one named quantity of a bank; different names draw independently."""
    return np.random.Generator(np.random.Philox(key=[seed, philox.domain(name)]))


def save(bank: Bank | ImageBank, path: Path, spec: BankSpec) -> None:
    """Write the bank's file: its exemplars as of store/bank_file.py, tables of classes and exemplars, quality card."""
    if bank.shape != spec.shape:
        raise AssertionError(f"the source built {bank.shape}, the study asked for {spec.shape}")
    with hdf5.writing(path, "bank", spec.id) as file:
        file.attrs["spec"] = canonical(identity_values(spec))
        file.attrs["n_train_classes"] = bank.n_train_classes
        file.attrs["n_train_exemplars"] = bank.n_train_exemplars
        for name, exemplars in bank.stored.items():
            file[name] = exemplars
        card = quality.measure(bank.measured(), functools.partial(seeded, spec.seed))
        warnings = {"warnings": "\n".join(bank.warnings)} if bank.warnings else {}
        quality.write_card(card | warnings, file.create_group("quality"))
        if bank.contact is not None:
            file["contact"] = bank.contact
        for group, table in (("classes", bank.class_table), ("exemplars", bank.exemplar_table)):
            for name, column in table.items():
                file[f"{group}/{name}"] = column


def build(spec: BankSpec, files: Sequence[Path] = (), log: TextIO | None = None) -> Bank | ImageBank:
    """Make the bank of `spec` by the module that is named like its source.

    files: the source's files, in the spec's order. log: gets the progress of a slow source, and warnings.
    Raises StudyError where exemplars do not tell classes apart; see `checked`.
    """
    made = importlib.import_module(f"icl_transience.banks.{spec.source}").build(spec, files, log)
    bank = checked(made, files)
    for warning in bank.warnings if log else ():
        print(f"warning: {warning}", file=log, flush=True)
    return bank
