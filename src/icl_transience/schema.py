"""YAML documents checked against a JSON schema, with errors a person can act on, and defaults filled in."""

import copy
import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from icl_transience.spec import StudyError


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-5 is a number (YAML 1.1 calls it a string) and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise StudyError(f"line {line}: the key {key!r} is not text: put it in quotes")
            if key in seen:
                raise StudyError(f"line {line}: `{key}` was already given on line {seen[key]}: keep one of them")
            seen[key] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float | int:
        """1.28e6 counts sequences as well as 1_280_000 does."""
        value = super().construct_yaml_float(node)
        return int(value) if "e" in node.value.lower() and value.is_integer() else value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> Any:
    """The document in `path`. Raises StudyError where the file is missing or is not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error


# JSON Schema calls 8.0 an integer; a count that is not written as one is a mistake.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def check(document: Any, schema: Mapping[str, Any], name: str) -> None:
    """Raises StudyError with a line for every violation: key path, value, what is allowed, a hint."""
    validator = _Validator(schema)
    errors = sorted(validator.iter_errors(document), key=lambda error: [str(key) for key in error.absolute_path])
    if problems := [line for error in errors for line in _describe(error)]:
        raise StudyError("\n".join(f"{name}: {problem}" for problem in problems))


def _describe(error: jsonschema.ValidationError) -> Iterator[str]:
    path = dotted(error.absolute_path)
    where = f"`{path}`" if path else "the document"
    value, rule = error.instance, error.validator_value
    if error.validator == "additionalProperties":
        allowed = list(error.schema.get("properties", {}))
        for key in value:
            if key not in allowed:
                full = f"{path}.{key}" if path else str(key)
                yield f"unknown key `{full}`{did_you_mean(str(key), allowed)} (allowed here: {', '.join(allowed)})"
    elif error.validator == "enum":
        hint = did_you_mean(str(value), rule)
        yield f"{where} is {value!r}{hint}, expected one of {', '.join(map(str, rule))}"
    elif error.validator == "type":
        kinds = " or ".join([rule] if isinstance(rule, str) else rule)
        yield f"{where} is {value!r}, expected {kinds}{_meaning(error.schema)}"
    elif error.validator == "required":
        missing = [key for key in rule if key not in value]
        yield f"{where} lacks {', '.join(f'`{key}`' for key in missing)}: add it"
    elif error.validator == "pattern":
        yield f"{where}: {value!r} does not match {rule}: choose a name of that form"
    elif error.validator == "oneOf":
        options = " or ".join(option["type"] + _meaning(option) for option in rule)
        yield f"{where} is {value!r}, expected {options} as the schema describes"
    else:
        limits = {
            "minimum": f"at least {rule}",
            "maximum": f"at most {rule}",
            "exclusiveMinimum": f"above {rule}",
            "exclusiveMaximum": f"below {rule}",
            "multipleOf": f"a multiple of {rule}",
            "minItems": f"at least {rule} item(s)",
            "minProperties": f"at least {rule} entry",
            "minLength": "a text that is not empty",
            "uniqueItems": "every item only once",
        }
        yield f"{where} is {value!r}, expected {limits[error.validator]}{_meaning(error.schema)}"


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
