"""The figure `survival`: in how many lanes in-context learning is acquired along an axis of numbers, and when."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl_transience.analysis import acquisition
from icl_transience.report.figures import layout, lines
from icl_transience.report.figures import runs as figure_runs
from icl_transience.report.figures.runs import GREY
from icl_transience.specs.evaluators import chance
from icl_transience.specs.experiment import axis_of_numbers
from icl_transience.specs.records import ExperimentRecord
from icl_transience.system.formatting import format_count

# Inches.
_WIDTH, _HEIGHT_OF_PANEL = 8.0, 2.8
# The part of the distance between levels over which seeds are spread.
_SPREAD = 0.5
_HOW = (
    "Seeds {seeds}. Left: the share of seeds in which in-context learning has not emerged yet (Kaplan and Meier), with "
    "its {interval}; a line ends where training does. It emerges where the best accuracy exceeds {level}, or chance by "
    "3 sigma if that is more, and then half-way from chance to the seed's own peak, or by the first snapshot. Right: "
    "every seed's accuracy at the end, and the share of seeds in which it emerged. K*: where half of the seeds acquire "
    "it, with its {interval}, by resampling seeds."
)


def draw_survival(record: ExperimentRecord, lanes: pd.DataFrame) -> Figure:
    """Draw survival curves, a colour a level, and beside them where lanes end. lanes: transience.csv."""
    axis = axis_of_numbers(figure_runs.levels(record))
    assert axis is not None, "study/checks.py refuses an experiment without one"
    confidence = record.statistics.confidence
    curves = acquisition.survival_of(lanes, axis, confidence)
    table = acquisition.threshold_of(lanes, axis, confidence)
    colours = dict(zip(table[axis], figure_runs.colours_of_runs(record).values(), strict=False))
    figure = Figure(figsize=(_WIDTH, 1), layout="constrained")
    handles = layout.legend_lines({f"{axis} = {level:g}": colour for level, colour in colours.items()})
    ((left, right),) = layout.with_legend(figure, 1, 2, handles, _HEIGHT_OF_PANEL)
    start = min([record.horizon, *curves["sequences_seen"]]) / 2
    for level, colour in colours.items():
        _steps(left, curves.loc[curves[axis] == level], start, record.horizon, colour)
    lines.sequences_axis(left, figure_runs.asked_of(record).x)
    left.set(ylim=(-0.02, 1.02), ylabel="share of seeds without it")
    _ends(right, lanes, table, axis, list(colours.values()))
    _mark_threshold(right, table, axis)
    return layout.finished(figure, record, _HOW.replace("{level}", _level_in_words(record)))


def _level_in_words(record: ExperimentRecord) -> str:
    """Return the accuracy that a lane's peak has to exceed, of every chance level that its runs have."""
    asked = record.statistics
    chances = {chance(asked.evaluator, run.recipe, run.labels) or 0.0 for run in record.runs}
    return " or ".join(f"{level + asked.min_effect:.3g}" for level in sorted(chances))


def _steps(panel: Axes, curve: pd.DataFrame, start: float, horizon: int, colour: object) -> None:
    """Draw S as steps from 1 at `start`, a place on the axis before all that happens, with its interval."""
    x = np.concatenate([[start], curve["sequences_seen"], [float(horizon)]])
    last = curve["survival"].iloc[-1:] if len(curve) else pd.Series([1.0])
    shares = np.concatenate([[1.0], curve["survival"], last])
    panel.step(x, shares, where="post", color=colour, linewidth=1.5)  # pyright: ignore[reportArgumentType]
    if len(curve):
        ends = [np.concatenate([[np.nan], curve[end], curve[end].iloc[-1:]]) for end in ("lower", "upper")]
        panel.fill_between(x, *ends, step="post", color=colour, alpha=0.15, linewidth=0)  # pyright: ignore


def _ends(panel: Axes, lanes: pd.DataFrame, table: pd.DataFrame, axis: str, colours: Sequence[object]) -> None:
    """Draw the accuracy at the end of every lane beside its level, and the share in which it emerged."""
    levels = list(table[axis])
    for place, (level, colour) in enumerate(zip(levels, colours, strict=True)):
        finals = np.sort(lanes.loc[lanes[axis] == level, "final"].dropna().to_numpy(dtype=float))
        x = place + _SPREAD * (np.linspace(-0.5, 0.5, len(finals)) if len(finals) > 1 else np.zeros(len(finals)))
        panel.plot(x, finals, "o", ms=3, color=colour, markeredgewidth=0, alpha=0.8)  # pyright: ignore
    panel.plot(range(len(levels)), table["share"], "_-", color=GREY, ms=14, mew=2, linewidth=0.8)
    panel.set(ylim=(-0.02, 1.02), xlim=(-0.6, len(levels) - 0.4), xlabel=axis)
    panel.set_ylabel("accuracy at the end; grey: share with it")
    panel.set_xticks(range(len(levels)), [format_count(level) if level >= 1000 else f"{level:g}" for level in levels])


def _mark_threshold(panel: Axes, table: pd.DataFrame, axis: str) -> None:
    """Mark K* and its interval, as far as they lie between levels."""
    levels = table[axis].to_numpy(dtype=float)
    scaled = np.log2 if levels.min() > 0 else np.asarray

    def place(value: float) -> float:
        if math.isinf(value):
            return -0.6 if value < 0 else len(levels) - 0.4
        return float(np.interp(scaled(value), scaled(levels), range(len(levels))))

    star, lower, upper = (float(table[name].iloc[0]) for name in ("threshold", "threshold_lower", "threshold_upper"))
    if not math.isnan(lower):
        panel.axvspan(place(lower), place(upper), color=GREY, alpha=0.12, linewidth=0)
    where = table["threshold_place"].iloc[0]
    if where == acquisition.BETWEEN:
        panel.axvline(place(star), color=GREY, linewidth=1, linestyle="--")
        panel.set_title(f"K* = {star:.3g}", fontsize=9)
    else:
        panel.set_title(f"K* {where}", fontsize=9)
