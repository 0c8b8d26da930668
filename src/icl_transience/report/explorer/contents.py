"""What the explorer holds of a study: its tables as columns of numbers of four digits, with names and colours.

Curves are kept as series, one a lane, evaluator and metric; a series says which points it has, by their number in a
list of different points, since lanes of an experiment mostly have the same ones.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from scipy import special

from icl_transience.report.figures import heads as figure_heads
from icl_transience.report.figures.layout import words_of
from icl_transience.report.figures.lines import BAND_FROM
from icl_transience.report.figures.runs import NAMES, UNORDERED, colour_of, colours_of_runs, name_of, words_of_runs
from icl_transience.specs import evaluators as specs_evaluators
from icl_transience.specs.circuits import evaluator_of, intervention_of, is_intervened
from icl_transience.specs.evaluators import METRICS, STRATEGY, TRAINING, default_metric, evaluator_of_column
from icl_transience.specs.experiment import TIMES
from icl_transience.specs.measures import ATTRIBUTION, HEAD_MEASURES
from icl_transience.specs.records import ClaimRecord, ExperimentRecord, RunRecord
from icl_transience.store.tables_file import Tables

DIGITS = 4
# Nearly black has no place on a dark page.
_ON_DARK = {"#000000": "#f0f0f0", "#222222": "#dddddd", "#444444": "#bbbbbb", "#aa3377": "#d46aa5"}
# What can be chosen: shares and losses, and not the strategy's divergences, which are in nats.
_METRICS = (*METRICS, default_metric(STRATEGY))
_HEAT_MAPS = ("viridis", "RdBu_r")
_HEAT_STEPS = 64


@dataclass(frozen=True, kw_only=True)
class Explored:
    """An experiment that the page shows. heads: heads.csv, where circuits stand. notes: what is not in its tables."""

    record: ExperimentRecord
    tables: Tables
    heads: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()


def study(
    name: str,
    description: str,
    explored: Sequence[Explored],
    claims: Sequence[Mapping[str, Any]] = (),
    absent: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return what the page holds of a study. claims: as of `claims`; absent: what is not in the page -> why."""
    shown = [experiment(one) for one in explored]
    return {
        "study": name,
        "description": description,
        "names": names(shown),
        "experiments": shown,
        "claims": list(claims),
        "absent": dict(absent or {}),
        "digits": DIGITS,
    }


def of_tables(record: ExperimentRecord, tables: Tables) -> ExperimentRecord | None:
    """Return an experiment with those of its lanes alone that its tables have; None where they have none of them.

    Tables may be older than the study.
    """
    there = set(zip(tables.lanes["run"], tables.lanes["seed"], strict=True))
    lanes = {run.name: tuple(lane for lane in run.lanes if (run.name, lane.seed) in there) for run in record.runs}
    runs = tuple(replace(run, lanes=lanes[run.name]) for run in record.runs if lanes[run.name])
    return replace(record, runs=runs) if runs else None


def experiment(explored: Explored) -> dict[str, Any]:
    """Return what the page holds of an experiment."""
    record, tables = explored.record, explored.tables
    assert record.figures is not None, "planning/records.py says it wherever figures are drawn"
    evaluators = [name for name in dict.fromkeys(tables.curves["evaluator"]) if name != TRAINING]
    lanes = [(run.name, lane.seed) for run in record.runs for lane in run.lanes]
    of_lane = {(row["run"], row["seed"]): row for row in tables.lanes.to_dict("records")}
    points: dict[tuple[int, ...], int] = {}
    colours = colours_of_runs(record)
    dark = _colours_on_dark(record, colours)
    return {
        "name": record.experiment,
        "question": record.question or "",
        "horizon": record.horizon,
        "x": record.figures.x,
        "confidence": record.statistics.confidence,
        "summarised": record.statistics.evaluator,
        "t": _t_factors(record),
        "evaluators": evaluators,
        "metrics": [name for name in _METRICS if name in set(tables.curves["metric"])],
        "drawn": [name for name in record.figures.drawn if name in evaluators] or evaluators[:1],
        "runs": [
            {
                "name": run.name,
                "colour": [to_hex(colours[run.name]), dark[run.name]],
                "chance": _chances(run, evaluators),
                "caption": "; ".join(run.caption or ()),
            }
            for run in record.runs
        ],
        "runs_title": words_of_runs(record)[0],
        "lanes": [_lane(record, key, of_lane[key]) for key in lanes],
        "series": _series(tables.curves, lanes, [*evaluators, TRAINING], points),
        "heads": None if explored.heads is None else _heads(record, explored.heads, lanes, points),
        "points": [list(one) for one in points],
        "notes": list(explored.notes),
    }


def names(experiments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what names and colours stand for: of evaluators, metrics and measures."""
    # Heads may be measured on another than curves are of.
    of = [part for one in experiments for part in (one, one["heads"]) if part]
    evaluators = dict.fromkeys(name for part in of for name in part["evaluators"])
    return {
        "evaluators": {name: _evaluator(name, list(evaluators)) for name in evaluators}
        | {TRAINING: {"label": NAMES[TRAINING], "colour": _pair(colour_of(TRAINING)), "metric": "loss"}},
        "metrics": {metric: words_of(metric) for metric in _METRICS},
        "measures": {
            name: {"label": figure_heads.WORDS[name], "meaning": HEAD_MEASURES.get(name, ""), "map": number}
            for name in (*HEAD_MEASURES, ATTRIBUTION)
            for number in (_HEAT_MAPS.index(figure_heads.map_of(name)),)
        },
        "maps": [
            [to_hex(colour) for colour in matplotlib.colormaps[name](np.linspace(0, 1, _HEAT_STEPS))]
            for name in _HEAT_MAPS
        ],
        "band_from": BAND_FROM,
    }


def claims(records: Sequence[ClaimRecord], rows: Mapping[tuple[str, str], Mapping[str, str]]) -> Iterator[dict]:
    """Yield what the page holds of each claim that has a row in verdicts.csv; rows: by experiment and claim.

    runs, evaluators: what the figure shows when a reader asks for the claim; none where the claim is of the evaluator
    that the experiment summarises.
    """
    for claim in records:
        row = rows.get((claim.experiment, claim.name))
        if row is not None:
            columns = dict.fromkeys(column for part in claim.parts for column in (part.of, part.minus) if column)
            yield {
                "experiment": claim.experiment,
                "name": claim.name,
                "verdict": row["verdict"],
                "runs": list(dict.fromkeys(run for part in claim.parts for run in part.runs)),
                "evaluators": list(dict.fromkeys(filter(None, map(_evaluator_of_column, columns)))),
            }


def _evaluator_of_column(column: str) -> str:
    """Return the evaluator of a column of transience.csv; empty for the one that is summarised."""
    for prefix in ("final_", "at_peak_"):
        if column.startswith(prefix):
            return evaluator_of_column(column.removeprefix(prefix))
    return ""


# Parts of an experiment.


def _lane(record: ExperimentRecord, key: tuple[str, str], row: Mapping[Any, Any]) -> dict[str, Any]:
    names = [run.name for run in record.runs]
    # A time may be a bound alone: later than training lasted.
    quantities = {name: _number(row[name]) for name in ("peak", "final", "index", *TIMES) if np.isfinite(row[name])}
    return {"run": names.index(key[0]), "seed": key[1], "outcome": row["outcome"], **quantities}


def _series(
    curves: pd.DataFrame,
    lanes: Sequence[tuple[str, str]],
    evaluators: Sequence[str],
    points: dict[tuple[int, ...], int],
) -> dict[str, list]:
    """Return the columns lane, evaluator, metric and points, numbers in their lists; and values, a list a series."""
    metrics, numbers = list(_METRICS), {lane: number for number, lane in enumerate(lanes)}
    found: dict[str, list] = {"lane": [], "evaluator": [], "metric": [], "points": [], "values": []}
    for (run, seed, evaluator, metric), (seen, values) in _grouped(curves, ["run", "seed", "evaluator", "metric"]):
        if (run, seed) in numbers and metric in metrics:
            found["lane"].append(numbers[run, seed])
            found["evaluator"].append(evaluators.index(evaluator))
            found["metric"].append(metrics.index(metric))
            found["points"].append(points.setdefault(tuple(seen), len(points)))
            found["values"].append([_number(value) for value in values])
    return found


def _heads(
    record: ExperimentRecord,
    table: pd.DataFrame,
    lanes: Sequence[tuple[str, str]],
    points: dict[tuple[int, ...], int],
) -> dict[str, Any] | None:
    """Return the measures of heads as `_series` does; ranges: evaluator -> measure -> what the colours span.

    None where the table has no head.
    """
    measures = [name for name in (*HEAD_MEASURES, ATTRIBUTION) if name in set(table["measure"])]
    of_heads = table.loc[table["head"].notna() & table["measure"].isin(measures)].astype({"layer": int, "head": int})
    if of_heads.empty:
        return None
    measured_on = list(dict.fromkeys(of_heads["evaluator"]))
    places = sorted(set(zip(of_heads["layer"], of_heads["head"], strict=True)))
    numbers = {lane: number for number, lane in enumerate(lanes)}
    found: dict[str, list] = {"lane": [], "evaluator": [], "measure": [], "head": [], "points": [], "values": []}
    first = 1 if record.figures and record.figures.x == "log" else 0
    ranges: dict[str, dict[str, list[float | None]]] = {}
    for (evaluator, measure), rows in of_heads.groupby(["evaluator", "measure"], sort=False):  # pyright: ignore[reportGeneralTypeIssues]
        norm = figure_heads.norm_of(rows.loc[rows["sequences_seen"] >= first, "value"].dropna().to_numpy(), measure)
        ranges.setdefault(evaluator, {})[measure] = [_number(norm.vmin), _number(norm.vmax)]
    columns = ["run", "seed", "evaluator", "measure", "layer", "head"]
    for (run, seed, evaluator, measure, layer, head), (seen, values) in _grouped(of_heads, columns):
        if (run, seed) in numbers:
            found["lane"].append(numbers[run, seed])
            found["evaluator"].append(measured_on.index(evaluator))
            found["measure"].append(measures.index(measure))
            found["head"].append(places.index((layer, head)))
            found["points"].append(points.setdefault(tuple(seen), len(points)))
            found["values"].append([_number(value) for value in values])
    return {
        "measures": measures,
        "evaluators": measured_on,
        "heads": [f"{layer}.{head}" for layer, head in places],
        "ranges": ranges,
        "series": found,
    }


def _grouped(table: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[tuple, tuple[list[int], list[float]]]]:
    """Yield (values of `columns`, (sequences seen, values)) in the order of the rows; pandas takes far longer."""
    found: dict[tuple, tuple[list[int], list[float]]] = {}
    keys = zip(*(table[column].tolist() for column in columns), strict=True)
    rows = zip(keys, table["sequences_seen"].tolist(), table["value"].tolist(), strict=True)
    for key, seen, value in rows:
        of_key = found.setdefault(key, ([], []))
        of_key[0].append(seen)
        of_key[1].append(value)
    yield from found.items()


def _number(value: Any) -> float | None:
    """Return a number rounded to four digits, as an integer where it is one; None where it is none."""
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _chances(run: RunRecord, evaluators: Sequence[str]) -> dict[str, float]:
    """Return evaluator -> what guessing gives on its default metric, where a single number does."""
    levels = {name: specs_evaluators.chance(evaluator_of(name), run.recipe, run.labels) for name in evaluators}
    return {name: cast(float, _number(level)) for name, level in levels.items() if level is not None}


def _t_factors(record: ExperimentRecord) -> list[float]:
    """Return, for n = 0, 1, … seeds, what the standard error is multiplied by for half of Student's t interval."""
    most = max(len(run.lanes) for run in record.runs)
    quantile = (1 + record.statistics.confidence) / 2
    return [0.0, 0.0] + [float(special.stdtrit(n - 1, quantile)) for n in range(2, most + 1)]


# Names and colours.


def _evaluator(name: str, known: Sequence[str]) -> dict[str, Any]:
    base = evaluator_of(name)
    looks = {"label": name_of(base), "colour": _pair(colour_of(base)), "metric": default_metric(base)}
    if is_intervened(name):
        under = list(dict.fromkeys(intervention_of(one) for one in known if is_intervened(one)))
        number = under.index(intervention_of(name))
        looks |= {
            "label": f"{name_of(base)} under {intervention_of(name)}",
            "colour": _pair(UNORDERED[number % (len(UNORDERED) - 1)]),
            "dash": 1,
        }
    return looks


def _pair(colour: Any) -> list[str]:
    """Return a colour on a light page and on a dark one."""
    light = to_hex(colour)
    return [light, _ON_DARK.get(light, light)]


def _colours_on_dark(record: ExperimentRecord, colours: Mapping[str, Any]) -> dict[str, str]:
    """Return run -> colour on a dark page: of a ramp from dark to light the lighter part, in the same order."""
    light = {run: to_hex(colour) for run, colour in colours.items()}
    if set(light.values()) <= {colour.lower() for colour in UNORDERED}:
        return {run: _ON_DARK.get(colour, colour) for run, colour in light.items()}
    ramp = matplotlib.colormaps["viridis"](np.linspace(0.4, 1, len(light)))
    return {run: to_hex(colour) for run, colour in zip(light, ramp, strict=True)}
