"""docs/results.md and the README's claims: made of docs/data alone, which is copied from results."""

import json
import shutil
from pathlib import Path

import pytest
from finished_study import LAPTOP, finish, plan_of
from PIL import Image

from icl_transience.analysis import verdicts, words
from icl_transience.planning.plan import Plan, study_files
from icl_transience.report import recorded, results_page
from icl_transience.results import provenance
from icl_transience.specs.errors import StudyError
from icl_transience.store import checksums, tables_file

ROOT = Path(__file__).parents[1]
README = f"# A title\n\n{results_page.BEGIN}\nwhat stood here\n{results_page.END}\n\nThe rest.\n"


# What is committed.


def test_the_page_and_the_readme_are_what_the_recorded_tables_say():
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/results.md", "README.md"))
    assert page == results_page.page_of(ROOT), "say `python -m icl_transience results-page`, and commit"
    assert readme == results_page.readme_of(ROOT, readme), "say `python -m icl_transience results-page`, and commit"


def test_the_page_names_every_study_that_ships():
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    for path in study_files(ROOT):
        assert f"(../workflow/studies/{path.name})" in page


def test_every_picture_of_the_page_is_recorded_and_small():
    shown = set()
    for path in (ROOT / "docs/data").glob("*/study.json"):
        study = json.loads(path.read_text(encoding="utf-8"))
        figures = [one["figure"]["file"] for one in study["experiments"].values() if one["figure"]]
        shown |= {*figures, *filter(None, [study["evidence"]])}
    there = list((ROOT / "docs/images").iterdir())
    assert {path.name for path in there} == shown
    assert all(path.stat().st_size < 200_000 for path in there)


def test_no_path_of_the_machine_is_recorded():
    for path in (ROOT / "docs/data").glob("*/study.json"):
        text = path.read_text(encoding="utf-8")
        assert not [place for place in ("/root", "/home", "/tmp", "/work") if place in text]


# How it is made.


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished study whose figures are drawn, in a folder that is a checkout as far as pages go."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = plan_of(Path())
        finish(plan)
        for drawn in (plan.paths.experiment_folder("transience"), plan.paths.study_folder):
            for name in ("curves.png", "evidence.png"):
                Image.new("RGBA", (1200, 600), "white").save(Path(drawn, name))
        provenance.record(plan)
        for name in ("docs", "workflow/studies"):
            Path(name).mkdir(parents=True)
        Path("workflow/studies/laptop.yaml").write_text(LAPTOP, encoding="utf-8")
        Path("docs/results.md").touch()
        Path("README.md").write_text(README, encoding="utf-8")
    return folder


@pytest.fixture
def finished(made, tmp_path, monkeypatch) -> Plan:
    """Its plan, in a copy of the folder, which is the working folder."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return plan_of(Path())


def written(plan: Plan) -> tuple[str, str]:
    """The two pages once a study is recorded."""
    recorded.record(plan, Path("docs"))
    page, readme = results_page.write_pages(Path())
    return page.read_text(encoding="utf-8"), readme.read_text(encoding="utf-8")


def test_the_page_has_questions_claims_runs_figures_and_times_in_the_words_of_the_report(finished):
    page, readme = written(finished)
    assert "### transience: does it come and go?" in page
    assert "![Study laptop, experiment transience: curves](images/laptop-transience.png)" in page
    assert Path("docs/images/laptop-transience.png").stat().st_size < 10_000
    folder = Path(finished.paths.experiment_folder("transience"))
    (run,), ends = words.runs_of(folder), words.last_points(folder)
    assert words.run_in_words(run, *ends["baseline"]) in page
    (row,) = tables_file.records(tables_file.read_csv(Path(finished.paths.study_folder, "verdicts.csv")))
    assert f"- **Undecided**: less is lost. {verdicts.findings(row)}" in page.replace("&lt;", "<").replace("\\|", "|")
    assert "6 of 6" in page
    assert "Not finished" not in page
    assert "| [`laptop`](docs/results.md#laptop) | less is lost | undecided | " in readme
    assert (
        "![The evidence for and against each claim of `laptop`, seed by seed](docs/images/laptop-evidence.png)"
        in readme
    )
    assert readme.startswith("# A title\n")
    assert readme.endswith("\nThe rest.\n")
    assert "what stood here" not in readme


def test_another_verdict_makes_another_page_and_one_that_was_edited_by_hand_is_refused(finished):
    page, readme = written(finished)
    table = Path("docs/data/laptop/verdicts.csv")
    table.write_text(table.read_text(encoding="utf-8").replace("undecided", "supported"), encoding="utf-8")
    with pytest.raises(StudyError, match=r"verdicts\.csv and SHA256SUMS contradict each other"):
        results_page.write_pages(Path())
    checksums.write_checksums(table.parent, [table.name])
    results_page.write_pages(Path())
    changed, told = (Path(name).read_text(encoding="utf-8") for name in ("docs/results.md", "README.md"))
    assert changed == page.replace("1 undecided", "1 supported").replace("**Undecided**", "**Supported**")
    assert told == readme.replace("1 undecided", "1 supported").replace("| undecided |", "| supported |")


def test_seeds_that_are_not_trained_yet_are_said_to_be_left_out(finished):
    written(finished)
    more = LAPTOP.replace("seeds: [0, 1]", "seeds: [0, 1, 2]") + "  later: {horizon: 3072, model: {width: 32}}\n"
    page, _ = written(plan_of(Path(), more))
    assert "**Not finished:** 1 of 3 lanes are left out.\n" in page
    assert "**Not finished:** 2 of 6 lanes are left out.\n" in page
    assert "**Not finished:** 3 of 3 lanes are left out, so that there are no tables yet.\n" in page
    assert "6 of 12" in page


def test_a_study_whose_first_call_is_still_at_work_is_recorded_too(finished):
    page, _ = written(finished)
    Path(finished.paths.root, provenance.FILE).unlink()
    again, _ = written(finished)
    assert again == page


def test_a_study_without_results_is_not_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"study laptop has no results in .*: run `snakemake` first"):
        recorded.record(plan_of(tmp_path), Path("docs"))


def test_tables_that_pictures_are_drawn_from_are_not_replaced_by_others(finished):
    folder = Path("docs/data/laptop/transience")
    folder.mkdir(parents=True)
    (folder / "curves.csv").touch()
    (folder / "runs.csv").write_text("run\nbaseline\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"docs/pictures\.py .*/studies/laptop` first"):
        written(finished)


def test_a_folder_that_is_no_checkout_gets_no_page(finished):
    Path("README.md").write_text("# A title\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"README\.md has no lines <!-- claims"):
        written(finished)
    Path("README.md").unlink()
    with pytest.raises(StudyError, match=r"README\.md: not there"):
        results_page.write_pages(Path())
