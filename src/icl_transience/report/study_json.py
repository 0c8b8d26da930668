"""What study.json says of a study, beside its tables: what was asked, how far it is, what it took.

recorded.py writes it.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from icl_transience.planning.plan import Plan
from icl_transience.results import provenance, status
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.specs.runs import Lane
from icl_transience.study.experiments import Experiment

# What there is no more to train of: see results/status.py.
_DONE = ("done", "diverged")
# What shapes numbers, of the versions that results say.
_VERSIONS = ("icl-transience", "python", "torch", "snakemake")


def describe(plan: Plan, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what study.json says: study and experiments with their questions, lanes and seconds, versions, machine.

    entry: of the study, in provenance.json. seconds: wall time of the jobs, one after another. A lane that two
    experiments have counts in both; in `own_seconds`, and in the study's own, in the first that has it.
    """
    packs = provenance.describe(plan, dict(entry))["packs"]
    states: dict[str, Counter] = {name: Counter() for name in plan.study.experiments}
    used: dict[str, set[str]] = {name: set() for name in plan.study.experiments}
    for row in status.rows(plan):
        states[row.experiment][row.state] += 1
        used[row.experiment].add(row.pack)
    own, counted = {}, set[str]()
    for name, of_experiment in used.items():
        own[name] = of_experiment - counted
        counted |= of_experiment
    return {
        "study": plan.study.name,
        "description": plan.study.description,
        "date": entry["date"][:10],
        "versions": {name: entry["versions"][name] for name in _VERSIONS},
        "cores": entry["machine"]["cores"],
        "gpus": entry["machine"]["gpus"],
        "experiments": {
            name: {
                "question": experiment.question,
                "declared": _declared(experiment),
                "horizon": experiment.horizon,
                "confidence": experiment.statistics.confidence,
                "runs": len(experiment.runs),
                "seeds": [seed.label for seed in experiment.seeds],
                "lanes": states[name].total(),
                "done": sum(states[name][state] for state in _DONE),
                "seconds": _seconds(packs, used[name]),
                "own_seconds": _seconds(packs, own[name]),
                "seeds_in_tables": [],
                "ends": {},
                "figure": None,
            }
            for name, experiment in plan.study.experiments.items()
        },
        # Why is not said: it names folders of this machine.
        "left_out": list(plan.study.left_out),
    }


def lanes(plan: Plan, kept: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return how many lanes the study has, and how many of them are done, here or in experiments that are kept.

    A lane that experiments share is done where it is in all of them: one may train it further than another.
    """
    done: dict[Lane, bool] = {}
    states = {(row.experiment, row.run, row.seed): row.state for row in status.rows(plan)}
    for name, experiment in plan.study.experiments.items():
        for named, seed in itertools.product(experiment.runs, experiment.seeds):
            lane = Lane(run=named.run, seed=seed)
            if name in kept:
                is_done = seed.label in kept[name]["seeds_in_tables"]
            else:
                is_done = states[name, named.name, seed.label] in _DONE
            done[lane] = done.get(lane, True) and is_done
    return {"lanes": len(done), "done": sum(done.values())}


def total(seconds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum of several, kind by kind."""
    added: Counter = Counter()
    for one in seconds:
        added.update(one)
    return {kind: round(of_kind, 1) for kind, of_kind in added.items()}


def _declared(experiment: Experiment) -> str:
    """Return the SHA-256 of what an experiment's tables depend on, seeds apart: of equal ones they are equal."""
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
    return {kind: round(sum(packs[pack][key] for pack in used), 1) for kind, key in kinds.items()}
