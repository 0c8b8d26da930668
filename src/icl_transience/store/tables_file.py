"""The tables of an experiment and of a study: where they stand, how they are written and read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from icl_transience.specs.circuits import evaluator_of
from icl_transience.specs.evaluators import TRAINING, default_metric
from icl_transience.store import atomic, checksums
from icl_transience.store.layout import CIRCUITS, CIRCUITS_TABLES
from icl_transience.store.layout import EVIDENCE as EVIDENCE
from icl_transience.store.layout import TABLES as TABLES
from icl_transience.store.layout import VERDICTS as VERDICTS

# Those of the minimal model.
MINIMAL_MODEL_TABLES = ("losses.csv", "seeds.csv")


@dataclass(frozen=True)
class Tables:
    """The tables of an experiment: curves.csv, transience.csv (a row a lane) and runs.csv."""

    curves: pd.DataFrame
    lanes: pd.DataFrame
    runs: pd.DataFrame

    def run(self, name: str) -> dict[str, Any]:
        """Return the row of a run in runs.csv."""
        (row,) = records(self.runs.loc[self.runs["run"] == name])
        return row


def read_tables(folder: Path) -> Tables:
    """Read an experiment's tables. Raises StudyError where one of them is not as it was written."""
    checksums.check_checksums(folder, TABLES)
    return Tables(*(read_csv(folder / name) for name in TABLES))


def write_csv(path: Path, table: pd.DataFrame, digits: int) -> None:
    """Write a table with `digits` significant digits."""
    atomic.write(path, lambda temporary: table.to_csv(temporary, index=False, float_format=f"%.{digits}g"))


def read_curves(folder: Path) -> pd.DataFrame:
    """Read an experiment's curves.csv. Raises StudyError where one of its tables is not as it was written."""
    checksums.check_checksums(folder, TABLES)
    return read_csv(folder / "curves.csv")


def read_lanes(folder: Path) -> pd.DataFrame:
    """Read an experiment's transience.csv. Raises StudyError where it is not as it was written."""
    checksums.check_checksums(folder, ["transience.csv"])
    return read_csv(folder / "transience.csv")


@dataclass(frozen=True)
class CircuitsTables:
    """Of what is inside an experiment's models: heads.csv, composition.csv, attention.csv; see analysis/heads.py."""

    heads: pd.DataFrame
    composition: pd.DataFrame
    attention: pd.DataFrame


def read_circuits_tables(folder: Path) -> CircuitsTables:
    """Read the tables of circuits in an experiment's folder. Raises StudyError as `read_curves` does."""
    inside = folder / CIRCUITS
    checksums.check_checksums(inside, CIRCUITS_TABLES)
    return CircuitsTables(*(read_csv(inside / name) for name in CIRCUITS_TABLES))


def read_minimal_model(folder: Path, *, move: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read losses.csv and seeds.csv; move: as of `check_checksums`, of which StudyError is."""
    checksums.check_checksums(folder, MINIMAL_MODEL_TABLES, move=move)
    losses, seeds = (pd.read_csv(folder / name, keep_default_na=False, na_values=[""]) for name in MINIMAL_MODEL_TABLES)
    return losses, seeds


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table that this pipeline wrote. Only an empty cell is a missing value: a run may be named NA.

    Words stay words: a claim's source may be 2024.
    """
    words: tuple[str, ...] = ("run", "seed", "text", "source", "note")
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(words, str))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, each column -> value."""
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def default_curves(curves: pd.DataFrame, evaluator: str) -> pd.DataFrame:
    """Return the rows of an evaluator's default metric, or of the training loss for `training`."""
    metric = "loss" if evaluator == TRAINING else default_metric(evaluator_of(evaluator))
    return curves.loc[(curves["evaluator"] == evaluator) & (curves["metric"] == metric)]
