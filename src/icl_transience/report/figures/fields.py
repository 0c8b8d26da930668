"""The figure `map`: outcome, transience index and peak where two axes vary, a field a combination of their levels."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from icl_transience.report.figures import layout
from icl_transience.report.figures import runs as figure_runs
from icl_transience.report.figures.lines import short
from icl_transience.report.figures.runs import GREY
from icl_transience.specs.evaluators import chance
from icl_transience.specs.records import ExperimentRecord
from icl_transience.store.tables_file import records
from icl_transience.system.formatting import format_count

# Inches.
_WIDTH, _FIELD = 9.6, 0.42
_NO_VALUE = "#E4E4E4"
# What is drawn: column of runs.csv -> its name and its colours.
_QUANTITIES = {"index": ("transience index", "viridis_r"), "peak": ("peak (accuracy)", "viridis")}
_RISING = "↑"
_HOW = (
    "Seeds {seeds}. On the left the outcome of the run stands over the mean index of the lanes that have one: N never, "
    "T transient, P persistent, D diverged; grey: no lane has an index; hatched: not every lane has. On the right the "
    "lanes' mean peak, colours from chance on; ↑: the peak of a lane is its last snapshot, and it may go on rising."
)


def draw_map(record: ExperimentRecord, runs: pd.DataFrame) -> Figure:
    """Draw a panel a quantity, a field a run. runs: runs.csv."""
    (down, of_rows), (across, of_columns) = figure_runs.levels(record).items()
    rows = {row["run"]: row for row in records(runs)}
    figure = Figure(figsize=(_WIDTH, 1.0 + _FIELD * len(of_rows)), layout="constrained")
    panels = figure.subplots(1, len(_QUANTITIES), sharey=True)
    asked = record.statistics.evaluator
    lowest = {"index": 0.0, "peak": min(chance(asked, run.recipe, run.labels) or 0.0 for run in record.runs)}
    for panel, (of, (name, colours)) in zip(panels, _QUANTITIES.items(), strict=True):
        values = np.full((len(of_rows), len(of_columns)), np.nan)
        above, after = np.full((2, *values.shape), "", dtype=object)
        for run in record.runs:
            row, place = rows[run.name], (of_rows.index(run.axes[down]), of_columns.index(run.axes[across]))
            values[place] = row[of]
            if of == "index":
                above[place] = str(row["outcome"])[0].upper()
                if 0 < row["n_index"] < row["seeds"]:
                    _hatch(panel, place)
            elif row["n_peak_at_censored"] > 0:
                after[place] = _RISING
        shades = matplotlib.colormaps[colours].with_extremes(bad=_NO_VALUE)
        image = panel.imshow(values, cmap=shades, vmin=lowest[of], vmax=1, origin="lower", aspect="auto")
        _write(panel, values, above, after, image)
        figure.colorbar(image, ax=panel, extend="min" if of == "index" else "neither")
        panel.set_title(name)
        panel.set_xticks(range(len(of_columns)), [_word(level) for level in of_columns], fontsize=8)
        panel.set_yticks(range(len(of_rows)), [_word(level) for level in of_rows], fontsize=8)
        panel.set_xlabel(across)
        panel.spines[:].set_visible(False)
    panels[0].set_ylabel(down)
    return layout.finished(figure, record, _HOW)


def _hatch(panel: Axes, place: tuple[int, int]) -> None:
    """Hatch the field at (row, column)."""
    row, column = place
    panel.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="//", edgecolor=GREY, linewidth=0))


def _write(panel: Axes, values: np.ndarray, above: np.ndarray, after: np.ndarray, image: Any) -> None:
    """Write into each field its value, what stands above it and what after it, dark on light and light on dark."""
    for (row, column), value in np.ndenumerate(values):
        number = "" if np.isnan(value) else f"{value:.2f}{after[row, column]}"
        text = "\n".join(part for part in (str(above[row, column]), number) if part)
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
