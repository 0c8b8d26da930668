"""Which code shapes which results: a hash of the modules behind a stage, so that changing them makes it again."""

import ast
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

# The files whose code shapes a stage's results, its own and those of the stages before; a change in one (docstrings
# and comments aside) makes the stage again. Banks and training are not here: they follow spec.SEMANTICS alone.
_METRICS = ("evaluation.py", "engines.py", "model.py", "native.py", "native.cpp")
_TABLES = (*_METRICS, "tables.py", "transience.py")
CODE = {
    "metrics": _METRICS,
    "tables": _TABLES,
    "verdicts": (*_TABLES, "verdicts.py", "paired.py"),
    "figures": (*_TABLES, "figures.py", "panels.py", "frames.py", "drawing.py"),
    "cards": ("cards.py", "drawing.py"),
}


def declaration(report: Mapping[str, Any]) -> str:
    """A hash of what an experiment's tables are made from, and by: `report` without what figures alone say."""
    runs = [{key: value for key, value in run.items() if key != "caption"} for run in report["runs"]]
    plain = {key: value for key, value in report.items() if key != "question"} | {"runs": runs}
    text = json.dumps(plain, sort_keys=True) + digest("tables")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def digest(stage: str) -> str:
    """A hash of the files behind a stage (see CODE), the same under every Python.

    Their lines of text, without docstrings, comments on lines of their own and empty lines.
    """
    digest = hashlib.sha256()
    for name in CODE[stage]:
        text, comment = files("icl_transience").joinpath(name).read_text(encoding="utf-8"), "//"
        said: set[int] = set()
        if name.endswith(".py"):
            said, comment = {line for node in ast.walk(ast.parse(text)) for line in _docstring_lines(node)}, "#"
        for number, line in enumerate(text.splitlines(), start=1):
            if number not in said and line.strip() and not line.lstrip().startswith(comment):
                digest.update(line.rstrip().encode() + b"\n")
    return digest.hexdigest()[:12]


def _docstring_lines(node: ast.AST) -> range:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if not isinstance(node, kinds) or ast.get_docstring(node) is None:
        return range(0)
    return range(node.body[0].lineno, node.body[0].end_lineno + 1)
