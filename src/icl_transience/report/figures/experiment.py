"""Figures of an experiment, drawn from its tables alone.

curves       a column a run: its evaluators over sequences seen, and the training loss
comparison   a panel an evaluator, a colour a run
summary      peak, when it is reached, half-life and index along an axis of numbers
plane        ICL against CIWL and IWL, a path a run in time
grid         curves where two axes vary, a panel a combination
map          outcome, transience index and peak where two axes vary, a field a combination: fields.py
survival     in how many lanes in-context learning is acquired along an axis, and when: survival.py
strategy     where the model stands between two ideal predictors, see strategy.py
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl_transience.report.figures import fields, layout, marks, numbers, strategy, style, summary, survival
from icl_transience.report.figures import lines as figure_lines
from icl_transience.report.figures import runs as figure_runs
from icl_transience.report.figures.placing import Words
from icl_transience.report.figures.runs import asked_of, colour_of, curve_of, metric_of, name_of
from icl_transience.specs.evaluators import STRATEGY, TRAINING
from icl_transience.specs.figures import FIGURES, OWN_METRIC, names_of_figures
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import Tables

# Inches; at half the width of a page their text is still read.
WIDTH = 6.4
# Runs whose names fit into the place of a panel, one below another.
_MOST_IN_A_PANEL = 12


def draw_experiment(record: ExperimentRecord, tables: Tables, folder: Path) -> list[Path]:
    """Draw every figure of an experiment in the formats that its study asks for, and return their files.

    Figures that are there from before, and are not among them, are removed: they would show what is no longer so.
    """
    asked = asked_of(record)
    names = names_of_figures(
        figure_runs.levels(record), len(record.runs), asked.drawn, acquisition=record.statistics.acquisition
    )
    return style.draw_all(lambda name: _figure(name, record, tables), names, folder, asked.formats, FIGURES)


def draw_figure(name: str, record: ExperimentRecord, tables: Tables, *paths: Path) -> None:
    """Draw one figure to each path, in the format of its suffix; equal tables give equal files."""
    with matplotlib.rc_context(style.STYLE):
        style.save(_figure(name, record, tables), *paths)


def _figure(name: str, record: ExperimentRecord, tables: Tables) -> Figure:
    if name == "summary":
        return summary.draw_summary(record, tables.lanes, tables.runs)
    if name == "map":
        return fields.draw_map(record, tables.runs)
    if name == "survival":
        return survival.draw_survival(record, tables.lanes)
    if name == "strategy":
        return strategy.draw_strategy(record, tables)
    return {"curves": _curves, "comparison": _comparison, "plane": _plane, "grid": _grid}[name](record, tables)


def _curves(record: ExperimentRecord, tables: Tables) -> Figure:
    """Draw a column a run: evaluators above, dashed where at other contexts; the training loss below."""
    runs, words = record.runs, Words.none()
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    width = WIDTH if columns == 1 else 1.8 + 2.6 * columns
    figure = Figure(figsize=(width, 0.6 + 3.6 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, sharex=True, height_ratios=[3, 1] * rows, squeeze=False)
    shown = _shown(record, tables.curves)
    for number, run in enumerate(runs):
        row, column = divmod(number, columns)
        upper, lower = axes[2 * row : 2 * row + 2, column]
        _one_run(upper, record, run, tables, shown, words)
        _training_loss(lower, record, run, tables.curves)
        # Names stand once a row; elsewhere colours tell which value is whose.
        last = column == columns - 1 or number == len(runs) - 1
        ends = {name: numbers.end(record, run, tables, name) for name in shown}
        marks.label_ends(upper, ends, words, names=last, in_layout=column == columns - 1 or not last)
        if len(runs) > 1:
            upper.set_title(run.name)
        if column == 0:
            upper.set_ylabel(_label(record, shown))
            lower.set_ylabel("training loss")
    for empty in axes[-2:, (len(runs) - 1) % columns + 1 :].ravel():
        empty.axis("off")
    _share_limits(axes[1::2].ravel()[: len(runs)])
    if asked_of(record).metric == "loss":
        _share_limits(axes[::2].ravel()[: len(runs)])
    return layout.finished(figure, record, layout.of_curves(record, shown), words)


def _shown(record: ExperimentRecord, curves: pd.DataFrame) -> list[str]:
    """Return the evaluators that are drawn, and the strategy unless it lacks the metric that is asked for."""
    present = set(curves["evaluator"]) - (set() if asked_of(record).metric == OWN_METRIC else {STRATEGY})
    return [name for name in asked_of(record).drawn if name in present]


def _label(record: ExperimentRecord, shown: Sequence[str]) -> str:
    """Return the name of the vertical axis of these evaluators."""
    metrics = {metric_of(record, name) for name in shown}
    return "accuracy" if asked_of(record).metric == "default" else layout.words_of(metrics.pop())


def _one_run(
    panel: Axes,
    record: ExperimentRecord,
    run: RunRecord,
    tables: Tables,
    shown: Sequence[str],
    words: Words | None = None,
) -> None:
    """Draw a run's evaluators in a panel; words: to which the names of what is marked are added."""
    of_run = figure_runs.of_run(tables.curves, record, run)
    figure_lines.sequences_axis(panel, asked_of(record).x)
    figure_lines.metric_axis(panel, asked_of(record).metric)
    for name in reversed(shown):  # the first one lies on top
        _draw(panel, of_run, record, name, colour_of(name))
    marks.mark_chance(panel, record, [run], shown, words)
    if record.statistics.evaluator in shown:
        marks.mark_peak(panel, record, numbers.peak(record, run, tables), words)
    panel.set_xlabel("")


def _draw(panel: Axes, of_run: pd.DataFrame, record: ExperimentRecord, name: str, colour: object):
    """Draw an evaluator's curve; at another context length the mean alone, dashed. Return the mean's line."""
    curve, is_loss = curve_of(of_run, record, name), name == TRAINING or metric_of(record, name) == "loss"
    if name != TRAINING and figure_runs.is_at_other_context(name):
        mean = figure_runs.mean_of(figure_runs.of_seeds(curve))
        return panel.plot(mean.index, mean, color=colour, linewidth=1.2, linestyle="--")[0]
    return figure_lines.draw_seeds(panel, curve, colour, record.statistics.confidence, logarithmic=is_loss)


def _training_loss(panel: Axes, record: ExperimentRecord, run: RunRecord, curves: pd.DataFrame) -> None:
    figure_lines.loss_axis(panel)
    figure_lines.sequences_axis(panel, asked_of(record).x)
    _draw(panel, figure_runs.of_run(curves, record, run), record, TRAINING, colour_of(TRAINING))
    panel.tick_params(labelbottom=True)


def _share_limits(panels: np.ndarray) -> None:
    limits = np.array([axes.get_ylim() for axes in panels])
    for axes in panels:
        axes.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def _comparison(record: ExperimentRecord, tables: Tables) -> Figure:
    """Draw a panel an evaluator and one for the training loss, a colour a run."""
    evaluators, words = _shown(record, tables.curves), Words.none()
    shown = [*evaluators, TRAINING]
    columns, colours, lines = 3, figure_runs.colours_of_runs(record), {}
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(WIDTH, 0.3 + 1.8 * rows), layout="constrained")
    title, of_runs = figure_runs.words_of_runs(record)
    free = rows * columns - len(shown)
    # A legend that is larger than the place that is free would push panels apart.
    width_of_free = free * (WIDTH / columns - 0.2)
    if (
        has_room := len(of_runs) <= _MOST_IN_A_PANEL
        and layout.width_of_legend(title, of_runs.values()) <= width_of_free
    ):
        grid = figure.add_gridspec(rows, columns)
        places = [grid[number // columns, number % columns] for number in range(len(shown))]
        axes = [figure.add_subplot(place) for place in [*places, grid[rows - 1, columns - free :]]]
    else:
        handles = layout.legend_lines(_named(title, of_runs, colours))
        axes = list(layout.with_legend(figure, rows, columns, handles, 1.8).ravel())
    for panel, name in zip(axes, shown, strict=False):
        if panel is not axes[0]:
            panel.sharex(axes[0])
        figure_lines.sequences_axis(panel, asked_of(record).x)
        figure_lines.metric_axis(panel, "loss" if name == TRAINING else metric_of(record, name))
        for run in record.runs:
            of_run = figure_runs.of_run(tables.curves, record, run)
            lines[run.name] = _draw(panel, of_run, record, name, colours[run.name])
        if name != TRAINING:
            marks.mark_chance(panel, record, record.runs, [name], words)
        panel.set_title(name_of(name), fontsize=9)
        panel.tick_params(labelsize=8)
        panel.set_ylabel("loss" if name == TRAINING else _label(record, [name]))
    for panel in axes[len(shown) :]:
        panel.axis("off")
    if has_room:
        layout.legend_of_runs(axes[-1], record, lines)
    for number, panel in enumerate(axes[: len(shown)]):
        has_one_below = number + columns < len(shown)
        panel.tick_params(labelbottom=not has_one_below)
        panel.set_xlabel("" if has_one_below else "sequences seen")
    return layout.finished(figure, record, layout.of_curves(record, evaluators, peaks=False), words)


def _named(title: str, words: Mapping[str, str], colours: Mapping[str, Any]) -> dict[str, Any]:
    """Return the colour of each run by what a legend without a title calls it."""
    return {f"{title} = {word}" if title != "run" else word: colours[run] for run, word in words.items()}


def _plane(record: ExperimentRecord, tables: Tables) -> Figure:
    """Draw ICL across, CIWL and IWL upwards: where the mean of every run goes in time, with its seeds."""
    shown, curves = _shown(record, tables.curves), tables.curves
    against = [name for name in ("ciwl", "iwl") if name in shown]
    colours, alone = figure_runs.colours_of_runs(record), len(record.runs) == 1
    title, words_of_runs = figure_runs.words_of_runs(record)
    figure = Figure(figsize=(WIDTH, 1), layout="constrained")
    handles = [] if alone else layout.legend_lines(_named(title, words_of_runs, colours))
    handles += layout.path_marks()
    axes, words = layout.with_legend(figure, 1, 2, handles, 2.8)[0], Words.none()
    for panel, name in zip(axes, against, strict=False):
        for axis, evaluator in ((panel.xaxis, "icl"), (panel.yaxis, name)):
            axis.set_label_text(f"{name_of(evaluator)}: {layout.words_of(metric_of(record, evaluator))}")
        for run in words_of_runs:
            of_run = curves.loc[curves["run"] == run]
            across, upwards = (curve_of(of_run, record, evaluator) for evaluator in ("icl", name))
            figure_lines.draw_path(panel, across, upwards, colours[run], words if alone else None)
        if asked_of(record).metric != "loss":
            panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            panel.set_aspect("equal")
        marks.mark_chance_of_plane(panel, record, "icl", name)
    for panel in axes[len(against) :]:
        panel.axis("off")
    return layout.finished(figure, record, layout.of_paths(record), words)


def _grid(record: ExperimentRecord, tables: Tables) -> Figure:
    """Draw a panel a combination of two axes' levels, the mark at the peak."""
    (down, of_rows), (across, of_columns) = figure_runs.levels(record).items()
    width = min(2 * WIDTH, max(WIDTH, 1.6 + 1.5 * len(of_columns)))
    figure = Figure(figsize=(width, 0.8 + 1.5 * len(of_rows)), layout="constrained")
    axes = figure.subplots(len(of_rows), len(of_columns), sharex=True, sharey=True, squeeze=False)
    shown, words = _shown(record, tables.curves), Words.none()
    for run in record.runs:
        row, column = of_rows.index(run.axes[down]), of_columns.index(run.axes[across])
        panel = axes[row, column]
        panel.tick_params(labelsize=8)
        _one_run(panel, record, run, tables, shown)
        if column == len(of_columns) - 1:
            marks.label_ends(panel, {name: numbers.end(record, run, tables, name) for name in shown}, words)
    for column, level in enumerate(of_columns):
        axes[0, column].set_title(figure_runs.at_level(across, level), fontsize=8)
        axes[-1, column].set_xlabel("sequences seen")
    for row, level in enumerate(of_rows):
        axes[row, 0].set_ylabel(f"{figure_runs.at_level(down, level)}\n{_label(record, shown)}")
    return layout.finished(figure, record, layout.of_curves(record, shown), words)
