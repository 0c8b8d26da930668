"""The figure `map`: outcome, transience index and peak where two axes vary, a field a combination of their levels."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl_transience.report.figures import layout
from icl_transience.report.figures import runs as figure_runs
from icl_transience.report.figures.lines import short
from icl_transience.report.figures.runs import GREY
from icl_transience.specs.records import ExperimentRecord
from icl_transience.system.formatting import format_count

# Inches.
_WIDTH, _FIELD = 9.6, 0.42
_NO_VALUE = "#E4E4E4"
# What is drawn: column of runs.csv -> its name, its colours and their range.
_QUANTITIES = {"index": ("transience index", "viridis_r", (0, 1)), "peak": ("peak (accuracy)", "viridis", (0.5, 1))}
_HOW = (
    "Seeds {seeds}; numbers are their means. On the left the outcome of the run stands over its index: N never, T "
    "transient, P persistent, D diverged; grey: no lane has an index."
)


def draw_map(record: ExperimentRecord, runs: pd.DataFrame) -> Figure:
    """Draw a panel a quantity, a field a run. runs: runs.csv."""
    (down, of_rows), (across, of_columns) = figure_runs.levels(record).items()
    rows = dict(runs.set_index("run").iterrows())
    figure = Figure(figsize=(_WIDTH, 1.0 + _FIELD * len(of_rows)), layout="constrained")
    panels = figure.subplots(1, len(_QUANTITIES), sharey=True)
    for panel, (of, (name, colours, (lowest, highest))) in zip(panels, _QUANTITIES.items(), strict=True):
        values = np.full((len(of_rows), len(of_columns)), np.nan)
        outcomes = np.full(values.shape, "", dtype=object)
        for run in record.runs:
            place = of_rows.index(run.axes[down]), of_columns.index(run.axes[across])
            values[place] = rows[run.name][of]
            outcomes[place] = str(rows[run.name]["outcome"])[0].upper()
        shades = matplotlib.colormaps[colours].with_extremes(bad=_NO_VALUE)
        image = panel.imshow(values, cmap=shades, vmin=lowest, vmax=highest, origin="lower", aspect="auto")
        _write(panel, values, outcomes if of == "index" else np.full(values.shape, ""), image)
        figure.colorbar(image, ax=panel, extend="min" if of == "index" else "neither")
        panel.set_title(name)
        panel.set_xticks(range(len(of_columns)), [_word(level) for level in of_columns], fontsize=8)
        panel.set_yticks(range(len(of_rows)), [_word(level) for level in of_rows], fontsize=8)
        panel.set_xlabel(across)
        panel.spines[:].set_visible(False)
    panels[0].set_ylabel(down)
    return layout.finished(figure, record, _HOW)


def _write(panel: Axes, values: np.ndarray, outcomes: np.ndarray, image: Any) -> None:
    """Write outcome and value into each field, dark on light and light on dark."""
    for (row, column), value in np.ndenumerate(values):
        number = "" if np.isnan(value) else f"{value:.2f}"
        text = "\n".join(part for part in (str(outcomes[row, column]), number) if part)
        luminance = 1.0 if np.isnan(value) else float(np.dot(image.to_rgba(value)[:3], (0.299, 0.587, 0.114)))
        panel.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=7,
            linespacing=0.95,
            color=GREY if np.isnan(value) else ("black" if luminance > 0.5 else "white"),
        )


def _word(level: Any) -> str:
    if not isinstance(level, int | float) or isinstance(level, bool):
        return str(level)
    return format_count(level) if level >= 1000 else short(level)
