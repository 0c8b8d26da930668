"""What the curves of lanes and runs come to: transience.csv, a row a lane, and runs.csv, a row a run."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from icl_transience.analysis import transience
from icl_transience.specs import evaluators
from icl_transience.specs.circuits import evaluator_of
from icl_transience.specs.evaluators import DEFAULT_METRIC, TRAINING, column_of, evaluator_parts
from icl_transience.specs.records import ExperimentRecord
from icl_transience.store.tables_file import default_curves, write_csv


def write_summaries(
    folder: Path, record: ExperimentRecord, curves: pd.DataFrame, diverged: Collection[tuple[str, str]]
) -> None:
    """Write transience.csv and runs.csv; analysis/transience.py defines their quantities.

    Both tables add final_{evaluator}, the default metric at the last point alone, final_training_loss and, of the
    strategy, final_copier_weight; and, smoothed, at the lane's peak_at, which stopping there would
    have left, as at_peak_{evaluator} and so on. In runs.csv they are means over the lanes that have them, as the levels
    of that module are.

    curves: curves.csv. diverged: (run, seed) of the lanes that diverged; no mean counts them.
    """
    statistics = record.statistics
    lane_rows: list[dict[str, object]] = []
    run_rows: list[dict[str, object]] = []
    for run in record.runs:
        chance = evaluators.chance(statistics.evaluator, run.recipe, run.labels)
        assert chance is not None, f"{statistics.evaluator}: specs.experiment.Statistics takes none without a chance"
        head: dict[str, object] = {
            "run": run.name,
            **run.axes,
            "evaluator": statistics.evaluator,
            "metric": DEFAULT_METRIC[statistics.evaluator],
            "chance": chance,
        }
        of_run = curves.loc[curves["run"] == run.name]
        summaries: list[transience.Summary] = []
        levels: list[dict[str, float]] = []
        for lane in run.lanes:
            of_lane = of_run.loc[of_run["seed"] == lane.seed]
            curve = default_curves(of_lane, statistics.evaluator)
            summary = transience.summarise(
                curve["sequences_seen"].to_numpy(),
                curve["value"].to_numpy(),
                curve["standard_error"].to_numpy(),
                chance,
                statistics,
                (run.name, lane.seed) in diverged,
            )
            summaries.append(summary)
            levels.append(dict(_levels(of_lane, statistics.smoothing, summary.peak_at)))
            lane_rows.append({"run": run.name, "seed": lane.seed} | head | transience.as_row(summary) | levels[-1])
        run_row = head | transience.summarise_run(summaries, chance, statistics)
        gone = [lane.seed for lane in run.lanes if (run.name, lane.seed) in diverged]
        if len(gone) < len(run.lanes):
            alive = [of_lane for lane, of_lane in zip(run.lanes, levels, strict=True) if lane.seed not in gone]
            run_row |= pd.DataFrame(alive).mean().to_dict()
        run_rows.append(run_row)
    for name, rows in (("transience.csv", lane_rows), ("runs.csv", run_rows)):
        write_csv(folder / name, pd.DataFrame(rows), digits=10)


def _levels(of_lane: pd.DataFrame, smoothing: int, peak_at: float | None) -> Iterator[tuple[str, float]]:
    """Yield (column, value) of every smoothed curve at the lane's peak and at the end; NaN where there is no peak."""
    present = of_lane["evaluator"].unique()
    of_name = [name for kind in DEFAULT_METRIC for name in present if evaluator_parts(evaluator_of(name))[0] == kind]
    for evaluator in [*of_name, TRAINING]:
        curve = default_curves(of_lane, evaluator)
        if len(curve):
            name = column_of(evaluator)
            smoothed = transience.smooth(curve["value"].to_numpy(), smoothing)
            at_peak = smoothed[curve["sequences_seen"] == peak_at]
            yield f"at_peak_{name}", at_peak[0] if len(at_peak) else np.nan
            yield f"final_{name}", curve["value"].iloc[-1]
