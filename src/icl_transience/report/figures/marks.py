"""Marks in the panels of a figure: chance, peaks, names at the ends of curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from icl_transience.analysis import words
from icl_transience.report.figures.runs import (
    COLOURS,
    GREY,
    NAMES,
    colour_of,
    name_of,
)
from icl_transience.specs import evaluators
from icl_transience.specs.records import RunRecord

# Marks.


def mark_chance(axes: Axes, runs: Sequence[RunRecord], shown: Sequence[str], *, words: str = "chance") -> None:
    """Draw a dotted line at each evaluator's chance level; one for those that share it."""
    levels: dict[float, dict[str, None]] = {}
    for run in runs:
        for name in shown:
            if (level := evaluators.chance(name, run.recipe, run.labels)) is not None:
                levels.setdefault(level, {})[name] = None
    for level, names in ((level, list(at_level)) for level, at_level in levels.items()):
        colour = COLOURS[names[0]] if len(names) == 1 < len(shown) else GREY
        axes.axhline(level, color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
        if words and level > 0.05:  # at 1/#labels the label would lie on the axis
            text = words + (" " + ", ".join(NAMES[name] for name in names) if len(shown) > 1 else "")
            axes.text(
                0.01,
                level - 0.01,
                text,
                transform=axes.get_yaxis_transform(),
                va="top",
                fontsize=7,
                color=colour,
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=4,
            )


def mark_peak(axes: Axes, of_run: pd.DataFrame, row: Mapping[str, Any], *, in_words: bool = True) -> None:
    """Mark the peak that runs.csv gives for a run, in its `row`; nowhere if nothing emerged.

    The mean over seeds of how high, at the median of when: not the highest point of the mean curve, which is lower
    where seeds peak at different times. At the last snapshot where most of them were highest there.
    """
    if row["outcome"] in ("never", "diverged"):
        return
    seen = of_run["sequences_seen"].to_numpy()
    # A curve may be highest at the start, which has no place on a logarithmic axis.
    first, last = float(seen.min()), float(seen.max())
    x, y, colour = min(max(row["peak_at"], first), last), row["peak"], COLOURS[row["evaluator"]]
    axes.plot([x], [y], marker="v", markersize=7, color=colour, markeredgecolor="white", zorder=5)
    if not in_words:
        return
    some = f" ({row['n_peak_at']} of {row['seeds']})" if row["n_peak_at"] < row["seeds"] else ""
    axes.annotate(
        f"peak {y:.2f}\n{words.place_in_words(row, last, 'at')}{some}",
        (x, y),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
        color=colour,
        annotation_clip=False,
    )


def label_ends(axes: Axes, row: Mapping[str, Any], shown: Sequence[str], gap: float, *, in_layout: bool = True) -> None:
    """Write each curve's name and end, as in a run's `row` of runs.csv, at its right end, at least `gap` apart.

    in_layout: take room from panels beside it.
    """
    ends = [(end, name) for name in shown if not pd.isna(end := row.get(f"final_{name}", np.nan))]
    lowest = -np.inf
    for value, name in sorted(ends):
        lowest = max(value, lowest + gap)
        label = axes.annotate(
            f"{name_of(name)} {value:.2f}",
            (1, lowest),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour_of(name),
            fontweight="bold" if name in COLOURS else "normal",
            annotation_clip=False,
        )
        label.set_in_layout(in_layout)


def mark_chance_of_plane(axes: Axes, run: RunRecord, across: str, upwards: str) -> None:
    """Draw dotted lines at the chance levels of two evaluators that are drawn against each other."""
    for name, line in ((across, axes.axvline), (upwards, axes.axhline)):
        if (level := evaluators.chance(name, run.recipe, run.labels)) is not None:
            line(level, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
