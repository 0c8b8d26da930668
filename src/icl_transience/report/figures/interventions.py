"""Accuracies under interventions over sequences seen, beside those of the model as it is."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from icl_transience.report.figures import layout, marks
from icl_transience.report.figures import lines as figure_lines
from icl_transience.report.figures import runs as figure_runs
from icl_transience.report.figures.heads import shown_runs
from icl_transience.report.figures.runs import UNORDERED, asked_of, metric_of, name_of
from icl_transience.specs.circuits import evaluator_of, intervened, intervention_of, is_intervened
from icl_transience.specs.records import ExperimentRecord
from icl_transience.store.tables_file import Tables

# Of the model as it is, so that no other line is nearly black.
_PLAIN = "#000000"
_COLOURS = UNORDERED[:-1]
# More have the same colours, with another line.
_STYLES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")


def draw_interventions(record: ExperimentRecord, tables: Tables) -> Figure:
    """Draw a row an evaluator, a column a run, a line an intervention: mean over seeds."""
    curves, runs = tables.curves, shown_runs(record)
    under = [name for name in dict.fromkeys(curves["evaluator"]) if is_intervened(name)]
    evaluators = list(dict.fromkeys(map(evaluator_of, under)))
    names = list(dict.fromkeys(intervention_of(name) for name in under))
    looks: dict[str, tuple[str, Literal["-", "--", ":"]]] = {
        name: (_COLOURS[number % len(_COLOURS)], _STYLES[number // len(_COLOURS) % len(_STYLES)])
        for number, name in enumerate(names)
    }
    handles = layout.legend_lines({"as it is": _PLAIN} | {name: colour for name, (colour, _) in looks.items()})
    for handle, (_, line_style) in zip(handles[1:], looks.values(), strict=True):
        handle.set_linestyle(line_style)
    figure = Figure(figsize=(max(6.4, 1.4 + 2.4 * len(runs)), 1), layout="constrained")
    axes = layout.with_legend(figure, len(evaluators), len(runs), handles, 2.2)
    for row, evaluator in enumerate(evaluators):
        for run, panel in zip(runs, axes[row], strict=True):
            of_run = figure_runs.of_run(curves, record, run)
            for name, (colour, line_style) in looks.items():
                mean = _mean(of_run, record, intervened(evaluator, name))
                panel.plot(mean.index, mean, color=colour, linestyle=line_style, linewidth=1.4)
            plain = _mean(of_run, record, evaluator)
            panel.plot(plain.index, plain, color=_PLAIN, linewidth=2.2, zorder=5)
            marks.mark_chance(panel, record, [run], [evaluator])
            figure_lines.sequences_axis(panel, asked_of(record).x)
            figure_lines.metric_axis(panel, metric_of(record, evaluator))
            panel.set_xlabel("sequences seen" if row == len(evaluators) - 1 else "")
            panel.tick_params(labelsize=8)
            if len(runs) > 1 and row == 0:
                panel.set_title(run.name, fontsize=9)
        axes[row, 0].set_ylabel(f"{name_of(evaluator)}\n{layout.words_of(metric_of(record, evaluator))}", fontsize=8)
    more = len(record.runs) - len(runs)
    how = "Means over seeds {seeds}; black: no intervention; dotted: chance." + f" {more} more runs: in curves.csv." * (
        more > 0
    )
    return layout.finished(figure, record, how)


def _mean(of_run: pd.DataFrame, record: ExperimentRecord, name: str) -> pd.Series:
    """Return the mean over seeds of an evaluator, under an intervention or not."""
    metric = metric_of(record, evaluator_of(name))
    curve = of_run.loc[(of_run["evaluator"] == name) & (of_run["metric"] == metric)]
    by_seed = figure_runs.of_seeds(curve)
    # A seed without a peak has nothing to graft from; others still have a mean.
    some = by_seed.loc[:, ~by_seed.isna().to_numpy().all(axis=0)] if by_seed.size else by_seed
    return figure_runs.mean_of(some) if some.size else pd.Series(dtype=float, index=np.array([], dtype=int))
