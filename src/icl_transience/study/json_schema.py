"""The JSON schemas of studies, of their bases and of config.yaml, made from what the dataclasses of specs/ declare.

`schema.check` reads them; editors read the same from workflow/schemas/, where `icl_transience keys` writes them.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from icl_transience.specs.config import Config
from icl_transience.specs.keys import NOTHING, Declared, Key, declared, split
from icl_transience.specs.runs import Run
from icl_transience.specs.settings import BaseSection, ExperimentSection, Settings, StudySection

Schema = dict[str, Any]

_WORDS = {int: "integer", float: "number", str: "string", bool: "boolean"}
# What a key says, and the word of JSON schema for it.
_BOUNDS = {
    "minimum": "minimum",
    "above": "exclusiveMinimum",
    "maximum": "maximum",
    "below": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
    "shortest": "minLength",
    "longest": "maxLength",
}


@functools.cache
def study_schema() -> Schema:
    """Return the schema of a study file. What stands in several sections is a definition under its own name."""
    own = {each.name: each for section in (Run, Settings) for each in declared(section) if not each.key.beside}
    shared = {each.kind: name for name, each in own.items() if dataclasses.is_dataclass(each.kind)}
    sections = {Run: "run", Settings: "settings", ExperimentSection: "experiment"}
    definitions = {name: _property(each, _without(shared, each.kind)) for name, each in own.items()}
    of_settings = {name: {"$ref": f"#/$defs/{name}"} for name in definitions}
    of_run = {each.name: of_settings[each.name] for each in declared(Run)}
    own_of_experiment = [each for each in declared(ExperimentSection) if not each.key.beside]
    of_experiment = {each.name: _property(each, sections) for each in own_of_experiment} | of_settings
    return _document("study", _section(declared(StudySection), sections)) | {
        "$defs": {
            "experiment": _object(of_experiment),
            "settings": _object(of_settings),
            "run": _object(of_run),
            **definitions,
        }
    }


@functools.cache
def base_schema() -> Schema:
    """Return the schema of a base file: of a study's keys those that it has, and the definitions of what they hold."""
    study = study_schema()
    of_base = {each.name: study["properties"][each.name] for each in declared(BaseSection)}
    definitions = {name: part for name, part in study["$defs"].items() if name != "experiment"}
    return _document("base", _object(of_base)) | {"$defs": definitions}


@functools.cache
def config_schema() -> Schema:
    """Return the schema of config.yaml."""
    return _document("config", section(Config))


def section(kind: type) -> Schema:
    """Return the schema of the section of a study that a dataclass declares."""
    return _section(declared(kind), {})


def _without(named: Mapping[Any, str], kind: Any) -> dict[Any, str]:
    return {other: name for other, name in named.items() if other is not kind}


def _document(title: str, section: Schema) -> Schema:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title} | section


def _object(properties: Schema, required: Iterable[str] = ()) -> Schema:
    closed: Schema = {"type": "object", "additionalProperties": False}
    needed = list(required)
    return closed | ({"required": needed} if needed else {}) | {"properties": properties}


def _section(keys: Iterable[Declared], named: Mapping[Any, str], inherits: str = "") -> Schema:
    """Return the schema of a mapping with these keys.

    named: sections that are definitions, by name. inherits: what keys that have a default are like, instead of it.
    """
    properties, required = {}, []
    for each in keys:
        if each.key.beside:
            inner = _section(declared(each.kind), named)
            properties |= inner["properties"]
            required += inner.get("required", [])
            continue
        if each.tag:
            properties |= _sections_of_union(each, named)
            continue
        if inherits and each.default is not NOTHING:
            each = Declared(each.name, each.kind, dataclasses.replace(each.key, meaning=inherits), NOTHING)
        properties[each.name] = _property(each, named)
        if each.key.required:
            required.append(each.name)
    return _object(properties, required)


def _sections_of_union(each: Declared, named: Mapping[Any, str]) -> Schema:
    """Return the key that says which of a union counts, and a section for each."""
    options = {getattr(split(option)[0], each.tag): option for option in typing.get_args(each.kind)}
    tag = Declared(each.tag, str, dataclasses.replace(each.key, choices=tuple(options)), each.default)
    return {each.tag: _property(tag, named)} | {name: _inner(option, named) for name, option in options.items()}


def _property(each: Declared, named: Mapping[Any, str]) -> Schema:
    schema = _of(each.kind, each.key, named)
    is_section = "properties" in schema or "$ref" in schema
    if is_section or each.default is NOTHING:
        return schema
    return schema | {"default": {} if each.key.names else _plain(each.default)}


def _of(kind: Any, key: Key, named: Mapping[Any, str]) -> Schema:
    """Return the schema of the values of a type, as a key bounds them."""
    schema: Schema = {}
    inner = functools.partial(_inner, named=named)
    if key.any_form:
        pass
    elif key.choices:
        schema["enum"] = list(key.choices)
    elif dataclasses.is_dataclass(kind):
        section = typing.cast(type, kind)
        schema = (
            {"$ref": f"#/$defs/{named[kind]}"} if kind in named else _section(declared(section), named, key.inherits)
        )
    elif isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        schema = _one_of([split(option) for option in typing.get_args(kind)], key, named)
    elif key.names:
        names = {"propertyNames": {"pattern": key.names}}
        schema = {"type": "object"} | names | {"additionalProperties": inner(typing.get_args(kind)[0])}
    elif key.each:
        schema = _object({name: inner(typing.get_args(kind)[1]) for name in key.each})
    elif typing.get_origin(kind) is tuple:
        items = inner(typing.get_args(kind)[0])
        counts = {"minItems": key.fewest} if key.fewest else {}
        schema = {"type": "array"} | counts | ({"uniqueItems": True} if key.unique else {})
        schema |= {"items": items} if items else {}
    elif typing.get_origin(kind) is Mapping:
        names, values = map(inner, typing.get_args(kind))
        counts = {"minProperties": key.fewest} if key.fewest else {}
        names.pop("type")
        schema = {"type": "object"} | counts | ({"propertyNames": names} if names else {})
        schema["additionalProperties"] = values
    elif kind is not Any:
        schema["type"] = _WORDS[kind]
    said = {word: _plain(getattr(key, name)) for name, word in _BOUNDS.items() if getattr(key, name) not in (None, "")}
    schema |= {word: value for word, value in said.items() if not (word.endswith("Length") and not value)}
    return schema | ({"unit": key.unit} if key.unit else {}) | ({"description": key.meaning} if key.meaning else {})


def _inner(kind: Any, named: Mapping[Any, str]) -> Schema:
    """Return the schema of what a list, a mapping or a named section holds."""
    bare, key = split(kind)
    return _property(Declared("", bare, key, key.default), named)


def _one_of(options: list[tuple[Any, Key]], key: Key, named: Mapping[Any, str]) -> Schema:
    """Return the schema of a union: of what may be null, of several plain types, or of a type and a section."""
    given = [(kind, own) for kind, own in options if kind is not types.NoneType]
    if len(given) == 1:
        schema = _of(given[0][0], key, named)
        # A section that does not count is left out, never null.
        return schema if len(options) == 1 or "type" not in schema or "properties" in schema else _nullable(schema)
    if all(kind in _WORDS and own == Key() for kind, own in given):
        return {"type": [_WORDS[kind] for kind, _ in given]}
    return {"oneOf": [_of(kind, own, named) for kind, own in given]}


def _nullable(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


def _plain(value: Any) -> Any:
    """Return a value as YAML has it: numbers without a needless point, lists and mappings."""
    if isinstance(value, tuple):
        return list(map(_plain, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value
