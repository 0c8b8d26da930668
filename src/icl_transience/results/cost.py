"""Count what a study costs: runs, lanes, sequences, FLOP, bytes on disk, hours of the device; a row an experiment.

Counted from the plan; of results only folders are listed, to say how much is done. Nothing is written or locked.
Hours are FLOP over a rate that was measured: `gflops` of config.yaml, or what benchmarks/throughput.py has recorded for
this kind of device. Where there is neither, no hours are given.
"""

import json
import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icl_transience.planning import packs, resources
from icl_transience.planning.packs import Pack
from icl_transience.planning.plan import Plan
from icl_transience.results import status
from icl_transience.specs.compute import engine_problem, evaluation_flop, lane_bytes, training_flop
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.runs import Lane, PackSpec
from icl_transience.store import layout
from icl_transience.system.formatting import format_bytes, format_large_count, format_table

MEASURED = "benchmarks/measured.json"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast one job computes.

    flops: model FLOP per second; NaN where it was not measured. source: where it is from, or how to measure it.
    """

    flops: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What something costs; costs add up.

    sequences: seen in training, summed over lanes. flop: of training and evaluation. segments, banks, sets: bytes of
    their files. hours: of the device; NaN where a rate was not measured.
    """

    runs: int = 0
    lanes: int = 0
    sequences: int = 0
    flop: int = 0
    segments: int = 0
    banks: int = 0
    sets: int = 0
    hours: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(**{name: value - getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a study costs.

    experiments: what each adds to those before it. along: what lanes do because others in their pack do: train further,
    to the end of a segment too, and be evaluated on their sets. total: of all these. done: what of it is on disk.
    rates: at which its packs train.
    """

    experiments: dict[str, Cost]
    along: Cost
    total: Cost
    done: Cost
    rates: list[Rate]


def count(plan: Plan) -> Costs:
    """Return the costs of the plan's study. Raises StudyError where the measured rates cannot be read."""
    machines = _measured(plan)
    rates = {pack_id: _rate(plan.config, machines, pack.spec) for pack_id, pack in plan.packs.items()}
    experiments, horizons = _of_experiments(plan, rates)
    asked, whole, done = sum(experiments.values(), Cost()), Cost(), Cost()
    for pack_id, pack in plan.packs.items():
        lanes, rate = len(pack.spec.lanes), rates[pack_id]
        folder = Path(plan.paths.root, "packs", pack_id)
        known = status.names(folder) | status.names(folder / layout.KEPT)
        finished = status.finished(pack, known)
        to_train = pack.segments(max(horizons[pack_id].values()))
        whole += _training(pack, rate, lanes, 0, to_train[-1][1])
        if trained := finished[: len(to_train)]:
            done += _training(pack, rate, lanes, 0, trained[-1][1])
        for sequence_set, horizon in horizons[pack_id].items():
            to_answer = pack.segments(horizon)
            whole += _answers(pack, rate, lanes, sequence_set, 0, to_answer[-1][1])
            for segment in to_answer:
                if layout.metrics_name(sequence_set.id, *segment) in known:
                    done += _answers(pack, rate, lanes, sequence_set, *segment)
    along = whole - replace(asked, runs=0, lanes=0, banks=0, sets=0)
    used = list(dict.fromkeys(rates.values()))
    return Costs(experiments=experiments, along=along, total=asked + along, done=done, rates=used)


def _of_experiments(plan: Plan, rates: Mapping[str, Rate]) -> tuple[dict[str, Cost], dict[str, dict[SequenceSet, int]]]:
    """Return (experiment -> what it adds, pack -> set -> the longest horizon of a lane of the pack on that set)."""
    lanes = [lane for experiment in plan.study.experiments.values() for lane in experiment.lanes()]
    places = packs.lane_places(plan.packs, lanes)
    costs: dict[str, Cost] = {}
    horizons: dict[str, dict[SequenceSet, int]] = {pack_id: {} for pack_id in plan.packs}
    # What has been counted; of a lane (its index in a pack), and of a lane with a set, up to how many sequences seen.
    known: set[Any] = set()
    trained: dict[tuple[str, int], int] = {}
    answered: dict[tuple[str, int, SequenceSet], int] = {}
    for experiment in plan.study.experiments.values():
        cost, end = Cost(), experiment.horizon
        for named in experiment.runs:
            run, answers = named.run, named.sequence_set
            cost += Cost(
                runs=run not in known,
                banks=0 if run.bank in known else resources.bank_bytes(run.bank),
                sets=0 if answers in known else resources.sequences_bytes(answers),
            )
            known |= {run, run.bank, answers}
            for seed in experiment.seeds:
                place = places[Lane(run=run, seed=seed)]
                pack_id, lane = place[0], (*place, answers)
                pack, rate = plan.packs[pack_id], rates[pack_id]
                cost += Cost(lanes=place not in trained)
                cost += _training(pack, rate, 1, trained.get(place, 0), end)
                cost += _answers(pack, rate, 1, answers, answered.get(lane, 0), end)
                trained[place] = max(end, trained.get(place, 0))
                answered[lane] = max(end, answered.get(lane, 0))
                horizons[pack_id][answers] = max(end, horizons[pack_id].get(answers, 0))
        costs[experiment.name] = cost
    return costs, horizons


def _training(pack: Pack, rate: Rate, lanes: int, start: int, end: int) -> Cost:
    """Return the cost of training so many of a pack's lanes from `start` to `end`; none where that is not further."""
    if end <= start:
        return Cost()
    run = pack.spec.run
    flop = lanes * (end - start) * training_flop(run)
    # Those that begin at `start` or later, and before `end`.
    files = bisect_left(pack.boundaries, end) - bisect_left(pack.boundaries, start)
    taken = lanes * lane_bytes(run, resources.snapshots(run, start, end), files)
    return Cost(sequences=lanes * (end - start), flop=flop, segments=taken, hours=flop / rate.flops / 3600)


def _answers(pack: Pack, rate: Rate, lanes: int, sequence_set: SequenceSet, start: int, end: int) -> Cost:
    """Return the cost of evaluating so many of a pack's lanes on a set: snapshots in (start, end], and at 0 from 0."""
    if end <= start:
        return Cost()
    run = pack.spec.run
    flop = lanes * resources.snapshots(run, start, end) * evaluation_flop(run, sequence_set)
    return Cost(flop=flop, hours=flop / rate.flops / 3600)


# Rates.


def _measured(plan: Plan) -> list[dict[str, Any]]:
    """Return the machines of the configured kind of device on which the benchmark was recorded, the last one first."""
    path = plan.base / MEASURED
    try:
        machines = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({error}): restore it, or move it away") from error
    return [one for one in reversed(machines) if one.get("device", "cpu") == _kind(plan.config)]


def _kind(config: Mapping[str, Any]) -> str:
    """Return the kind of device: cpu or cuda."""
    return config["device"].split(":")[0]


def _rate(config: Mapping[str, Any], machines: list[dict[str, Any]], pack: PackSpec) -> Rate:
    """Return the rate at which a pack trains: as given, or as measured where model and pack were most alike."""
    if gflops := config["gflops"]:
        return Rate(flops=1e9 * gflops, source=f"{gflops:g} GFLOP/s, `gflops` in config.yaml")
    run, kind, engine = pack.run, _kind(config), config["engine"]
    by_default = {"cpu": "native", "cuda": "eager"}[kind]
    if engine == "auto":
        engine = "eager" if engine_problem(by_default, kind, run) else by_default

    def distance(case: Mapping[str, Any]) -> tuple[float, int]:
        """Return how far a measured case is from the pack: in FLOP of a sequence first, then in lanes."""
        flop = round(case["flops"] / case["rate"])  # of a sequence
        return abs(math.log(flop / training_flop(run))), abs(case["lanes"] - len(pack.lanes))

    for machine in machines:
        alike = [
            case
            for case in machine["cases"]
            if (case["numerics"], case["engine"], case["jobs"]) == (run.numerics, engine, 1)
        ]
        if alike:
            case = min(alike, key=distance)
            return Rate(
                flops=case["flops"],
                source=f"{case['flops'] / 1e9:.0f} GFLOP/s, measured on {machine['machine']}, {machine['date']}: shape "
                f"({case['shape']}), {engine}, {run.numerics}, lanes a pack: {case['lanes']}",
            )
    command = f"python benchmarks/throughput.py --device {kind} --shapes abcd --record"
    command += f" --numerics {run.numerics}" if run.numerics != "float32" else ""
    command += f" --engine {engine}" if engine != by_default else ""
    return Rate(
        flops=math.nan,
        source=f"not measured for {kind}, {engine}, {run.numerics}: `{command}` measures it; or set `gflops` in "
        "config.yaml",
    )


# In words.


def table(plan: Plan) -> str:
    """Return the costs as text, and what counts."""
    costs, kind = count(plan), _kind(plan.config)
    unit = {"cpu": "core-hours", "cuda": "GPU-hours"}[kind]
    files = ("segment files", "bank files", "evaluators' files")
    head = ("experiment", "runs", "lanes", "sequences", "FLOP", *files, unit)
    lines = [head, *(_cells(name, cost) for name, cost in costs.experiments.items())]
    if has_more := costs.along.flop > 0:
        lines.append(_work("along", costs.along, format_bytes(costs.along.segments)))
    lines += [
        _cells("total", costs.total),
        _work("done", costs.done),
        _work("left", costs.total - costs.done),
    ]
    notes = [
        "What experiments share (lanes, packs, banks, evaluators) counts once: in the first that names it.",
        "FLOP: of the model, in training (forward and backward) and in evaluating every snapshot; nothing else counts.",
        f"{unit}: FLOP over the rate; starting jobs, making banks, tables and figures come on top.",
    ]
    if has_more:
        notes.append(
            "along: lanes that train further, and answer more, than asked for, because others in their pack do."
        )
    left_out = [f"Without {name}, left out: {one.reason}" for name, one in plan.study.left_out.items()]
    rates = [f"{unit}: {rate.source}." for rate in costs.rates]
    return "\n".join([*format_table(lines, left=(0,)), "", *notes, *rates, *left_out])


def _cells(name: str, cost: Cost) -> tuple[str, ...]:
    """Return a row of the table."""
    return (
        name,
        f"{cost.runs:,}",
        f"{cost.lanes:,}",
        format_large_count(cost.sequences),
        format_large_count(cost.flop),
        format_bytes(cost.segments),
        format_bytes(cost.banks),
        format_bytes(cost.sets),
        _hours(cost.hours),
    )


def _work(name: str, cost: Cost, size: str = "") -> tuple[str, ...]:
    """Return a row of the table without what is not worked off a segment at a time. size: of segments."""
    return (
        name,
        "",
        "",
        format_large_count(cost.sequences),
        format_large_count(cost.flop),
        size,
        "",
        "",
        _hours(cost.hours),
    )


def _hours(hours: float) -> str:
    """Return hours in words."""
    if math.isnan(hours):
        return "not measured"
    # What is left of floating-point numbers that are equal may be less than nothing.
    return f"{max(hours, 0):,.{2 if hours < 10 else 0}f}"
