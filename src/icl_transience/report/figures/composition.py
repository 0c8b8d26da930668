"""Composition of heads: how much of what a later head reads, an earlier one writes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from icl_transience.report.figures import layout
from icl_transience.report.figures.heads import shown_runs
from icl_transience.specs.measures import COMPOSITIONS
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import CircuitsTables, Tables
from icl_transience.system.formatting import format_count

_NAMED_HEADS = 16


def draw_composition(record: ExperimentRecord, tables: Tables, inside: CircuitsTables) -> Figure:
    """Draw a row of matrices for queries, keys and values, a column a snapshot of a run: its peak, and its end."""
    table = inside.composition
    measures = [name for name in COMPOSITIONS if name in set(table["measure"])]
    columns = [(run, words, at) for run in shown_runs(record) for words, at in _snapshots(table, tables, run).items()]
    size = (max(6.4, 1.2 + 1.7 * len(columns)), 0.5 + 1.7 * len(measures))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(max(1, len(measures)), max(1, len(columns)), squeeze=False)
    values = table["value"].to_numpy() if len(table) else np.array([0.0, 1.0])
    norm = Normalize(float(values.min()), float(np.quantile(values, 0.999)))
    for row, measure in enumerate(measures):
        for (run, words, at), panel in zip(columns, axes[row], strict=True):
            of_lane = (table["run"] == run.name) & (table["seed"] == run.lanes[0].seed)
            _matrix(panel, table.loc[of_lane & (table["measure"] == measure) & (table["sequences_seen"] == at)], norm)
            if row == 0:
                title = f"{words} ({format_count(at)})"
                panel.set_title(f"{run.name}\n{title}" if len(record.runs) > 1 else title, fontsize=8)
            if row == len(measures) - 1:
                panel.set_xlabel("reads", fontsize=8)
        axes[row, 0].set_ylabel(f"{measure[0].upper()}: writes", fontsize=8)
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=axes, aspect=30, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("composition", fontsize=8)
    how = (
        "Of the first seed: head (layer.head) that writes down, later head that reads across, through its queries (Q), "
        "keys (K) and values (V); |W_O W| / (|W_O| |W|), Frobenius norms."
    )
    return layout.finished(figure, record, how)


def _snapshots(table: pd.DataFrame, tables: Tables, run: RunRecord) -> dict[str, int]:
    """Return the words for a snapshot -> where it is, of a run's first lane: its peak if it has one, its end."""
    of_lane = table.loc[(table["run"] == run.name) & (table["seed"] == run.lanes[0].seed), "sequences_seen"]
    if not len(of_lane):
        return {}
    lanes = tables.lanes
    peak = lanes.loc[(lanes["run"] == run.name) & (lanes["seed"] == run.lanes[0].seed), "peak_at"].iloc[0]
    end = int(of_lane.max())
    has_peak = not np.isnan(peak) and int(peak) != end
    return ({"peak": int(peak)} if has_peak else {"start": int(of_lane.min())}) | {"end": end}


def _matrix(panel: Axes, rows: pd.DataFrame, norm: Normalize) -> None:
    square = rows.pivot(index=["layer", "head"], columns=["later_layer", "later_head"], values="value")
    panel.imshow(square.to_numpy(), norm=norm, cmap="viridis", interpolation="nearest", aspect="auto")
    for axis, index in ((panel.yaxis, square.index), (panel.xaxis, square.columns)):
        every = -(-len(index) // _NAMED_HEADS)
        axis.set_ticks(range(0, len(index), every), [f"{layer}.{head}" for layer, head in index[::every]])
    panel.tick_params(labelsize=6, length=2)
    panel.tick_params(axis="x", rotation=90)
