"""Measures of heads over sequences seen: as heat maps, and as lines."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from icl_transience.report.figures import layout
from icl_transience.report.figures import lines as figure_lines
from icl_transience.report.figures.runs import GREY, UNORDERED, asked_of, name_of
from icl_transience.specs.measures import ATTRIBUTION, HEAD_MEASURES
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import CircuitsTables, Tables
from icl_transience.system.formatting import format_count

# More runs, or layers, than that have no room in one figure; the tables have all.
MOST_RUNS = 6
# Of more heads a heat map names every second one, and so on.
_NAMED_HEADS = 16
WORDS = {
    "induction": "induction",
    "previous_token": "previous token",
    "previous_token_corrected": "previous token, corrected",
    "self": "itself",
    "query_items": "query to its items",
    "query_labels": "query to its labels",
    "context_labels": "query to all labels",
    ATTRIBUTION: "attribution",
}


def draw_heads(record: ExperimentRecord, tables: Tables, inside: CircuitsTables) -> Figure:
    """Draw a row a measure, a column a run; of each run's first seed, since heads of seeds do not correspond."""
    of_heads, measures, runs = _chosen(record, inside)
    figure, axes = _panels(record, runs, measures, 0.35 + 0.09 * _most_heads(of_heads), extra=0.5)
    for row, measure in enumerate(measures):
        values = of_heads.loc[of_heads["measure"] == measure]
        norm = norm_of(values["value"].to_numpy(), measure)
        for run, panel in zip(runs, axes[row], strict=True):
            _heat_map(panel, _first_lane(values, run), norm, measure)
            _mark_peak(panel, run, tables)
        axes[row, 0].set_ylabel(_wrapped(measure), fontsize=7)
        figure.colorbar(_colours(norm, measure), ax=list(axes[row]), aspect=12, pad=0.01).ax.tick_params(labelsize=7)
    how = (
        "Heads of the first seed, layer.head, from the first layer at the top; measured on "
        f"{_evaluator_name(record, inside)}. Dotted line: that seed's peak."
    )
    return layout.finished(figure, record, how + _left_out(record))


def draw_head_lines(record: ExperimentRecord, tables: Tables, inside: CircuitsTables) -> Figure:
    """Draw a row a measure, a column a run: heads of the first seed, and the strongest of all seeds on average."""
    of_heads, measures, runs = _chosen(record, inside)
    layers = sorted(of_heads["layer"].unique())
    colours = dict(zip(layers, _of_layers(len(layers)), strict=True))
    figure, axes = _panels(record, runs, measures, 1.3, extra=0.3)
    for row, measure in enumerate(measures):
        values = of_heads.loc[of_heads["measure"] == measure]
        for run, panel in zip(runs, axes[row], strict=True):
            for place, line in _first_lane(values, run).groupby(["layer", "head"]):
                layer, head = cast(tuple[int, int], place)
                panel.plot(line["sequences_seen"], line["value"], color=colours[layer], linewidth=0.8)
                if (layer, head) == _strongest(_first_lane(values, run)):
                    end = line.iloc[-1]
                    at = (end["sequences_seen"], end["value"])
                    words = f" {layer}.{head}"
                    panel.annotate(words, at, fontsize=7, color=colours[layer], va="center", annotation_clip=False)
            of_run = values.loc[values["run"] == run.name]
            strongest = of_run.groupby(["seed", "sequences_seen"])["value"].max().groupby("sequences_seen").mean()
            panel.plot(strongest.index, strongest, color=GREY, linewidth=1.4, linestyle="--")
            _mark_peak(panel, run, tables)
            figure_lines.sequences_axis(panel, asked_of(record).x)
            panel.set_xlabel("sequences seen" if row == len(measures) - 1 else "")
            panel.tick_params(labelsize=7, labelbottom=row == len(measures) - 1)
        axes[row, 0].set_ylabel(_wrapped(measure), fontsize=7)
    handles = layout.legend_lines({f"layer {layer}": colour for layer, colour in colours.items()})
    axes[0, 0].legend(handles=handles, loc="upper left", ncols=-(-len(handles) // 4), fontsize=7)
    how = (
        "Solid: each head of the first seed, the highest at the end by layer.head; dashed: the strongest at each time, "
        f"mean over seeds {{seeds}}; measured on {_evaluator_name(record, inside)}. Dotted line: the first seed's peak."
    )
    return layout.finished(figure, record, how + _left_out(record))


def measured_on(record: ExperimentRecord, inside: CircuitsTables) -> str:
    """Return the evaluator that figures show: that of the statistics, or the first one that is measured."""
    measured = list(dict.fromkeys(inside.heads["evaluator"]))
    return record.statistics.evaluator if record.statistics.evaluator in measured else measured[0]


def shown_runs(record: ExperimentRecord) -> Sequence[RunRecord]:
    """Return the runs for which there is room."""
    return record.runs[:MOST_RUNS]


def _chosen(record: ExperimentRecord, inside: CircuitsTables) -> tuple[pd.DataFrame, list[str], Sequence[RunRecord]]:
    """Return (the rows of heads that are drawn, measures, runs)."""
    table, first = inside.heads, 1 if asked_of(record).x == "log" else 0
    of_heads = table.loc[
        (table["evaluator"] == measured_on(record, inside)) & table["head"].notna() & (table["sequences_seen"] >= first)
    ].astype({"layer": int, "head": int})
    present = set(of_heads["measure"])
    return of_heads, [name for name in (*HEAD_MEASURES, ATTRIBUTION) if name in present], shown_runs(record)


def _panels(
    record: ExperimentRecord, runs: Sequence[RunRecord], measures: Sequence[str], height: float, *, extra: float
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its panels [measures, runs], titled by run where there are several."""
    width = max(6.4, 1.6 + 2.2 * len(runs))
    figure = Figure(figsize=(width, extra + height * len(measures)), layout="constrained")
    axes = figure.subplots(len(measures), len(runs), sharex=True, sharey="row", squeeze=False)
    if len(runs) > 1:
        for run, panel in zip(runs, axes[0], strict=True):
            panel.set_title(run.name, fontsize=8)
    return figure, axes


def _first_lane(values: pd.DataFrame, run: RunRecord) -> pd.DataFrame:
    return values.loc[(values["run"] == run.name) & (values["seed"] == run.lanes[0].seed)]


def _most_heads(of_heads: pd.DataFrame) -> int:
    return len(of_heads[["layer", "head"]].drop_duplicates())


def _strongest(of_lane: pd.DataFrame) -> tuple[int, int]:
    """Return (layer, head) of the head with the highest value at the end."""
    last = of_lane.loc[of_lane["sequences_seen"] == of_lane["sequences_seen"].max()]
    top = last.loc[last["value"].idxmax()]
    return int(top["layer"]), int(top["head"])


def _heat_map(panel: Axes, of_lane: pd.DataFrame, norm: Normalize, measure: str) -> None:
    if not len(of_lane):
        panel.axis("off")
        return
    table = of_lane.pivot(index=["layer", "head"], columns="sequences_seen", values="value")
    # Snapshots at equal distances: they are dense where much happens.
    panel.imshow(table.to_numpy(), aspect="auto", norm=norm, cmap=map_of(measure), interpolation="nearest")
    every = -(-len(table) // _NAMED_HEADS)
    panel.set_yticks(range(0, len(table), every), [f"{layer}.{head}" for layer, head in table.index[::every]])
    places = np.linspace(0, table.shape[1] - 1, min(5, table.shape[1])).round().astype(int)
    panel.set_xticks(places, [format_count(int(table.columns[place])) for place in places])
    panel.tick_params(labelsize=6, length=2)
    for layer in sorted(set(table.index.get_level_values(0)))[1:]:
        first = list(table.index.get_level_values(0)).index(layer)
        panel.axhline(first - 0.5, color="white", linewidth=1)
    panel.snapshots = list(table.columns)  # type: ignore[attr-defined]


def _mark_peak(panel: Axes, run: RunRecord, tables: Tables) -> None:
    """Draw a line at the peak of the run's first seed, if it has one."""
    lanes = tables.lanes
    peak = lanes.loc[(lanes["run"] == run.name) & (lanes["seed"] == run.lanes[0].seed), "peak_at"]
    if peak.isna().all():
        return
    snapshots, at = getattr(panel, "snapshots", None), float(peak.iloc[0])
    if snapshots is not None:
        at = float(np.interp(at, snapshots, range(len(snapshots))))
    panel.axvline(at, color=GREY if snapshots is None else "black", linewidth=1, linestyle=":")


def norm_of(values: np.ndarray, measure: str) -> Normalize:
    """Return what the colours of a measure span: all but its most extreme values; of a signed one evenly around 0."""
    lowest, highest = (float(np.quantile(values, share)) for share in (0.001, 0.999)) if len(values) else (0.0, 1.0)
    if _is_signed(measure):
        most = max(abs(lowest), abs(highest), 1e-9)
        return TwoSlopeNorm(0, -most, most)
    return Normalize(0, max(highest, 1e-9))


def _is_signed(measure: str) -> bool:
    return measure in ("induction", "previous_token_corrected", ATTRIBUTION)


def map_of(measure: str) -> str:
    """Return Matplotlib's name of the colours of a measure."""
    return "RdBu_r" if _is_signed(measure) else "viridis"


def _colours(norm: Normalize, measure: str) -> ScalarMappable:
    return ScalarMappable(norm, map_of(measure))


def _of_layers(n: int) -> list[str]:
    return [UNORDERED[number % len(UNORDERED)] for number in range(n)]


def _wrapped(measure: str) -> str:
    words = WORDS.get(measure, measure)
    return words if len(words) < 14 else "\n".join(words.rsplit(" ", 1))


def _evaluator_name(record: ExperimentRecord, inside: CircuitsTables) -> str:
    return name_of(measured_on(record, inside))


def _left_out(record: ExperimentRecord) -> str:
    more = len(record.runs) - len(shown_runs(record))
    return f" {more} more run{'s' * (more > 1)}: in heads.csv." if more else ""
