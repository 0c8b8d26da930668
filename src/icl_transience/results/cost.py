"""Count what a study costs: runs, lanes, sequences, FLOP, bytes on disk, hours of the device; a row an experiment.

Counted from the plan; of results only folders are listed, to say how much is done. Nothing is written or locked.
Hours are FLOP over a rate that was measured: `gflops` of config.yaml, or what benchmarks/throughput.py has recorded for
this kind of device and a model like it. Where there is neither, they are modelled and said to be (planning/rates.py).
"""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icl_transience.planning import packs, resources
from icl_transience.planning.packs import Pack
from icl_transience.planning.plan import Plan
from icl_transience.planning.rates import Rate
from icl_transience.results import status
from icl_transience.results.waiting import critical_path, wall_time
from icl_transience.specs.circuits import CircuitsSpec
from icl_transience.specs.compute import (
    PASS_SLOWER,
    circuits_flop,
    evaluation_flop,
    lane_bytes,
    training_flop,
    why_not_native,
)
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.runs import Lane
from icl_transience.store import layout
from icl_transience.system.formatting import (
    format_bytes,
    format_duration,
    format_large_count,
    format_scientific,
    format_table,
)

# For how many workers the table says how long a study takes.
WORKERS = (1, 8, 64)


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
    rates: at which its packs train. chains: pack id -> hours of each of its segments that is not done, in order; the
    next one waits for it. waits: pack id -> [(pack id, how many of its segments that are not done)], from whose
    snapshots lanes of it start. jobs: how many segments there are in all, done or not.
    """

    experiments: dict[str, Cost]
    along: Cost
    total: Cost
    done: Cost
    rates: list[Rate]
    chains: dict[str, list[float]]
    waits: dict[str, list[tuple[str, int]]]
    jobs: int


def count(plan: Plan) -> Costs:
    """Return the costs of the plan's study. Raises StudyError where the measured rates cannot be read."""
    rates = {pack_id: plan.rates.of(pack.spec) for pack_id, pack in plan.packs.items()}
    experiments, horizons = _of_experiments(plan, rates)
    asked, whole, done = sum(experiments.values(), Cost()), Cost(), Cost()
    chains: dict[str, list[float]] = {}
    to_do: dict[str, list[tuple[int, int]]] = {}
    trained: dict[str, set[tuple[int, int]]] = {}
    jobs = 0
    started_from: dict[str, int] = {}
    sources = {pack_id: plan.targets.sources(pack_id) for pack_id in plan.packs}
    for source in itertools.chain(*sources.values()):
        started_from[source.pack] = max(source.at, 1, started_from.get(source.pack, 0))
    for pack_id, pack in plan.packs.items():
        lanes, rate = len(pack.spec.lanes), rates[pack_id]
        folder = Path(plan.paths.root, "packs", pack_id)
        known = status.names(folder) | status.names(folder / layout.KEPT)
        finished = set(status.finished(pack, known))
        chains[pack_id], to_do[pack_id], trained[pack_id] = [], [], finished
        for segment in pack.segments(max([*horizons[pack_id].values(), started_from.get(pack_id, 0)])):
            work = {layout.segment_name(*segment): _training(pack, rate, lanes, *segment)}
            for sequence_set, horizon in horizons[pack_id].items():
                if segment[0] < horizon:
                    answers = _answers(pack, rate, lanes, sequence_set, *segment)
                    work[layout.metrics_name(sequence_set.id, *segment)] = answers
            for spec in plan.circuits.of_segment(pack_id, segment[0]):
                work[layout.circuits_name(spec.id, *segment)] = _inside(plan, pack, rate, lanes, spec, *segment)
            ready = known if segment in finished else known - {layout.segment_name(*segment)}
            whole += sum(work.values(), Cost())
            done += sum((cost for name, cost in work.items() if name in ready), Cost())
            if left := [cost.hours for name, cost in work.items() if name not in ready]:
                chains[pack_id].append(sum(left))
                to_do[pack_id].append(segment)
            jobs += 1
    waits = {
        pack_id: [
            (source.pack, to_do[source.pack].index(source.segment) + 1)
            for source in found
            if source.segment not in trained[source.pack]
        ]
        for pack_id, found in sources.items()
        if found and not trained[pack_id]
    }
    along = whole - replace(asked, runs=0, lanes=0, banks=0, sets=0)
    return Costs(
        experiments=experiments,
        along=along,
        total=asked + along,
        done=done,
        rates=list(dict.fromkeys(rates.values())),
        chains=chains,
        waits=waits,
        jobs=jobs,
    )


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
    measured: dict[tuple[str, int, CircuitsSpec], int] = {}
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
                for spec in plan.circuits.of_run(experiment, named):
                    inside = (*place, spec)
                    cost += _inside(plan, pack, rate, 1, spec, measured.get(inside, 0), end)
                    measured[inside] = max(end, measured.get(inside, 0))
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
    """Return the cost of evaluating so many of a pack's lanes on a set.

    Snapshots in (start, end], and at 0 from 0; and where segments end that are no snapshots.
    """
    if end <= start:
        return Cost()
    flop = lanes * _answered(pack, start, end) * evaluation_flop(pack.spec.run, sequence_set)
    return Cost(flop=flop, hours=flop / rate.flops / 3600)


def _inside(plan: Plan, pack: Pack, rate: Rate, lanes: int, spec: CircuitsSpec, start: int, end: int) -> Cost:
    """Return the cost of measuring inside so many of a pack's lanes, at the same points as `_answers`."""
    if end <= start:
        return Cost()
    flop = lanes * _answered(pack, start, end) * circuits_flop(pack.spec.run, spec, plan.sets[spec.set])
    return Cost(flop=flop, hours=PASS_SLOWER * flop / rate.flops / 3600)


def _answered(pack: Pack, start: int, end: int) -> int:
    """Return how many points of a pack are evaluated in (start, end]."""
    ends = pack.boundaries[bisect_right(pack.boundaries, start) : bisect_right(pack.boundaries, end)]
    return resources.answered(pack.spec.run, start, end, ends)


# In words.


def table(plan: Plan, workers: int | None = None) -> str:
    """Return the costs as text, and what counts. workers: how many jobs run side by side here; None is not known."""
    costs, kind = count(plan), plan.rates.kind
    hours = {"cpu": "core-hours", "cuda": "GPU-hours"}[kind]
    modelled = [rate.is_modelled for rate in costs.rates]
    part = "" if all(modelled) else "in part "
    unit = f"{hours}, {part}modelled" if any(modelled) else hours
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
        "FLOP: of the model, in training (forward and backward) and in evaluating every snapshot and where a segment "
        "ends, and in measuring inside them where the study asks for it; nothing else counts.",
        f"{unit}: FLOP over the rate; starting jobs, making banks, tables and figures come on top.",
    ]
    if has_more:
        notes.append(
            "along: lanes that train further, and answer more, than asked for, because others in their pack do."
        )
    engines = Counter(plan.rates.engine(pack.spec) for pack in plan.packs.values())
    named = [f"{name} ({_number(number, 'pack')})" for name, number in engines.items()] if len(engines) > 1 else engines
    assumed = " assumed" if kind == "cuda" and plan.config["engine"] == "auto" else ""
    notes.append(f"Device {plan.config['device']}, engine {', '.join(named)}{assumed}.")
    if assumed:
        notes.append("A job takes the next engine, and says so, where this one fails its self-check.")
    if any(modelled):
        measure = {
            "cpu": "`gflops` in config.yaml says what you have measured",
            "cuda": "`benchmarks/gpu.sh gpu.json` measures shapes (a) to (d) on your GPU, and `python "
            "benchmarks/throughput.py --record gpu.json` takes that in",
        }
        notes.append(f"Modelled is what nobody has measured. {measure[kind]}.")
    if shared := sum(0 < plan.jobs.pace.percent(pack.spec) < 100 for pack in plan.packs.values()) * (kind == "cuda"):
        notes.append(f"{_number(shared, 'pack')} can share a GPU here with others, which is not counted: it is faster.")
    if plan.config["engine"] == "auto":
        reasons = dict.fromkeys(why_not_native(plan.config["device"], pack.spec.run) for pack in plan.packs.values())
        notes += [f"Engine auto is eager where native {why}." for why in reasons if why]
    rates = list(dict.fromkeys(f"{hours}: {rate.source}." for rate in costs.rates))
    paragraphs = [
        format_table(lines, left=(0,)),
        _waiting(plan, costs, workers),
        [*notes, *rates, *plan.study.left_out_in_words()],
    ]
    return "\n\n".join("\n".join(paragraph) for paragraph in paragraphs)


def _waiting(plan: Plan, costs: Costs, workers: int | None) -> list[str]:
    """Return how long what is left takes on so many workers, and which lane no number of them makes faster."""
    worker = {"cpu": "core", "cuda": "GPU"}[plan.rates.kind]
    chains = costs.chains
    of_jobs = f"{_number(len(chains), 'pack')} in {_number(costs.jobs, 'segment')}"
    if any(math.isnan(sum(chain)) for chain in chains.values()):
        return [f"{of_jobs}; how long they take was not measured"]
    counts: list[int] = sorted({*WORKERS, workers or WORKERS[0]})
    head = ["", *(_number(count, worker) + " (here)" * (count == workers) for count in counts)]
    numbers = {pack_id: number for number, pack_id in enumerate(chains)}
    of_chains = list(chains.values())
    waits = {numbers[one]: [(numbers[other], n) for other, n in others] for one, others in costs.waits.items()}
    times = ["wall time of what is left", *(_time(wall_time(of_chains, count, waits)) for count in counts)]
    hours, number = critical_path(of_chains, waits)
    longest = list(chains)[number]
    # Its lanes train together: any of them takes as long.
    lanes = (
        f"{experiment.name}, {named.name}, seed {seed.label}"
        for experiment in plan.study.experiments.values()
        for named in experiment.runs
        for seed in experiment.seeds
        if Lane(run=named.run, seed=seed) in plan.packs[longest].spec.lanes
    )
    named = next(lanes, f"of pack {longest}")
    critical = f"critical path {_time(hours)}, the segments of one lane ({named}) one after the other"
    critical += ", after those that it starts from" if costs.waits.get(longest) else ""
    return [*format_table([head, times], left=(0,)), f"{of_jobs}; {critical}"]


def _number(count: int, thing: str) -> str:
    """Return "1 core", "2 cores"."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _time(hours: float) -> str:
    """Return a time in words, in days where it is long."""
    return f"{hours / 24:,.0f} days" if hours >= 10 * 24 else format_duration(3600 * hours)


def _cells(name: str, cost: Cost) -> tuple[str, ...]:
    """Return a row of the table."""
    return (
        name,
        f"{cost.runs:,}",
        f"{cost.lanes:,}",
        format_large_count(cost.sequences),
        format_scientific(cost.flop),
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
        format_scientific(cost.flop),
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
