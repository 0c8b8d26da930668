"""The tables of an experiment in words."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from icl_transience.analysis import transience
from icl_transience.store import checksums
from icl_transience.store.tables_file import TABLES, read_csv, records
from icl_transience.system.formatting import format_count

# A fall of accuracy that is worth a word even where it is not beyond noise.
NOTICED_FALL = 0.05


def run_in_words(row: Mapping[str, Any], horizon: float) -> str:
    """Return a row of runs.csv as a sentence. horizon: in sequences seen."""
    seeds = f"{row['seeds']:.0f} seed" + ("s" if row["seeds"] != 1 else "")
    which = f"{row['evaluator']} ({row['metric'].replace('_', ' ')}, chance {row['chance']:.3g})"
    if row["outcome"] == "diverged":
        return f"every lane diverged ({seeds})"
    if row["outcome"] == "never":
        return (
            f"{which} does not rise beyond noise: at most {row['curve_peak']:.2f}, "
            f"{row['curve_final']:.2f} at {format_count(horizon)} sequences seen (mean of {seeds})"
        )
    if row["outcome"] == "transient":
        change = "and falls to"
    elif row["peak"] - row["final"] > NOTICED_FALL:
        change = "and falls, not beyond noise, to"
    else:
        change = "and stays, with"
    return (
        f"{which} peaks at {row['curve_peak']:.2f} after {format_count(row['curve_peak_at'])} sequences {change} "
        f"{row['curve_final']:.2f} at {format_count(horizon)} (mean of {seeds}, "
        + ", ".join(f"{row[f'n_{outcome}']:.0f} {outcome}" for outcome in transience.OUTCOMES if row[f"n_{outcome}"])
        + ")"
    )


def experiment_in_words(folder: Path) -> Iterator[str]:
    """Yield what an experiment shows: a sentence a run, the last one with the figure's path."""
    checksums.check_checksums(folder, TABLES)
    runs = records(read_csv(folder / "runs.csv"))
    horizon = last_snapshot(folder)
    for number, row in enumerate(runs, start=1):
        sentence = f"{folder.name}, {row['run']}: {run_in_words(row, horizon)}"
        yield sentence + (f"; figure: {folder / 'curves.svg'}" if number == len(runs) else "")


def last_snapshot(folder: Path) -> float:
    """Return the sequences seen at the last snapshot in an experiment's curves.csv."""
    seen = pd.read_csv(folder / "curves.csv", usecols=["sequences_seen"])["sequences_seen"]
    return float(seen.to_numpy().max())
