"""YAML documents checked against a JSON schema, with errors a person can act on, and defaults filled in.

The library that checks is jsonschema. On the optimizer's section pydantic (a TypeAdapter of typed dicts made from the
declarations) and msgspec were tried as well. Editors need the JSON schema anyway, and an error of jsonschema carries
the part of it that was broken, with its meaning and the keys allowed. pydantic takes as long to import (0.1 s) and 36
lines more: its errors must be looked up in the declarations again, and it has no rule for items that occur once.
msgspec loads fastest (0.03 s), but stops at the first error and gives a text without the value.
"""

import copy
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import jsonschema
import jsonschema.validators

from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.study.document import shown_value

_MOST_ITEMS = 1_000
_MOST_CHARACTERS = 10_000
_LARGEST_INTEGER = 1 << 53
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _pattern(validator: Any, pattern: str, value: Any, schema: Mapping[str, Any]) -> Iterator:
    """Check a pattern: in a schema `$` is the end; in Python it is also what stands before a last line break."""
    return jsonschema.Draft202012Validator.VALIDATORS["pattern"](validator, pattern.replace("$", r"\Z"), value, schema)


# JSON Schema calls 8.0 an integer; a count that is not written as one is a mistake.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _pattern},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def check(document: Any, schema: Mapping[str, Any], name: str) -> None:
    """Raise StudyError with a line for every violation: key path, value, what is allowed, a hint."""
    problems = list(_outlandish(document, ()))
    if not problems:
        errors = _Validator(schema).iter_errors(document)
        in_order = sorted(errors, key=lambda error: [str(key) for key in error.absolute_path])
        problems = [line for error in in_order for line in _describe(error)]
    if problems:
        raise StudyError("\n".join(f"{name}: {problem}" for problem in problems))


def _outlandish(value: Any, path: tuple) -> Iterator[str]:
    """Yield what is wrong with values that no key can have, whatever its schema says."""
    where = f"`{dotted(path)}`" if path else "the document"
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}, expected a finite number"
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        yield f"{where} is {shown_value(value)}, expected at most {_LARGEST_INTEGER:,}, with either sign"
    elif isinstance(value, str):
        if len(value) > _MOST_CHARACTERS:
            yield f"{where} is a text of {len(value):,} characters, expected at most {_MOST_CHARACTERS:,}"
        if found := _CONTROL.search(value):
            yield f"{where} holds {found[0]!r} at place {found.start()}, which is no character to print: leave it out"
    elif isinstance(value, list):
        if len(value) > _MOST_ITEMS:
            yield f"{where} has {len(value):,} items, expected at most {_MOST_ITEMS:,}"
        for place, item in enumerate(value):
            yield from _outlandish(item, (*path, place))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if _CONTROL.search(str(key)) or "\n" in str(key):
                yield f"{where}: the key {shown_value(key)} holds what is no character to print: leave it out"
            yield from _outlandish(item, (*path, key))


def _describe(error: jsonschema.ValidationError) -> Iterator[str]:
    """Yield the lines of an error: key path, value, what is allowed, a hint."""
    path = dotted(error.absolute_path)
    where = f"`{path}`" if path else "the document"
    value: Any = error.instance
    shown = shown_value(value)
    # The keyword of the schema that the value breaks, what it asks for, and the part of the schema where it stands.
    keyword, rule, schema = str(error.validator), cast(Any, error.validator_value), cast(Any, error.schema)
    if keyword == "additionalProperties":
        allowed = list(schema.get("properties", {}))
        for key in value:
            if key not in allowed:
                full = f"{path}.{key}" if path else str(key)
                yield f"unknown key `{full}`{did_you_mean(str(key), allowed)} (allowed here: {', '.join(allowed)})"
    elif keyword == "enum":
        hint = did_you_mean(str(value), rule)
        yield f"{where} is {shown}{hint}, expected one of {', '.join(map(str, rule))}"
    elif keyword == "type":
        kinds = [rule] if isinstance(rule, str) else rule
        names = " or ".join(_KINDS.get(kind, kind) for kind in kinds)
        yield f"{where} is {shown}, expected {names}{_meaning(schema)}{_as_number(value, kinds)}"
    elif keyword == "required":
        missing = [key for key in rule if key not in value]
        yield f"{where} lacks {', '.join(f'`{key}`' for key in missing)}: add it"
    elif keyword == "pattern":
        yield f"{where}: {shown} does not match {rule}: choose a name of that form"
    elif keyword == "oneOf":
        yield f"{where} is {shown}, expected {' or '.join(map(_option, rule))}{_meaning(schema)}"
    else:
        limits = {
            "minimum": f"at least {rule}",
            "maximum": f"at most {rule}",
            "exclusiveMinimum": f"above {rule}",
            "exclusiveMaximum": f"below {rule}",
            "multipleOf": f"a multiple of {rule}",
            "minItems": f"at least {rule} item(s)",
            "maxItems": f"at most {rule} item(s)",
            "minProperties": f"at least {rule} entry",
            "maxProperties": f"at most {rule} entries",
            "minLength": "a text that is not empty",
            "maxLength": f"a text of at most {rule} characters",
            "uniqueItems": "every item only once",
        }
        yield f"{where} is {shown}, expected {limits[keyword]}{_meaning(schema)}"


# What a person who writes YAML calls them.
_KINDS = {
    "object": "a mapping (`key: value`)",
    "array": "a list (`[…]`)",
    "string": "a text",
    "boolean": "true or false",
}


def _as_number(value: Any, kinds: list[str]) -> str:
    """Return a remedy where a number is meant but not written as one."""
    if isinstance(value, float) and value.is_integer() and "integer" in kinds:
        return f": write {int(value)}"
    numeric = isinstance(value, str) and re.fullmatch(r"[-+]?[\d_.]*\d[\d_.]*([eE][-+]?\d+)?", value)
    return ": write it without quotes or leading zeros" if numeric and {"integer", "number"} & set(kinds) else ""


def _option(option: Mapping[str, Any]) -> str:
    """Return in words one of several forms that a value can have."""
    if "enum" in option:
        return " or ".join(map(str, option["enum"]))
    if option["type"] == "array":
        return f"a list of {', '.join(map(str, option['items']['enum']))}"
    if option["type"] == "object":
        return f"a mapping of {', '.join(f'`{key}`' for key in option['required'])}"
    return f"{option['type']} from {option['minimum']} to {option['maximum']}"


def _meaning(schema: Mapping[str, Any]) -> str:
    return f" ({schema['description']})" if "description" in schema else ""


def dotted(path) -> str:
    """Return a key path as a person writes it: experiments.l2.seeds[0]."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def defaults(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Return the value that `schema` takes when nothing is given; `root` holds the definitions it refers to."""
    if "$ref" in schema:
        return defaults(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "default" in schema:
        return copy.deepcopy(schema["default"])
    # A choice without a default is left out: a study has to make it.
    parts = {key: part for key, part in schema.get("properties", {}).items() if "enum" not in part or "default" in part}
    return {key: defaults(part, root) for key, part in parts.items()}


def is_choice(schema: Mapping[str, Any], path: Iterable[str]) -> bool:
    """Tell whether there is a choice of values under the keys of `path`."""
    part: Mapping[str, Any] = schema
    for key in path:
        while "$ref" in part:
            part = schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
        part = part.get("properties", {}).get(key, {})
    return "enum" in part


def merge(base: Mapping[str, Any], *overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with each override laid over it: mappings key by key, anything else replaced."""
    merged = dict(base)
    for override in overrides:
        for key, value in override.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged
