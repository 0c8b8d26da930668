"""TODO"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from icl_transience.specs import evaluators as specs_evaluators
from icl_transience.specs import experiment
from icl_transience.specs.evaluators import TRAINING, evaluator_parts
from icl_transience.specs.experiment import Report, axis_of_numbers, is_number

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


# What is shown of a report and its tables.


def of_run(curves: pd.DataFrame, run: Mapping[str, Any]) -> pd.DataFrame:
    """A run's rows after the start, which has no place on a logarithmic axis."""
    return curves[(curves["run"] == run["name"]) & (curves["sequences_seen"] > 0)]


def present(curves: pd.DataFrame, evaluators: Iterable[str]) -> list[str]:
    found = set(curves["evaluator"])
    return [name for name in evaluators if name in found]


def at_other_contexts(curves: pd.DataFrame, shown: Sequence[str]) -> list[str]:
    """The evaluators of these kinds at other context lengths than that of training."""
    found = specs_evaluators.in_order(set(curves["evaluator"]) - {TRAINING})
    return [name for name in found if name not in shown and evaluator_parts(name)[0] in shown]


def levels(report: Report) -> dict[str, list[Any]]:
    """Axis -> its levels, for the axes along which the runs differ."""
    return experiment.levels(report["axes"], [run["axes"] for run in report["runs"]])


def at_level(axis: str, level: Any) -> str:
    """A level with the last two words of its axis, as in the name of a run."""
    return f"{'.'.join(axis.split('.')[-2:])} = " + (f"{level:g}" if isinstance(level, float) else str(level))


def colour_of(evaluator: str) -> str:
    return COLOURS[evaluator_parts(evaluator)[0]]


def name_of(evaluator: str) -> str:
    name, context = evaluator_parts(evaluator)
    return NAMES[name] if context is None else f"{NAMES[name]}, context {context}:"


def words_of_runs(report: Report) -> tuple[str, dict[str, str]]:
    """What tells runs apart, and run -> that, in order: their levels along an axis of numbers, or their names."""
    axis = axis_of_numbers(levels(report))
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


def of_seeds(curve: pd.DataFrame) -> pd.DataFrame:
    """sequences_seen down, seeds across."""
    return curve.pivot(index="sequences_seen", columns="seed", values="value")


def mean_of(by_seed: pd.DataFrame) -> pd.Series:
    """Over the seeds that did not diverge; empty where all did."""
    alive = by_seed.dropna(axis=1)
    return alive.mean(axis=1) if alive.shape[1] else pd.Series(dtype=float)


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
