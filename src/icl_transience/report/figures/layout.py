"""What stands around the panels of a figure: its title, legends, and at the foot what it was made with."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icl_transience.report.figures.runs import GREY, words_of_runs
from icl_transience.specs.records import ExperimentRecord

OF_PATHS = "Thin: seeds {seeds}; thick: their mean."
OF_CURVES = (
    "Thin: seeds {seeds}; thick: their mean; band, from 3 seeds: its {interval}. ICL, CIWL, flip: accuracy among the "
    "labels in the context; IWL: among all labels."
)


# Title and foot.


def finished(figure: Figure, record: ExperimentRecord, how: str = OF_CURVES) -> Figure:
    """Add the title and, at the foot, what the figure was made with, and the height of both; return the figure."""
    title = f"{record.experiment}: {record.question}" if record.question else record.experiment
    lines = textwrap.wrap(title, int(10.5 * figure.get_figwidth()))
    note = note_of(record, figure.get_figwidth(), how)
    figure.set_figheight(figure.get_figheight() + 0.2 * len(lines) + 0.13 * (note.count("\n") + 1))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.supxlabel(note, x=0.01, ha="left", fontsize=7, color="#555555")
    return figure


def note_of(record: ExperimentRecord, inches: float, how: str) -> str:
    """Return how to read the figure, and what everything in it was made with, wrapped to its width."""
    seeds = sorted({lane.seed for run in record.runs for lane in run.lanes}, key=lambda s: (len(s), s))
    interval = f"{record.statistics.confidence:.0%} interval"
    lines = [f"Study {record.study}. {how.format(seeds=', '.join(seeds), interval=interval)}"]
    captions = [run.caption or () for run in record.runs]
    common = [part for part in captions[0] if all(part in caption for caption in captions)]
    lines.append("; ".join(common) + ".")
    if len(captions) > 1:
        own = ["; ".join(part for part in caption if part not in common) for caption in captions]
        named = [f"{run.name}: {text}." for run, text in zip(record.runs, own, strict=True) if text]
        lines.append(" ".join(named))
    return "\n".join(textwrap.fill(line, int(18.5 * inches)) for line in lines)


# Legends.


def legend_of_runs(axes: Axes, record: ExperimentRecord, lines: Mapping[str, Line2D]) -> None:
    """Draw the legend in place of a panel; runs in order of their levels."""
    title, words = words_of_runs(record)
    axes.legend(
        [lines[run] for run in words],
        list(words.values()),
        loc="center left",
        title=title,
        fontsize=8 if len(words) < 8 else 6.5,
    )


def path_marks() -> list[Line2D]:
    """Return what the marks of `lines.draw_path` mean."""
    circle = _mark("o", "1k, 10k, 100k, … sequences seen")
    circle.set_markerfacecolor("white")
    return [_mark("o", "first snapshot"), _mark("s", "last snapshot"), circle]


def legend_lines(colours: Mapping[str, Any]) -> list[Line2D]:
    """Return a line of a legend for each name."""
    return [Line2D([], [], color=colour, linewidth=2, label=words) for words, colour in colours.items()]


def with_legend(figure: Figure, rows: int, columns: int, handles: Sequence[Line2D], panel_height: float) -> np.ndarray:
    """Return panels [rows, columns]; set the height, and draw below them a legend as wide as its words allow."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    across = max(1, min(len(handles), int(figure.get_figwidth() / (0.075 * longest + 0.5))))
    legend_height = 0.17 * -(-len(handles) // across) + 0.1 if handles else 0.01
    figure.set_figheight(rows * panel_height + legend_height + 0.6)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[*[panel_height] * rows, legend_height])
    below = figure.add_subplot(grid[rows, :])
    below.axis("off")
    if handles:
        below.legend(handles=handles, loc="center", ncols=across, fontsize=8, borderaxespad=0)
    return np.array([[figure.add_subplot(grid[row, column]) for column in range(columns)] for row in range(rows)])


def _mark(marker: str, words: str) -> Line2D:
    return Line2D([], [], color=GREY, marker=marker, linestyle="", label=words)
