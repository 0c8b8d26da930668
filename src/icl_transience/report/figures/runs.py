"""What figures show of an experiment and its tables: runs in order, their names and colours, means over seeds."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from icl_transience.specs import evaluators as specs_evaluators
from icl_transience.specs import experiment
from icl_transience.specs.evaluators import EVALUATORS, STRATEGY, TRAINING, default_metric, evaluator_parts
from icl_transience.specs.experiment import axis_of_numbers, is_number
from icl_transience.specs.figures import OWN_METRIC, Figures
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import default_curves

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = {
    "icl": "#0072B2",
    "ciwl": "#E69F00",
    "iwl": "#D55E00",
    "flip": "#009E73",
    "icl_holdout": "#56B4E9",
    "icl_new_exemplar": "#CC79A7",
    "train": "#999999",
    STRATEGY: "#5E3C99",
    TRAINING: "#444444",
}
# Of evaluators that were added to EVALUATORS and have none.
_OWN_COLOURS = ("#000000", "#8C510A", "#5E3C99", "#B2182B")
NAMES = {
    "icl": "ICL",
    "icl_holdout": "ICL on held-out classes",
    "icl_new_exemplar": "ICL on new exemplars",
    "icl_holdout_pairs": "ICL on held-out pairs of labels",
    "ciwl": "CIWL",
    "iwl": "IWL",
    "flip": "flip",
    "train": "train",
    STRATEGY: "copier weight",
    TRAINING: "training loss",
}
GREY = "#666666"
# Tol's bright palette, told apart by colour-blind readers too; for runs in no order.
UNORDERED = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#222222")


def asked_of(record: ExperimentRecord) -> Figures:
    """Return what the figures of an experiment are to show."""
    assert record.figures is not None, "planning/records.py says it wherever figures are drawn"
    return record.figures


def of_run(curves: pd.DataFrame, record: ExperimentRecord, run: RunRecord) -> pd.DataFrame:
    """Return a run's rows; without the start where it has no place, on a logarithmic axis."""
    first = 1 if asked_of(record).x == "log" else 0
    return curves.loc[(curves["run"] == run.name) & (curves["sequences_seen"] >= first)]


def metric_of(record: ExperimentRecord, evaluator: str) -> str:
    """Return the metric that is drawn of an evaluator."""
    metric = asked_of(record).metric
    return default_metric(evaluator) if metric == OWN_METRIC else metric


def curve_of(curves: pd.DataFrame, record: ExperimentRecord, evaluator: str) -> pd.DataFrame:
    """Return the rows of curves.csv that are drawn of an evaluator, or of the training loss for `training`."""
    if evaluator == TRAINING:
        return default_curves(curves, TRAINING)
    return curves.loc[(curves["evaluator"] == evaluator) & (curves["metric"] == metric_of(record, evaluator))]


def chance_of(record: ExperimentRecord, run: RunRecord, evaluator: str) -> float | None:
    """Return what guessing gives on the metric that is drawn; None where no single number does."""
    if metric_of(record, evaluator) != default_metric(evaluator):
        return None
    return specs_evaluators.chance(evaluator, run.recipe, run.labels)


def levels(record: ExperimentRecord) -> dict[str, list[Any]]:
    """Return axis -> its levels, for the axes along which the runs differ."""
    return experiment.levels(record.axes, [run.axes for run in record.runs])


def at_level(axis: str, level: Any) -> str:
    """Return a level with the last two words of its axis, as in the name of a run."""
    return f"{'.'.join(axis.split('.')[-2:])} = " + (f"{level:g}" if isinstance(level, float) else str(level))


def colour_of(evaluator: str) -> str:
    """Return the colour of an evaluator at whatever context length."""
    name = evaluator_parts(evaluator)[0]
    own = [one for one in EVALUATORS if one not in COLOURS]
    return COLOURS[name] if name in COLOURS else _OWN_COLOURS[own.index(name) % len(_OWN_COLOURS)]


def is_at_other_context(evaluator: str) -> bool:
    """Return whether the context of an evaluator has another length than that of training."""
    return evaluator_parts(evaluator)[1] is not None


def name_of(evaluator: str) -> str:
    """Return the name of an evaluator in a figure."""
    name, context = evaluator_parts(evaluator)
    words = NAMES.get(name, name.replace("_", " "))
    return words if context is None else f"{words}, context {context}"


def words_of_runs(record: ExperimentRecord) -> tuple[str, dict[str, str]]:
    """Return what tells runs apart, and run -> that, in order: levels along an axis of numbers, or names."""
    axis = axis_of_numbers(levels(record))
    if axis is None or len(levels(record)) > 1:
        return "run", {run.name: run.name for run in record.runs}
    ordered = sorted(record.runs, key=lambda run: run.axes[axis])
    return axis, {run.name: f"{run.axes[axis]:g}" for run in ordered}


def colours_of_runs(record: ExperimentRecord) -> dict[str, Any]:
    """Return run -> colour: from dark to light along an axis of numbers, else as different as can be."""
    title, words = words_of_runs(record)
    in_no_order = title == "run" and len(words) <= len(UNORDERED)
    return dict(zip(words, UNORDERED if in_no_order else _ramp(len(words)), strict=False))


def _ramp(n: int) -> list[Any]:
    # The lightest end is hard to see on white.
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.85, n)))


def of_seeds(curve: pd.DataFrame) -> pd.DataFrame:
    """Return the values of a curve, sequences_seen down, seeds across, at the points that every seed has.

    The horizon is a point of its own where a segment ends there, which may be so of some seeds alone. A seed that
    diverged has all points, some without a value.
    """
    by_seed = curve.pivot(index="sequences_seen", columns="seed", values="value")
    return by_seed.loc[curve.groupby("sequences_seen").size() == by_seed.shape[1]]


def mean_of(by_seed: pd.DataFrame) -> pd.Series:
    """Return the mean over the seeds that did not diverge; empty where all did."""
    alive = by_seed.dropna(axis=1)
    return pd.Series(alive.mean(axis=1)) if alive.shape[1] else pd.Series(dtype=float)


def grouped(record: ExperimentRecord, others: Sequence[str]) -> dict[str, tuple[Any, list[RunRecord]]]:
    """Return runs by their levels of these axes: name -> colour, runs."""
    of_axis = levels(record)
    groups: dict[str, list[RunRecord]] = {}
    for run in sorted(record.runs, key=lambda run: [of_axis[axis].index(run.axes[axis]) for axis in others]):
        groups.setdefault(", ".join(at_level(axis, run.axes[axis]) for axis in others), []).append(run)
    in_order = len(others) == 1 and all(map(is_number, of_axis[others[0]]))
    colours = _ramp(len(groups)) if in_order or len(groups) > len(UNORDERED) else UNORDERED
    return {name: (colour, runs) for (name, runs), colour in zip(groups.items(), colours, strict=False)}
