"""Lines of curves and paths over seeds, and the axes that they are drawn on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from icl_transience.analysis.transience import t_half_width
from icl_transience.report.figures.placing import Words, around
from icl_transience.report.figures.runs import GREY, mean_of, of_seeds
from icl_transience.report.figures.ticks import LinearTicks, LogTicks
from icl_transience.system.formatting import format_count

# With fewer seeds an interval is as wide as the axis, and says less than the seeds themselves.
BAND_FROM = 5


# Lines.


def draw_seeds(axes: Axes, curve: pd.DataFrame, colour: Any, confidence: float, *, logarithmic: bool = False) -> Line2D:
    """Draw every seed thin, their mean thick, and of many seeds its interval as a band; return the mean's line."""
    by_seed = of_seeds(curve)
    alive, mean = by_seed.dropna(axis=1), mean_of(by_seed)
    few = alive.shape[1] < BAND_FROM
    if by_seed.shape[1] > 1:
        axes.plot(by_seed.index, by_seed, color=colour, linewidth=0.8 if few else 0.5, alpha=0.55 if few else 0.4)
    if not few:
        lower, upper = _band(alive.to_numpy(), confidence, logarithmic)
        axes.fill_between(alive.index, lower, upper, color=colour, alpha=0.15, linewidth=0)
    return axes.plot(mean.index, mean, color=colour, linewidth=2)[0]


def _band(values: np.ndarray, confidence: float, logarithmic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return Student's t interval of the mean of values [points, seeds]; of the mean logarithm where that is shown."""
    values = np.log(values) if logarithmic else values
    half = t_half_width(values, confidence)
    ends = values.mean(axis=1) - half, values.mean(axis=1) + half
    return (np.exp(ends[0]), np.exp(ends[1])) if logarithmic else (ends[0], ends[1])


def draw_path(
    axes: Axes, across: pd.DataFrame, upwards: pd.DataFrame, colour: Any, words: Words | None = None
) -> Line2D:
    """Draw the means of two curves against each other in time, and each seed's; return the mean's line.

    From a disc to a square; at powers of ten there are circles, with their number if there are `words` to add it to.
    """
    x_by_seed, y_by_seed = of_seeds(across), of_seeds(upwards)
    if x_by_seed.shape[1] > 1:
        for seed in x_by_seed:
            axes.plot(x_by_seed[seed], y_by_seed[seed], color=colour, linewidth=0.5, alpha=0.4)
    x, y = mean_of(x_by_seed), mean_of(y_by_seed)
    (line,) = axes.plot(x, y, color=colour, linewidth=2)
    for end, marker in ((0, "o"), (-1, "s")):
        if len(x):
            axes.plot(x.iloc[end], y.iloc[end], marker=marker, markersize=5, color=colour, zorder=5)
    for seen in _powers_of_ten(x.index):
        if seen not in (x.index[0], x.index[-1]):
            # Without a face: it would hide paths of other runs.
            axes.plot(x[seen], y[seen], "o", markersize=7, markerfacecolor="none", markeredgecolor=colour, zorder=4)
        if words is not None:
            leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            words.add(
                axes, format_count(seen), (x[seen], y[seen]), around(6, 14, 22, 32), fontsize=7, arrowprops=leader
            )
    return line


def _powers_of_ten(sequences_seen: pd.Index) -> list[int]:
    """Return the snapshots nearest to 1k, 10k, 100k, …, where any is near."""
    seen = np.array([value for value in sequences_seen if value > 0], dtype=float)
    powers = [10.0**power for power in range(3, 13) if len(seen) and seen.min() <= 10**power <= seen.max()]
    return [int(seen[np.abs(np.log(seen / power)).argmin()]) for power in powers]


# Axes.


def sequences_axis(axes: Axes, scale: str = "log") -> None:
    """Make the horizontal axis one of sequences seen; scale: log or linear."""
    axes.set_xscale(scale)
    axes.xaxis.set_major_locator(LogTicks() if scale == "log" else LinearTicks())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("sequences seen")


def loss_axis(axes: Axes) -> None:
    """Make the vertical axis one of losses, logarithmic."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogTicks())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def metric_axis(axes: Axes, metric: str) -> None:
    """Make the vertical axis one of a metric: of losses, or of shares and probabilities from 0 to 1."""
    if metric == "loss":
        loss_axis(axes)
    else:
        axes.set_ylim(-0.02, 1.02)


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
