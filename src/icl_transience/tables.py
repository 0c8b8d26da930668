"""From metrics to the tables of an experiment: curves.csv, transience.csv, runs.csv; and what they say in words.

`report` (see `workflow/rules/results.smk`) is the experiment as plain values:
    {"study", "experiment", "question", "axes": [key], "horizon", "statistics": {…},
     "runs": [{"name", "axes": {key: value}, "set", "recipe", "labels", "caption",
               "lanes": [{"seed", "pack", "place"}]}],
     "packs": {pack: [boundary, …]}}
"""

import itertools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icl_transience import evaluation, files, packs, spec, store, transience
from icl_transience.evaluation import DEFAULT_METRIC, METRICS
from icl_transience.spec import Recipe
from icl_transience.study import Statistics

Report = Mapping[str, Any]

TABLES = ("curves.csv", "transience.csv", "runs.csv")
# The running training loss stands beside the evaluators' metrics, under a name no evaluator has.
TRAINING = "training"


def write(folder: Path, report: Report, packs_folder: Path) -> None:
    """Writes curves.csv, transience.csv and runs.csv of an experiment, and their SHA256SUMS, into `folder`.

    curves.csv is tidy: run, seed, the experiment's axes, sequences_seen, evaluator, metric, value, standard_error;
    evaluator `training`, metric `loss` is the mean training loss since the snapshot before.
    """
    metrics: dict[tuple[str, str], _Metrics] = {}
    frames, diverged = [], set()
    for run in report["runs"]:
        for lane in run["lanes"]:
            key = (lane["pack"], run["set"])
            if key not in metrics:
                metrics[key] = _Metrics(packs_folder / key[0], key, report["packs"][key[0]], report["horizon"])
            frame = metrics[key].lane(lane["place"])
            if metrics[key].diverged(lane["place"]):
                diverged.add((run["name"], lane["seed"]))
            for number, (column, value) in enumerate({"run": run["name"], "seed": lane["seed"], **run["axes"]}.items()):
                frame.insert(number, column, value)
            frames.append(frame)
    curves = pd.concat(frames, ignore_index=True)
    _write_csv(folder / "curves.csv", curves, digits=7)  # float32 has no more
    write_summaries(folder, report, curves, diverged)
    files.write_checksums(folder, TABLES)


def _write_csv(path: Path, table: pd.DataFrame, digits: int) -> None:
    files.write(path, lambda temporary: table.to_csv(temporary, index=False, float_format=f"%.{digits}g"))


class _Metrics:
    """The metrics of one pack on one evaluator set, all segments up to the horizon joined."""

    def __init__(self, folder: Path, key: tuple[str, str], boundaries: list[int], horizon: int):
        pack_id, set_id = key
        self.horizon = horizon
        self.parts: list[dict[str, Any]] = []
        for start, end in itertools.pairwise(boundaries):
            path = folder / packs.metrics_name(set_id, start, end)
            identity = evaluation.metrics_identity(f"{pack_id}/{start}-{end}", set_id)
            with store.reading(path, "metrics", identity) as file:
                part = {"sequences_seen": file["sequences_seen"][()], "diverged_at": file["diverged_at"][()]}
                part["loss_at"] = file["train_loss/sequences_seen"][()]
                part["loss"] = file["train_loss/value"][()]
                names = spec.in_order(name for name in file if spec.evaluator_parts(name)[0] in spec.EVALUATORS)
                part["metrics"] = {
                    name: (file[f"{name}/mean"][()], file[f"{name}/standard_error"][()]) for name in names
                }
                self.parts.append(part)

    def lane(self, place: int) -> pd.DataFrame:
        seen = np.concatenate([part["sequences_seen"] for part in self.parts])
        kept = seen <= self.horizon
        frames = [self._training_loss(seen[kept], place)]
        for name in self.parts[0]["metrics"]:
            mean, error = (
                np.concatenate([part["metrics"][name][column][:, place] for part in self.parts])[kept]
                for column in (0, 1)
            )
            frames.append(
                pd.DataFrame(
                    {
                        "sequences_seen": np.repeat(seen[kept], len(METRICS)),
                        "evaluator": name,
                        "metric": np.tile(METRICS, kept.sum()),
                        "value": mean.ravel(),
                        "standard_error": error.ravel(),
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)

    def diverged(self, place: int) -> bool:
        """Whether the lane's loss was no longer finite at or before the horizon."""
        return any(0 <= part["diverged_at"][place] <= self.horizon for part in self.parts)

    def _training_loss(self, seen: np.ndarray, place: int) -> pd.DataFrame:
        ends = np.concatenate([part["loss_at"] for part in self.parts])
        values = np.concatenate([part["loss"][:, place] for part in self.parts])
        lengths = np.diff(ends, prepend=0)
        rows = []
        for before, at in itertools.pairwise(seen):
            within = (ends > before) & (ends <= at)
            if within.any():
                rows.append((at, np.average(values[within], weights=lengths[within])))
        seen, losses = zip(*rows, strict=True) if rows else ((), ())
        return pd.DataFrame(
            {
                "sequences_seen": seen,
                "evaluator": TRAINING,
                "metric": "loss",
                "value": losses,
                "standard_error": np.nan,
            }
        )


def read_curves(folder: Path) -> pd.DataFrame:
    """An experiment's curves.csv. Raises StudyError where one of its tables is not as it was written."""
    files.check_checksums(folder, TABLES)
    return read_csv(folder / "curves.csv")


def read_lanes(folder: Path) -> pd.DataFrame:
    """An experiment's transience.csv. Raises StudyError where it is not as it was written."""
    files.check_checksums(folder, ["transience.csv"])
    return read_csv(folder / "transience.csv")


def read_csv(path: Path) -> pd.DataFrame:
    """A table that this pipeline wrote; a run may be named NA, so an empty cell alone is a missing value."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"run": str, "seed": str})


def default_curves(curves: pd.DataFrame, evaluator: str) -> pd.DataFrame:
    """The rows of an evaluator's default metric (the training loss for `training`)."""
    metric = "loss" if evaluator == TRAINING else evaluation.default_metric(evaluator)
    return curves[(curves["evaluator"] == evaluator) & (curves["metric"] == metric)]


def write_summaries(folder: Path, report: Report, curves: pd.DataFrame, diverged: Collection[tuple[str, str]]) -> None:
    """transience.csv, one row a lane, and runs.csv, one row a run; columns as in transience.py's definitions.

    diverged: (run, seed) of the lanes that did; no mean counts them. Both tables add
    final_{evaluator}, the smoothed default metric at the last snapshot, and final_training_loss; and the same at the
    lane's peak_at, which stopping there would have left, as at_peak_{evaluator} and at_peak_training_loss. runs.csv
    adds curve_peak, curve_peak_at and curve_final of the curve averaged over seeds.
    """
    statistics = spec.from_values(Statistics, report["statistics"])
    lane_rows, run_rows = [], []
    for run in report["runs"]:
        chance = evaluation.chance(statistics.evaluator, spec.from_values(Recipe, run["recipe"]), run["labels"])
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
        _write_csv(folder / name, pd.DataFrame(rows), digits=10)


def _levels(of_lane: pd.DataFrame, smoothing: int, peak_at: float | None) -> Iterator[tuple[str, float]]:
    """(column, value) of every smoothed curve at the lane's peak and at the end; NaN where there is no peak."""
    present = of_lane["evaluator"].unique()
    of_name = [name for kind in DEFAULT_METRIC for name in present if spec.evaluator_parts(name)[0] == kind]
    for evaluator in [*of_name, TRAINING]:
        curve = default_curves(of_lane, evaluator)
        if len(curve):
            name = "training_loss" if evaluator == TRAINING else evaluator
            smoothed = transience.smooth(curve["value"].to_numpy(), smoothing)
            at_peak = smoothed[curve["sequences_seen"] == peak_at]
            yield f"at_peak_{name}", at_peak[0] if len(at_peak) else np.nan
            yield f"final_{name}", smoothed[-1]


def _mean_curve(of_run: pd.DataFrame, statistics: Statistics) -> dict[str, float]:
    mean = default_curves(of_run, statistics.evaluator).groupby("sequences_seen")["value"].mean()
    smoothed = transience.smooth(mean.to_numpy(), statistics.smoothing)
    top = int(np.argmax(smoothed))
    return {
        "curve_peak": smoothed[top],
        "curve_peak_at": float(mean.index[top]),
        "curve_final": smoothed[-1],
    }


def count(sequences: float) -> str:
    """1,280,000 -> "1.28M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if sequences >= size:
            return f"{sequences / size:.3g}{unit}"
    return f"{sequences:.0f}"


def in_words(row: Mapping[str, Any], horizon: float) -> str:
    """A row of runs.csv as a sentence."""
    seeds = f"{row['seeds']:.0f} seed" + ("s" if row["seeds"] != 1 else "")
    which = f"{row['evaluator']} ({row['metric'].replace('_', ' ')}, chance {row['chance']:.3g})"
    if row["outcome"] == "diverged":
        return f"every lane diverged ({seeds})"
    if row["outcome"] == "never":
        return (
            f"{which} does not rise beyond noise: at most {row['curve_peak']:.2f}, "
            f"{row['curve_final']:.2f} at {count(horizon)} sequences seen (mean of {seeds})"
        )
    if row["outcome"] == "transient":
        change = "and falls to"
    elif row["peak"] - row["final"] > 0.05:
        change = "and falls, not beyond noise, to"
    else:
        change = "and stays, with"
    return (
        f"{which} peaks at {row['curve_peak']:.2f} after {count(row['curve_peak_at'])} sequences {change} "
        f"{row['curve_final']:.2f} at {count(horizon)} (mean of {seeds}, "
        + ", ".join(f"{row[f'n_{outcome}']:.0f} {outcome}" for outcome in transience.OUTCOMES if row[f"n_{outcome}"])
        + ")"
    )


def experiment_in_words(folder: Path) -> Iterator[str]:
    """What an experiment shows: a sentence a run, the last one with the figure's place."""
    files.check_checksums(folder, TABLES)
    runs = read_csv(folder / "runs.csv")
    horizon = pd.read_csv(folder / "curves.csv", usecols=["sequences_seen"])["sequences_seen"].max()
    for number, row in runs.iterrows():
        sentence = f"{folder.name}, {row['run']}: {in_words(row, horizon)}"
        yield sentence + (f"; figure: {folder / 'curves.svg'}" if number == len(runs) - 1 else "")
