"""The layout of the library, as docs/architecture.md draws it: who may import whom, and how long a file may be."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "icl_transience"
LIBRARY = ROOT / "src" / PACKAGE
ARCHITECTURE = ROOT / "docs/architecture.md"
MOST_FLOORS = 8
MOST_LINES = 400


def module_of(path: Path) -> str:
    name = ".".join([PACKAGE, *path.relative_to(LIBRARY).with_suffix("").parts])
    return name.removesuffix(".__init__")


FILES = {module_of(path): path for path in LIBRARY.rglob("*.py")}


@functools.cache
def imports(module: str) -> frozenset[str]:
    """Modules of the library that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            found |= inner or {str(node.module)}
    return frozenset(found & FILES.keys() - {module})


def room(module: str) -> str:
    """The first part of its name below the package; the package itself is what Python calls its file."""
    return [*module.split("."), "__init__"][1]


def floor(graph: dict[str, set[str]], name: str, above: tuple[str, ...] = ()) -> int:
    assert name not in above, f"a circle: {' -> '.join([*above[above.index(name) :], name])}"
    return 1 + max((floor(graph, other, (*above, name)) for other in graph[name]), default=0)


@pytest.fixture(scope="module")
def rooms() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for module in FILES:
        others = {room(other) for other in imports(module)} - {room(module)}
        graph.setdefault(room(module), set()).update(others)
    return graph


def test_files_import_each_other_in_no_circle():
    seen: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"a circle: {' -> '.join([*above[above.index(module) :], module])}"
        if module not in seen:
            for other in imports(module):
                visit(other, (*above, module))
            seen.add(module)

    for module in FILES:
        visit(module, ())


def test_rooms_stand_on_few_floors_without_a_circle(rooms):
    assert max(floor(rooms, name) for name in rooms) <= MOST_FLOORS


def test_the_picture_shows_every_import_between_rooms_and_no_other(rooms):
    (picture,) = re.findall(r"```mermaid\n(.*?)```", ARCHITECTURE.read_text(), re.DOTALL)
    drawn: dict[str, set[str]] = {}
    for source, targets in re.findall(r"^ *(\w+) --> (.+)$", picture, re.MULTILINE):
        drawn.setdefault(source, set()).update(targets.split(" & "))
    imported = {name: others for name, others in rooms.items() if others}
    assert {name: sorted(others) for name, others in drawn.items()} == {
        name: sorted(others) for name, others in imported.items()
    }
    # A room stands on the floor that its imports put it on.
    floors = re.findall(r"subgraph floor(\d+) .*?\n(.*?)\n    end", picture, re.DOTALL)
    stands = {name: int(number) for number, names in floors for name in re.findall(r"^ +(\w+)", names, re.MULTILINE)}
    assert stands == {name: floor(rooms, name) for name in rooms if name}
    assert set(re.findall(r"^\| \[`(\w+)[/.]", ARCHITECTURE.read_text(), re.MULTILINE)) == stands.keys()


def test_the_functions_in_the_life_of_a_batch_are_there():
    text = ARCHITECTURE.read_text()
    rows = re.findall(
        r"^\| `(\w+/[\w/]+\.py)` \| `([\w.]+)` \|", text[text.index("# The life of a batch") :], re.MULTILINE
    )
    assert rows
    for name, function in rows:
        scope: ast.AST = ast.parse((LIBRARY / name).read_text())
        for part in function.split("."):
            inner = {getattr(node, "name", None): node for node in ast.iter_child_nodes(scope)}
            assert part in inner, f"{name} has no {function}"
            scope = inner[part]


def test_a_circle_would_be_found():
    with pytest.raises(AssertionError, match="a circle: a -> b -> a"):
        floor({"a": {"b"}, "b": {"a"}}, "a")


def test_no_file_is_long_and_the_typical_one_is_short():
    lines = {path: len(path.read_text().splitlines()) for path in LIBRARY.rglob("*") if path.suffix in (".py", ".cpp")}
    assert {path.name: n for path, n in lines.items() if n > MOST_LINES} == {}
    assert median(n for path, n in lines.items() if path.name != "__init__.py") <= 200


def test_every_folder_says_what_it_holds_and_loads_nothing():
    for path in LIBRARY.rglob("__init__.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        if path.parent != LIBRARY:
            assert len(tree.body) == 1, f"{path}: more than a docstring"


def test_no_file_is_a_drawer_for_what_has_no_place():
    assert not {path.stem for path in FILES.values()} & {"utils", "common", "helpers", "misc", "util"}


@pytest.mark.parametrize(
    ("apart", "may_import"),
    [
        ("specs", set()),
        ("philox", set()),
        ("store", {"specs"}),
        ("system", {"specs", "store"}),
        ("model", {"specs", "philox"}),
        ("circuits", {"specs", "model"}),
        # Stages meet in files: none imports another.
        ("banks", {"specs", "philox", "store", "system"}),
        ("sequences", {"specs", "philox", "store", "system"}),
        ("study", {"specs", "store", "system"}),
        # store: the cache folder of compiled kernels.
        # circuits: training under interventions on activations.
        ("engines", {"specs", "philox", "store", "model", "circuits", "sequences"}),
        ("training", {"specs", "store", "system", "engines"}),
        ("evaluation", {"specs", "store", "system", "model", "circuits", "engines"}),
        ("analysis", {"specs", "store", "system"}),
        ("theory", {"specs", "philox", "store", "system"}),
        # It is no stage: it reads what stages leave, and computes metrics as evaluation does. study: config.yaml.
        ("access", {"specs", "store", "study", "model", "circuits", "engines", "evaluation", "sequences"}),
        ("__init__", {"access"}),
    ],
)
def test_a_room_imports_only_what_it_is_made_from(apart, may_import, rooms):
    assert rooms[apart] <= may_import


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "analysis.curves",
        "analysis.verdicts",
        "theory.minimal_model_tables",
        "report.figures.experiment",
        "report.figures.bank_card",
        "report.captions",
    ],
)
def test_tables_and_figures_need_no_torch(module):
    assert "torch" not in loaded_by(f"import {PACKAGE}.{module}")


@pytest.mark.parametrize("module", ["training.segments", "evaluation.evaluate", "sequences.frozen"])
def test_training_jobs_need_no_library_that_checks_studies(module):
    heavy = {"jsonschema", "yaml", "pandas", "scipy", "matplotlib", "snakemake", "msgspec", "pydantic"}
    assert not heavy & loaded_by(f"import {PACKAGE}.{module}")


def test_values_need_the_standard_library_alone():
    modules = "; ".join(
        f"import {PACKAGE}.{path.parent.name}.{path.stem}" for path in (LIBRARY / "specs").glob("[a-z]*.py")
    )
    assert not {"torch", "numpy", "h5py", "yaml", "jsonschema"} & loaded_by(modules)


def test_the_library_does_not_know_snakemake():
    for path in FILES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
                assert not any(name.split(".")[0] == "snakemake" for name in names), path
