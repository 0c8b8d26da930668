"""The numbers that are written into figures: those of runs.csv, so that a figure says what the tables say."""

import math
from dataclasses import dataclass

from icl_transience.analysis import words
from icl_transience.report.figures.runs import curve_of, mean_of, metric_of, of_run, of_seeds
from icl_transience.specs.evaluators import column_of, default_metric
from icl_transience.specs.records import ExperimentRecord, RunRecord
from icl_transience.store.tables_file import Tables


@dataclass(frozen=True)
class Peak:
    """Of a run: how high its seeds peak, on average, the median of when, in words too, and how many seeds that is of.

    It is not the highest point of the mean curve, which is lower where seeds peak at different times.
    """

    value: float
    at: float
    place: str
    seeds: int
    of: int


def peak(record: ExperimentRecord, run: RunRecord, tables: Tables) -> Peak | None:
    """Return the peak of the evaluator that is summarised, or None where it does not rise or is drawn otherwise."""
    name = record.statistics.evaluator
    if metric_of(record, name) != default_metric(name):
        return None
    row = tables.run(run.name)
    if row["outcome"] in ("never", "diverged"):
        return None
    seen = of_run(tables.curves, record, run)["sequences_seen"].to_numpy()
    first, last = float(seen.min()), float(seen.max())
    # At the last snapshot where most seeds were highest there; on a logarithmic axis the start has no place.
    at = min(max(float(row["peak_at"]), first), last)
    place = words.place_in_words(row, last, "at")
    return Peak(float(row["peak"]), at, place, int(row["n_peak_at"]), int(row["seeds"]))


def end(record: ExperimentRecord, run: RunRecord, tables: Tables, evaluator: str) -> float | None:
    """Return an evaluator's value at the last point, a mean over seeds; None where all diverged.

    The tables have it for default metrics; others stand in curves.csv alone.
    """
    if metric_of(record, evaluator) == default_metric(evaluator):
        return end_of_default(run, tables, evaluator)
    curves = tables.curves.loc[tables.curves["run"] == run.name]
    mean = mean_of(of_seeds(curve_of(curves, record, evaluator)))
    return float(mean.iloc[-1]) if len(mean) else None


def end_of_default(run: RunRecord, tables: Tables, evaluator: str) -> float | None:
    """Return an evaluator's default metric at the last point, a mean over seeds; None where all diverged."""
    value = tables.run(run.name).get(f"final_{column_of(evaluator)}", math.nan)
    return None if math.isnan(value) else float(value)
