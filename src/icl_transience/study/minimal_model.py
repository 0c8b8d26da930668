"""The section `minimal_model` of a study, as its tables and figure need it."""

from collections.abc import Iterator, Mapping
from typing import Any

from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.identity import from_values
from icl_transience.specs.theory import MINIMAL_MODEL, Beside, MinimalModel, MinimalModelRecord
from icl_transience.study.experiments import Study

# What is drawn of a trained run.
_EVALUATORS = ("icl", "ciwl")
# All are followed at once; more would take minutes and gigabytes.
MOST_SEEDS = 10_000


def resolve(study: Study, written: Mapping[str, Any], path: str) -> MinimalModelRecord:
    """Return the minimal model of a study. written: the section, defaults filled in.

    Raises StudyError, with a line a problem that begins with `path`.
    """
    model = {key: value for key, value in written.items() if key != "beside"}
    model |= {"variants": [{"name": name} | values for name, values in written["variants"].items()]}
    resolved = from_values(MinimalModel, model)
    problems = [*_impossible(resolved), *_impossible_beside(study, written["beside"])]
    if problems:
        raise StudyError("\n".join(f"{path}: {problem}" for problem in problems))
    return MinimalModelRecord(
        study=study.name,
        model=resolved,
        beside=tuple(
            Beside(experiment=name, run=run, confidence=study.experiments[name].statistics.confidence)
            for name, run in written["beside"].items()
            if name not in study.left_out
        ),
    )


def _impossible(model: MinimalModel) -> Iterator[str]:
    where = f"`{MINIMAL_MODEL}.variants`"
    if not model.variants:
        yield f"{where} is empty: name a variant, say `published: {{}}`"
    if (seeds := len(model.variants) * model.n_seeds) > MOST_SEEDS:
        yield (
            f"{where} times `{MINIMAL_MODEL}.n_seeds` is {seeds:,}, expected at most {MOST_SEEDS:,}: lower `n_seeds`, "
            "or name fewer variants"
        )
    found: dict[tuple[float, ...], str] = {}
    for one in model.variants:
        twin = found.setdefault((one.alpha, one.mu1, one.mu2), one.name)
        if twin != one.name:
            yield f"{where}: {twin} and {one.name} are the same loss: leave one of them out"


def _impossible_beside(study: Study, beside: Mapping[str, str]) -> Iterator[str]:
    for name, run in beside.items():
        where = f"`{MINIMAL_MODEL}.beside.{name}`"
        if name in study.left_out:
            continue
        if name not in study.experiments:
            known = [*study.experiments, *study.left_out]
            yield f"{where}: no experiment is called {name!r}{did_you_mean(name, known)} (there are {', '.join(known)})"
            continue
        runs = {named.name: named for named in study.experiments[name].runs}
        if run not in runs:
            yield f"{where} is {run!r}{did_you_mean(run, list(runs))}, expected one of its runs ({', '.join(runs)})"
        elif missing := [each for each in _EVALUATORS if each not in runs[run].sequence_set.evaluators]:
            yield (
                f"{where}: {run} is not evaluated on {' and '.join(missing)}: add it to "
                f"`experiments.{name}.evaluation.evaluators`"
            )
