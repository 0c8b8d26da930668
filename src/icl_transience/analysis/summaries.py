"""TODO"""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from icl_transience.analysis import transience
from icl_transience.specs import evaluators
from icl_transience.specs.evaluators import DEFAULT_METRIC, TRAINING, evaluator_parts
from icl_transience.specs.experiment import Report, Statistics
from icl_transience.specs.identity import from_values
from icl_transience.specs.recipes import Recipe
from icl_transience.store.tables_file import default_curves, write_csv


def write_summaries(folder: Path, report: Report, curves: pd.DataFrame, diverged: Collection[tuple[str, str]]) -> None:
    """transience.csv, one row a lane, and runs.csv, one row a run; columns as in transience.py's definitions.

    diverged: (run, seed) of the lanes that did; no mean counts them. Both tables add
    final_{evaluator}, the default metric at the last point alone, and final_training_loss; and the same at the
    lane's peak_at, which stopping there would have left, as at_peak_{evaluator} and at_peak_training_loss. runs.csv
    adds curve_peak, curve_peak_at and curve_final of the curve averaged over seeds.
    """
    statistics = from_values(Statistics, report["statistics"])
    lane_rows, run_rows = [], []
    for run in report["runs"]:
        chance = evaluators.chance(statistics.evaluator, from_values(Recipe, run["recipe"]), run["labels"])
        head = {
            "run": run["name"],
            **run["axes"],
            "evaluator": statistics.evaluator,
            "metric": DEFAULT_METRIC[statistics.evaluator],
            "chance": chance,
        }
        of_run = curves[curves["run"] == run["name"]]
        summaries, finals = [], []
        for lane in run["lanes"]:
            of_lane = of_run[of_run["seed"] == lane["seed"]]
            curve = default_curves(of_lane, statistics.evaluator)
            summary = transience.summarise(
                curve["sequences_seen"].to_numpy(),
                curve["value"].to_numpy(),
                curve["standard_error"].to_numpy(),
                chance,
                statistics,
                (run["name"], lane["seed"]) in diverged,
            )
            summaries.append(summary)
            finals.append(dict(_levels(of_lane, statistics.smoothing, summary.peak_at)))
            lane_rows.append(
                {"run": run["name"], "seed": lane["seed"]} | head | transience.as_row(summary) | finals[-1]
            )
        run_row = head | transience.summarise_run(summaries, chance, statistics)
        gone = [lane["seed"] for lane in run["lanes"] if (run["name"], lane["seed"]) in diverged]
        if len(gone) < len(run["lanes"]):
            run_row |= _mean_curve(of_run[~of_run["seed"].isin(gone)], statistics)
            alive = [final for lane, final in zip(run["lanes"], finals, strict=True) if lane["seed"] not in gone]
            run_row |= pd.DataFrame(alive).mean().to_dict()
        run_rows.append(run_row)
    for name, rows in (("transience.csv", lane_rows), ("runs.csv", run_rows)):
        write_csv(folder / name, pd.DataFrame(rows), digits=10)


def _levels(of_lane: pd.DataFrame, smoothing: int, peak_at: float | None) -> Iterator[tuple[str, float]]:
    """(column, value) of every smoothed curve at the lane's peak and at the end; NaN where there is no peak."""
    present = of_lane["evaluator"].unique()
    of_name = [name for kind in DEFAULT_METRIC for name in present if evaluator_parts(name)[0] == kind]
    for evaluator in [*of_name, TRAINING]:
        curve = default_curves(of_lane, evaluator)
        if len(curve):
            name = "training_loss" if evaluator == TRAINING else evaluator
            smoothed = transience.smooth(curve["value"].to_numpy(), smoothing)
            at_peak = smoothed[curve["sequences_seen"] == peak_at]
            yield f"at_peak_{name}", at_peak[0] if len(at_peak) else np.nan
            yield f"final_{name}", curve["value"].iloc[-1]


def _mean_curve(of_run: pd.DataFrame, statistics: Statistics) -> dict[str, float]:
    mean = default_curves(of_run, statistics.evaluator).groupby("sequences_seen")["value"].mean()
    smoothed = transience.smooth(mean.to_numpy(), statistics.smoothing)
    top = int(np.argmax(smoothed))
    return {
        "curve_peak": smoothed[top],
        "curve_peak_at": float(mean.index[top]),
        "curve_final": mean.iloc[-1],
    }
