"""Whatever stands in a study, it becomes a plan or an error for its author; never anything else."""

import copy
import os
import random
import resource
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pipeline import ROOT

from icl_transience.planning.plan import Plan
from icl_transience.specs.errors import StudyError
from icl_transience.study.document import read_yaml

SCHEMA = read_yaml(ROOT / "workflow/schemas/study.schema.yaml")
SPARE_BYTES = 1 << 30
# The same examples in every run, on every machine.
steady = settings(
    derandomize=True, database=None, deadline=None, max_examples=120, suppress_health_check=list(HealthCheck)
)

Path_ = tuple[str | int, ...]


@pytest.fixture(autouse=True, scope="module")
def little_memory() -> Iterator[None]:
    """A study that asks for more than this machine has must not be the end of it while it is read."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + SPARE_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def outcome(folder: Path, content: bytes) -> str:
    """What becomes of a study: "plan", or what is said of it. Any exception but StudyError fails the test."""
    path = folder / "fuzzed.yaml"
    path.write_bytes(content)
    try:
        plan = Plan({"study": str(path), "results": str(folder / "results"), "memory": 16_000}, ROOT)
    except StudyError as error:
        said = str(error)
        assert said.strip()
        assert "fuzzed.yaml" in said or said.startswith(("bank ", "config", "training to"))
        return said
    assert plan.targets.all()
    assert all(pack.spec.json for pack in plan.packs.values())
    return "plan"


def as_yaml(document: Any) -> bytes:
    return yaml.safe_dump(document, allow_unicode=False).encode("ascii")


def resolved(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return SCHEMA["$defs"][part["$ref"].removeprefix("#/$defs/")] if "$ref" in part else part


# Of keys that may be written in several forms, on which the schema has no word.
ANY_FORM = [
    *("block0.*", "block1.head0", 0.5, None, {}, [], ["block0.scores", "patterns"], [[0, 1], [512, 0]], [[True, "1"]]),
    *({"place": "block1.head0.pattern", "to": "induction"}, {"place": ["block0.scores"], "by": 2}, {"from": 3}),
]


def valid(part: Mapping[str, Any]) -> st.SearchStrategy:
    """Values that the schema allows at this place; few keys at a time, so that some of them also fit together."""
    part = resolved(part)
    if "enum" in part:
        return st.sampled_from(part["enum"])
    if "oneOf" in part:
        return st.one_of(*map(valid, part["oneOf"]))
    kind = part.get("type")
    if kind is None:
        return (st.just(part["default"]) if "default" in part else st.nothing()) | st.sampled_from(ANY_FORM)
    if isinstance(kind, list):
        return st.none() | valid({key: value for key, value in part.items() if key != "default"} | {"type": kind[0]})
    if kind == "object":
        return objects(part)
    if kind == "array":
        unique = {"unique_by": repr} if part.get("uniqueItems") else {}
        items = valid(part["items"]) if "items" in part else st.integers(0, 9)
        return st.lists(items, min_size=part.get("minItems", 0), max_size=4, **unique)
    if kind == "boolean":
        return st.booleans()
    if kind == "string":
        return st.text(max_size=8)
    return numbers(part)


def numbers(part: Mapping[str, Any]) -> st.SearchStrategy:
    """Near the default and the limits, where there are any."""
    whole = part["type"] == "integer"
    lowest = part.get("minimum", part.get("exclusiveMinimum", 0))
    highest = part.get("maximum", part.get("exclusiveMaximum", 100 * max(1, part.get("default", 10))))
    between = st.integers(lowest, highest) if whole else st.floats(lowest, highest)
    return st.one_of(st.just(part["default"]), between) if "default" in part else between


@st.composite
def objects(draw: st.DrawFn, part: Mapping[str, Any]) -> dict[str, Any]:
    keys = part.get("properties", {})
    chosen = [key for key in keys if key in part.get("required", ()) or draw(st.integers(0, 5)) == 0]
    values = {key: draw(valid(keys[key])) for key in chosen if key not in ("axes", "runs")}
    if isinstance(part.get("additionalProperties"), dict):
        for name in draw(st.lists(st.sampled_from(["a", "b", "class", "x_1"]), max_size=2, unique=True)):
            values[name] = draw(valid(part["additionalProperties"]))
    return values


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    """A document that the schema allows, with axes or named runs in some experiments."""
    document = draw(objects(SCHEMA))
    document["experiments"] = document["experiments"] or {"a": {}}
    for experiment in document["experiments"].values():
        how = draw(st.sampled_from(["one run", "axes", "runs"]))
        if how == "axes":
            axes = draw(st.lists(st.sampled_from(AXES), min_size=1, max_size=3, unique=True))
            experiment["axes"] = {".".join(axis): draw(axis_values(axis)) for axis in axes}
        elif how == "runs":
            runs = st.dictionaries(st.sampled_from(["x", "y", "z"]), objects(SCHEMA["$defs"]["run"]), min_size=1)
            experiment["runs"] = draw(runs)
    return document


def leaves(part: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    part = resolved(part)
    if "properties" not in part:
        yield path
    for key, value in part.get("properties", {}).items():
        yield from leaves(value, (*path, key))


AXES = sorted(leaves(SCHEMA["$defs"]["run"]))


def axis_values(axis: tuple[str, ...]) -> st.SearchStrategy:
    part = SCHEMA["$defs"]["run"]
    for key in axis:
        part = resolved(resolved(part)["properties"][key])
    return st.lists(valid(part), min_size=1, max_size=3, unique_by=repr)


ODD = st.one_of(
    st.sampled_from(
        [
            *(None, True, False, "", [], {}, [[]], {"": 1}, {"<<": {}}, [None], -1, 0, 1, 2, 3, 7, 255, 256, -0.0),
            *(2**31, 2**32, 2**53, 2**53 + 1, 2**64, 10**18, 10**40, 1e18, 1e300, 5e-324, 1e-45, 1e39),
            *(float("nan"), float("inf"), float("-inf"), "1e-3", "0x10", "yes", "null", "2026-01-01", "1:30"),
            *("../../etc/passwd", "/etc/passwd", "$(touch x)", "`x`", "{wildcards}", "{{}}", "a\nb", "\0", "\ud800"),
            *("é", "名前", "\u202e", "x" * 300, "a.b", "model", "icl@16", "-rf", "~", " "),
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.recursive(
        st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner), max_leaves=5
    ),
)


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all values in a document."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from places(part, (*path, key))


@st.composite
def mutants(draw: st.DrawFn) -> Any:
    """A study with one value replaced, one key renamed, left out or added."""
    document = draw(studies())
    path = draw(st.sampled_from(list(places(document))))
    odd = draw(ODD)
    if not path:
        return odd
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    change = draw(st.sampled_from(["replace", "replace", "leave out", "add", "rename"]))
    if change == "replace":
        parent[path[-1]] = odd
    elif change == "leave out":
        del parent[path[-1]]
    elif isinstance(parent, list):
        parent.append(odd)
    elif change == "add":
        parent[draw(st.one_of(st.text(max_size=10), st.sampled_from(["model", "axes", "share"])))] = odd
    else:
        parent[f"{path[-1]}{draw(st.sampled_from(['', 's', ' ', '.', '@4']))}"] = parent.pop(path[-1])
    return document


def test_studies_by_the_schema_become_plans_or_errors_and_some_of_them_plans(folder):
    outcomes = set()

    @steady
    @given(studies())
    def try_one(document):
        outcomes.add(outcome(folder, as_yaml(document)) == "plan")

    try_one()
    assert outcomes == {True, False}


@steady
@given(document=mutants())
@example(document={"experiments": {"a": {"horizon": 10**15}}})
@example(document={"experiments": {"a": {"snapshots": {"per_doubling": 10**15}}}})
@example(document={"experiments": {"a": {"runs": {"x": {"recipe": {"mixture": {"a.b": {"share": 0.1}}}}, "y": {}}}}})
@example(document={"experiments": {"a": {"axes": {"bank.imported.file": ["\0", "a/../.."]}}}})
def test_a_study_with_one_odd_value_becomes_a_plan_or_an_error(folder, document):
    outcome(folder, as_yaml(document))


@pytest.mark.parametrize("axis", [axis for axis in AXES if axis[-1] != "source"], ids=".".join)
def test_every_run_key_with_an_extreme_value_becomes_a_plan_or_an_error(folder, axis):
    for value in (10**15, 2**53, 1e300, 5e-324, "\u202e", "x" * 300, "a/../../b", None, [], {}):
        document: Any = copy.deepcopy(value)
        for key in reversed(axis):
            document = {key: document}
        if axis[0] == "bank" and len(axis) > 2:
            document["bank"]["source"] = axis[1]
        outcome(folder, as_yaml({"experiments": {"a": document | {"evaluation": {"evaluators": ["icl"]}}}}))


@steady
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_bytes_that_are_no_study_are_an_error(folder, content):
    assert outcome(folder, content) != "plan"


YAML_PIECES = [
    *(
        "experiments:",
        " a:",
        " {",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "\n",
        "\n ",
        "\n  ",
        "\t",
        ",",
        "&x ",
        "*x",
        "? ",
        "<<: ",
    ),
    *(
        "!!int ",
        "!!set ",
        "!x ",
        "'",
        '"',
        "|\n",
        ">-\n",
        "#",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "~",
        "1e5",
        ".nan",
        "0b_",
    ),
    *("horizon", "seeds", "bank", "axes", "runs", "2026-13-45", "1:30:99", "0o7", "07", "+.inf", "\\ud800", "é", "\0"),
]


@steady
@given(st.lists(st.sampled_from(YAML_PIECES), max_size=25).map("".join))
def test_pieces_of_yaml_in_any_order_become_a_plan_or_an_error(folder, text):
    outcome(folder, text.encode("utf-8"))


def test_a_good_study_with_a_byte_changed_becomes_a_plan_or_an_error(folder):
    content = (ROOT / "workflow/studies/recipes.yaml").read_bytes()
    generator = random.Random(0)
    for _ in range(60):
        place = generator.randrange(len(content))
        byte = generator.choice(string.printable.encode() + bytes([0, 128, 255]))
        outcome(folder, content[:place] + bytes([byte]) + content[place + 1 :])
