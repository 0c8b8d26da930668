"""Places: the names of the model's activations, which measures read and interventions set.

    embedding        exemplar and label embeddings, before positions        [T, D]
    positions        what is added to them: 0 unless sinusoid or learned     [T, D]
    residual0 …      the residual stream after block 0, …                   [R, D]
    block0.queries   as they meet the keys: rotated, if positions are rotary [H, R, A]; so block0.keys [H, T, A]
    block0.values    [H, T, A]
    block0.scores    before the softmax and the causal mask, 1/sqrt(A) included [H, R, T]
    block0.pattern   attention after the softmax                            [H, R, T]
    block0.heads     what each head gives, before the output projection     [H, R, A]
    block0.attention what the attention adds to the residual stream         [R, D]
    block0.mlp       what the MLP adds; only where the model has one        [R, D]
    logits           of the query                                           [K]

An activation has two axes before these, lanes S and sequences B. R is T, but 1 in the last block, of which the query's
row alone is computed (unless every row is asked for). One head of a place with an axis H: `block0.head3.pattern`;
`block0.head3` alone is what that head gives, `block0.heads` of it. A star stands for every number, or for every part:
`block0.head*`, `block*.pattern`, `block0.*` (all of block 0: its heads and its MLP).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.model import Model

OF_HEADS = ("queries", "keys", "values", "scores", "pattern", "heads")
# What every kind of place is called where all blocks are meant.
PLURALS = {"patterns": "block*.pattern", **{part: f"block*.{part}" for part in ("queries", "keys", "values")}}


@dataclass(frozen=True, order=True)
class Place:
    """An activation, or one head of it. name: without the head (`block0.pattern`). head: which one; None: all of it."""

    name: str
    head: int | None = None

    @property
    def written(self) -> str:
        """The name by which a study calls it."""
        if self.head is None:
            return self.name
        block, _, part = self.name.partition(".")
        return f"{block}.head{self.head}" + ("" if part == "heads" else f".{part}")

    @property
    def layer(self) -> int | None:
        """The layer, counted from 0, of a place in a block or after one."""
        found = re.match(r"(?:block|residual)(\d+)", self.name)
        return int(found[1]) if found else None

    @property
    def part(self) -> str:
        """The last word of its name: pattern, mlp, …; of a residual stream `residual`."""
        return re.sub(r"\d+$", "", self.name.rpartition(".")[2])


def places(model: Model) -> dict[str, Place]:
    """Return every place of the model by the name a study gives it, in the order of a forward pass."""
    found = {name: Place(name) for name in ("embedding", "positions")}
    for layer in range(model.depth):
        block = f"block{layer}"
        found |= {f"{block}.{part}": Place(f"{block}.{part}") for part in OF_HEADS}
        for head in range(model.heads):
            found[f"{block}.head{head}"] = Place(f"{block}.heads", head)
            of_head = OF_HEADS[:-1]
            found |= {f"{block}.head{head}.{part}": Place(f"{block}.{part}", head) for part in of_head}
        for part in ("attention", "mlp") if model.mlp_ratio else ("attention",):
            found[f"{block}.{part}"] = Place(f"{block}.{part}")
        found[f"residual{layer}"] = Place(f"residual{layer}")
    return found | {"logits": Place("logits")}


def resolve(written: str | Iterable[str], model: Model, where: str = "place") -> list[Place]:
    """Return the places that one or several names, with stars or without, stand for in a model; each once, in order.

    where: the key, for the message. Raises StudyError where the model has no such place.
    """
    names = [written] if isinstance(written, str) else list(written)
    there, found = places(model), set()
    for name in names:
        expression = re.escape(PLURALS.get(name, name))
        expression = re.sub(r"(block|head|residual)\\\*", r"\1\\d+", expression).replace(r"\*", "[^.]*")
        matches = [place for known, place in there.items() if re.fullmatch(expression, known)]
        if not matches:
            raise StudyError(f"`{where}` is {name!r}, which the model does not have{_hint(name, model, list(there))}")
        found.update(matches)
    # All of an activation has its heads.
    return [
        place for place in there.values() if place in found and (place.head is None or Place(place.name) not in found)
    ]


def resolve_added(written: Iterable[str], model: Model) -> list[Place]:
    """Return what `resolve` does, but of `block0.*` what the block adds, and of `block0.head3.*` what the head gives.

    For what is done in part: at each of the places on the way there it would be done again to what it was done to.
    """
    parts = ("attention", "mlp") if model.mlp_ratio else ("attention",)
    names, whole = list[str](), set[Place]()
    for name in written:
        if re.fullmatch(r"block(\d+|\*)\.\*", name):
            names += [name[:-1] + part for part in parts]
            whole |= {Place(place.name) for place in resolve(name, model) if place.part in OF_HEADS}
        elif re.fullmatch(r"block(\d+|\*)\.head(\d+|\*)\.\*", name):
            names.append(name[:-2])
            whole |= set(resolve(name, model))
        else:
            names.append(name)
    found = resolve(names, model)
    return [place for place in found if place not in whole and Place(place.name) not in whole]


def _hint(name: str, model: Model, there: list[str]) -> str:
    counts = {"block": model.depth, "residual": model.depth, "head": model.heads}
    for kind, number in re.findall(r"(block|residual|head)(\d+)", name):
        if int(number) >= counts[kind]:
            return f": there are {kind}0 … {kind}{counts[kind] - 1}"
    if name.endswith(".mlp") and not model.mlp_ratio:
        return ": its blocks have no MLP (`model.mlp_ratio` is 0)"
    last = model.depth - 1
    parts = ", ".join((*OF_HEADS, "attention", *(["mlp"] if model.mlp_ratio else [])))
    return (
        f"{did_you_mean(name, there)}: there are embedding, positions, residual0 … residual{last}, logits; in "
        f"block0 … block{last} {parts}; of head0 … head{model.heads - 1} block0.head0.pattern and the like"
    )
