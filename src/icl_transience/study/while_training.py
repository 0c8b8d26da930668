"""What a study says of a model's training besides recipe and optimizer, brought to the values of a run.

Interventions on activations, with their strength over time, and parameters that are frozen.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from icl_transience.specs import interventions
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import identity_values, round_up
from icl_transience.specs.model import Model, parameter_shapes, parameters_named
from icl_transience.specs.runs import Run
from icl_transience.specs.training import ActivationIntervention, Freeze, StrengthAt
from icl_transience.study.document import shown_value


def activation_interventions(written: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return name -> the values of a run's activation interventions, without those whose strength is 0 throughout.

    Raises StudyError that lists every problem.
    """
    found: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for name, section in written.items():
        where = f"activation_interventions.{name}"
        operations = {key: value for key, value in section.items() if key != "strength"}
        try:
            strength = _strength(section.get("strength", 1), f"{where}.strength")
            done = interventions.parse(operations, where)
        except StudyError as error:
            problems.append(str(error))
            continue
        if any(point.strength for point in strength):
            found[name] = identity_values(ActivationIntervention(strength=strength, operations=done))
    if problems:
        raise StudyError("\n".join(problems))
    return found


def _strength(written: Any, where: str) -> tuple[StrengthAt, ...]:
    """Return the points of a strength over time, one where it is the same throughout."""
    points = written if isinstance(written, list) else [[0, written]]
    found: list[StrengthAt] = []
    for point in points:
        if not (isinstance(point, list) and len(point) == 2 and _is_time(point[0]) and _is_share(point[1])):
            raise StudyError(
                f"`{where}` is {shown_value(written)}, expected a number from 0 to 1, or a list of [sequences seen, "
                "strength] such as [[0, 1], [256_000, 0]]"
            )
        if found and point[0] < found[-1].at:
            raise StudyError(f"`{where}` has {point[0]} after {found[-1].at}, expected times in ascending order")
        if [one.at for one in found[-2:]] == 2 * [point[0]]:
            raise StudyError(f"`{where}` has {point[0]} three times: a step is two points at one time")
        found.append(StrengthAt(at=point[0], strength=float(point[1])))
    if not found:
        raise StudyError(f"`{where}` is [], expected at least one [sequences seen, strength]")
    same = len({point.strength for point in found}) == 1
    return (StrengthAt(at=0, strength=found[0].strength),) if same else tuple(found)


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def impossible_activations(names: Iterable[str], run: Run) -> Iterator[str]:
    """Yield what a run's model cannot have of its activation interventions. names: under which they are written."""
    for name, one in zip(names, run.activation_interventions, strict=True):
        where = f"activation_interventions.{name}"
        try:
            interventions.check(one.operations, run.model, run.recipe.context, where)
        except StudyError as error:
            yield from str(error).splitlines()
        if one.operations.graft:
            yield (
                f"`{where}.graft` takes activations of another snapshot, which training has none of: leave it out, or "
                "declare it for evaluation"
            )
        whole = one.operations.without_strength
        if whole and any(0 < one.strength_at(run.batch_size, seen) < 1 for seen in _times(one, run.batch_size)):
            yield (
                f"`{where}.strength` is between 0 and 1 at some time, but `{whole[0]}` is done or not: expected 0 "
                "and 1 alone, with steps between them, [[0, 1], [256_000, 1], [256_000, 0]] say"
            )


def _times(one: ActivationIntervention, batch_size: int) -> list[int]:
    """Return batches, by their first sequence, among which is one of each ramp."""
    points = [round_up(point.at, batch_size) for point in one.strength]
    return [*points, *(max(point - batch_size, 0) for point in points)]


def freeze(written: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Return the values of a run's freeze: parameters by name, in forward order; {} where nothing is frozen."""
    if not written["parameters"]:
        return {}
    named = parameters_named(written["parameters"], model, "freeze.parameters")
    return {"parameters": list(named), "from_": written["from"], "until": written["until"]}


def impossible_freeze(run: Run) -> Iterator[str]:
    """Yield what contradicts itself, or the rest of a run, in its freeze."""
    frozen: Freeze = run.freeze
    if not frozen.parameters:
        return
    begin, *end = frozen.bounds(run.batch_size)
    if end and end[0] <= begin:
        yield (
            f"`freeze.until` is {frozen.until}, which is not after `freeze.from` {frozen.from_} by a batch: make it "
            "later, or 0 to freeze as long as training goes on"
        )
    if len(frozen.parameters) == len(parameter_shapes(run.model, 1, 1, 1)):
        yield "`freeze.parameters` names all parameters, so that nothing would train: leave some of them out"
    if both := [name for name in run.forgetting.parameters if name in frozen.parameters]:
        yield (
            f"`freeze.parameters` has {', '.join(both)}, which `forgetting` draws anew: freeze others, or leave one of "
            "them out"
        )
