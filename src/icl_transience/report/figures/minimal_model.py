"""The figure of the minimal model: both losses over steps, a panel a variant, beside those of trained runs."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl_transience.report.figures import layout, lines, style
from icl_transience.report.figures.runs import COLOURS, GREY, NAMES
from icl_transience.specs.theory import MINIMAL_MODEL, Beside, MinimalModelRecord
from icl_transience.store import tables_file

# Inches.
_WIDTH_OF_PANEL, _HEIGHT_OF_PANEL = 2.3, 2.5
_MOST_COLUMNS = 4
# Before it the losses fall to a plateau, whatever comes.
_FIRST_STEP = 30
# Strategy -> the column of losses.csv, and its name in the equation.
_LOSSES = {"icl": ("loss_icl", "L1"), "ciwl": ("loss_ciwl", "L2")}
_TITLE = "minimal_model: does the loss of in-context learning come back where strategies share parts?"
_HOW = (
    "Study {study}. Minimal model of coopetition, L = (L1 + mu1)(L2 + mu2) + alpha/2 mean((a x d)^2); gradient descent "
    "at rate {rate:g}; a, b, c of {dim} entries, d of {dim_d}. Thin: {seeds} seeds; thick: their median, in which a "
    "seed that has stopped counts with its last losses; dashed: one seed, whose return of L1 under {first} is the "
    "median; a cross: where a seed diverged."
)
_BESIDE = (
    " Trained: cross-entropy at the query, over all labels; thin: seeds; thick: their mean; band, from 5 seeds: its "
    "{confidence:.0%} interval."
)


def draw_minimal_model(
    record: MinimalModelRecord,
    losses: pd.DataFrame,
    seeds: pd.DataFrame,
    curves: Mapping[str, pd.DataFrame],
    vector: Path,
    raster: Path,
) -> None:
    """Draw the figure as SVG and PNG; equal tables give equal files.

    losses, seeds: losses.csv and seeds.csv. curves: curves.csv of each experiment in `record.beside`.
    """
    with matplotlib.rc_context(style.STYLE):
        style.save(_figure(record, losses, seeds, curves), vector, raster)


def draw_from_tables(record: MinimalModelRecord, tables: Path, experiments: Path, output: Path) -> Path:
    """Draw minimal_model.svg and .png into `output`; return the former.

    tables: the folder of losses.csv and seeds.csv. experiments: that of the experiments' folders. Raises StudyError
    where a table is not as it was written.
    """
    vector = output / f"{MINIMAL_MODEL}.svg"
    draw_minimal_model(
        record,
        *tables_file.read_minimal_model(tables),
        {one.experiment: tables_file.read_curves(experiments / one.experiment) for one in record.beside},
        vector,
        vector.with_suffix(".png"),
    )
    return vector


def _figure(
    record: MinimalModelRecord, losses: pd.DataFrame, seeds: pd.DataFrame, curves: Mapping[str, pd.DataFrame]
) -> Figure:
    variants, beside = record.model.variants, record.beside
    n_panels = len(variants) + len(beside)
    columns = min(n_panels, _MOST_COLUMNS)
    rows = -(-n_panels // columns)
    figure = Figure(figsize=(0.4 + _WIDTH_OF_PANEL * max(columns, 2), _HEIGHT_OF_PANEL * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    of_model, of_runs = panels[: len(variants)], panels[len(variants) : n_panels]
    typical = _typical_seed(seeds.loc[seeds["variant"] == variants[0].name])
    first = _FIRST_STEP if record.model.steps > 10 * _FIRST_STEP else 1
    for panel, variant in zip(of_model, variants, strict=True):
        of_variant = losses.loc[(losses["variant"] == variant.name) & (losses["step"] >= first)]
        _draw_losses(panel, of_variant, seeds.loc[seeds["variant"] == variant.name], typical)
        values = (f"{name} = {getattr(variant, name):g}" for name in ("alpha", "mu1", "mu2"))
        panel.set_title(f"{variant.name}\n{', '.join(values)}", fontsize=8)
    for panel, one in zip(of_runs, beside, strict=True):
        _draw_run(panel, one, curves[one.experiment])
    for panel in panels[n_panels:]:
        panel.axis("off")
    named = {f"{NAMES[strategy]} ({symbol})": COLOURS[strategy] for strategy, (_, symbol) in _LOSSES.items()}
    panels[0].legend(handles=layout.legend_lines(named), fontsize=8, loc="upper right")
    return layout.with_text(figure, _TITLE, [_note(record)])


def _draw_losses(panel: Axes, losses: pd.DataFrame, seeds: pd.DataFrame, typical: int | None) -> None:
    """Draw both losses of a variant over steps; typical: the seed that is drawn dashed."""
    diverged = seeds.loc[seeds["outcome"] == "diverged"]
    for strategy, (column, _) in _LOSSES.items():
        colour = COLOURS[strategy]
        by_seed = losses.pivot(index="step", columns="seed", values=column)
        by_seed = by_seed.interpolate(method="index", limit_area="inside")
        panel.plot(by_seed.index, by_seed, color=colour, linewidth=0.4, alpha=0.3)
        if typical in by_seed:
            panel.plot(by_seed.index, by_seed[typical], color=colour, linewidth=1.2, linestyle="--")
        alive = by_seed.drop(columns=diverged["seed"], errors="ignore").ffill()
        if alive.shape[1]:
            median = alive.median(axis=1)
            panel.plot(median.index, median, color=colour, linewidth=2)
    foot = panel.get_xaxis_transform()
    panel.plot(diverged["last_step"], [0.03] * len(diverged), "x", color=GREY, transform=foot)
    lines.sequences_axis(panel)
    panel.set_ylim(bottom=0)
    panel.set(xlabel="steps", ylabel="loss")


def _typical_seed(seeds: pd.DataFrame) -> int | None:
    """Return the seed whose return of L1 is the (lower) median of those that stopped; None where none did."""
    stopped = seeds.loc[seeds["outcome"] == "stopped"].sort_values(["icl_return", "seed"])
    return None if stopped.empty else int(stopped["seed"].iloc[(len(stopped) - 1) // 2])


def _draw_run(panel: Axes, one: Beside, curves: pd.DataFrame) -> None:
    """Draw the losses of a trained run on both evaluators over sequences seen."""
    of_run = curves.loc[(curves["run"] == one.run) & (curves["sequences_seen"] > 0) & (curves["metric"] == "loss")]
    for evaluator in _LOSSES:
        curve = of_run.loc[of_run["evaluator"] == evaluator]
        lines.draw_seeds(panel, curve, COLOURS[evaluator], one.confidence)
    panel.set_ylim(bottom=0)
    lines.sequences_axis(panel)
    panel.set_ylabel("cross-entropy")
    panel.set_title(f"trained: {one.experiment}\n{one.run}", fontsize=8)


def _note(record: MinimalModelRecord) -> str:
    model = record.model
    how = _HOW.format(
        study=record.study,
        rate=model.learning_rate,
        dim=model.dim,
        dim_d=model.dim_d,
        seeds=model.n_seeds,
        first=model.variants[0].name,
    )
    return how + (_BESIDE.format(confidence=record.beside[0].confidence) if record.beside else "")
