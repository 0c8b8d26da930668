"""What a study writes, brought to the values of a run: what changes nothing enters no identity."""

from collections.abc import Mapping
from typing import Any

from icl_transience.specs.evaluators import Strategy, evaluator_at, in_order
from icl_transience.specs.identity import canonical, from_values, identity_values
from icl_transience.specs.model import COMPONENTS, PART_OF
from icl_transience.specs.recipes import COMPOSITION, Component
from icl_transience.study import schema


def kinds_of(recipe: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return key path -> (share and) composition of every kind of sequence of a recipe that has a share."""
    own = {key: recipe[key] for key in COMPOSITION}
    mixed = {f"recipe.mixture.{name}": own | part for name, part in recipe["mixture"].items() if part["share"]}
    return {"recipe": own} | mixed


def resolved_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a Recipe, with what changes no sequence at its neutral value: it enters no identity."""
    own, *parts = (_composition(kind) for kind in kinds_of(recipe).values())
    mixed = [identity_values(from_values(Component, part)) for part in parts]
    zipf, labelling = recipe["zipf"], recipe["labelling"]
    if zipf["ranks"] == "identity":
        zipf = zipf | {"seed": 0}
    relabelling = recipe["relabelling"]
    if not relabelling["holdout_share"]:
        relabelling = relabelling | {"seed": 0}
    return {
        **recipe,
        **own,
        "zipf": zipf if zipf["alpha"] else {},
        "labelling": labelling if labelling["labels"] else {},
        "relabelling": relabelling,
        # Neither names nor the order in which they stand say anything.
        "mixture": sorted(mixed, key=canonical),
    }


def resolved_optimizer(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an Optimizer, with what its update rule and schedule do not read at its default."""
    schedule, l2 = optimizer["schedule"], dict(optimizer["l2"])
    if schedule["kind"] != "cosine":
        schedule = {key: schedule[key] for key in ("kind", "warmup")}
    # What is part of another component first, while that one's own word still stands.
    for component in sorted(COMPONENTS, key=lambda one: one not in PART_OF):
        above = l2[PART_OF[component]] if component in PART_OF else None
        if l2[component] == (l2["strength"] if above is None else above):
            l2[component] = None
    unread = ("beta1", "beta2", "epsilon") if optimizer["name"] == "sgd" else ()
    read = {key: value for key, value in optimizer.items() if key not in unread}
    return read | {"schedule": schedule, "l2": l2}


def resolved_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a Model, without a wavelength or layout that its positions do not read."""
    positions = model["positions"]
    if positions["kind"] in ("learned", "none"):
        positions = {"kind": positions["kind"]}
    elif positions["kind"] == "rotary":
        positions = {key: value for key, value in positions.items() if key != "layout"}
    return {**model, "positions": positions}


def resolved_parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of what an intervention can change."""
    return {"recipe": resolved_recipe(values["recipe"]), "optimizer": resolved_optimizer(values["optimizer"])}


def periods_of(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return intervention's name -> `at`, `recipe` and `optimizer` as written with it and those before it.

    In the order in which they come, without those that change nothing.
    """
    periods, now = {}, {key: values[key] for key in ("recipe", "optimizer")}
    for name, change in sorted(values["interventions"].items(), key=lambda item: item[1]["at"]):
        before, now = now, schema.merge(now, change)
        if resolved_parts(now) != resolved_parts(before):
            periods[name] = now
    return periods


def _composition(kind: Mapping[str, Any]) -> dict[str, Any]:
    resolved = dict(kind)
    if kind["support"] == "none":
        resolved |= {"burstiness": 0, "replacement": True}
    if not resolved["burstiness"]:
        resolved |= {"distractor": True, "match": 0, "separate_free": False}
    if not resolved["burstiness"] or not resolved["distractor"]:
        resolved |= {"distinct": True}
    if resolved["replacement"]:
        resolved |= {"separate_free": False}
    return resolved


def evaluators_of(evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the evaluators, each followed by itself at other context lengths."""
    names = evaluation["evaluators"]
    others = [evaluator_at(name, at) for name in names for at in evaluation["contexts"].get(name, [])]
    return tuple(in_order([*names, *others]))


def strategy_of(evaluation: Mapping[str, Any]) -> Strategy:
    """Return between which predictors snapshots stand; without predictors the other keys say nothing."""
    strategy = from_values(Strategy, dict(evaluation["strategy"]))
    return strategy if strategy.predictors != "none" else Strategy()
