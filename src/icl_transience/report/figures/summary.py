"""The figure `summary`: peak, when it is reached, half-life and index along an axis of numbers.

Its numbers of runs are those of runs.csv. Nothing is drawn through bounds: a seed whose time is only known to be later
than training lasted is an arrow of its own, and a median that seeds leave open has no place on the axis.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import ScaledTranslation

from icl_transience.report.figures import layout, lines
from icl_transience.report.figures import runs as figure_runs
from icl_transience.specs.experiment import TIMES, axis_of_numbers
from icl_transience.specs.records import ExperimentRecord
from icl_transience.system.formatting import format_count

# Inches.
WIDTH = 6.4
# Column of transience.csv and runs.csv -> its name on an axis.
QUANTITIES = {
    "peak": "peak (accuracy)",
    "peak_at": "peak at (sequences seen)",
    "half_life": "half-life (sequences)",
    "index": "transience index",
}
NOTE = (
    "Small: seeds {seeds}, side by side. Dashes: of peak and index their mean with its {interval}, of times their "
    "median (Kaplan and Meier), from 6 seeds with its {interval}."
)
# Under so many levels a line between them says no more than they do.
_JOINED_FROM = 3
# Points between seeds, so that equal ones can be counted, and from the first to the last at most.
_BESIDE, _ACROSS = 4, 20


def draw_summary(record: ExperimentRecord, lanes: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Draw a panel a quantity along the axis of numbers, a colour a combination of the other axes' levels.

    lanes, runs: transience.csv and runs.csv.
    """
    levels = figure_runs.levels(record)
    axis = axis_of_numbers(levels)
    assert axis is not None, "planning.targets plans a summary only along an axis of numbers"
    groups = figure_runs.grouped(record, [other for other in levels if other != axis])
    named = layout.legend_lines({name: colour for name, (colour, _) in groups.items() if name})
    figure = Figure(figsize=(WIDTH, 1), layout="constrained")
    panels = layout.with_legend(figure, 2, 2, [*named, *_marks(lanes, runs)], 2.0).ravel()
    for panel, (of, label) in zip(panels, QUANTITIES.items(), strict=True):
        if of in TIMES:
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
            panel.set_ylim(0, 1.1 * (_latest(lanes, runs, of) or record.horizon))
        for colour, of_group in groups.values():
            names = [run.name for run in of_group]
            its_lanes, its_runs = (table.loc[table["run"].isin(names)].sort_values(by=axis) for table in (lanes, runs))
            _draw_seeds(panel, its_lanes, axis, of, colour)
            _draw_runs(panel, its_runs, axis, of, colour)
        panel.set_ylabel(label)
        lines.levels_axis(panel, axis, levels[axis])
    panels[0].axhline(lanes["chance"].iloc[0], color=figure_runs.GREY, linewidth=0.9, linestyle=(0, (1, 2)))
    panels[0].set_ylim(top=1.02)
    # A lane that ends above its peak has an index below 0, without a bound: no seed is drawn over what stands below.
    lowest = min(lanes["index"].min(), runs["index_lower"].min())
    panels[3].set_ylim(min(-0.05, lowest - 0.05), 1.05)
    return layout.finished(figure, record, NOTE)


def _draw_seeds(panel: Axes, lanes: pd.DataFrame, axis: str, of: str, colour: Any) -> None:
    """Draw every lane small, the seeds of a run side by side: bounds upwards; those that have none at the foot."""
    seeds = sorted(set(lanes["seed"]), key=lambda seed: (len(seed), seed))
    bound, without = _is_bound(lanes, of), lanes[of].isna()
    for number, seed in enumerate(seeds):
        of_seed = lanes["seed"] == seed
        points = min(_BESIDE, _ACROSS / max(1, len(seeds) - 1)) * (number - (len(seeds) - 1) / 2)
        beside = ScaledTranslation(points / 72, 0, panel.figure.dpi_scale_trans)
        for marker, chosen in (("o", of_seed & ~bound & ~without), ("^", of_seed & bound)):
            x, y = lanes.loc[chosen, axis], lanes.loc[chosen, of]
            if x.empty:
                continue
            style = {"markersize": 4, "color": colour, "alpha": 0.7, "markeredgewidth": 0, "zorder": 4}
            panel.plot(x, y, marker, transform=panel.transData + beside, clip_on=False, **style)
            # Limits of an axis take no notice of what is moved.
            panel.update_datalim(np.column_stack([x, y]))
        x = lanes.loc[of_seed & without, axis]
        foot = panel.get_xaxis_transform() + beside
        panel.plot(x, np.full(len(x), 0.03), "x", color=colour, markersize=4, transform=foot)


def _draw_runs(panel: Axes, runs: pd.DataFrame, axis: str, of: str, colour: Any) -> None:
    """Draw means or medians as dashes with their intervals; of three levels on joined, where neighbours have one."""
    panel.update_datalim(np.column_stack([runs[axis], np.full(len(runs), np.nan)]), updatey=False)
    finite = np.isfinite(runs[of])
    if len(runs) >= _JOINED_FROM:
        # A gap where a level has no number.
        panel.plot(runs[axis], runs[of].where(finite), color=colour, linewidth=1, zorder=2)
    # A dash hides no seed.
    panel.plot(runs.loc[finite, axis], runs.loc[finite, of], "_", ms=16, mew=2.5, color=colour, zorder=3)
    for level, lower, upper in zip(runs[axis], runs[f"{of}_lower"], runs[f"{of}_upper"], strict=True):
        if np.isfinite(upper):
            panel.plot([level, level], [lower, upper], "_-", color=colour, linewidth=1, markersize=6, zorder=2)
        elif np.isfinite(lower):
            # An open end: up to the edge of the panel.
            ends = [lower, panel.get_ylim()[1]]
            panel.plot([level, level], ends, "_-", color=colour, linewidth=1, markersize=6, markevery=[0], zorder=2)
    top = panel.get_xaxis_transform()
    for level in runs.loc[np.isposinf(runs[of]), axis]:
        panel.plot([level], [1], "^", ms=8, mfc="white", mec=colour, transform=top, clip_on=False, zorder=5)


def _latest(lanes: pd.DataFrame, runs: pd.DataFrame, of: str) -> float:
    """Return the largest number that a panel shows of a time; 0 where there is none."""
    shown = np.concatenate([lanes[of], runs[of], runs[f"{of}_lower"], runs[f"{of}_upper"]]).astype(float)
    return float(shown[np.isfinite(shown)].max(initial=0))


def _is_bound(lanes: pd.DataFrame, of: str) -> pd.Series:
    # In a column that has empty cells too, pandas reads what is true and false as text.
    flags = lanes[f"{of}_censored"].astype(str) == "True" if of in TIMES else False
    return pd.Series(flags, lanes.index)


def _marks(lanes: pd.DataFrame, runs: pd.DataFrame) -> list[Line2D]:
    """Return what the marks mean, of those that are there."""
    times = [of for of in QUANTITIES if of in TIMES]
    marks = []
    if any(_is_bound(lanes, of).to_numpy().any() for of in times):
        marks.append(_mark("^", "seed: at least"))
    if any(np.isposinf(runs[of]).any() for of in times):
        marks.append(_mark("^", "median not reached"))
        marks[-1].set(markerfacecolor="white", markersize=8)
    if any(lanes[of].isna().to_numpy().any() for of in QUANTITIES):
        marks.append(_mark("x", "seed without the quantity"))
    return marks


def _mark(marker: str, words: str) -> Line2D:
    return Line2D([], [], color=figure_runs.GREY, marker=marker, linestyle="", label=words)
