"""Marks in the panels of a figure: chance, peaks, names at the ends of curves, quantities along an axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from icl_transience.analysis import transience
from icl_transience.report.figures.runs import (
    COLOURS,
    GREY,
    NAMES,
    colour_of,
    mean_of,
    name_of,
    of_seeds,
)
from icl_transience.specs import evaluators
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import default_curves
from icl_transience.system.formatting import format_count

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


def mark_peak(
    axes: Axes, of_run: pd.DataFrame, record: ExperimentRecord, run: RunRecord, *, in_words: bool = True
) -> None:
    """Mark where the evaluator that is summarised is highest; nowhere if that is not `min_effect` above chance."""
    statistics = record.statistics
    name, colour = statistics.evaluator, COLOURS[statistics.evaluator]
    mean = mean_of(of_seeds(default_curves(of_run, name)))
    if mean.empty:
        return
    smoothed = transience.smooth(mean.to_numpy(), statistics.smoothing)
    top = int(smoothed.argmax())
    x, y = mean.index[top], smoothed[top]
    chance = evaluators.chance(name, run.recipe, run.labels)
    if chance is None or y - chance <= statistics.min_effect:
        return
    axes.plot([x], [y], marker="v", markersize=7, color=colour, markeredgecolor="white", zorder=5)
    if not in_words:
        return
    axes.annotate(
        f"peak {y:.2f}\nat {format_count(x)}",
        (x, y),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
        color=colour,
        annotation_clip=False,
    )


def label_ends(axes: Axes, of_run: pd.DataFrame, shown: Sequence[str], gap: float, *, in_layout: bool = True) -> None:
    """Write each curve's name at its right end, at least `gap` apart; in_layout: take room from panels beside it."""
    ends = []
    for name in shown:
        mean = mean_of(of_seeds(default_curves(of_run, name)))
        if len(mean):
            ends.append((mean.iloc[-1], name))
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


# Quantities along an axis.


def draw_quantity(axes: Axes, lanes: pd.DataFrame, axis: str, of: str, colour: Any, confidence: float) -> None:
    """Draw a quantity of transience.csv along an axis: lanes small, means with their interval, joined.

    Lanes that have none are crosses at the foot. Half-lives past the horizon, and means of such, point upwards.
    """
    is_half_life = of == "half_life"
    late = lanes["half_life_censored"].astype(str) == "True" if is_half_life else pd.Series(False, lanes.index)
    for censored, marker in ((False, "o"), (True, "^")):
        chosen = lanes.loc[late == censored]
        axes.plot(chosen[axis], chosen[of], marker, markersize=3, color=colour, alpha=0.5, markeredgewidth=0)
    without = lanes.loc[lanes[of].isna()]
    axes.plot(without[axis], np.full(len(without), 0.03), "x", color=colour, ms=5, transform=axes.get_xaxis_transform())
    at: list[float] = []
    means: list[float] = []
    errors: list[tuple[float, float]] = []
    for level in sorted(set(lanes[axis])):
        of_level = lanes[axis] == level
        values = lanes.loc[of_level, of].dropna()
        if values.empty:
            continue
        mean, (lower, upper) = float(values.mean()), transience.interval(list(values), confidence)
        at.append(level)
        means.append(mean)
        errors.append((0, 0) if lower is None or upper is None else (mean - lower, upper - mean))
        marker = "^" if True in set(late.loc[of_level]) else "o"
        axes.plot([level], [mean], marker, markersize=7, color=colour, markeredgecolor="white", zorder=5)
    if at:
        axes.errorbar(at, means, np.array(errors).T, color=colour, linewidth=2, elinewidth=1, capsize=2, zorder=3)
