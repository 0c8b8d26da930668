"""The figure of where a model stands between two ideal predictors, beside what it does: a column a run.

Above, the copier's weight, ICL and flip; below, how far the model is from both predictors, in nats.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl_transience.report.figures import layout, marks, numbers
from icl_transience.report.figures import lines as figure_lines
from icl_transience.report.figures import runs as figure_runs
from icl_transience.report.figures.placing import Words
from icl_transience.report.figures.runs import asked_of, colour_of
from icl_transience.specs.evaluators import STRATEGY
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import Tables, default_curves

# Drawn where they are evaluated; the first lies on top.
_SHOWN = (STRATEGY, "icl", "flip")
_DIVERGENCES = {"copier_divergence": ("copier", "#5E3C99"), "memoriser_divergence": ("memoriser", "#B2182B")}
_WIDTH = 6.4


def draw_strategy(record: ExperimentRecord, tables: Tables) -> Figure:
    """Draw the copier's weight over sequences seen, and the divergences from both predictors below it."""
    runs, words = record.runs, Words.none()
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    figure = Figure(figsize=(_WIDTH if columns == 1 else 1.8 + 2.6 * columns, 0.6 + 4 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, sharex=True, height_ratios=[2, 1] * rows, squeeze=False)
    present = set(tables.curves["evaluator"])
    shown = [name for name in _SHOWN if name in present]
    for number, run in enumerate(runs):
        row, column = divmod(number, columns)
        upper, lower = axes[2 * row : 2 * row + 2, column]
        last = column == columns - 1 or number == len(runs) - 1
        _weight(upper, record, run, tables, shown)
        ends = {name: numbers.end_of_default(run, tables, name) for name in shown}
        marks.label_ends(upper, ends, words, names=last, in_layout=column == columns - 1 or not last)
        _divergences(lower, record, run, tables)
        if len(runs) > 1:
            upper.set_title(run.name)
        if column == 0:
            upper.set_ylabel("copier weight, accuracy")
            lower.set_ylabel("divergence (nats)")
    for empty in axes[-2:, (len(runs) - 1) % columns + 1 :].ravel():
        empty.axis("off")
    axes[1, 0].legend(fontsize=8)
    return layout.finished(figure, record, _how(record, shown), words)


def _weight(panel: Axes, record: ExperimentRecord, run: RunRecord, tables: Tables, shown: list[str]) -> None:
    of_run = figure_runs.of_run(tables.curves, record, run)
    figure_lines.sequences_axis(panel, asked_of(record).x)
    figure_lines.metric_axis(panel, "copier_weight")
    for name in reversed(shown):
        curve = default_curves(of_run, name)
        figure_lines.draw_seeds(panel, curve, colour_of(name), record.statistics.confidence)
    panel.axhline(0.5, color=figure_runs.GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    panel.set_xlabel("")


def _divergences(panel: Axes, record: ExperimentRecord, run: RunRecord, tables: Tables) -> None:
    of_run = figure_runs.of_run(tables.curves, record, run)
    figure_lines.sequences_axis(panel, asked_of(record).x)
    for metric, (name, colour) in _DIVERGENCES.items():
        curve = of_run.loc[(of_run["evaluator"] == STRATEGY) & (of_run["metric"] == metric)]
        line = figure_lines.draw_seeds(panel, curve, colour, record.statistics.confidence)
        line.set_label(f"from the {name}")
    panel.set_ylim(bottom=0)
    panel.tick_params(labelbottom=True)


def _how(record: ExperimentRecord, shown: list[str]) -> str:
    """Return how to read it."""
    beside = ", ".join(figure_runs.name_of(name) for name in shown if name != STRATEGY)
    return (
        f"{layout.of_paths(record)} Copier weight: 1 where the model answers as the ideal copier, 0 as the ideal "
        f"memoriser; dotted: as far from the one as from the other{', and chance' if beside else ''}. "
        + (f"{beside}: accuracy among the labels in the context." if beside else "")
    )
