"""Identities: a short hash of all values that shape a content, and their canonical JSON."""

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from icl_transience.specs.keys import NEUTRAL, TAG

# Bumped by hand when the same values come to mean another content; editing code does not invalidate results.
SEMANTICS = {"bank": 1, "sequences": 1, "training": 1}
# Whose numbers enter a stage's identity: its own, and those of what it is made from.
_MADE_FROM = {"bank": ("bank",), "sequences": ("bank", "sequences"), "training": ("bank", "training")}

T = typing.TypeVar("T")


def round_up(sequences: int, batch_size: int) -> int:
    """Return the number of sequences in whole batches that is at least `sequences`."""
    return -(-sequences // batch_size) * batch_size


def canonical(values: Any) -> str:
    """Return one string for equal values: JSON with sorted keys and no spaces."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Identified:
    """A value that jobs get as one line of JSON, from which it can be made again."""

    @functools.cached_property
    def json(self) -> str:
        """Its canonical JSON."""
        return canonical(identity_values(self))


def identity_values(value: Any) -> Any:
    """Return plain values of a dataclass, without fields at their neutral value and sections that are None."""
    if dataclasses.is_dataclass(value):
        return {
            name: identity_values(part)
            for f in dataclasses.fields(value)
            for name, part in _entries(f, getattr(value, f.name))
            if part is not None and not (NEUTRAL in f.metadata and part == f.metadata[NEUTRAL])
        }
    return [identity_values(item) for item in value] if isinstance(value, tuple) else value


def _entries(field: dataclasses.Field, part: Any) -> Iterator[tuple[str, Any]]:
    """Yield the key and value of a field; of a tagged union the tag too, and the values under its name."""
    if tag := field.metadata.get(TAG):
        yield tag, getattr(part, tag)
        yield getattr(part, tag), part
    else:
        yield field.name, part


def identity(stage: str, value: Any) -> str:
    """Return twelve hexadecimal digits that stand for everything that shapes the content."""
    content = canonical({"stage": stage, "semantics": semantics_of(stage), "values": identity_values(value)})
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def semantics_of(stage: str) -> list[int]:
    """Return the numbers that say what values of this stage mean; see SEMANTICS."""
    return [SEMANTICS[made_from] for made_from in _MADE_FROM[stage]]


def from_values(kind: type[T], values: dict[str, Any]) -> T:
    """Return the dataclass `kind` from plain values, numbers converted to the declared type (30 and 30.0 are one)."""
    hints, values = _hints(kind), dict(values)
    parts = {}
    for field in dataclasses.fields(typing.cast(Any, kind)):
        if tag := field.metadata.get(TAG):
            options = {getattr(option, tag): option for option in typing.get_args(hints[field.name])}
            name = values.pop(tag)
            parts[field.name] = from_values(options[name], values.pop(name))
    return kind(**parts, **{name: _typed(hints[name], value) for name, value in values.items()})


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(hint, types.UnionType):  # what may be absent, or of several types
        if value is None:
            return None
        options = [option for option in typing.get_args(hint) if option is not types.NoneType]
        hint = next((one for one in options if isinstance(one, type) and isinstance(value, one)), options[0])
    if dataclasses.is_dataclass(hint):
        return from_values(typing.cast(type, hint), value)
    if typing.get_origin(hint) is tuple:
        return tuple(_typed(typing.get_args(hint)[0], item) for item in value)
    return hint(value)
