"""The tables of an experiment in words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from icl_transience.analysis import transience
from icl_transience.specs.errors import StudyError
from icl_transience.specs.experiment import QUANTITIES, TIMES
from icl_transience.specs.figures import FORMATS
from icl_transience.store import checksums
from icl_transience.store.tables_file import TABLES, read_csv, records
from icl_transience.system.formatting import format_count, format_number_of

# A fall of accuracy that is worth a word even where it is not beyond noise.
NOTICED_FALL = 0.05
# A median that more than half of the lanes leave open.
NOT_REACHED = "not reached"
# Columns that are read here: of both tables, of runs.csv, of transience.csv.
_OF_BOTH = ("run", "outcome", *QUANTITIES)
_OF_RUNS = (
    *("seeds", "evaluator", "metric", "chance", "n_emergence_left_censored"),
    *(f"n_{outcome}" for outcome in transience.OUTCOMES),
    *(part for name in QUANTITIES for part in (f"{name}_lower", f"{name}_upper", f"n_{name}")),
    *(f"n_{name}_censored" for name in TIMES),
)
_OF_LANES = ("seed", "emergence_left_censored", *(f"{name}_censored" for name in TIMES))


def runs_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of an experiment's runs.csv. Raises StudyError where it lacks columns, as an older one does."""
    return _rows(folder / "runs.csv", _OF_RUNS)


def lanes_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of an experiment's transience.csv. Raises StudyError as `runs_of` does."""
    return _rows(folder / "transience.csv", _OF_LANES)


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    table = read_csv(path)
    if missing := [name for name in (*_OF_BOTH, *columns) if name not in table.columns]:
        raise StudyError(f"{path}: lacks {', '.join(missing)}: delete it, and snakemake writes it again")
    return records(table)


# Sentences.


def run_in_words(row: Mapping[str, Any], last: float, first: float | None = None) -> str:
    """Return a row of runs.csv as a sentence.

    last: sequences seen at the last point of its lanes. first: that of the lane that ends first, where they differ.
    """
    seeds = format_number_of(int(row["seeds"]), "seed")
    which = measured_in_words(row)
    at = format_count(last) if first in (None, last) else f"{format_count(first)} to {format_count(last)}"
    end = f"{row['final']:.2f} at {at}"
    if row["outcome"] == "diverged":
        return f"every lane diverged ({seeds})"
    if row["outcome"] == "never":
        return f"{which} does not rise beyond noise: at most {row['peak']:.2f}, {end} sequences seen (mean of {seeds})"
    if row["outcome"] == "transient":
        change = "and falls to"
    elif row["peak"] - row["final"] > NOTICED_FALL:
        change = "and falls, not beyond noise, to"
    else:
        change = "and stays, with"
    outcomes = [f"{row[f'n_{outcome}']:.0f} {outcome}" for outcome in transience.OUTCOMES if row[f"n_{outcome}"]]
    how = f"levels: mean, times: median of {seeds}" if row["seeds"] != 1 else seeds
    return (
        f"{which} peaks at {row['peak']:.2f} {place_in_words(row, last, 'after')} sequences {change} {end}, "
        f"half-life {_half_life(row)} ({'; '.join([how, *_left_out(row), ', '.join(outcomes)])})"
    )


def measured_in_words(row: Mapping[str, Any]) -> str:
    """Return what the levels of a row of runs.csv are of: an evaluator, its metric, and chance."""
    return f"{row['evaluator']} ({row['metric'].replace('_', ' ')}, chance {row['chance']:.3g})"


def _half_life(row: Mapping[str, Any]) -> str:
    time = _run_time(row, "half_life")
    if not row["n_half_life_censored"]:
        return time
    of_lanes = f"by {row['n_half_life_censored']:.0f} of {row['n_half_life']:.0f} lanes"
    return f"{time} ({of_lanes if time == NOT_REACHED else f'{NOT_REACHED} {of_lanes}'})"


def _left_out(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield of how many lanes the numbers are that not all lanes have, and why."""
    if row["n_half_life"] < row["seeds"]:
        verbs = {"never": "never rose", "diverged": "diverged"}
        why = [f"{row[f'n_{outcome}']:.0f} {verb}" for outcome, verb in verbs.items() if row[f"n_{outcome}"]]
        yield f"place and half-life of {row['n_half_life']:.0f} of {row['seeds']:.0f} lanes, {', '.join(why)}"


# Quantities, the same wherever they are said.


def quantity_in_words(row: Mapping[str, Any], name: str) -> str:
    """Return a quantity of a row of either table, of a run with its interval and the number of its lanes.

    "0.80 (0.75 to 0.85)"; "48k", of lanes also "≥ 48k"; "not reached (2 of 3 seeds, 1 censored)"; a dash for none.
    """
    if "seed" in row:
        return _lane_time(row, name) if name in TIMES else _level(row[name])
    say = _time if name in TIMES else _level
    text = _run_time(row, name) if name in TIMES else _level(row[name])
    ends = [row[f"{name}_{end}"] for end in ("lower", "upper")]
    beside = [] if any(map(pd.isna, ends)) else [" to ".join(map(say, ends))]
    if row[f"n_{name}"] < row["seeds"]:
        beside.append(f"{row[f'n_{name}']:.0f} of {row['seeds']:.0f} seeds")
    if name in TIMES and row[f"n_{name}_censored"]:
        beside.append(f"{row[f'n_{name}_censored']:.0f} censored")
    return text + (f" ({', '.join(beside)})" if beside else "")


def means_in_words(folder: Path, columns: Sequence[str]) -> dict[str, list[str]]:
    """Return, for each run of an experiment's transience.csv, the means of columns over the lanes that have a value.

    "0.98", or "0.98 (of 11 of 12 lanes)"; a dash where none has one.
    """
    found = dict[str, list[str]]()
    for run, lanes in read_csv(folder / "transience.csv").groupby("run", sort=False):
        total, said = len(lanes), list[str]()
        for name in columns:
            values = lanes[name].dropna().to_numpy(float)
            left_out = f" (of {len(values)} of {format_number_of(total, 'lane')})" if 0 < len(values) < total else ""
            said.append(f"{values.mean():.2f}{left_out}" if len(values) else _level(math.nan))
        found[str(run)] = said
    return found


def place_in_words(row: Mapping[str, Any], last: float, preposition: str) -> str:
    """Return where a run's peak lies: "after 576k", or that most lanes were highest at the last snapshot, `last`."""
    reached = math.isfinite(row["peak_at"])
    return f"{preposition} {format_count(row['peak_at'])}" if reached else f"not before {format_count(last)}"


def _run_time(row: Mapping[str, Any], name: str) -> str:
    # All that are left-censored lie at the first snapshot, before all others.
    is_bound = name == "emergence" and row["n_emergence_left_censored"] >= max(1, row["n_emergence"] / 2)
    return ("≤ " if is_bound else "") + _time(row[name])


def _lane_time(row: Mapping[str, Any], name: str) -> str:
    # In a column that has empty cells too, pandas reads what is true and false as text.
    bounds = (("censored", "≥ "), ("left_censored", "≤ "))
    sign = "".join(sign for flag, sign in bounds if str(row.get(f"{name}_{flag}")) == "True")
    return sign + _time(row[name])


def _time(value: float) -> str:
    if pd.isna(value):
        return "–"
    return format_count(value) if math.isfinite(value) else NOT_REACHED


def _level(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"


# Experiments.


def experiment_in_words(folder: Path) -> Iterator[str]:
    """Yield what an experiment shows: a sentence a run, the last one with the figure's path."""
    checksums.check_checksums(folder, TABLES)
    runs, ends = runs_of(folder), last_points(folder)
    drawn = [path for kind in FORMATS if (path := folder / f"curves.{kind}").exists()]
    figure = drawn[0] if drawn else folder / "curves.svg"
    for number, row in enumerate(runs, start=1):
        sentence = f"{folder.name}, {row['run']}: {run_in_words(row, *ends[row['run']])}"
        yield sentence + (f"; figure: {figure}" if number == len(runs) else "")


def last_points(folder: Path) -> dict[str, tuple[float, float]]:
    """Return run -> sequences seen at the last point in curves.csv, the latest and the earliest of its lanes.

    They differ where the horizon is the end of a segment in one lane's pack and lies inside one in another's.
    """
    table, ends = read_csv(folder / "curves.csv"), dict[str, dict[str, float]]()
    for run, seed, seen in zip(table["run"], table["seed"], table["sequences_seen"], strict=True):
        of_run = ends.setdefault(run, {})
        of_run[seed] = max(seen, of_run.get(seed, 0))
    return {run: (max(of_run.values()), min(of_run.values())) for run, of_run in ends.items()}
