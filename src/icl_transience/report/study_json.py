"""What study.json says of a study, beside its tables: what was asked, how far it is, what it took.

recorded.py writes it.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from icl_transience.planning.plan import Plan
from icl_transience.results import provenance, status
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.specs.runs import Lane
from icl_transience.study.experiments import Experiment

# What there is no more to train of: see results/status.py.
_DONE = ("done", "diverged")
# What is said of an experiment's results; the rest is what the study says.
_OF_RESULTS = ("seconds", "own_seconds", "commit", "seeds_in_tables", "ends", "figure")
# What shapes numbers, of the versions that results say.
_VERSIONS = ("icl-transience", "python", "torch", "snakemake")


def describe(
    plan: Plan, entry: Mapping[str, Any], seeds: Mapping[str, Sequence[str]], kept: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what study.json says: study and experiments with their questions, lanes and seconds, versions, machine.

    entry: of the study, in provenance.json. seeds: those of the tables in its results, by experiment. kept: what
    study.json has of experiments that are on record alone; of these, what is said of results stays. `ends` and `figure`
    of the others are for recorded.py to say.

    seconds: wall time of the jobs, one after another. A lane that experiments share counts in each of them. In
    `own_seconds`, whose sum is the study's, it counts once where it was trained once: in the first experiment with
    tables that has it. Where it was trained again for another record, it counts again.
    """
    packs, rows = provenance.describe(plan, dict(entry))["packs"], list(status.rows(plan))
    used: dict[str, set[str]] = {name: set() for name in plan.study.experiments}
    for row in rows:
        used[row.experiment].add(row.pack)
    own, counted = {}, set[str]()
    for name in sorted(used, key=lambda name: name not in seeds):
        if name not in kept:
            own[name] = used[name] - counted
            counted |= used[name]
    done = _done(plan, rows, kept)
    experiments = {
        name: {
            "question": experiment.question,
            "declared": declared(experiment),
            "horizon": experiment.horizon,
            "confidence": experiment.statistics.confidence,
            "runs": len(experiment.runs),
            "seeds": [seed.label for seed in experiment.seeds],
            "lanes": len(experiment.lanes()),
            "done": sum(done[lane] >= experiment.horizon for lane in experiment.lanes()),
        }
        for name, experiment in plan.study.experiments.items()
    }
    for name, one in experiments.items():
        if name in kept:
            # Records of before have no commit.
            one |= {"commit": None} | {key: kept[name][key] for key in _OF_RESULTS if key in kept[name]}
        else:
            one |= {"seconds": _seconds(packs, used[name]), "own_seconds": _seconds(packs, own[name])}
            one |= {"commit": commit_of(entry["git"]), "seeds_in_tables": list(seeds.get(name, ()))}
            one |= {"ends": {}, "figure": None}
    horizons: dict[Lane, int] = {}
    for experiment in plan.study.experiments.values():
        for lane in experiment.lanes():
            horizons[lane] = max(horizons.get(lane, 0), experiment.horizon)
    return {
        "study": plan.study.name,
        "description": plan.study.description,
        "date": entry["date"][:10],
        **made_with(entry),
        "seconds": _total(one["own_seconds"] for one in experiments.values()),
        "lanes": len(horizons),
        "done": sum(done[lane] >= horizon for lane, horizon in horizons.items()),
        "experiments": experiments,
        # Why is not said: it names folders of this machine.
        "left_out": list(plan.study.left_out),
    }


def made_with(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return versions and machine, which the page says once of a study: of all of its experiments they are the same."""
    versions = {name: entry["versions"][name] for name in _VERSIONS}
    return {"versions": versions, "cores": entry["machine"]["cores"], "gpus": entry["machine"]["gpus"]}


def _done(plan: Plan, rows: Iterable[status.Row], kept: Mapping[str, Mapping[str, Any]]) -> dict[Lane, int]:
    """Return how far each lane of the study is trained and evaluated, in results or on record: sequences seen."""
    states = {(row.experiment, row.run, row.seed): row.state for row in rows}
    done: dict[Lane, int] = {}
    for name, experiment in plan.study.experiments.items():
        for named, seed in itertools.product(experiment.runs, experiment.seeds):
            is_on_record = name in kept and seed.label in kept[name]["seeds_in_tables"]
            is_done = is_on_record or states[name, named.name, seed.label] in _DONE
            lane = Lane(run=named.run, seed=seed)
            done[lane] = max(done.get(lane, 0), experiment.horizon if is_done else 0)
    return done


def commit_of(git: Mapping[str, Any] | None) -> str | None:
    """Return the commit that the study was last run at, None where that was in no checkout. git: of provenance.json."""
    return git["commit"][:12] + " with changes" * git["dirty"] if git and git["commit"] else None


def declared(experiment: Experiment) -> str:
    """Return the SHA-256 of what an experiment's tables are of, beside seeds: runs, evaluators, horizon, statistics."""
    values = {
        "axes": experiment.axes,
        "horizon": experiment.horizon,
        "statistics": identity_values(experiment.statistics),
        "circuits": identity_values(experiment.circuits),
        "runs": [[named.name, dict(named.axes), named.run.id, named.sequence_set.id] for named in experiment.runs],
    }
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def _seconds(packs: Mapping[str, Any], used: set[str]) -> dict[str, float]:
    kinds = {"training": "seconds", "evaluation": "evaluation_seconds", "circuits": "circuits_seconds"}
    return {kind: round(math.fsum(packs[pack][key] for pack in used), 1) for kind, key in kinds.items()}


def _total(seconds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum of several, kind by kind."""
    every = list(seconds)
    return {kind: round(math.fsum(one[kind] for one in every), 1) for kind in every[0]}
