"""Figures of an experiment, drawn from its tables alone."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from icl_transience import drawing, evaluation, spec, transience
from icl_transience.spec import Recipe
from icl_transience.tables import TRAINING, count, default_curves

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = {"icl": "#0072B2", "ciwl": "#E69F00", "iwl": "#D55E00", "flip": "#009E73", TRAINING: "#444444"}
NAMES = {
    "icl": "ICL",
    "icl_holdout": "ICL, held-out classes",
    "icl_new_exemplar": "ICL, new exemplars",
    "ciwl": "CIWL",
    "iwl": "IWL",
    "flip": "flip",
    "train": "train",
    TRAINING: "training loss",
}
Report = Mapping[str, Any]


def draw(name: str, report: Report, curves: pd.DataFrame, vector: Path, raster: Path) -> None:
    """Draws the figure `name` ("curves" or "comparison") as SVG and PNG; equal tables give equal files."""
    with matplotlib.rc_context(drawing.STYLE):
        drawing.save({"curves": _curves, "comparison": _comparison}[name](report, curves), vector, raster)


def _curves(report: Report, curves: pd.DataFrame) -> Figure:
    """A column a run: ICL, CIWL, IWL and flip above, dashed where at other contexts; the training loss below."""
    n_runs = len(report["runs"])
    width = 6.8 if n_runs == 1 else 1.6 + 3.1 * n_runs
    note = _note(report, int(width * 20))
    figure = Figure(figsize=(width, 4.9 + 0.15 * note.count("\n")), layout="constrained")
    axes = figure.subplots(2, n_runs, sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False)
    for column, run in enumerate(report["runs"]):
        of_run = curves[(curves["run"] == run["name"]) & (curves["sequences_seen"] > 0)]
        upper, lower = axes[:, column]
        shown = [name for name in ("icl", "ciwl", "iwl", "flip") if name in set(of_run["evaluator"])]
        _mark_chance(upper, [run], shown)
        for name in shown:
            _seeds_and_mean(upper, default_curves(of_run, name), COLOURS[name])
        elsewhere = _at_other_contexts(of_run, shown)
        for name in elsewhere:
            mean = _by_seed(default_curves(of_run, name)).pipe(_mean)
            upper.plot(mean.index, mean, color=_colour(name), linewidth=1.2, linestyle="--")
        summarised = report["statistics"]["evaluator"]
        if summarised in shown:
            _mark_peak(
                upper, default_curves(of_run, summarised), report["statistics"]["smoothing"], COLOURS[summarised]
            )
        if column == n_runs - 1:
            _label_ends(upper, of_run, [*shown, *elsewhere])
        _seeds_and_mean(lower, default_curves(of_run, TRAINING), COLOURS[TRAINING])
        _loss_axis(lower)
        _sequences_axis(lower)
        if n_runs > 1:
            upper.set_title(run["name"])
    axes[0, 0].set(ylim=(-0.02, 1.02), ylabel="accuracy")
    axes[1, 0].set_ylabel("training loss")
    _title_and_note(figure, report, note)
    return figure


def _comparison(report: Report, curves: pd.DataFrame) -> Figure:
    """A panel an evaluator and one for the training loss, a colour a run."""
    shown = [name for name in ("icl", "ciwl", "iwl", "flip", TRAINING) if name in set(curves["evaluator"])]
    columns = 3
    note = _note(report, 150)
    figure = Figure(figsize=(8.2, 4.9 + 0.15 * note.count("\n")), layout="constrained")
    axes = figure.subplots(-(-(len(shown) + 1) // columns), columns, sharex=True).ravel()
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(report["runs"])))
    handles = []
    for panel, name in zip(axes, shown, strict=False):
        for run, colour in zip(report["runs"], colours, strict=True):
            of_run = curves[(curves["run"] == run["name"]) & (curves["sequences_seen"] > 0)]
            line = _seeds_and_mean(panel, default_curves(of_run, name), colour)
            if name == shown[0]:
                handles.append(line)
        panel.set_title(NAMES[name])
        if name == TRAINING:
            _loss_axis(panel)
        else:
            panel.set_ylim(-0.02, 1.02)
            _mark_chance(panel, report["runs"], [name])
        panel.set_ylabel("loss" if name == TRAINING else "accuracy")
    for panel in axes:
        _sequences_axis(panel)
    for panel in axes[len(shown) :]:
        panel.axis("off")
    axes[len(shown)].legend(handles, [run["name"] for run in report["runs"]], loc="center left", title="run")
    for panel in axes[:-columns]:
        panel.set_xlabel("")
    _title_and_note(figure, report, note)
    return figure


def _at_other_contexts(of_run: pd.DataFrame, shown: list[str]) -> list[str]:
    """The evaluators of these kinds at other context lengths than that of training."""
    present = spec.in_order(set(of_run["evaluator"]) - {TRAINING})
    return [name for name in present if name not in shown and spec.evaluator_parts(name)[0] in shown]


def _colour(evaluator: str) -> str:
    return COLOURS[spec.evaluator_parts(evaluator)[0]]


def _name(evaluator: str) -> str:
    name, context = spec.evaluator_parts(evaluator)
    return NAMES[name] if context is None else f"{NAMES[name]}, context {context}:"


def _seeds_and_mean(axes: Axes, curve: pd.DataFrame, colour: Any) -> Any:
    """Every seed thin, their mean thick; the mean's line is returned."""
    by_seed = _by_seed(curve)
    if by_seed.shape[1] > 1:
        axes.plot(by_seed.index, by_seed, color=colour, linewidth=0.7, alpha=0.45)
    mean = _mean(by_seed)
    return axes.plot(mean.index, mean, color=colour, linewidth=2.2)[0]


def _by_seed(curve: pd.DataFrame) -> pd.DataFrame:
    """sequences_seen down, seeds across."""
    return curve.pivot(index="sequences_seen", columns="seed", values="value")


def _mean(by_seed: pd.DataFrame) -> pd.Series:
    """Over the seeds that did not diverge; empty where all did."""
    alive = by_seed.dropna(axis=1)
    return alive.mean(axis=1) if alive.shape[1] else pd.Series(dtype=float)


def _mark_chance(axes: Axes, runs: list[Mapping[str, Any]], shown: list[str]) -> None:
    """A dotted line at each evaluator's chance level; one for those that share it."""
    levels: dict[float, dict[str, None]] = {}
    for run in runs:
        for name in shown:
            level = evaluation.chance(name, spec.from_values(Recipe, run["recipe"]), run["labels"])
            levels.setdefault(level, {})[name] = None
    for level, names in ((level, list(found)) for level, found in levels.items()):
        colour = COLOURS[names[0]] if len(names) == 1 else "#666666"
        axes.axhline(level, color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
        if level > 0.05:  # at 1/#labels the label would lie on the axis
            text = "chance " + ", ".join(NAMES[name] for name in names)
            axes.text(
                0.01,
                level - 0.01,
                text,
                transform=axes.get_yaxis_transform(),
                va="top",
                fontsize=7,
                color=colour,
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=4,
            )


def _mark_peak(axes: Axes, curve: pd.DataFrame, smoothing: int, colour: str) -> None:
    mean = _by_seed(curve).pipe(_mean)
    if mean.empty:
        return
    smoothed = transience.smooth(mean.to_numpy(), smoothing)
    top = int(smoothed.argmax())
    x, y = mean.index[top], smoothed[top]
    axes.plot([x], [y], marker="v", markersize=7, color=colour, markeredgecolor="white", zorder=5)
    axes.annotate(
        f"peak {y:.2f}\nat {count(x)}",
        (x, y),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
        color=colour,
        annotation_clip=False,
    )


def _label_ends(axes: Axes, of_run: pd.DataFrame, shown: list[str]) -> None:
    """Each curve's name at its right end, moved apart where two would overlap."""
    gap, ends = 0.055, []
    for name in shown:
        mean = _by_seed(default_curves(of_run, name)).pipe(_mean)
        if len(mean):
            ends.append((mean.iloc[-1], name))
    lowest = -np.inf
    for value, name in sorted(ends):
        lowest = max(value, lowest + gap)
        axes.annotate(
            f"{_name(name)} {value:.2f}",
            (1, lowest),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=_colour(name),
            fontweight="bold" if name in COLOURS else "normal",
            annotation_clip=False,
        )


def _sequences_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("sequences seen")


def _loss_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _title_and_note(figure: Figure, report: Report, note: str) -> None:
    figure.suptitle(
        f"{report['experiment']}: {report['question']}" if report["question"] else report["experiment"],
        x=0.01,
        ha="left",
        fontsize=11,
        fontweight="bold",
    )
    figure.supxlabel(note, x=0.01, ha="left", fontsize=7, color="#555555")


def _note(report: Report, width: int) -> str:
    """What every curve was made with, wrapped to `width` characters."""
    seeds = sorted({lane["seed"] for run in report["runs"] for lane in run["lanes"]}, key=lambda s: (len(s), s))
    lines = [
        f"Study {report['study']}. Thin: seeds {', '.join(seeds)}; thick: their mean. ICL, CIWL, flip: accuracy among "
        "the labels in the context; IWL: among all labels."
    ]
    captions = [run["caption"] for run in report["runs"]]
    common = [part for part in captions[0] if all(part in caption for caption in captions)]
    lines.append("; ".join(common) + ".")
    if len(captions) > 1:
        own = ["; ".join(part for part in caption if part not in common) for caption in captions]
        named = [f"{run['name']}: {text}." for run, text in zip(report["runs"], own, strict=True) if text]
        lines.append(" ".join(named))
    return "\n".join(textwrap.fill(line, width) for line in lines)
