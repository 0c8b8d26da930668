"""How a key of a study is declared: the field of a dataclass whose `Annotated` type carries a `Key`.

    momentum: Annotated[float, Key("of sgd: how much of the velocity stays", minimum=0, below=1)] = neutral(0.0)

Type, bounds, unit, meaning, default and neutral value stand there and nowhere else; the JSON schemas that editors read
and docs/reference.md are generated from them. A field without a `Key` is none of a study's keys.

A study that says nothing gets `Key.default`, or the field's own default where the key gives none. Only the latter holds
for values made in Python: a field that has none must be given there.
"""

import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Annotated, Any

# What the fields made here say in their metadata.
NEUTRAL, TAG = "neutral", "tag"


class _Nothing:
    """The default of a key that has none."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()


@dataclasses.dataclass(frozen=True)
class Key:
    """What a study may say under a key.

    default: what a study gets, where that is not the default of the field. unit: in which a number counts.
    minimum, above, maximum, below, multiple_of: bounds of a number, `above` and `below` themselves excluded.
    choices: the values allowed. pattern: what a text has to match. shortest, longest: characters of a text.
    fewest, unique: of items or entries. required: whether there is no section without it.
    names: pattern of the names under which a study writes the values of a tuple, each in a section of its own.
    each: the keys of a mapping, of which all hold one type. inherits: what a section's keys are like unless it says
    otherwise, in place of their defaults. beside: whether the section's keys stand among those of the other fields.
    any_form: whether it is written in several forms, short ones too; the schema then leaves it to what reads it.
    """

    meaning: str = ""
    _: dataclasses.KW_ONLY
    default: Any = NOTHING
    unit: str = ""
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    multiple_of: int | None = None
    choices: tuple = ()
    pattern: str = ""
    shortest: int = 0
    longest: int = 0
    fewest: int = 0
    unique: bool = False
    required: bool = False
    names: str = ""
    each: tuple[str, ...] = ()
    inherits: str = ""
    beside: bool = False
    any_form: bool = False


@dataclasses.dataclass(frozen=True)
class Declared:
    """A key by its name: its type without the annotation, what it says of itself, and what a study gets.

    tag: of a union, the key that says which of it counts; see `tagged`.
    """

    name: str
    kind: Any
    key: Key
    default: Any
    tag: str = ""


# A number that draws something.
SeedNumber = Annotated[int, Key(minimum=0, maximum=4_294_967_295)]


def neutral(value: Any) -> Any:
    """Return a field with this default, at which the key changes nothing and enters no identity.

    Results made before the key existed are found again as long as a study leaves the key there.
    """
    return dataclasses.field(default=value, metadata={NEUTRAL: value})


def tagged(tag: str) -> Any:
    """Return a field of a union of dataclasses, which studies and JSON write as two keys.

    `tag` says which of the union it is, by the name that the class has under that attribute; under this name stand the
    values. The field's `Key` is the tag's.
    """
    return dataclasses.field(metadata={TAG: tag})


def split(kind: Any) -> tuple[Any, Key]:
    """Return a type without its annotation, and the `Key` that annotates it, an empty one where there is none.

    Of several keys each adds to those before it: `Annotated[Classes, Key(default=800)]`.
    """
    if typing.get_origin(kind) is not typing.Annotated:
        return kind, Key()
    bare, *notes = typing.get_args(kind)
    keys = [note for note in notes if isinstance(note, Key)]
    said = [(field, getattr(key, field.name)) for key in keys for field in dataclasses.fields(Key)]
    return bare, Key(**{field.name: value for field, value in said if value != field.default})


def declared(section: type) -> Iterator[Declared]:
    """Yield the keys of a dataclass in the order of its fields; without the underscore that ends a word of Python's."""
    hints = _hints(section)
    for field in dataclasses.fields(section):
        kind, key = split(hints[field.name])
        if key != Key():
            default = NOTHING if field.default is dataclasses.MISSING else field.default
            default = default if key.default is NOTHING else key.default
            yield Declared(field.name.rstrip("_"), kind, key, default, field.metadata.get(TAG, ""))


@functools.cache
def _hints(section: type) -> dict[str, Any]:
    return typing.get_type_hints(section, include_extras=True)
