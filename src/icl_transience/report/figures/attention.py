"""Mean attention patterns of heads at the start, the peak and the end."""

from typing import cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from icl_transience.report.figures import layout
from icl_transience.report.figures.runs import name_of
from icl_transience.specs.circuits import END, PEAK, START
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import CircuitsTables
from icl_transience.system.formatting import format_count

MOST_HEADS, MOST_RUNS = 16, 3
# Inches of a pattern.
_SIZE = 0.78


def draw_attention(record: ExperimentRecord, inside: CircuitsTables) -> Figure:
    """Draw a row a snapshot of a run, a column a head: rows of a pattern are tokens, columns what they attend to."""
    table = inside.attention
    runs = record.runs[:MOST_RUNS]
    heads = _chosen(table)
    rows: list[tuple[RunRecord, str]] = [
        (run, snapshot)
        for run in runs
        for snapshot in (START, PEAK, END)
        if ((table["run"] == run.name) & (table["snapshot"] == snapshot)).to_numpy().any()
    ]
    size = (max(6.4, 1.3 + _SIZE * len(heads)), 0.5 + (_SIZE + 0.12) * max(1, len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(max(1, len(rows)), max(1, len(heads)), squeeze=False)
    for row, (run, snapshot) in enumerate(rows):
        of_row = table.loc[(table["run"] == run.name) & (table["snapshot"] == snapshot)]
        for (layer, head), panel in zip(heads, axes[row], strict=True):
            _pattern(panel, of_row.loc[(of_row["layer"] == layer) & (of_row["head"] == head)])
            if row == 0:
                panel.set_title(f"{layer}.{head}", fontsize=7, loc="center")
        at = format_count(int(of_row["sequences_seen"].iloc[0]))
        words = f"{snapshot} ({at})"
        axes[row, 0].set_ylabel(f"{run.name}\n{words}" if len(runs) > 1 else words, fontsize=7)
    # Attention is seldom near 1: the colours are those of its square root.
    bar = figure.colorbar(ScalarMappable(_Root(0, 1), "viridis"), ax=axes, aspect=30, pad=0.01)
    bar.set_label("attention", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    evaluators = table["evaluator"].unique()
    shown = f"on {name_of(evaluators[0])}" if len(evaluators) else ""
    more = len(table[["layer", "head"]].drop_duplicates()) - len(heads)
    how = (
        f"Mean attention of heads (layer.head) of the first seed {shown}: token down, what it attends to across, in "
        "turn exemplars and labels, the query at the foot"
        + (f"; {more} heads whose attention is closer to even are left out" if more else "")
        + "."
    )
    return layout.finished(figure, record, how)


class _Root(Normalize):
    """Colours by the square root of a value from 0 to 1."""

    def __call__(self, value, clip=None):  # type: ignore[no-untyped-def]
        return super().__call__(value, clip) ** 0.5

    def inverse(self, value):  # type: ignore[no-untyped-def]
        return super().inverse(value**2)


def _pattern(panel: Axes, rows: pd.DataFrame) -> None:
    square = rows.pivot(index="token", columns="attends_to", values="value")
    panel.imshow(square.to_numpy(), norm=_Root(0, 1), cmap="viridis", interpolation="nearest", aspect="auto")
    panel.set(xticks=[], yticks=[])


def _chosen(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Return (layer, head) of those heads that are drawn: of many those that are farthest from even attention."""
    far = table.assign(far=(table["value"] - 1 / (1 + table["token"])).abs())
    of_heads = {
        cast(tuple[int, int], head): float(rows["far"].to_numpy().mean())
        for head, rows in far.groupby(["layer", "head"])
    }
    chosen = sorted(of_heads, key=lambda head: -of_heads[head])[:MOST_HEADS]
    return sorted((int(layer), int(head)) for layer, head in chosen)
