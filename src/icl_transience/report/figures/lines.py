"""Lines of curves and paths over seeds, and the axes that they are drawn on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from icl_transience.analysis.transience import t_half_width
from icl_transience.report.figures.runs import mean_of, of_seeds
from icl_transience.store.tables_file import default_curves
from icl_transience.system.formatting import format_count

# With fewer seeds an interval is wider than the axis.
BAND_FROM = 3
# Of a loss: highest over lowest, up to which 1, 2 and 5 times every power of ten are labelled.
_FEW_DECADES = 1000


# Lines.


def draw_seeds(axes: Axes, curve: pd.DataFrame, colour: Any, confidence: float, *, logarithmic: bool = False) -> Line2D:
    """Draw every seed thin, their mean thick, its interval over seeds as a band; return the mean's line."""
    by_seed = of_seeds(curve)
    if by_seed.shape[1] > 1:
        axes.plot(by_seed.index, by_seed, color=colour, linewidth=0.5, alpha=0.4)
    alive, mean = by_seed.dropna(axis=1), mean_of(by_seed)
    if alive.shape[1] >= BAND_FROM:
        lower, upper = _band(alive.to_numpy(), confidence, logarithmic)
        axes.fill_between(alive.index, lower, upper, color=colour, alpha=0.15, linewidth=0)
    return axes.plot(mean.index, mean, color=colour, linewidth=2)[0]


def _band(values: np.ndarray, confidence: float, logarithmic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return Student's t interval of the mean of values [points, seeds]; of the mean logarithm where that is shown."""
    values = np.log(values) if logarithmic else values
    half = t_half_width(values, confidence)
    ends = values.mean(axis=1) - half, values.mean(axis=1) + half
    return (np.exp(ends[0]), np.exp(ends[1])) if logarithmic else (ends[0], ends[1])


def draw_path(axes: Axes, of_run: pd.DataFrame, across: str, upwards: str, colour: Any, *, in_words: bool) -> Line2D:
    """Draw two evaluators' means against each other in time, and each seed's; return the mean's line.

    From a disc to a square; at powers of ten there are circles, with their number if in_words.
    """
    x_by_seed, y_by_seed = (of_seeds(default_curves(of_run, name)) for name in (across, upwards))
    if x_by_seed.shape[1] > 1:
        for seed in x_by_seed:
            axes.plot(x_by_seed[seed], y_by_seed[seed], color=colour, linewidth=0.5, alpha=0.4)
    x, y = mean_of(x_by_seed), mean_of(y_by_seed)
    (line,) = axes.plot(x, y, color=colour, linewidth=2)
    for end, marker in ((0, "o"), (-1, "s")):
        if len(x):
            axes.plot(x.iloc[end], y.iloc[end], marker=marker, markersize=6, color=colour, mec="white", zorder=5)
    for seen in _powers_of_ten(x.index):
        axes.plot(x[seen], y[seen], "o", markersize=4.5, markerfacecolor="white", markeredgecolor=colour, zorder=4)
        if in_words:
            axes.annotate(format_count(seen), (x[seen], y[seen]), xytext=(5, 3), textcoords="offset points", fontsize=7)
    return line


def _powers_of_ten(sequences_seen: pd.Index) -> list[int]:
    """Return the snapshots nearest to 1k, 10k, 100k, …, where any is near."""
    seen = np.array([value for value in sequences_seen if value > 0], dtype=float)
    powers = [10.0**power for power in range(3, 13) if len(seen) and seen.min() <= 10**power <= seen.max()]
    return [int(seen[np.abs(np.log(seen / power)).argmin()]) for power in powers]


# Axes.


def sequences_axis(axes: Axes) -> None:
    """Make the horizontal axis one of sequences seen, logarithmic."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("sequences seen")


def loss_axis(axes: Axes) -> None:
    """Make the vertical axis one of losses, logarithmic."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))

    def label(value: float, _: int) -> str:
        lowest, highest = axes.get_ylim()
        # Over many decades there is no room between them.
        return f"{value:g}" if highest < _FEW_DECADES * lowest or f"{value:e}".startswith("1.0") else ""

    axes.yaxis.set_major_formatter(FuncFormatter(label))
    axes.yaxis.set_minor_formatter(NullFormatter())


def short(level: float) -> str:
    """Format 0.0003 as "3e-4", where that is shorter: levels on an axis may be close to each other."""
    plain = f"{level:g}"
    mantissa, _, exponent = f"{level:e}".partition("e")
    scientific = f"{float(mantissa):g}e{int(exponent)}"
    return scientific if abs(level) < 1 and len(scientific) < len(plain) else plain


def levels_axis(axes: Axes, axis: str, of_axis: Sequence[float]) -> None:
    """Make the horizontal axis one of these levels; logarithmic where they span tenfold, with room for 0."""
    positive = [level for level in of_axis if level > 0]
    if min(of_axis) >= 0 and positive and max(positive) > 9.99 * min(positive):
        if min(of_axis) > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=min(positive))
    elif len(positive) == 1 and min(of_axis) == 0:
        # Nothing but 0 and one level.
        axes.set_xscale("symlog", linthresh=positive[0])
    axes.xaxis.set_major_locator(FixedLocator(list(of_axis)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.margins(x=0.08)
    axes.set_xlabel(axis)
