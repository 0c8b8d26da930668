"""What figures show of an experiment and its tables: runs in order, their names and colours, means over seeds."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from icl_transience.specs import evaluators as specs_evaluators
from icl_transience.specs import experiment
from icl_transience.specs.evaluators import TRAINING, evaluator_parts
from icl_transience.specs.experiment import axis_of_numbers, is_number
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import records

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


def of_run(curves: pd.DataFrame, run: RunRecord) -> pd.DataFrame:
    """Return a run's rows after the start, which has no place on a logarithmic axis."""
    return curves.loc[(curves["run"] == run.name) & (curves["sequences_seen"] > 0)]


def row_of(runs: pd.DataFrame, run: RunRecord) -> dict[str, Any]:
    """Return a run's row of runs.csv."""
    return records(runs.loc[runs["run"] == run.name])[0]


def present(curves: pd.DataFrame, evaluators: Iterable[str]) -> list[str]:
    """Return those of the evaluators that have curves."""
    drawn = set(curves["evaluator"])
    return [name for name in evaluators if name in drawn]


def at_other_contexts(curves: pd.DataFrame, shown: Sequence[str]) -> list[str]:
    """Return the evaluators of these kinds at other context lengths than that of training."""
    drawn = specs_evaluators.in_order(set(curves["evaluator"]) - {TRAINING})
    return [name for name in drawn if name not in shown and evaluator_parts(name)[0] in shown]


def levels(record: ExperimentRecord) -> dict[str, list[Any]]:
    """Return axis -> its levels, for the axes along which the runs differ."""
    return experiment.levels(record.axes, [run.axes for run in record.runs])


def at_level(axis: str, level: Any) -> str:
    """Return a level with the last two words of its axis, as in the name of a run."""
    return f"{'.'.join(axis.split('.')[-2:])} = " + (f"{level:g}" if isinstance(level, float) else str(level))


def colour_of(evaluator: str) -> str:
    """Return the colour of an evaluator at whatever context length."""
    return COLOURS[evaluator_parts(evaluator)[0]]


def name_of(evaluator: str) -> str:
    """Return the name of an evaluator in a figure."""
    name, context = evaluator_parts(evaluator)
    return NAMES[name] if context is None else f"{NAMES[name]}, context {context}:"


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
    """Return the values of a curve, sequences_seen down, seeds across."""
    return curve.pivot(index="sequences_seen", columns="seed", values="value")


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
