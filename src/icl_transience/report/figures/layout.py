"""What stands around the panels of a figure: its title, legends, and at the foot what it was made with."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icl_transience.report.figures.lines import BAND_FROM
from icl_transience.report.figures.placing import Words
from icl_transience.report.figures.runs import (
    GREY,
    asked_of,
    chance_of,
    is_at_other_context,
    metric_of,
    name_of,
    words_of_runs,
)
from icl_transience.specs.evaluators import default_metric, evaluator_parts
from icl_transience.specs.records import ExperimentRecord

# What a metric is the share or the mean of; others say it by their name.
_METRICS = {
    "in_context_accuracy": "accuracy among the labels in the context",
    "accuracy": "accuracy among all labels",
    "copier_weight": "1 as the ideal copier, 0 as the ideal memoriser",
}
# Of a legend, about, in inches: a letter of its words, and the line before them with the room around both.
_CHARACTER, _HANDLE = 0.075, 0.5


# Title and foot.


def finished(figure: Figure, record: ExperimentRecord, how: str, words: Words | None = None) -> Figure:
    """Add the title, if the study wants one, and the foot, what the figure was made with; return the figure.

    The figure gets the height of both, and words that have no place yet get one.
    """
    title = f"{record.experiment}: {record.question}" if record.question else record.experiment
    with_text(figure, title if asked_of(record).title else "", note_of(record, how))
    if words is not None:
        words.settle(figure)
    return figure


def with_text(figure: Figure, title: str, note: Sequence[str]) -> Figure:
    """Add a title, if there is one, and the lines of a foot, wrapped, and the height of both; return the figure."""
    width = figure.get_figwidth()
    titles = textwrap.wrap(title, int(10.5 * width))
    notes = [part for line in note for part in textwrap.wrap(line, int(18.5 * width))]
    figure.set_figheight(figure.get_figheight() + 0.2 * len(titles) + 0.13 * len(notes))
    if titles:
        figure.suptitle("\n".join(titles), x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.supxlabel("\n".join(notes), x=0.01, ha="left", fontsize=7, color="#555555")
    return figure


def of_paths(record: ExperimentRecord) -> str:
    """Return how to read paths of seeds and of their mean."""
    return "Seed {seeds}." if _most_seeds(record) == 1 else "Thin: seeds {seeds}; thick: their mean."


def of_curves(record: ExperimentRecord, shown: Sequence[str], *, peaks: bool = True) -> str:
    """Return how to read curves. shown: evaluators. peaks: whether peaks are marked where there are any."""
    parts = [of_paths(record).removesuffix(".")]
    if _most_seeds(record) >= BAND_FROM:
        parts.append("band: its {interval}")
    if others := [name for name in shown if is_at_other_context(name)]:
        parts.append(f"dashed: at {'another context length' if len(others) == 1 else 'other context lengths'}, means")
    if any(chance_of(record, run, name) is not None for run in record.runs for name in shown):
        parts.append("dotted: chance")
    summarised = record.statistics.evaluator
    if peaks and summarised in shown and metric_of(record, summarised) == default_metric(summarised):
        parts.append(
            "triangle: " + ("their peaks' mean, at the median of when" if _most_seeds(record) > 1 else "the peak")
        )
    by_metric: dict[str, dict[str, None]] = {}
    for name in shown:
        by_metric.setdefault(metric_of(record, name), {})[name_of(evaluator_parts(name)[0])] = None
    said = [f"{', '.join(names)}: {_METRICS.get(metric, words_of(metric))}" for metric, names in by_metric.items()]
    return f"{'; '.join(parts)}. {'; '.join(said)}."


def words_of(metric: str) -> str:
    """Return the name of a metric on an axis."""
    return metric.replace("in_context", "in-context").replace("out_of_context", "out-of-context").replace("_", " ")


def _most_seeds(record: ExperimentRecord) -> int:
    return max(len(run.lanes) for run in record.runs)


def note_of(record: ExperimentRecord, how: str) -> list[str]:
    """Return how to read the figure, and what everything in it was made with, in paragraphs."""
    seeds = sorted({lane.seed for run in record.runs for lane in run.lanes}, key=lambda s: (len(s), s))
    interval = f"{record.statistics.confidence:.0%} interval"
    lines = [f"Study {record.study}. {how.format(seeds=', '.join(seeds), interval=interval)}"]
    captions = {run.name: run.caption or () for run in record.runs}
    common = _shared(captions.values())
    lines.append("; ".join(common) + ".")
    if len(captions) > 1:
        own = {name: [part for part in caption if part not in common] for name, caption in captions.items()}
        named = [f"{name}: {'; '.join(parts)}." for name, parts in (_of_levels(record, own) or own).items() if parts]
        lines.append(" ".join(named))
    return lines


def _shared(captions: Collection[Sequence[str]]) -> list[str]:
    """Return the parts that all captions have."""
    first = next(iter(captions))
    return [part for part in first if all(part in caption for caption in captions)]


def _of_levels(record: ExperimentRecord, own: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return level -> the parts that all runs have which are at it, where axes cross and this says all; else nothing.

    own: run -> its parts. A level is called as it is in the names of runs.
    """
    levels = {run.name: run.name.split(",") for run in record.runs}
    if any(len(run.axes) < 2 or len(levels[run.name]) != len(run.axes) for run in record.runs):
        return {}
    names = dict.fromkeys(level for axis in zip(*levels.values(), strict=True) for level in axis)
    found = {level: _shared([own[run] for run, at in levels.items() if level in at]) for level in names}
    said = {run: {part for level in at for part in found[level]} for run, at in levels.items()}
    return found if all(said[run] == set(parts) for run, parts in own.items()) else {}


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


def width_of_legend(title: str, words: Collection[str]) -> float:
    """Return about how wide `legend_of_runs` is, in inches."""
    return max(_CHARACTER * len(title), _CHARACTER * max(map(len, words)) + _HANDLE)


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
    labels = [str(handle.get_label()) for handle in handles]
    longest, width = max(map(len, labels), default=1), figure.get_figwidth()
    across = max(1, min(len(handles), int(width / (_CHARACTER * longest + _HANDLE))))
    # One that is wider than the figure would leave no room for panels.
    labels = [textwrap.fill(label, int((width - _HANDLE) / _CHARACTER)) for label in labels]
    lines = sum(len(label.split("\n")) for label in labels)
    legend_height = 0.185 * -(-lines // across) + 0.1 if handles else 0.01
    figure.set_figheight(rows * panel_height + legend_height + 0.6)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[*[panel_height] * rows, legend_height])
    below = figure.add_subplot(grid[rows, :])
    below.axis("off")
    if handles:
        below.legend(handles, labels, loc="center", ncols=across, fontsize=8, borderaxespad=0)
    return np.array([[figure.add_subplot(grid[row, column]) for column in range(columns)] for row in range(rows)])


def _mark(marker: str, words: str) -> Line2D:
    return Line2D([], [], color=GREY, marker=marker, linestyle="", label=words)
