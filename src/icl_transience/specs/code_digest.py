"""Which code shapes which results: a hash of the files behind a stage, so that changing one makes the stage again.

The files are those that a stage imports, found by reading the imports. What they import of values, file layouts and
frozen sequences does not count: those follow identities, SEMANTICS and schema versions. Nor do engines that answer
nothing, such as a new one: each is proven against the eager one when a job starts. Banks and training make nothing
again: they follow SEMANTICS alone. What trained a segment is only recorded in it, as `training_code`: an edit of that
code makes nothing again, but lanes that are compared should have been trained by the same.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from icl_transience.specs.errors import StudyError
from icl_transience.specs.records import ClaimRecord, ExperimentRecord, text_of
from icl_transience.specs.theory import MinimalModelRecord

PACKAGE = "icl_transience"
# Stage -> the modules in which it begins. The two engines that answer are named, since evaluation chooses between them
# when it runs.
_METRICS = ("evaluation.evaluate", "engines.answers", "engines.native.forward")
_TABLES = (*_METRICS, "analysis.curves")
STAGES: dict[str, tuple[str, ...]] = {
    "metrics": _METRICS,
    "tables": _TABLES,
    "forecast": ("analysis.forecast",),
    "verdicts": (*_TABLES, "analysis.verdicts"),
    "evidence": ("report.figures.evidence",),
    "figures": (*_TABLES, "report.figures.experiment"),
    "circuits": ("evaluation.inside",),
    "acquisition": ("analysis.acquisition",),
    "peaks": (*_METRICS, "analysis.peaks"),
    "circuits_tables": ("evaluation.inside", "analysis.heads"),
    "circuits_figures": ("analysis.heads", "report.figures.circuits"),
    "cards": ("report.figures.bank_card",),
    "minimal_model": ("theory.minimal_model_tables",),
    "minimal_model_figure": ("report.figures.minimal_model",),
}
# Engine -> the module in which its step begins. Training is a stage for each, since it chooses one when it runs.
STEPS = {
    "native": "engines.native.engine",
    "graph": "engines.graph",
    "triton": "engines.triton.engine",
    "eager": "engines.eager",
}
STAGES |= {f"training/{engine}": ("training.segments", step) for engine, step in STEPS.items()}
# Rooms whose files compute what a stage gives, and one module of values that says what its numbers mean.
_COUNTED = ("evaluation", "engines", "circuits", "model", "analysis", "theory", "report")
_MEANINGS = "specs.evaluators"
_COUNTED_IN_TRAINING = ("training", "engines", "circuits", "model", "sequences", "philox")
# They choose or prove an engine, and so import all of them.
_CHOICES = ("engines.select", "engines.selfcheck", "engines.verify")


def declaration(record: ExperimentRecord | MinimalModelRecord) -> str:
    """Return a hash of what these tables are made from, and by: the record without what figures alone say."""
    text = text_of(record.for_tables()) + digest("tables" if isinstance(record, ExperimentRecord) else "minimal_model")
    if isinstance(record, ExperimentRecord) and record.has_circuits:
        text += digest("circuits_tables")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def declaration_of_claims(claims: Sequence[ClaimRecord]) -> str:
    """Return a hash of the claims that a study's verdicts are on, and of the code that judges."""
    return hashlib.sha256((text_of(claims) + digest("verdicts")).encode()).hexdigest()[:12]


def refuse_other_declaration(path: Path, declared: Path | None, record: ExperimentRecord | MinimalModelRecord) -> None:
    """Raise StudyError where `record`, read from `path`, is not what the file `declared` stands for; see `declaration`.

    Another checkout may have declared another study of this name in the same results.
    """
    if declared and not declared.name.endswith(f"-{declaration(record)}"):
        raise StudyError(
            f"{path}: another study of this name has been declared here meanwhile: give one of them another name or "
            "results folder, and run the same snakemake command again"
        )


@functools.cache
def digest(stage: str) -> str:
    """Return a hash of the files behind a stage, the same under every Python.

    It is of their lines of text, without docstrings, imports, comments on lines of their own and empty lines; where
    they lie and what they are called changes nothing.
    """
    contents = sorted(content for module in modules_of(stage) for _, content in _contents(module))
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:12]


def modules_of(stage: str) -> set[str]:
    """Return the modules whose code counts for a stage, as dotted names below the package."""
    training = stage.startswith("training/")
    found: set[str] = set()
    left = list(STAGES[stage])
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += [other for other in _imports(module) if _counts(other, training)]
    return found


def _counts(module: str, training: bool) -> bool:
    room = module.split(".")[0]
    if module in _CHOICES:
        return False
    return room in _COUNTED_IN_TRAINING if training else module == _MEANINGS or room in _COUNTED


def training_code(engine: str) -> str:
    """Return what segments record of the code that trains them: the engine, and a hash of the files behind it."""
    return f"{engine} {digest(f'training/{engine}')}"


def file_digests(stage: str) -> dict[str, str]:
    """Return a hash of each file behind a stage that belongs to the model and the engines, by path in the package."""
    found: dict[str, str] = {}
    for module in sorted(modules_of(stage)):
        if module.split(".")[0] in ("model", "engines"):
            found |= {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _contents(module)}
    return found


def _file(module: str) -> Traversable:
    return files(PACKAGE).joinpath(*module.split(".")[:-1], module.rpartition(".")[2] + ".py")


@functools.cache
def _tree(module: str) -> tuple[str, ast.Module]:
    text = _file(module).read_text(encoding="utf-8")
    return text, ast.parse(text)


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Return the modules of the package that a module imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(_tree(module)[1]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            below = name.removeprefix(f"{PACKAGE}.")
            if below != name and _file(below).is_file():
                found.add(below)
    return frozenset(found)


def _contents(module: str) -> Iterator[tuple[str, bytes]]:
    """Yield (path in the package, what counts of it) of a module, and of the C++ beside it that it compiles."""
    text, tree = _tree(module)
    left_out = {line for node in ast.walk(tree) for line in _lines_left_out(node)}
    folder = "/".join(module.split(".")[:-1])
    yield module.replace(".", "/") + ".py", _kept(text, left_out, "#")
    if ".cpp" in text:
        parent = files(PACKAGE).joinpath(*module.split(".")[:-1])
        for source in sorted(parent.iterdir(), key=lambda path: path.name):
            if source.name.endswith(".cpp"):
                yield f"{folder}/{source.name}", _kept(source.read_text(encoding="utf-8"), set(), "//")


def _kept(text: str, left_out: set[int], comment: str) -> bytes:
    lines = [
        line.rstrip()
        for number, line in enumerate(text.splitlines(), start=1)
        if number not in left_out and line.strip() and not line.lstrip().startswith((comment, "#include"))
    ]
    return "\n".join(lines).encode()


def _lines_left_out(node: ast.AST) -> range:
    """Return the lines of an import or of a docstring."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if not isinstance(node, kinds) or ast.get_docstring(node) is None:
        return range(0)
    return range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
