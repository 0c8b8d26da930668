"""YAML as it is read here: plain values, without traps, and with errors that name the line."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import yaml

from icl_transience.specs.errors import StudyError

# Beyond these a document is a mistake or a trap: its size in bytes, its values once aliases are written out, the items
# of a list, the characters of a text, and the integers that every reader of JSON holds exactly.
_MOST_BYTES = 1 << 20
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """Safe YAML of what JSON has too: mappings with text keys, lists, texts, numbers, true and false, null.

    Otherwise than in YAML 1.1, 1e-5 is a number, and what it counts to base 8 or 60 (010, 1:30) or calls a date is a
    text. A key given twice, a tag, a merge key and aliases without end are errors.
    """

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
                raise StudyError(f"line {line}: the key {word} is not text but {shown_value(key)}: put it in quotes")
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


# None of YAML 1.1's, which the class inherits: these instead.
_Loader.yaml_implicit_resolvers = {}
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
    """Return how many values a node is with every alias written out; endless where it holds itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until it is known
        pairs = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = itertools.chain(*pairs) if isinstance(node, yaml.MappingNode) else pairs
        sizes[id(node)] = 1 + sum(_expanded(part, sizes) for part in parts)
    return sizes[id(node)]


def read_yaml(path: Path) -> Any:
    """Return the document in `path`. Raises StudyError where the file is missing or is not YAML of plain values."""
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


def shown_value(value: Any) -> str:
    """Return a value as it stands in YAML, or its beginning."""
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    text = text or repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
