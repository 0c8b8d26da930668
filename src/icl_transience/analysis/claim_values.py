"""What claims are about: from the lanes of transience.csv to the values of each run, and why a lane has none."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from icl_transience.analysis.paired_tests import Measured
from icl_transience.specs.experiment import DIRECTIONS, Claim, Part
from icl_transience.store.tables_file import records

# run -> seed -> value, of the lanes that have one.
Values = Mapping[str, Mapping[str, Measured]]


@dataclass(frozen=True)
class Lanes:
    """The lanes of a part: their values, and run -> seed -> why, of those that have none."""

    values: Values
    without: Mapping[str, Mapping[str, str]]

    def finished(self) -> dict[str, bool]:
        """Return seed -> whether all of its lanes are finished, be it without a value."""
        of_runs = [{*self.values[run], *self.without[run]} for run in self.values]
        return {seed: all(seed in of_run for of_run in of_runs) for seed in set().union(*of_runs)}

    def of_seeds(self, seeds: list[str]) -> "Lanes":
        """Return those of these seeds."""
        of_runs = ({run: _only(found, seeds) for run, found in part.items()} for part in (self.values, self.without))
        return Lanes(*of_runs)


def _only(found: Mapping[str, Any], seeds: list[str]) -> dict[str, Any]:
    return {seed: found[seed] for seed in seeds if seed in found}


def atoms(claim: Claim) -> list[Part]:
    """Return what is tested by itself: a claim's parts, of a threshold for several runs one a run."""
    return [atom for part in claim.parts for atom in _atoms(part)]


def _atoms(part: Part) -> Iterator[Part]:
    one = Part(**{name: value for name, value in vars(part).items() if name in Part.__dataclass_fields__})
    if part.kind == "threshold":
        yield from (replace(one, runs=(run,)) for run in part.runs)
    else:
        yield one


def measure(part: Part, lanes: pd.DataFrame) -> Lanes:
    """Return what a part is about. lanes: transience.csv."""
    values: dict[str, dict[str, Measured]] = {run: {} for run in part.runs}
    without: dict[str, dict[str, str]] = {run: {} for run in part.runs}
    for row in records(lanes.loc[lanes["run"].isin(list(values))]):
        measured = _measured(row, part.of)
        if part.minus:
            measured = _minus(measured, _measured(row, part.minus))
        if isinstance(measured, Measured):
            values[row["run"]][row["seed"]] = measured
        else:
            without[row["run"]][row["seed"]] = measured
    return Lanes(values, without)


def _measured(row: Mapping[str, Any], of: str) -> Measured | str:
    """Return a lane's value, or why it has none."""
    if row["outcome"] == "diverged":
        return "diverged"
    value = row.get(of)
    if value is None or pd.isna(value):
        return "never emerged" if row["outcome"] == "never" else f"has no {of}"
    # In a column that has empty cells too, pandas reads what is true and false as text.
    flags = [str(row.get(f"{of}_{flag}")) == "True" for flag in ("censored", "left_censored")]
    return Measured(float(value), *flags)


def _minus(one: Measured | str, other: Measured | str) -> Measured | str:
    if isinstance(one, str) or isinstance(other, str):
        return one if isinstance(one, str) else other
    # A bound of either is one of the difference, which may be less than nothing.
    at_least, at_most = one.censored or other.left_censored, one.left_censored or other.censored
    return Measured(one.value - other.value, at_least, at_most, least=-math.inf)


# In words.


def formula(claim: Claim) -> str:
    """Return what is tested as a formula: "peak > 0.6 (baseline)"; of several parts, one after another."""
    return " and ".join(map(formula_of_part, claim.parts))


def formula_of_part(part: Part) -> str:
    """Return a part as a formula."""
    of, runs = column(part), part.runs
    if part.kind == "trend":
        levels = ", ".join(f"{level:g}" for level in part.levels)
        # On a grid, the level of the other axes at which this one is looked at stands in the names of all its runs.
        first, *others = (run.split(",") for run in runs)
        held = [setting for setting in first if others and all(setting in other for other in others)]
        return f"{of} {part.direction} along {part.axis} = {levels}" + (f" ({', '.join(held)})" if held else "")
    sign = ">" if part.direction == DIRECTIONS[part.kind][0] else "<"
    if part.kind == "difference":
        return f"{of}: {runs[0]} {sign} {runs[1]}"
    more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    return f"{of} {sign} {part.value:g} ({', '.join(runs[:3])}{more})"


def column(part: Part) -> str:
    """Return what a part is about: a column of transience.csv, or one minus another."""
    return " - ".join(filter(None, (part.of, part.minus)))
