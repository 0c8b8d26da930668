"""The section `circuits` of an experiment: what is measured inside its models, and what is done to them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from icl_transience.specs.circuits import (
    END,
    EVALUATORS_MEASURED,
    PEAK,
    START,
    Circuits,
    NamedIntervention,
    chosen_measures,
    intervened,
)
from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.evaluators import evaluator_parts, in_order
from icl_transience.specs.interventions import Intervention, check, parse
from icl_transience.study.checks import not_evaluated
from icl_transience.study.experiments import NamedRun


def resolve(where: str, section: Mapping[str, Any], runs: Sequence[NamedRun], horizon: int) -> Circuits | None:
    """Return what an experiment asks to know of its models; None where that is nothing.

    where: the key path of the section. horizon: in sequences seen. Raises StudyError that lists every problem: places
    that a run's model does not have, interventions that it cannot have, evaluators that are not evaluated.
    """
    evaluated = runs[0].sequence_set.evaluators
    evaluators = section["evaluators"]
    if evaluators is None:
        evaluators = [name for name in evaluated if name in EVALUATORS_MEASURED] or list(evaluated[:1])
    problems = not_evaluated(where, evaluators, evaluated)
    found = []
    for name, written in section["interventions"].items():
        path = f"{where}.interventions.{name}"
        try:
            intervention = parse(written, path)
        except StudyError as error:
            problems += str(error).splitlines()
            continue
        known = [one for one in evaluators if one in evaluated]
        problems += dict.fromkeys(_problems(path, intervention, runs, known, horizon))
        found.append(NamedIntervention(name=name, intervention=intervention))
    if problems:
        raise StudyError("\n".join(problems))
    measures = chosen_measures(section["measures"])
    if not measures and not found:
        return None
    return Circuits(measures=measures, evaluators=tuple(in_order(evaluators)), interventions=tuple(found))


def curves_of(circuits: Circuits | None) -> tuple[str, ...]:
    """Return the names of the evaluators under interventions: icl|no_layer0 and so on."""
    if circuits is None:
        return ()
    return tuple(intervened(name, one.name) for one in circuits.interventions for name in circuits.evaluators)


def _problems(
    path: str, intervention: Intervention, runs: Sequence[NamedRun], evaluators: Sequence[str], horizon: int
) -> Iterator[str]:
    """Yield why runs cannot have an intervention."""
    for named in runs:
        run = named.run
        for context in {evaluator_parts(name)[1] or run.recipe.context for name in evaluators}:
            try:
                check(intervention, run.model, context, path)
            except StudyError as error:
                yield from (f"{line} (run {named.name})" for line in str(error).splitlines())
        for graft in intervention.graft:
            yield from _misplaced(f"{path}.graft.from", graft.from_, named, horizon)


def _misplaced(path: str, said: str, named: NamedRun, horizon: int) -> Iterator[str]:
    """Yield why a run has no snapshot to graft from."""
    if said in (START, PEAK, END):
        return
    if not said.isdigit():
        yield (
            f"`{path}` is {said!r}{did_you_mean(said, [START, PEAK, END])}, expected {START}, {PEAK}, {END} or a "
            "number of sequences seen at which there is a snapshot: of the same lane"
        )
        return
    run = named.run
    points = [0, *run.snapshots.points(run.batch_size, 0, horizon)]
    if int(said) not in points:
        nearest = min(points, key=lambda point: abs(point - int(said)))
        yield (
            f"`{path}` is {said}, at which {named.name} has no snapshot: the nearest is at {nearest} sequences seen, "
            f"the last at {max(points)}"
        )
