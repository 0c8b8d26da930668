"""Whether where a lane stands between two ideal predictors forecasts `flip` better than `flip` does: forecast.csv.

A forecast of flip y at the snapshot `ahead` after the present one t is linear,

    flip        y(t + ahead) = a + b flip(t)
    graded      y(t + ahead) = a + b flip(t) + c target_probability(t)
    weight      y(t + ahead) = a + d copier_weight(t)
    both        y(t + ahead) = a + b flip(t) + c target_probability(t) + d copier_weight(t)

target_probability is the mean probability of the answers that `flip` counts, on the same sequences: as the weight is,
it is graded, and so less noisy than a count. `graded` is what the weight has to improve on. `ahead` counts snapshots,
which lie closer together early in training; sequences_ahead has the median of what it comes to. Coefficients are the
same at all t, of which the start is none. They are fitted, by least squares, on the seeds before
the one that is forecast, in ascending order, and never on that seed or a later one. `about`:

    level       flip and the weight as they are: time alone, which both tell, forecasts much of it
    deviation   how far each is from the mean of the seeds before, at the same snapshot: does a seed whose weight is
                higher than is usual at that time come to have a higher flip than is usual then?

A seed is for the weight where the mean squared error over t of `both` is smaller than that of `graded`, else against
it. Since it was forecast from earlier seeds alone, these signs enter the evidence of analysis/eprocess.py, under the
null hypothesis that a seed is at most as likely for as against, given those before it. Rows are read one by one:
nothing is corrected for their number. One of them answers, the one that is `primary`: of deviations, PRIMARY_AHEAD
snapshots ahead.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icl_transience.analysis import eprocess
from icl_transience.specs.evaluators import STRATEGY
from icl_transience.store.layout import FORECAST
from icl_transience.store.tables_file import default_curves, read_curves, records, write_csv

TARGET, TWIN = "flip", "target_probability"
ABOUT = ("level", "deviation")
# Seeds on which the first forecast is fitted: from two on there are deviations from a mean.
FIRST_FITTED = 2
# Snapshots from which a forecast of a seed is at least made.
FEWEST_POINTS = 3
# Names of columns -> what a forecast is made from, in the columns of an array.
FORECASTS: Mapping[str, tuple[int, ...]] = {"flip": (0,), "graded": (0, 1), "weight": (2,), "both": (0, 1, 2)}
PRIMARY_ABOUT, PRIMARY_AHEAD = "deviation", 4
# The largest p that decides, of a row that is read alone.
_ALPHA = 0.05
# What `graded` and `both` are in the order of FORECASTS.
_GRADED, _BOTH = (list(FORECASTS).index(name) for name in ("graded", "both"))


def write_forecast(folder: Path) -> None:
    """Write forecast.csv of an experiment from its curves.csv: a row a run, kind and number of snapshots ahead.

    n_seeds: how many are forecast. rmse_flip, rmse_graded, rmse_weight, rmse_both: root of the mean squared error over
    all of them. primary, sequences_ahead, seeds_for, seeds_against, e_for, e_against, p, p_against: as of the module. A
    run with too few seeds or snapshots has no row.
    """
    write_table(folder, read_curves(folder))


def write_table(folder: Path, curves: pd.DataFrame) -> None:
    """Write forecast.csv of curves, those of curves.csv, into a folder; see `write_forecast`."""
    rows = [row for run in curves["run"].unique() for row in _rows(str(run), curves.loc[curves["run"] == run])]
    head = ("run", "about", "ahead", "primary", "sequences_ahead", "n_seeds", "n_snapshots")
    columns = (*head, *(f"rmse_{name}" for name in FORECASTS))
    more = ("seeds_for", "seeds_against", "e_for", "e_against", "p", "p_against")
    write_csv(folder / FORECAST, pd.DataFrame(rows, columns=[*columns, *more]), digits=6)


def in_words(table: pd.DataFrame) -> list[str]:
    """Return what forecast.csv says, a sentence a run: that of its primary row, where it has one."""
    said = []
    for row in records(pd.DataFrame(table.loc[table["primary"]])):
        n_ties = row["n_seeds"] - row["seeds_for"] - row["seeds_against"]
        ties = f", {n_ties} neither" if n_ties else ""
        answer = (
            "it forecasts `flip`"
            if row["p"] <= _ALPHA
            else "it makes forecasts worse"
            if row["p_against"] <= _ALPHA
            else "whether it forecasts `flip` is undecided"
        )
        seeds = f"in {row['seeds_for']} of {row['n_seeds']} seeds, and raises it in {row['seeds_against']}{ties}"
        errors = f"root mean square {row['rmse_graded']:.3f} without it, {row['rmse_both']:.3f} with it"
        evidence = f"evidence {row['e_for']:.3g} for it, {row['e_against']:.3g} against"
        said.append(
            f"`{row['run']}`: {row['ahead']} snapshots ahead, some {row['sequences_ahead']:,.0f} sequences, the "
            f"copier's weight lowers the error of a forecast of `flip` {seeds} ({errors}; {evidence}): {answer}"
        )
    return said


def _rows(run: str, curves: pd.DataFrame) -> Iterator[dict[str, Any]]:
    seen, series = series_of(curves)
    n_points = len(seen)
    for about in ABOUT:
        for ahead in horizons(n_points):
            errors = squared_errors(series, ahead, deviation=about == "deviation")
            if not len(errors):
                continue
            signs = np.sign(errors[:, _GRADED] - errors[:, _BOTH]).astype(int)
            found = eprocess.evidence(signs[None])
            yield {
                "run": run,
                "about": about,
                "ahead": ahead,
                "primary": (about, ahead) == (PRIMARY_ABOUT, PRIMARY_AHEAD),
                "sequences_ahead": float(np.median(seen[ahead:] - seen[:-ahead])),
                "n_seeds": len(errors),
                "n_snapshots": n_points - ahead,
                **{f"rmse_{name}": float(np.sqrt(errors[:, n].mean())) for n, name in enumerate(FORECASTS)},
                "seeds_for": int((signs == 1).sum()),
                "seeds_against": int((signs == -1).sum()),
                "e_for": float(found.support[-1]),
                "e_against": float(found.against[-1]),
                "p": float(found.p[-1]),
                "p_against": float(found.p_against[-1]),
            }


def series_of(curves: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences seen [snapshots], and what is forecast from, float64 [seeds, snapshots, 3].

    That is flip, its target's probability and the copier weight. Seeds in ascending order, without those that diverged.
    Snapshots are those that the first FIRST_FITTED of them have, without the start, so that no later seed has a say in
    what is forecast of an earlier one; a later seed without one of them is left out.
    """
    flips = curves.loc[(curves["evaluator"] == TARGET) & (curves["metric"] == TWIN)]
    tables = [default_curves(curves, TARGET), flips, default_curves(curves, STRATEGY)]
    gone = {seed for table in tables for seed in table.loc[table["value"].isna(), "seed"]}
    pivots = [table.pivot(index="sequences_seen", columns="seed", values="value") for table in tables]
    alive = [seed for seed in eprocess.ascending(list(pivots[0])) if seed not in gone]
    seen = pivots[0].index[pivots[0].index > 0]
    for pivot in pivots:
        seen = seen.intersection(pivot[alive[:FIRST_FITTED]].dropna().index)
    complete = [seed for seed in alive if all(pivot[seed].reindex(seen).notna().all() for pivot in pivots)]
    return seen.to_numpy(), np.stack([pivot.loc[seen, complete].to_numpy().T for pivot in pivots], axis=-1)


def horizons(n_points: int) -> list[int]:
    """Return how many snapshots ahead something is forecast, each twice the one before."""
    return [2**power for power in range(12) if n_points - 2**power >= FEWEST_POINTS]


def squared_errors(series: np.ndarray, ahead: int, *, deviation: bool) -> np.ndarray:
    """Return the mean squared error of each forecast of each seed, float64 [seeds that are forecast, FORECASTS].

    series: as of `series_of`. deviation: of what is left of it without the mean of earlier seeds.
    """
    errors = []
    for seed in range(FIRST_FITTED, len(series)):
        usual = series[:seed].mean(0) if deviation else 0.0
        known, own = series[:seed] - usual, series[seed] - usual
        x, y = known[:, :-ahead].reshape(-1, own.shape[-1]), known[:, ahead:, 0].ravel()
        errors.append([_error(x, y, own[:-ahead], own[ahead:, 0], columns) for columns in FORECASTS.values()])
    return np.array(errors).reshape(-1, len(FORECASTS))


def _error(x: np.ndarray, y: np.ndarray, own: np.ndarray, target: np.ndarray, columns: Sequence[int]) -> float:
    fitted, forecast = (np.column_stack([np.ones(len(part)), part[:, columns]]) for part in (x, own))
    coefficients = np.linalg.lstsq(fitted, y, rcond=None)[0]
    return float(((forecast @ coefficients - target) ** 2).mean())
