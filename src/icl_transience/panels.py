"""What the figures of an experiment are put together from: lines, marks, axes, titles, and the note at the foot."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from scipy import stats

from icl_transience import evaluation, spec, study, transience
from icl_transience.claims import is_number
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
GREY = "#666666"
STRATEGIES = ("icl", "ciwl", "iwl", "flip")
# Tol's bright palette, told apart by colour-blind readers too; for runs in no order.
UNORDERED = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#222222")
# With fewer seeds an interval is wider than the axis.
BAND_FROM = 3
# Of a loss: highest over lowest, up to which 1, 2 and 5 times every power of ten are labelled.
_FEW_DECADES = 1000
Report = Mapping[str, Any]


# What is shown of a report and its tables.


def of_run(curves: pd.DataFrame, run: Mapping[str, Any]) -> pd.DataFrame:
    """A run's rows after the start, which has no place on a logarithmic axis."""
    return curves[(curves["run"] == run["name"]) & (curves["sequences_seen"] > 0)]


def present(curves: pd.DataFrame, evaluators: Iterable[str]) -> list[str]:
    found = set(curves["evaluator"])
    return [name for name in evaluators if name in found]


def at_other_contexts(curves: pd.DataFrame, shown: Sequence[str]) -> list[str]:
    """The evaluators of these kinds at other context lengths than that of training."""
    found = spec.in_order(set(curves["evaluator"]) - {TRAINING})
    return [name for name in found if name not in shown and spec.evaluator_parts(name)[0] in shown]


def levels(report: Report) -> dict[str, list[Any]]:
    """Axis -> its levels, for the axes along which the runs differ."""
    return study.levels(report["axes"], [run["axes"] for run in report["runs"]])


def at_level(axis: str, level: Any) -> str:
    """A level with the last two words of its axis, as in the name of a run."""
    return f"{'.'.join(axis.split('.')[-2:])} = " + (f"{level:g}" if isinstance(level, float) else str(level))


def colour_of(evaluator: str) -> str:
    return COLOURS[spec.evaluator_parts(evaluator)[0]]


def name_of(evaluator: str) -> str:
    name, context = spec.evaluator_parts(evaluator)
    return NAMES[name] if context is None else f"{NAMES[name]}, context {context}:"


def words_of_runs(report: Report) -> tuple[str, dict[str, str]]:
    """What tells runs apart, and run -> that, in order: their levels along an axis of numbers, or their names."""
    axis = study.axis_of_numbers(levels(report))
    if axis is None or len(levels(report)) > 1:
        return "run", {run["name"]: run["name"] for run in report["runs"]}
    ordered = sorted(report["runs"], key=lambda run: run["axes"][axis])
    return axis, {run["name"]: f"{run['axes'][axis]:g}" for run in ordered}


def colours_of_runs(report: Report) -> dict[str, Any]:
    """Run -> colour: from dark to light along an axis of numbers, else as different as can be."""
    title, words = words_of_runs(report)
    in_no_order = title == "run" and len(words) <= len(UNORDERED)
    return dict(zip(words, UNORDERED if in_no_order else _ramp(len(words)), strict=False))


def _ramp(n: int) -> list[Any]:
    # The lightest end is hard to see on white.
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.85, n)))


# Lines.


def draw_seeds(axes: Axes, curve: pd.DataFrame, colour: Any, confidence: float, *, logarithmic: bool = False) -> Line2D:
    """Every seed thin, their mean thick, its interval over seeds as a band; the mean's line is returned."""
    by_seed = of_seeds(curve)
    if by_seed.shape[1] > 1:
        axes.plot(by_seed.index, by_seed, color=colour, linewidth=0.5, alpha=0.4)
    alive, mean = by_seed.dropna(axis=1), mean_of(by_seed)
    if alive.shape[1] >= BAND_FROM:
        lower, upper = _band(alive.to_numpy(), confidence, logarithmic)
        axes.fill_between(alive.index, lower, upper, color=colour, alpha=0.15, linewidth=0)
    return axes.plot(mean.index, mean, color=colour, linewidth=2)[0]


def _band(values: np.ndarray, confidence: float, logarithmic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval of the mean at each point [points, seeds]; of the mean logarithm where that is shown."""
    values = np.log(values) if logarithmic else values
    half = stats.t.ppf((1 + confidence) / 2, values.shape[1] - 1) * stats.sem(values, axis=1)
    ends = values.mean(axis=1) - half, values.mean(axis=1) + half
    return (np.exp(ends[0]), np.exp(ends[1])) if logarithmic else (ends[0], ends[1])


def of_seeds(curve: pd.DataFrame) -> pd.DataFrame:
    """sequences_seen down, seeds across."""
    return curve.pivot(index="sequences_seen", columns="seed", values="value")


def mean_of(by_seed: pd.DataFrame) -> pd.Series:
    """Over the seeds that did not diverge; empty where all did."""
    alive = by_seed.dropna(axis=1)
    return alive.mean(axis=1) if alive.shape[1] else pd.Series(dtype=float)


# Marks.


def mark_chance(axes: Axes, runs: Sequence[Mapping[str, Any]], shown: Sequence[str], *, words: str = "chance") -> None:
    """A dotted line at each evaluator's chance level; one for those that share it."""
    levels: dict[float, dict[str, None]] = {}
    for run in runs:
        for name in shown:
            level = evaluation.chance(name, spec.from_values(Recipe, run["recipe"]), run["labels"])
            levels.setdefault(level, {})[name] = None
    for level, names in ((level, list(found)) for level, found in levels.items()):
        colour = COLOURS[names[0]] if len(names) == 1 < len(shown) else GREY
        axes.axhline(level, color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
        if words and level > 0.05:  # at 1/#labels the label would lie on the axis
            text = words + (" " + ", ".join(NAMES[name] for name in names) if len(shown) > 1 else "")
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


def mark_peak(
    axes: Axes, of_run: pd.DataFrame, report: Report, run: Mapping[str, Any], *, in_words: bool = True
) -> None:
    """Where the evaluator that is summarised is highest; nowhere if that is not `min_effect` above chance."""
    statistics = report["statistics"]
    name, colour = statistics["evaluator"], COLOURS[statistics["evaluator"]]
    mean = mean_of(of_seeds(default_curves(of_run, name)))
    if mean.empty:
        return
    smoothed = transience.smooth(mean.to_numpy(), statistics["smoothing"])
    top = int(smoothed.argmax())
    x, y = mean.index[top], smoothed[top]
    chance = evaluation.chance(name, spec.from_values(Recipe, run["recipe"]), run["labels"])
    if y - chance <= statistics["min_effect"]:
        return
    axes.plot([x], [y], marker="v", markersize=7, color=colour, markeredgecolor="white", zorder=5)
    if not in_words:
        return
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


def label_ends(axes: Axes, of_run: pd.DataFrame, shown: Sequence[str], gap: float, *, in_layout: bool = True) -> None:
    """Each curve's name at its right end, at least `gap` apart; takes room from the panels beside it if in_layout."""
    ends = []
    for name in shown:
        mean = mean_of(of_seeds(default_curves(of_run, name)))
        if len(mean):
            ends.append((mean.iloc[-1], name))
    lowest = -np.inf
    for value, name in sorted(ends):
        lowest = max(value, lowest + gap)
        label = axes.annotate(
            f"{name_of(name)} {value:.2f}",
            (1, lowest),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour_of(name),
            fontweight="bold" if name in COLOURS else "normal",
            annotation_clip=False,
        )
        label.set_in_layout(in_layout)


def mark_chance_of_plane(axes: Axes, run: Mapping[str, Any], across: str, upwards: str) -> None:
    recipe = spec.from_values(Recipe, run["recipe"])
    for name, line in ((across, axes.axvline), (upwards, axes.axhline)):
        level = evaluation.chance(name, recipe, run["labels"])
        line(level, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)


def draw_path(axes: Axes, of_run: pd.DataFrame, across: str, upwards: str, colour: Any, *, in_words: bool) -> Line2D:
    """Two evaluators' means against each other in time, and each seed's; the mean's line is returned.

    From a disc to a square; at powers of ten there are circles, with their number if in_words.
    """
    x, y = (of_seeds(default_curves(of_run, name)) for name in (across, upwards))
    if x.shape[1] > 1:
        for seed in x:
            axes.plot(x[seed], y[seed], color=colour, linewidth=0.5, alpha=0.4)
    x, y = mean_of(x), mean_of(y)
    (line,) = axes.plot(x, y, color=colour, linewidth=2)
    for place, marker in ((0, "o"), (-1, "s")):
        if len(x):
            axes.plot(x.iloc[place], y.iloc[place], marker=marker, markersize=6, color=colour, mec="white", zorder=5)
    for seen in _powers_of_ten(x.index):
        axes.plot(x[seen], y[seen], "o", markersize=4.5, markerfacecolor="white", markeredgecolor=colour, zorder=4)
        if in_words:
            axes.annotate(count(seen), (x[seen], y[seen]), xytext=(5, 3), textcoords="offset points", fontsize=7)
    return line


def _powers_of_ten(sequences_seen: pd.Index) -> list[int]:
    """The snapshots nearest to 1k, 10k, 100k, …, where any is near."""
    seen = np.array([value for value in sequences_seen if value > 0], dtype=float)
    powers = [10.0**power for power in range(3, 13) if len(seen) and seen.min() <= 10**power <= seen.max()]
    return [int(seen[np.abs(np.log(seen / power)).argmin()]) for power in powers]


# Quantities along an axis.


def draw_quantity(axes: Axes, lanes: pd.DataFrame, axis: str, of: str, colour: Any, confidence: float) -> None:
    """A quantity of transience.csv along an axis: lanes small, means with their interval, joined.

    Lanes that have none are crosses at the foot. Half-lives past the horizon, and means of such, point upwards.
    """
    late = lanes["half_life_censored"].astype(str) == "True" if of == "half_life" else pd.Series(False, lanes.index)
    for censored, marker in ((False, "o"), (True, "^")):
        chosen = lanes[late == censored]
        axes.plot(chosen[axis], chosen[of], marker, markersize=3, color=colour, alpha=0.5, markeredgewidth=0)
    without = lanes[lanes[of].isna()]
    axes.plot(without[axis], np.full(len(without), 0.03), "x", color=colour, ms=5, transform=axes.get_xaxis_transform())
    at, means, errors = [], [], []
    for level, values in lanes.groupby(axis)[of]:
        found = values.dropna()
        if found.empty:
            continue
        mean, ends = found.mean(), transience.interval(list(found), confidence)
        at.append(level)
        means.append(mean)
        errors.append([0, 0] if ends[0] is None else [mean - ends[0], ends[1] - mean])
        marker = "^" if late[values.index].any() else "o"
        axes.plot([level], [mean], marker, markersize=7, color=colour, markeredgecolor="white", zorder=5)
    if at:
        axes.errorbar(at, means, np.array(errors).T, color=colour, linewidth=2, elinewidth=1, capsize=2, zorder=3)


def grouped(report: Report, others: Sequence[str]) -> dict[str, tuple[Any, list[Mapping[str, Any]]]]:
    """Runs by their levels of these axes: name -> colour, runs."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in sorted(
        report["runs"], key=lambda run: [levels(report)[axis].index(run["axes"][axis]) for axis in others]
    ):
        groups.setdefault(", ".join(at_level(axis, run["axes"][axis]) for axis in others), []).append(run)
    in_order = len(others) == 1 and all(map(is_number, levels(report)[others[0]]))
    colours = _ramp(len(groups)) if in_order or len(groups) > len(UNORDERED) else UNORDERED
    return {name: (colour, runs) for (name, runs), colour in zip(groups.items(), colours, strict=False)}


# Axes.


def sequences_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("sequences seen")


def loss_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))

    def label(value: float, _: int) -> str:
        lowest, highest = axes.get_ylim()
        # Over many decades there is no room between them.
        return f"{value:g}" if highest < _FEW_DECADES * lowest or f"{value:e}".startswith("1.0") else ""

    axes.yaxis.set_major_formatter(FuncFormatter(label))
    axes.yaxis.set_minor_formatter(NullFormatter())


def short(level: float) -> str:
    """0.0003 -> "3e-4", where that is shorter: levels on an axis may be close to each other."""
    plain = f"{level:g}"
    mantissa, _, exponent = f"{level:e}".partition("e")
    scientific = f"{float(mantissa):g}e{int(exponent)}"
    return scientific if abs(level) < 1 and len(scientific) < len(plain) else plain


def levels_axis(axes: Axes, axis: str, of_axis: Sequence[float]) -> None:
    """The levels as ticks; logarithmic where they span tenfold, with a place of its own for 0."""
    positive = [level for level in of_axis if level > 0]
    if min(of_axis) >= 0 and positive and max(positive) > 9.99 * min(positive):
        if min(of_axis) > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=min(positive))
    elif len(positive) == 1 and min(of_axis) == 0:
        # Nothing but 0 and one level: two places.
        axes.set_xscale("symlog", linthresh=positive[0])
    axes.xaxis.set_major_locator(FixedLocator(list(of_axis)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.margins(x=0.08)
    axes.set_xlabel(axis)
