"""YAML documents checked against a JSON schema, with errors a person can act on, and defaults filled in."""

import copy
import difflib
import itertools
import math
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from icl_transience.spec import StudyError

# Beyond these a document is a mistake or a trap: its size in bytes, its values once aliases are written out, the items
# of a list, the characters of a text, and the integers that every reader of JSON holds exactly.
_MOST_BYTES = 1 << 20
_MOST_VALUES = 100_000
_MOST_ITEMS = 1_000
_MOST_CHARACTERS = 10_000
_LARGEST_INTEGER = 1 << 53
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """Safe YAML of what JSON has too: mappings with text keys, lists, texts, numbers, true and false, null.

    Otherwise than in YAML 1.1, 1e-5 is a number, and what it counts to base 8 or 60 (010, 1:30) or calls a date is a
    text. A key given twice, a tag, a merge key and aliases without end are errors.
    """

    yaml_implicit_resolvers: typing.ClassVar[dict] = {}

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > _MOST_VALUES:
            raise StudyError(
                f"with its aliases written out, it has more than {_MOST_VALUES:,} values, or no end: write fewer"
            )
        return self.construct_document(node)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None):
            line = event.start_mark.line + 1
            raise StudyError(f"line {line}: the tag {event.tag!r} is not YAML that is read here: remove it")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                word = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
                raise StudyError(f"line {line}: the key {word} is not text but {_shown(key)}: put it in quotes")
            if key == "<<":
                raise StudyError(f"line {line}: merge keys (`<<`) are not read: put what is common into `defaults`")
            if key in seen:
                raise StudyError(f"line {line}: `{key}` was already given on line {seen[key]}: keep one of them")
            seen[key] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > 100:
            line = node.start_mark.line + 1
            raise StudyError(f"line {line}: a number of {len(node.value):,} digits: write a smaller one")
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float | int:
        """1.28e6 counts sequences as well as 1_280_000 does."""
        value = super().construct_yaml_float(node)
        return int(value) if "e" in node.value.lower() and value.is_integer() else value


for _kind, _pattern, _first in (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][\d_]*|0x[\da-fA-F]+)", "-+0123456789"),
    ("float", r"[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?", "-+0123456789."),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _whole = re.compile(rf"(?:{_pattern})\Z", re.ASCII)
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _whole, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _expanded(node: yaml.Node, sizes: dict[int, float]) -> float:
    """How many values a node is with every alias written out; endless where it holds itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until it is known
        pairs = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = itertools.chain(*pairs) if isinstance(node, yaml.MappingNode) else pairs
        sizes[id(node)] = 1 + sum(_expanded(part, sizes) for part in parts)
    return sizes[id(node)]


def read_yaml(path: Path) -> Any:
    """The document in `path`. Raises StudyError where the file is missing or is not YAML of plain values."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise StudyError(f"is larger than {_MOST_BYTES:,} bytes: not a file of settings")
        return yaml.load(content.decode("utf-8-sig"), _Loader)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not YAML: byte {error.start} is not UTF-8 text ({error.reason})") from error
    except yaml.MarkedYAMLError as error:
        raise StudyError(f"{path}: not YAML: {_said(error)}") from error
    except yaml.YAMLError as error:
        raise StudyError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise StudyError(f"{path}: not YAML: brackets or indents are nested too deep: close them") from error
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error


def _said(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    hint = ": indent with spaces, not with tabs" if "\\t" in (error.problem or "") else ""
    words = " ".join(part for part in (error.context, error.problem) if part)
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}{hint}" if mark else words


def _pattern(validator: Any, pattern: str, value: Any, schema: Mapping[str, Any]) -> Iterator:
    """In a schema `$` is the end; in Python it is also what stands before a last line break."""
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
    """Raises StudyError with a line for every violation: key path, value, what is allowed, a hint."""
    problems = list(_outlandish(document, ()))
    if not problems:
        errors = _Validator(schema).iter_errors(document)
        in_order = sorted(errors, key=lambda error: [str(key) for key in error.absolute_path])
        problems = [line for error in in_order for line in _describe(error)]
    if problems:
        raise StudyError("\n".join(f"{name}: {problem}" for problem in problems))


def _outlandish(value: Any, path: tuple) -> Iterator[str]:
    """Values that no key can have, whatever its schema says."""
    where = f"`{dotted(path)}`" if path else "the document"
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}, expected a finite number"
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        yield f"{where} is {_shown(value)}, expected at most {_LARGEST_INTEGER:,}, with either sign"
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
                yield f"{where}: the key {_shown(key)} holds what is no character to print: leave it out"
            yield from _outlandish(item, (*path, key))


def _describe(error: jsonschema.ValidationError) -> Iterator[str]:
    path = dotted(error.absolute_path)
    where = f"`{path}`" if path else "the document"
    value, rule = error.instance, error.validator_value
    shown = _shown(value)
    if error.validator == "additionalProperties":
        allowed = list(error.schema.get("properties", {}))
        for key in value:
            if key not in allowed:
                full = f"{path}.{key}" if path else str(key)
                yield f"unknown key `{full}`{did_you_mean(str(key), allowed)} (allowed here: {', '.join(allowed)})"
    elif error.validator == "enum":
        hint = did_you_mean(str(value), rule)
        yield f"{where} is {shown}{hint}, expected one of {', '.join(map(str, rule))}"
    elif error.validator == "type":
        kinds = [rule] if isinstance(rule, str) else rule
        names = " or ".join(_KINDS.get(kind, kind) for kind in kinds)
        yield f"{where} is {shown}, expected {names}{_meaning(error.schema)}{_as_number(value, kinds)}"
    elif error.validator == "required":
        missing = [key for key in rule if key not in value]
        yield f"{where} lacks {', '.join(f'`{key}`' for key in missing)}: add it"
    elif error.validator == "pattern":
        yield f"{where}: {shown} does not match {rule}: choose a name of that form"
    elif error.validator == "oneOf":
        yield f"{where} is {shown}, expected {' or '.join(map(_option, rule))}{_meaning(error.schema)}"
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
        yield f"{where} is {shown}, expected {limits[error.validator]}{_meaning(error.schema)}"


# What a person who writes YAML calls them.
_KINDS = {
    "object": "a mapping (`key: value`)",
    "array": "a list (`[…]`)",
    "string": "a text",
    "boolean": "true or false",
}


def _shown(value: Any) -> str:
    """A value as it stands in YAML, or its beginning."""
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = text or repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _as_number(value: Any, kinds: list[str]) -> str:
    """A remedy where a number is meant but not written as one."""
    if isinstance(value, float) and value.is_integer() and "integer" in kinds:
        return f": write {int(value)}"
    numeric = isinstance(value, str) and re.fullmatch(r"[-+]?[\d_.]*\d[\d_.]*([eE][-+]?\d+)?", value)
    return ": write it without quotes or leading zeros" if numeric and {"integer", "number"} & set(kinds) else ""


def _option(option: Mapping[str, Any]) -> str:
    """One of several forms that a value can have."""
    if option["type"] == "object":
        return f"a mapping of {', '.join(f'`{key}`' for key in option['required'])}"
    return f"{option['type']} from {option['minimum']} to {option['maximum']}"


def _meaning(schema: Mapping[str, Any]) -> str:
    return f" ({schema['description']})" if "description" in schema else ""


def did_you_mean(word: str, allowed: list) -> str:
    close = difflib.get_close_matches(word, [str(option) for option in allowed], n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def dotted(path) -> str:
    """A key path as a person writes it: experiments.l2.seeds[0]."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def defaults(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """The value that `schema` takes when nothing is given; `root` holds the definitions it refers to."""
    if "$ref" in schema:
        return defaults(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "default" in schema:
        return copy.deepcopy(schema["default"])
    return {key: defaults(part, root) for key, part in schema.get("properties", {}).items()}


def merge(base: Mapping[str, Any], *overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with each override laid over it: mappings key by key, anything else replaced."""
    merged = dict(base)
    for override in overrides:
        for key, value in override.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged
