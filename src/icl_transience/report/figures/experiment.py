"""Figures of an experiment, drawn from its tables alone.

curves       a column a run: ICL, CIWL, IWL and flip over sequences seen, and the training loss
comparison   a panel an evaluator, a colour a run
summary      peak, when it is reached, half-life and index along an axis of numbers
plane        ICL against CIWL and IWL, a path a run in time
grid         curves where two axes vary, a panel a combination
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl_transience.report.figures import layout, marks, style, summary
from icl_transience.report.figures import lines as figure_lines
from icl_transience.report.figures import runs as figure_runs
from icl_transience.report.figures.runs import COLOURS, NAMES, STRATEGIES
from icl_transience.specs.evaluators import TRAINING, default_metric
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import default_curves

# Inches; at half the width of a page their text is still read.
WIDTH = 6.4


def draw_experiment(
    name: str,
    record: ExperimentRecord,
    curves: pd.DataFrame,
    lanes: pd.DataFrame,
    runs: pd.DataFrame,
    vector: Path,
    raster: Path,
) -> None:
    """Draw a figure as SVG and PNG; equal tables give equal files.

    name: of the figure. curves, lanes, runs: curves.csv, transience.csv and runs.csv.
    """
    figure_of, *tables = {
        "curves": (_curves, curves, runs),
        "comparison": (_comparison, curves),
        "summary": (summary.draw_summary, lanes, runs),
        "plane": (_plane, curves),
        "grid": (_grid, curves, runs),
    }[name]
    with matplotlib.rc_context(style.STYLE):
        style.save(figure_of(record, *tables), vector, raster)


def _curves(record: ExperimentRecord, curves: pd.DataFrame, of_runs: pd.DataFrame) -> Figure:
    """Draw a column a run: ICL, CIWL, IWL and flip above, dashed where at other contexts; the training loss below."""
    runs = record.runs
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    width = WIDTH if columns == 1 else 1.6 + 2.3 * columns
    figure = Figure(figsize=(width, 0.6 + 3.6 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, sharex=True, height_ratios=[3, 1] * rows, squeeze=False)
    for number, run in enumerate(runs):
        row, column = divmod(number, columns)
        upper, lower = axes[2 * row : 2 * row + 2, column]
        row = figure_runs.row_of(of_runs, run)
        _one_run(upper, lower, record, run, curves, row)
        if column == columns - 1 or number == len(runs) - 1:
            of_run = figure_runs.of_run(curves, run)
            shown = figure_runs.present(of_run, STRATEGIES)
            shown += figure_runs.at_other_contexts(of_run, shown)
            marks.label_ends(upper, row, shown, 0.055, in_layout=column == columns - 1)
        if len(runs) > 1:
            upper.set_title(run.name)
        if column == 0:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("training loss")
    for empty in axes[-2:, (len(runs) - 1) % columns + 1 :].ravel():
        empty.axis("off")
    _share_loss(axes[1::2].ravel()[: len(runs)])
    return layout.finished(figure, record)


def _one_run(
    upper: Axes, lower: Axes, record: ExperimentRecord, run: RunRecord, curves: pd.DataFrame, row: Mapping[str, Any]
) -> None:
    of_run, statistics = figure_runs.of_run(curves, run), record.statistics
    shown = figure_runs.present(of_run, STRATEGIES)
    marks.mark_chance(upper, [run], shown)
    for name in shown:
        figure_lines.draw_seeds(upper, default_curves(of_run, name), COLOURS[name], statistics.confidence)
    for name in figure_runs.at_other_contexts(of_run, shown):
        mean = figure_runs.mean_of(figure_runs.of_seeds(default_curves(of_run, name)))
        upper.plot(mean.index, mean, color=figure_runs.colour_of(name), linewidth=1.2, linestyle="--")
    if statistics.evaluator in shown:
        marks.mark_peak(upper, of_run, row)
    upper.set_ylim(-0.02, 1.02)
    loss = default_curves(of_run, TRAINING)
    figure_lines.draw_seeds(lower, loss, COLOURS[TRAINING], statistics.confidence, logarithmic=True)
    figure_lines.loss_axis(lower)
    figure_lines.sequences_axis(lower)
    lower.tick_params(labelbottom=True)


def _share_loss(lower: np.ndarray) -> None:
    limits = np.array([axes.get_ylim() for axes in lower])
    for axes in lower:
        axes.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def _comparison(record: ExperimentRecord, curves: pd.DataFrame) -> Figure:
    """Draw a panel an evaluator and one for the training loss, a colour a run."""
    shown = figure_runs.present(curves, (*STRATEGIES, TRAINING))
    columns = 3
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots(-(-(len(shown) + 1) // columns), columns, sharex=True).ravel()
    colours, confidence = figure_runs.colours_of_runs(record), record.statistics.confidence
    lines = {}
    for panel, name in zip(axes, shown, strict=False):
        for run in record.runs:
            curve, is_loss = default_curves(figure_runs.of_run(curves, run), name), name == TRAINING
            colour = colours[run.name]
            lines[run.name] = figure_lines.draw_seeds(panel, curve, colour, confidence, logarithmic=is_loss)
        panel.set_title(NAMES[name])
        if name == TRAINING:
            figure_lines.loss_axis(panel)
        else:
            panel.set_ylim(-0.02, 1.02)
            marks.mark_chance(panel, record.runs, [name])
        panel.set_ylabel("loss" if name == TRAINING else "accuracy")
        figure_lines.sequences_axis(panel)
    for panel in axes[len(shown) :]:
        panel.axis("off")
    layout.legend_of_runs(axes[len(shown)], record, lines)
    for number, panel in enumerate(axes[: len(shown)]):
        has_one_below = number + columns < len(shown)
        panel.tick_params(labelbottom=not has_one_below)
        panel.set_xlabel("" if has_one_below else "sequences seen")
    return layout.finished(figure, record)


def _plane(record: ExperimentRecord, curves: pd.DataFrame) -> Figure:
    """Draw ICL across, CIWL and IWL upwards: where the mean of every run goes in time, with its seeds."""
    against = figure_runs.present(curves, ("ciwl", "iwl"))
    colours, alone = figure_runs.colours_of_runs(record), len(record.runs) == 1
    title, words = figure_runs.words_of_runs(record)
    named = {f"{title} = {word}" if title != "run" else word: colours[run] for run, word in words.items()}
    figure = Figure(figsize=(WIDTH, 1), layout="constrained")
    handles = [*([] if alone else layout.legend_lines(named)), *layout.path_marks()]
    axes = layout.with_legend(figure, 1, 2, handles, 2.8)[0]
    for panel, name in zip(axes, against, strict=False):
        for run in words:
            of_run = curves.loc[curves["run"] == run]
            figure_lines.draw_path(panel, of_run, "icl", name, colours[run], in_words=alone)
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=f"ICL: {_metric('icl')}")
        panel.set_ylabel(f"{NAMES[name]}: {_metric(name)}")
        panel.set_aspect("equal")
        marks.mark_chance_of_plane(panel, record.runs[0], "icl", name)
    for panel in axes[len(against) :]:
        panel.axis("off")
    return layout.finished(figure, record, layout.OF_PATHS)


def _metric(evaluator: str) -> str:
    return default_metric(evaluator).replace("in_context", "in-context").replace("_", " ")


def _grid(record: ExperimentRecord, curves: pd.DataFrame, of_runs: pd.DataFrame) -> Figure:
    """Draw a panel a combination of two axes' levels: ICL, CIWL, IWL and flip, the mark at the peak."""
    (down, of_rows), (across, of_columns) = figure_runs.levels(record).items()
    width = min(2 * WIDTH, max(WIDTH, 1.2 + 1.5 * len(of_columns)))
    figure = Figure(figsize=(width, 0.8 + 1.5 * len(of_rows)), layout="constrained")
    axes = figure.subplots(len(of_rows), len(of_columns), sharex=True, sharey=True, squeeze=False)
    shown, statistics = figure_runs.present(curves, STRATEGIES), record.statistics
    for run in record.runs:
        row, column = of_rows.index(run.axes[down]), of_columns.index(run.axes[across])
        panel, of_run = axes[row, column], figure_runs.of_run(curves, run)
        numbers = figure_runs.row_of(of_runs, run)
        for name in shown:
            curve = default_curves(of_run, name)
            figure_lines.draw_seeds(panel, curve, COLOURS[name], statistics.confidence)
            if name == statistics.evaluator:
                marks.mark_peak(panel, of_run, numbers, in_words=False)
        marks.mark_chance(panel, [run], shown, words="")
        if column == len(of_columns) - 1:
            marks.label_ends(panel, numbers, shown, 0.1)
        figure_lines.sequences_axis(panel)
        panel.set(ylim=(-0.02, 1.02), xlabel="")
    for column, level in enumerate(of_columns):
        axes[0, column].set_title(figure_runs.at_level(across, level))
        axes[-1, column].set_xlabel("sequences seen")
    for row, level in enumerate(of_rows):
        axes[row, 0].set_ylabel(f"{figure_runs.at_level(down, level)}\naccuracy")
    return layout.finished(figure, record)
