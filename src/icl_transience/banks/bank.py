"""A bank: embedded exemplars of classes, whatever their source."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from icl_transience import counter, store
from icl_transience.spec import BankShape, BankSpec, canonical, identity_values

# Of a contact sheet: rows of classes, columns of exemplars, pixels a side of one image.
CONTACT_ROWS, CONTACT_COLUMNS, CONTACT_SIDE = 10, 8, 35


@dataclass(frozen=True)
class Bank:
    """Exemplars with their split: training classes and exemplars come first, those held out after them.

    embeddings: float32 [classes, exemplars, dim]. class_table, exemplar_table: what each class or exemplar is,
    a column of equal length for each property (a character's name, a rotation, a drawing's number); where exemplars
    are other ones in each class, a column of exemplar_table is [classes, exemplars]. contact: uint8 images
    [rows, columns, side, side] of the exemplars on a contact sheet (see `contact_sheet`), where exemplars are images.
    """

    embeddings: np.ndarray
    n_train_classes: int
    n_train_exemplars: int
    class_table: Mapping[str, np.ndarray] = field(default_factory=dict)
    exemplar_table: Mapping[str, np.ndarray] = field(default_factory=dict)
    contact: np.ndarray | None = None

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


def seeded(seed: int, name: str) -> np.random.Generator:
    """NumPy's Philox generator for one named quantity of a bank: names draw independently of each other."""
    return np.random.Generator(np.random.Philox(key=[seed, counter.domain(name)]))


def save(bank: Bank, path: Path, spec: BankSpec) -> None:
    """Writes the bank's file: `embeddings` [classes, exemplars, dim], what each class and exemplar is, quality card."""
    # Not above: training jobs load banks too, and need no SciPy.
    from icl_transience.banks import quality

    if bank.shape != spec.shape:
        raise AssertionError(f"the source built {bank.shape}, the study asked for {spec.shape}")
    with store.writing(path, "bank", spec.id) as file:
        file.attrs["spec"] = canonical(identity_values(spec))
        file.attrs["n_train_classes"] = bank.n_train_classes
        file.attrs["n_train_exemplars"] = bank.n_train_exemplars
        file["embeddings"] = bank.embeddings
        trained = bank.embeddings[: bank.n_train_classes, : bank.n_train_exemplars]
        quality.write(quality.measure(trained, functools.partial(seeded, spec.seed)), file.create_group("quality"))
        if bank.contact is not None:
            file["contact"] = bank.contact
        for group, table in (("classes", bank.class_table), ("exemplars", bank.exemplar_table)):
            for name, column in table.items():
                file[f"{group}/{name}"] = column


def load(path: Path, spec: BankSpec) -> np.ndarray:
    """The embeddings in a bank's file, float32 [classes, exemplars, dim], once it has been checked."""
    with store.reading(path, "bank", spec.id) as file:
        return file["embeddings"][()]
