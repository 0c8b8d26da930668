"""Every key is declared once, in specs/; what is generated from the declarations is what is committed."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pipeline import ROOT

from icl_transience.__main__ import main
from icl_transience.planning.plan import Plan
from icl_transience.specs.config import Config
from icl_transience.specs.identity import identity
from icl_transience.specs.keys import NOTHING, Key, declared, neutral, split
from icl_transience.specs.settings import BaseSection, ExperimentSection, StudySection
from icl_transience.study import json_schema, reference

PAGES = reference.pages()


@pytest.mark.parametrize("path", PAGES)
def test_what_is_generated_is_what_is_committed(path):
    committed = (ROOT / path).read_text(encoding="utf-8")
    assert committed == PAGES[path], "say `python -m icl_transience keys`"


def test_the_command_writes_the_pages_into_the_folder_in_which_it_runs(tmp_path, monkeypatch):
    for path in PAGES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert main(["keys"]) == 0
    assert {path: Path(path).read_text(encoding="utf-8") for path in PAGES} == PAGES


def test_schemas_on_disk_say_what_studies_are_checked_by():
    made = {"study": json_schema.study_schema, "base": json_schema.base_schema, "config": json_schema.config_schema}
    for name, schema in ((name, make()) for name, make in made.items()):
        assert yaml.safe_load((ROOT / f"workflow/schemas/{name}.schema.yaml").read_text()) == schema


SHIPPED = sorted((ROOT / "workflow/studies").rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_editors_find_the_schema_of_every_shipped_study_and_base(path):
    first = path.read_text().splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(.*)", first)
    assert found
    kind = "base" if path.parent.name == "bases" else "study"
    assert (path.parent / found[1]).resolve() == ROOT / f"workflow/schemas/{kind}.schema.yaml"


def keys_of(section: Any) -> list[str]:
    return [each.name for each in declared(section)]


def test_the_reference_has_a_row_for_every_key():
    def names(part: Any) -> set[str]:
        if isinstance(part, list):
            return set().union(*map(names, part))
        if not isinstance(part, dict):
            return set()
        own = part["properties"] if isinstance(part.get("properties"), dict) else {}
        return set(own).union(*map(names, part.values()))

    rows = set(re.findall(r"^\| `(\w+)` \|", PAGES["docs/reference.md"], re.MULTILINE))
    assert rows >= names(json_schema.study_schema()) | names(json_schema.config_schema())
    assert "| `learning_rate` | number | `0.001` | > 0 |" in PAGES["docs/reference.md"]
    assert set(keys_of(Config)) == set(json_schema.config_schema()["properties"])


def test_every_key_of_a_number_or_a_text_says_what_it_means():
    def silent(part: Any, path: str = "") -> list[str]:
        if not isinstance(part, dict):
            return []
        said = [] if "$ref" in part or "description" in part else [path]
        below = [silent(value, f"{path}.{key}") for key, value in part.get("properties", {}).items()]
        return [*said, *(one for some in below for one in some)]

    definitions = json_schema.study_schema()["$defs"]
    sections = {name: part for name, part in definitions.items() if name not in ("experiment", "settings", "run")}
    assert [one for name, part in sections.items() for one in silent(part, name)] == []


# How a declaration is read.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lamp:
    watts: Annotated[float, Key("how bright", default=60.0, unit="W", minimum=0)]
    colour: Annotated[str, Key("of its light", choices=("warm", "cold"))] = neutral("warm")
    from_: Annotated[str, Key("its maker", required=True)]
    seen: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    lamps: Annotated[tuple[Lamp, ...], Key("by name", names="^[a-z]+$")] = neutral(())
    lamp: Annotated[Lamp, Key(beside=True)]


def test_a_key_has_the_default_that_it_names_else_that_of_its_field():
    by_name = {each.name: each for each in declared(Lamp)}
    assert list(by_name) == ["watts", "colour", "from"]  # `seen` is no key of a study's
    assert [each.default for each in by_name.values()] == [60.0, "warm", NOTHING]
    assert by_name["watts"].kind is float


def test_a_later_key_adds_to_an_earlier_one():
    kind, key = split(Annotated[Annotated[int, Key("classes", minimum=2)], Key("all classes", default=0)])
    assert kind is int
    assert key == Key("all classes", minimum=2, default=0)


def test_a_section_becomes_a_schema():
    lamp = json_schema.section(Lamp)
    assert lamp == {
        "type": "object",
        "additionalProperties": False,
        "required": ["from"],
        "properties": {
            "watts": {"type": "number", "minimum": 0, "unit": "W", "description": "how bright", "default": 60},
            "colour": {"enum": ["warm", "cold"], "description": "of its light", "default": "warm"},
            "from": {"type": "string", "description": "its maker"},
        },
    }
    room = json_schema.section(Room)["properties"]
    assert list(room) == ["lamps", "watts", "colour", "from"]
    assert room["lamps"]["additionalProperties"] == lamp
    assert room["lamps"]["propertyNames"] == {"pattern": "^[a-z]+$"}
    assert room["lamps"]["default"] == {}


def test_experiments_have_what_settings_and_runs_have():
    definitions = json_schema.study_schema()["$defs"]
    run, settings, experiment = (list(definitions[name]["properties"]) for name in ("run", "settings", "experiment"))
    assert settings[: len(run)] == run
    assert experiment == [name for name in keys_of(ExperimentSection) if name != "settings"] + settings
    assert [*keys_of(BaseSection), *keys_of(StudySection)[1:]] == list(json_schema.study_schema()["properties"])


# The example of docs/adding-a-key.md, on a copy of the library.

TRY = """
import json, sys
from pathlib import Path
from icl_transience.planning.plan import Plan
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import identity
from icl_transience.study import reference
said = {"pages": reference.pages()}
for path in map(Path, sys.argv[1:]):
    try:
        plan = Plan({"study": str(path), "results": "results"}, Path())
    except StudyError as error:
        said[path.stem] = str(error)
        continue
    runs = [named.run for named in plan.study.experiments["a"].runs]
    said[path.stem] = {
        "ids": [identity("training", run) for run in runs], "values": [run.model.residual_scale for run in runs]
    }
print(json.dumps(said))
"""


def python_block(page: str) -> str:
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block
    return textwrap.indent(textwrap.dedent(block[1]).strip(), "    ") + "\n"


def test_a_key_is_added_by_its_declaration_alone(tmp_path):
    page = (ROOT / "docs/adding-a-key.md").read_text()
    copy = tmp_path / "src/icl_transience"
    shutil.copytree(ROOT / "src/icl_transience", copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    model = copy / "specs/model.py"
    before, mark = model.read_text(), "    dropout: Annotated["
    assert before.count(mark) == 1
    model.write_text(before.replace(mark, python_block(page) + mark))
    texts = {
        "without": "experiments: {a: {}}",
        "swept": "experiments: {a: {axes: {model.residual_scale: [0.5, 1]}}}",
        "refused": "experiments: {a: {model: {residual_scale: -1}}}",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    paths = [str(tmp_path / f"{name}.yaml") for name in texts]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(
        [sys.executable, "-c", TRY, *paths], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said: Mapping[str, Any] = json.loads(done.stdout)

    plan = Plan({"study": paths[0], "results": str(tmp_path / "results")}, ROOT)
    ids = [identity("training", named.run) for named in plan.study.experiments["a"].runs]
    assert said["without"] == {"ids": ids, "values": [1.0]}
    assert said["swept"]["values"] == [0.5, 1.0]
    assert said["swept"]["ids"][0] != ids[0]
    assert said["swept"]["ids"][1:] == ids
    (refusal,) = re.findall(r"^> (.*)$", page, re.MULTILINE)
    assert refusal in said["refused"]
    row = "| `residual_scale` | number | `1` | > 0, ≤ 10 |  | factor on what a block adds to its input |"
    assert row in said["pages"]["docs/reference.md"]
    assert "residual_scale:" in said["pages"]["workflow/schemas/study.schema.yaml"]
    assert {path for path, text in said["pages"].items() if text != PAGES[path]} == {
        "docs/reference.md",
        "workflow/schemas/base.schema.yaml",
        "workflow/schemas/study.schema.yaml",
    }
