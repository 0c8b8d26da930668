"""A bank: embedded exemplars of classes, whatever their source."""

import functools
import hashlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import numpy as np

from icl_transience import philox
from icl_transience.banks import quality
from icl_transience.specs.banks import BankShape, BankSpec
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.store import hdf5

# Of a contact sheet: rows of classes, columns of exemplars, pixels a side of one image.
CONTACT_ROWS, CONTACT_COLUMNS, CONTACT_SIDE = 10, 8, 35
# A bank with so large a share of exemplars that are also another class's is refused, with a smaller one warned of.
SHARED_BY_CLASSES = 0.05
_HASHED_ROWS = 1024


@dataclass(frozen=True)
class Bank:
    """Exemplars with their split: training classes and exemplars come first, those held out after them.

    embeddings: float32 [classes, exemplars, dim]. class_table, exemplar_table: what each class or exemplar is,
    a column of equal length for each property (a character's name, a rotation, a drawing's number); where exemplars
    are other ones in each class, a column of exemplar_table is [classes, exemplars]. contact: uint8 images
    [rows, columns, side, side] of the exemplars on a contact sheet (see `contact_sheet`), where exemplars are images.
    warnings: sentences about what is odd in it, for its quality card.
    """

    embeddings: np.ndarray
    n_train_classes: int
    n_train_exemplars: int
    class_table: Mapping[str, np.ndarray] = field(default_factory=dict)
    exemplar_table: Mapping[str, np.ndarray] = field(default_factory=dict)
    contact: np.ndarray | None = None
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> BankShape:
        n_classes, n_exemplars, width = self.embeddings.shape
        return BankShape(
            n_classes=n_classes,
            n_exemplars=n_exemplars,
            n_train_classes=self.n_train_classes,
            n_train_exemplars=self.n_train_exemplars,
            width=width,
        )


def contact_sheet(shape: BankShape) -> tuple[np.ndarray, np.ndarray]:
    """Classes and exemplars that stand on a contact sheet: of those to train on, classes evenly spread."""
    rows, columns = min(CONTACT_ROWS, shape.n_train_classes), min(CONTACT_COLUMNS, shape.n_train_exemplars)
    return np.linspace(0, shape.n_train_classes - 1, rows).astype(int), np.arange(columns)


def checked(bank: Bank, files: Sequence[Path] = ()) -> Bank:
    """The bank with warnings of equal exemplars and constant coordinates; whatever its source and scale.

    Exemplars are equal where all coordinates are: no tolerance, so no scale. Raises StudyError where an entry is not
    finite, or where, of a part of the bank (training or held-out classes, training or held-out exemplars), a share of
    SHARED_BY_CLASSES or more is equal to an exemplar of another class: no model can tell what their class is. files:
    where the exemplars are from.
    """
    embeddings, source = bank.embeddings, ", ".join(path.name for path in files) or "the bank"
    n_classes, n_exemplars, width = embeddings.shape
    if bad := sum(int((~np.isfinite(part)).sum()) for part in embeddings):
        raise StudyError(
            f"{source}: {bad:,} of {embeddings.size:,} coordinates of the bank's exemplars are not finite, expected "
            "numbers within float32's range: repair the source's file, or ask for a smaller scale or less noise"
        )
    group = equal_rows(embeddings.reshape(-1, width)).reshape(n_classes, n_exemplars)
    # In how many classes each group stands: pairs (group, class), each once.
    pairs = np.unique(group * n_classes + np.arange(n_classes)[:, None])
    shared = np.bincount(pairs // n_classes)[group] > 1
    zero = np.stack([~part.any(axis=1) for part in embeddings])
    warnings = [*bank.warnings]
    for name, part in _parts(bank.shape):
        count, size = int(shared[part].sum()), shared[part].size
        if not count:
            continue
        first = np.argwhere(shared[part])[0] + [axis.start for axis in part]
        place = tuple(first.tolist())
        other = next(at for at in np.argwhere(group == group[place]).tolist() if at[0] != place[0])
        said = (
            f"{source}: {count:,} of {size:,} {name} ({count / size:.1%}) are equal to an exemplar of another class, "
            f"such as exemplar {place[1]} of class {place[0]} to exemplar {other[1]} of class {other[0]}; "
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
    constant = np.ones(width, dtype=bool)
    for part in embeddings:
        constant &= (part == embeddings[0, 0]).all(axis=0)
    if constant.any():
        warnings.append(f"{source}: {int(constant.sum()):,} of {width:,} coordinates are the same in all exemplars")
    return replace(bank, warnings=tuple(warnings))


def equal_rows(rows: np.ndarray) -> np.ndarray:
    """The group of every row of float32 [N, width], int64 [N]: equal rows, and no others, have equal numbers.

    By a hash of 64 bits; two zeros of different sign are equal. Takes some 40 bytes a row.
    """

    def digests() -> Iterator[int]:
        for first in range(0, len(rows), _HASHED_ROWS):
            for row in rows[first : first + _HASHED_ROWS] + np.float32(0):
                yield int.from_bytes(hashlib.blake2b(row, digest_size=8).digest())

    return np.unique(np.fromiter(digests(), np.uint64, len(rows)), return_inverse=True)[1]


def _parts(shape: BankShape) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """The four parts of a bank by name, as slices of classes and exemplars; those that are empty left out."""
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
    """NumPy's Philox generator for one named quantity of a bank: names draw independently of each other."""
    return np.random.Generator(np.random.Philox(key=[seed, philox.domain(name)]))


def save(bank: Bank, path: Path, spec: BankSpec) -> None:
    """Writes the bank's file: `embeddings` [classes, exemplars, dim], what each class and exemplar is, quality card."""
    # Not above: training jobs load banks too, and need no SciPy.

    if bank.shape != spec.shape:
        raise AssertionError(f"the source built {bank.shape}, the study asked for {spec.shape}")
    with hdf5.writing(path, "bank", spec.id) as file:
        file.attrs["spec"] = canonical(identity_values(spec))
        file.attrs["n_train_classes"] = bank.n_train_classes
        file.attrs["n_train_exemplars"] = bank.n_train_exemplars
        file["embeddings"] = bank.embeddings
        trained = bank.embeddings[: bank.n_train_classes, : bank.n_train_exemplars]
        card = quality.measure(trained, functools.partial(seeded, spec.seed))
        warnings = {"warnings": "\n".join(bank.warnings)} if bank.warnings else {}
        quality.write(card | warnings, file.create_group("quality"))
        if bank.contact is not None:
            file["contact"] = bank.contact
        for group, table in (("classes", bank.class_table), ("exemplars", bank.exemplar_table)):
            for name, column in table.items():
                file[f"{group}/{name}"] = column


def build(spec: BankSpec, files: Sequence[Path] = (), log: TextIO | None = None) -> Bank:
    """The bank of `spec`, made by the module named like its source.

    files: its source files, in the spec's order. log: for how far a source is that takes long, and for warnings.
    Raises StudyError where classes cannot be told apart by the exemplars (see `checked`).
    """
    made = importlib.import_module(f"icl_transience.banks.{spec.source}").build(spec, files, log)
    bank = checked(made, files)
    for warning in bank.warnings if log else ():
        print(f"warning: {warning}", file=log, flush=True)
    return bank
