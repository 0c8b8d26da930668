"""Interventions on places: what is done to a model's activations, as a study writes it.

    {ablate: block0.*}                                            heads and MLP of block 0 give 0
    {ablate: block0.head*, keep: [patterns]}                      …, with the attention of a first, undisturbed pass
    {only: block1.head3}                                          no other head of block 1
    {clamp: {place: block1.head3.pattern, to: induction, weight: 0.8}}
    {forbid: {place: block0.head2.scores, tokens: previous_token}}
    {temperature: {place: block1.head3.scores, by: 4}}
    {graft: {place: residual0, from: peak}}                       block 0 and before are those of another snapshot
    {patch: {place: block0.heads, from: swapped_labels, tokens: labels}}
    {copy: block1.head3}                                          the logits are what this head's scores say

One intervention can say several of these; under each stands one of them or a list. A name of a place is short for
`{place: name}`. circuits/interventions.py does what is declared here, specs/places.py has the names.

`strength`, from 0 to 1, is how much of an operation is done; at 0 it changes nothing. Of several operations at a place
the order is: graft, keep, patch, temperature, forbid, clamp, ablate.
"""

import dataclasses
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from icl_transience.specs import keys
from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.keys import Key, neutral
from icl_transience.specs.model import Model
from icl_transience.specs.places import Place, resolve

_Places = Annotated[tuple[str, ...], Key(fewest=1)]
_Strength = Annotated[float, Key("how much of it is done; 0 = nothing", minimum=0, maximum=1)]
# Sequences that differ from a sequence in one respect; circuits/pairs.py makes them.
PAIRED = ("other_labels", "swapped_labels", "other_query")
TOKENS = ("all", "exemplars", "labels", "query")


@dataclass(frozen=True, kw_only=True)
class Ablate:
    """The activation is 0. Where values are kept too, it still is."""

    place: Annotated[_Places, Key("activations that are 0: block0.*, block1.head3, embedding, …", required=True)]
    strength: _Strength = 1.0


@dataclass(frozen=True, kw_only=True)
class Clamp:
    """Rows of attention patterns are set."""

    place: Annotated[_Places, Key("patterns: block1.head3.pattern, say", required=True)]
    to: Annotated[
        str,
        Key(
            "previous_token: row t has `weight` on t-1 and the rest on t; induction: the query's row has `weight` on "
            "the label tokens that are right, evenly, and the rest on the others; match: the query's row has, on label "
            "tokens, the softmax of cosine / `temperature` between input exemplars, the query's and each item's",
            choices=("previous_token", "induction", "match"),
            required=True,
        ),
    ]
    weight: Annotated[float, Key("attention on the previous or the right token", minimum=0, maximum=1)] = 1.0
    rows: Annotated[str, Key("of previous_token: which rows are set", choices=("all", "labels"))] = "all"
    temperature: Annotated[
        float, Key("of match; at 0 each item that is as near as the nearest has a weight of 1", minimum=0)
    ] = 0.0
    strength: _Strength = 1.0


@dataclass(frozen=True, kw_only=True)
class Forbid:
    """Attention does not go to some tokens: their scores are -1e9. Below strength 1, log(1 - strength) is added."""

    place: Annotated[_Places, Key("scores: block0.head2.scores, say", required=True)]
    tokens: Annotated[
        str,
        Key(
            "previous_token: token t-1 of row t; non_labels: exemplar tokens of the query's row, itself included",
            choices=("previous_token", "non_labels"),
            required=True,
        ),
    ]
    rows: Annotated[str, Key("of previous_token: in which rows", choices=("all", "labels"))] = "all"
    strength: _Strength = 1.0


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Scores are divided by `by` (to the power of `strength`)."""

    place: Annotated[_Places, Key("scores: block1.head3.scores, say", required=True)]
    by: Annotated[float, Key("what they are divided by; 1 = nothing", above=0, required=True)]
    strength: _Strength = 1.0


@dataclass(frozen=True, kw_only=True)
class Graft:
    """The activation comes from another snapshot, which sees the same sequence; or goes on in it."""

    place: Annotated[_Places, Key("residual0: all before it; or any other place", required=True)]
    from_: Annotated[str, Key("the other snapshot", shortest=1, required=True)]
    direction: Annotated[
        str,
        Key(
            "in: the other's activation in this model; out: this model's activation in the other",
            choices=("in", "out"),
        ),
    ] = "in"
    strength: _Strength = 1.0


@dataclass(frozen=True, kw_only=True)
class Patch:
    """The activation comes from the same model on a paired sequence, at some tokens."""

    place: Annotated[_Places, Key("activations that are replaced", required=True)]
    from_: Annotated[
        str,
        Key(
            "what differs in the paired sequence: other_labels: every context label is another one; swapped_labels: "
            "the query's label and the first other one of the context, exchanged; other_query: the query is the "
            "context's first exemplar that has another label",
            choices=PAIRED,
            required=True,
        ),
    ]
    tokens: Annotated[
        tuple[int | str, ...], Key("all, exemplars, labels, query, or numbers of tokens from 0", fewest=1)
    ] = ("all",)
    strength: _Strength = 1.0


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """Operations on places that are done together."""

    ablate: Annotated[tuple[Ablate, ...], Key("activations that are 0", any_form=True)] = neutral(())
    only: Annotated[
        tuple[str, ...], Key("heads, block1.head3 say; all others of their layers give 0", any_form=True)
    ] = neutral(())
    keep: Annotated[
        tuple[str, ...],
        Key(
            "what stays as in a first pass without the intervention: patterns, values, queries, keys, or any places",
            any_form=True,
        ),
    ] = neutral(())
    clamp: Annotated[tuple[Clamp, ...], Key("rows of attention patterns that are set", any_form=True)] = neutral(())
    forbid: Annotated[tuple[Forbid, ...], Key("tokens to which no attention goes", any_form=True)] = neutral(())
    temperature: Annotated[tuple[Temperature, ...], Key("scores that are divided", any_form=True)] = neutral(())
    graft: Annotated[tuple[Graft, ...], Key("activations of another snapshot", any_form=True)] = neutral(())
    patch: Annotated[tuple[Patch, ...], Key("activations on a paired sequence", any_form=True)] = neutral(())
    copy: Annotated[
        tuple[str, ...],
        Key(
            "a head: the logit of each context label is its score at that label's tokens (log of the sum of exp of)",
            any_form=True,
        ),
    ] = neutral(())

    def scaled(self, share: float) -> "Intervention":
        """Return it with `share` of every strength: at 0 it changes nothing. `copy` and `only` have no strength."""
        changes = {}
        for field in dataclasses.fields(self):
            parts = getattr(self, field.name)
            if parts and not isinstance(parts[0], str):
                changes[field.name] = tuple(dataclasses.replace(one, strength=share * one.strength) for one in parts)
        return dataclasses.replace(self, **changes)

    @property
    def without_strength(self) -> list[str]:
        """Return the operations in it that have no strength: they are done or not."""
        return [name for name in ("only", "copy") if getattr(self, name)]

    def __bool__(self) -> bool:
        """Return whether it says anything."""
        return any(getattr(self, field.name) for field in dataclasses.fields(self))


def together(several: Iterable[Intervention]) -> Intervention:
    """Return the intervention that does all that several say."""
    found: dict[str, tuple] = {}
    for one in several:
        for field in dataclasses.fields(one):
            found[field.name] = found.get(field.name, ()) + getattr(one, field.name)
    return Intervention(**found)


# The kinds of places that an operation can be about; what is not here is about any.
_PARTS = {"clamp": "pattern", "forbid": "scores", "temperature": "scores"}


def parse(values: Any, where: str = "intervention") -> Intervention:
    """Return the intervention that a mapping of a study says. where: its key, for messages.

    Raises StudyError that lists every problem. Places are names yet: `check` holds them against a model.
    """
    problems: list[str] = []
    found = _section(Intervention, values, where, problems)
    if not problems and not found:
        problems.append(f"`{where}` says nothing: give it one of {', '.join(_names(Intervention))}, or leave it out")
    if problems:
        raise StudyError("\n".join(problems))
    return found


def check(intervention: Intervention, model: Model, context: int, where: str = "intervention") -> None:
    """Raise StudyError, listing every problem, where a model on sequences of `context` items cannot have this."""
    problems = list(_problems(intervention, model, context, where))
    if problems:
        raise StudyError("\n".join(problems))


def check_graft(graft: Graft, model: Model, other: Model, where: str = "intervention.graft") -> None:
    """Raise StudyError where activations of a snapshot of `other` do not fit into `model`, or the other way round."""
    for place in resolve(graft.place, model, f"{where}.place"):
        resolve(graft.place, other, f"{where}.place (of {graft.from_})")
        sizes = {"width": (model.width, other.width)}
        if place.layer is not None and place.part not in ("residual", "attention", "mlp"):
            sizes["heads"] = (model.heads, other.heads)
        for name, (own, others) in sizes.items():
            if own != others:
                raise StudyError(
                    f"`{where}` is {place.name} with `from: {graft.from_}`, whose model.{name} is {others}, expected "
                    f"{own} as here: graft between models of one {name}"
                )


def _problems(intervention: Intervention, model: Model, context: int, where: str) -> Iterator[str]:
    for field in dataclasses.fields(intervention):
        parts = getattr(intervention, field.name)
        for one in [parts] if parts and isinstance(parts[0], str) else parts:
            written = one if isinstance(one, tuple) else one.place
            try:
                found = resolve(written, model, f"{where}.{field.name}")
            except StudyError as error:
                yield str(error)
                continue
            yield from _unfit(field.name, one, found, context, f"{where}.{field.name}")


def _unfit(operation: str, one: Any, found: list[Place], context: int, where: str) -> Iterator[str]:
    """Yield what an operation cannot be done to the places found."""
    names = ", ".join(dict.fromkeys(place.name for place in found))
    if (part := _PARTS.get(operation)) and any(place.part != part for place in found):
        yield f"`{where}.place` is {names}, expected places that end in .{part}: block1.head3.{part}, say"
    if operation in ("only", "copy") and any(place.part != "heads" or place.head is None for place in found):
        yield f"`{where}` is {names}, expected single heads: block1.head3, say"
    if operation == "copy" and len(found) != 1:
        yield f"`{where}` names {len(found)} heads, expected one: the logits are one head's"
    if operation == "clamp" and one.to == "induction" and context % 2:
        yield (
            f"`{where}.to` is 'induction' on sequences of {context} items, expected an even number: evaluators that "
            "have a right and a wrong label have as many items of each"
        )
    if operation == "graft" and one.direction == "out" and any(place.part != "residual" for place in found):
        yield f"`{where}.place` is {names} with `direction: out`, expected a residual stream: residual0, say"
    if operation == "patch":
        n_tokens = 2 * context + 1
        for token in one.tokens:
            if isinstance(token, int) and not 0 <= token < n_tokens:
                yield f"`{where}.tokens` has {token}, expected 0 … {n_tokens - 1}: sequences have {n_tokens} tokens"
        if "logits" in names and one.tokens != ("all",):
            yield f"`{where}.tokens` is {list(one.tokens)} at logits, which have no tokens: leave it out"


# From what is written to values.


def _names(section: type) -> list[str]:
    return [each.name for each in keys.declared(section)]


def _section(section: type, values: Any, where: str, problems: list[str]) -> Any:
    """Return the dataclass that a mapping says; add to `problems` what is wrong with it."""
    if not isinstance(values, Mapping):
        problems.append(f"`{where}` is {values!r}, expected a mapping (`key: value`) of {', '.join(_names(section))}")
        return None
    fields = [field.name for field in dataclasses.fields(section)]
    by_name = {each.name: (field, each) for each, field in zip(keys.declared(section), fields, strict=True)}
    found = {}
    for name, value in values.items():
        if name not in by_name:
            hint = did_you_mean(str(name), list(by_name))
            problems.append(f"unknown key `{where}.{name}`{hint} (allowed here: {', '.join(by_name)})")
            continue
        field, each = by_name[name]
        found[field] = _value(each, value, f"{where}.{name}", problems)
    for name, (field, each) in by_name.items():
        if each.key.required and field not in found:
            problems.append(f"`{where}` lacks `{name}`: add it")
    return None if problems else section(**found)


def _value(each: keys.Declared, value: Any, where: str, problems: list[str]) -> Any:
    if typing.get_origin(each.kind) is not tuple:
        return _plain(each.kind, each.key, value, where, problems)
    items = value if isinstance(value, list | tuple) else [value]
    kind = keys.split(typing.get_args(each.kind)[0])[0]
    if not dataclasses.is_dataclass(kind):
        if each.key.fewest and not items:
            problems.append(f"`{where}` is [], expected at least 1 item(s)")
        return tuple(_plain(kind, each.key, item, where, problems) for item in items)
    names = [item for item in items if isinstance(item, str)]
    if names and "place" in _required(typing.cast(type, kind)) and len(_required(typing.cast(type, kind))) == 1:
        # Names of places are one operation; sections stand each for itself.
        items = [{"place": names}, *(item for item in items if not isinstance(item, str))]
    many = len(items) > 1
    return tuple(
        _section(typing.cast(type, kind), item, f"{where}[{number}]" if many else where, problems)
        for number, item in enumerate(items)
    )


def _required(section: type) -> list[str]:
    return [each.name for each in keys.declared(section) if each.key.required]


def _plain(kind: Any, key: Key, value: Any, where: str, problems: list[str]) -> Any:
    """Return a number or a text, within the bounds of its key."""
    problem = ""
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a number of sequences seen, say
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            problem = "a number"
        elif key.minimum is not None and value < key.minimum:
            problem = f"at least {key.minimum:g}"
        elif key.above is not None and value <= key.above:
            problem = f"above {key.above:g}"
        elif key.maximum is not None and value > key.maximum:
            problem = f"at most {key.maximum:g}"
    elif key.choices:
        if value not in key.choices:
            problem = f"one of {', '.join(key.choices)}"
    elif kind is str:
        if not isinstance(value, str) or not value:
            problem = "a text"
    elif isinstance(value, bool) or not (isinstance(value, int) or value in TOKENS):
        problem = f"one of {', '.join(TOKENS)}, or numbers of tokens"
    if problem:
        hint = did_you_mean(str(value), list(key.choices)) if key.choices else ""
        problems.append(f"`{where}` is {value!r}{hint}, expected {problem}")
        return None
    return float(value) if kind is float else value
