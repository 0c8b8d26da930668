"""The pictures of the documentation are what their tables and the code draw."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from icl_transience.planning.plan import Plan

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("pictures", ROOT / "docs/pictures.py")
pictures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pictures)


@pytest.mark.parametrize("picture", pictures.PICTURES)
def test_a_picture_is_what_its_tables_and_the_code_draw(tmp_path, monkeypatch, picture):
    monkeypatch.setattr(pictures, "PICTURES", {picture: pictures.PICTURES[picture]})
    (drawn,) = pictures.draw(ROOT / "docs/data", tmp_path)
    assert drawn.read_bytes() == (ROOT / "docs" / drawn.name).read_bytes(), "say `make docs-figures`, and commit"


def test_the_documentation_shows_pictures_that_are_made_and_no_others():
    made = {f"docs/{name}.svg" for name in pictures.PICTURES}
    shown = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\(([^()]*\.(?:svg|png))\)", page.read_text())
        shown |= {str((page.parent / link).relative_to(ROOT)) for link in links}
    assert shown == made
    assert {f"docs/{path.name}" for kind in ("svg", "png") for path in (ROOT / "docs").glob(f"*.{kind}")} == made


def test_tables_that_are_taken_from_a_study_draw_what_the_studys_own_do(tmp_path):
    """Of the committed ones, which hold no more than is drawn, nothing is left out."""
    for study in {picture.study for picture in pictures.PICTURES.values()}:
        shutil.copytree(ROOT / "docs/data" / study, tmp_path / study)
        pictures.take_tables(tmp_path / study, tmp_path / "data")
    for path in (ROOT / "docs/data").rglob("*.csv"):
        assert (tmp_path / "data" / path.relative_to(ROOT / "docs/data")).read_bytes() == path.read_bytes()
    assert sum(path.stat().st_size for path in (ROOT / "docs/data").rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.parametrize(("study", "experiment"), sorted({picture[:2] for picture in pictures.PICTURES.values()}))
def test_pictures_are_of_the_studies_as_they_ship(tmp_path, study, experiment, request, monkeypatch):
    """A study that has changed asks for `make docs-tables`."""
    if study != "laptop":
        monkeypatch.setenv("ICL_OMNIGLOT", str(request.getfixturevalue("omniglot_folder")))
    plan = Plan({"results": str(tmp_path), "study": study}, ROOT)
    texts = [(ROOT / "docs/data" / study / experiment / "experiment.json").read_text()]
    texts.append(plan.records.experiment_text(experiment, figures=True))
    drawn, shipped = map(json.loads, texts)
    for record in (drawn, shipped):
        # How lanes are packed depends on the machine.
        del record["packs"]
        for run in record["runs"]:
            run["lanes"] = [lane["seed"] for lane in run["lanes"]]
    assert drawn == shipped
