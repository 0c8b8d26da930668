"""docs/results.md and the README's claims: made of docs/data alone, which is copied from results."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from finished_study import LAPTOP, finish, plan_of
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from test_golden import write_sources

from icl_transience.analysis import acquisition, verdicts, words
from icl_transience.planning.plan import Plan, study_files
from icl_transience.report import on_record, pictures, recorded, results_page, study_json, verified
from icl_transience.results import provenance
from icl_transience.specs.errors import StudyError
from icl_transience.store import checksums, tables_file

ROOT = Path(__file__).parents[1]
# Where a claim stands on the page, and how the README leads there.
PLACE = '<a id="laptop-l2-kept"></a>'
LINKED = "[undecided](docs/results.md#laptop-l2-kept)"
README = f"# A title\n\n{results_page.BEGIN}\nwhat stood here\n{results_page.END}\n\nThe rest.\n"


# What is committed.


def test_the_page_and_the_readme_are_what_the_recorded_tables_say():
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/results.md", "README.md"))
    assert page == results_page.page_of(ROOT), "say `python -m icl_transience results-page`, and commit"
    assert readme == results_page.readme_of(ROOT, readme), "say `python -m icl_transience results-page`, and commit"


def test_every_link_of_the_readme_to_a_claim_leads_to_one_place():
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/results.md", "README.md"))
    linked = re.findall(r"\(docs/results\.md#([^)]+-[^)]+)\)", readme)
    assert len(set(linked)) == len(linked) > 30
    assert [name for name in linked if page.count(f'<a id="{name}"></a>') != 1] == []


def test_what_claims_are_of_is_said_of_each_run():
    """A claim on in-weights learning has its numbers beside it, though runs are told by in-context learning."""
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    alone = page.partition("## claims\n")[2].partition("### alone")[2].partition("\n### ")[0]
    lanes = pd.read_csv(ROOT / "docs/data/claims/alone/transience.csv")
    for run in ("icl_only", "icl_only_later", "iwl_only"):
        values = [row["final_iwl"] for _, row in lanes.iterrows() if row["run"] == run]
        assert re.search(rf"- `{run}`: icl .*; final_iwl {sum(values) / len(values):.2f}\.\n", alone)
    assert "final_icl 0" not in alone  # which the sentence says
    # Of what most claims are of, with its interval and how many seeds have a value.
    assert re.search(r"- `l2.strength=0`: icl .*; index 0\.\d\d \(.* to .*\); final_ciwl 0\.79\.\n", page)
    reddy = page.partition("## reddy\n")[2].partition("\n### noise")[0]
    said, head = re.findall(r"^Of .*|^\| run \| outcome .*", reddy, re.MULTILINE)
    assert said == "Of icl_holdout (in context accuracy, chance 0.5):"
    assert head.endswith("| index | final ciwl |")


def test_means_are_of_the_lanes_that_have_a_value_and_say_how_many(tmp_path):
    table = "run,at_peak_iwl,final_iwl\nb,0.2,0.5\nb,,0.75\nb,0.4,0.25\na,,1\n"
    (tmp_path / "transience.csv").write_text(table, encoding="utf-8")
    checksums.write_checksums(tmp_path, ["transience.csv"])
    said = words.means_in_words(tmp_path, ["final_iwl", "at_peak_iwl"])
    assert said == {"b": ["0.50", "0.30 (of 2 of 3 lanes)"], "a": ["1.00", "–"]}


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


@pytest.mark.parametrize("folder", sorted(path.parent for path in (ROOT / "docs/data").glob("*/verdicts.csv")))
def test_verdicts_on_record_are_those_of_the_lanes_on_record(folder, tmp_path):
    # With all optional experiments, whatever this machine has of their sources.
    plan = Plan({"study": folder.name, "results": str(tmp_path)} | write_sources(tmp_path), ROOT, cores=2)
    lanes = {path.parent.name: tables_file.read_csv(path) for path in folder.glob("*/transience.csv")}
    verdicts.write_judged(tmp_path, plan.records.claims(), lanes)
    for name in ("verdicts.csv", "evidence.csv"):
        made, recorded_one = (tables_file.read_csv(each / name) for each in (tmp_path, folder))
        # Experiments without tables yet have no lanes: their claims are not tested yet in both.
        pd.testing.assert_frame_equal(made, recorded_one, rtol=1e-9)


def test_what_is_contradicted_has_a_remark_why():
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8").split("\n")
    contradicted = [
        line for line, text in enumerate(page) if re.match(r"- <a id=\"\S+\"></a>\*\*Contradicted\*\*: ", text)
    ]
    assert contradicted
    # After what was tested and what was found.
    assert [page[line] for line in contradicted if not page[line + 3].startswith("    - *Remark:* ")] == []


def test_a_remark_on_several_claims_is_written_once():
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8").split("\n")
    remarks = [line for line in page if line.startswith("    - *Remark:* ")]
    again = "    - *Remark:* as above."
    assert again in remarks
    assert len({*remarks}) == len(remarks) - remarks.count(again) + 1


def test_the_commit_that_results_were_made_with_is_said(finished):
    written(finished)
    path = Path("docs/data/laptop/study.json")
    study = json.loads(path.read_text(encoding="utf-8"))
    made_with = provenance.known(finished)["git"]
    assert [one["commit"] for one in study["experiments"].values()] == [study_json.commit_of(made_with)] * 2
    study["experiments"]["l2"]["commit"] = study_json.commit_of({"commit": "0123456789abcdef", "dirty": True})
    study["experiments"]["transience"]["commit"] = None
    path.write_text(json.dumps(study), encoding="utf-8")
    results_page.write_pages(Path())
    assert "; last run at commit 0123456789ab with changes, some of it at others. [The study]" in Path(
        "docs/results.md"
    ).read_text(encoding="utf-8")
    assert study_json.commit_of({"commit": "0123456789abcdef", "dirty": False}) == "0123456789ab"
    assert study_json.commit_of(None) is None


def test_thin_lines_keep_their_colours_on_small_pictures(tmp_path):
    figure = Figure(figsize=(7, 6))
    axes = figure.add_subplot()
    for number in range(10):
        axes.plot([0, 1], [0, number + 1], linewidth=0.7, color=f"C{number}")
    figure.savefig(tmp_path / "drawn.png", dpi=300)
    with Image.open(io.BytesIO(pictures.small(tmp_path / "drawn.png"))) as image:
        shown = np.array([colour for _, colour in image.convert("RGB").getcolors()])
    for number in range(10):
        nearest = np.abs(shown - 255 * np.array(to_rgb(f"C{number}"))).max(axis=1).min()
        # Two of these colours differ by 52 or more.
        assert nearest < 26, number


# How it is made.


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished study, whose figures are empty, in a folder that is a checkout as far as pages go."""
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


def seal(folder: Path) -> None:
    """Make what is kept in a study's folder look as if it had been recorded."""
    checksums.write_checksums(folder, ["verdicts.csv", "evidence.csv"])
    path = folder / "study.json"
    study = json.loads(path.read_text(encoding="utf-8")) | {"tables": on_record.digests(folder)}
    path.write_text(json.dumps(study), encoding="utf-8")


def is_drawn(picture: Path) -> bool:
    """Whether there is more than one colour on it."""
    with Image.open(picture) as image:
        return len(image.getcolors() or []) > 1


def test_the_page_has_questions_claims_runs_figures_and_times_in_the_words_of_the_report(finished):
    page, readme = written(finished)
    assert "### transience: does it come and go?" in page
    assert "![Study laptop, experiment transience: curves](images/laptop-transience.png)" in page
    for name in ("transience", "l2", "evidence"):
        assert is_drawn(Path(f"docs/images/laptop-{name}.png"))
    folder = Path(finished.paths.experiment_folder("transience"))
    (run,), ends = words.runs_of(folder), words.last_points(folder)
    assert words.run_in_words(run, *ends["baseline"]) in page
    (row,) = tables_file.records(tables_file.read_csv(Path(finished.paths.study_folder, "verdicts.csv")))
    tested, found, note = verdicts.tested_and_found(row)
    assert verdicts.findings(row) == f"({tested}; {found}); {note}"
    lines = [f"- {PLACE}**Undecided**: less is lost.", f"    - Tested: {tested}."]
    lines.append(f"    - Found: {found}. {note[0].upper()}{note[1:]}.")
    assert "\n".join(lines) in page.replace("&lt;", "<").replace("\\|", "|")
    # A run of each experiment is that of the other: its lanes are trained once.
    assert "| 1 claim: 1 undecided | 2 of 2 | 4 of 4 |" in page
    for said in ("Not finished", "so far", "not yet"):
        assert said not in page
    assert f"| [`laptop`](docs/results.md#laptop) | l2 | less is lost | {LINKED} | " in readme
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
    with pytest.raises(StudyError, match=r"laptop/verdicts\.csv: is not as it was recorded: say `git checkout"):
        results_page.write_pages(Path())
    seal(table.parent)
    results_page.write_pages(Path())
    changed, told = (Path(name).read_text(encoding="utf-8") for name in ("docs/results.md", "README.md"))
    assert changed == page.replace("1 undecided", "1 supported").replace("**Undecided**", "**Supported**")
    assert told == readme.replace("1 undecided", "1 supported").replace("[undecided]", "[supported]")


def test_a_claim_that_another_study_asks_again_of_another_bank_has_one_row_in_the_readme(finished):
    _, readme = written(finished)
    folder = Path("docs/data/laptop_replicated")
    shutil.copytree("docs/data/laptop", folder)
    shutil.copy("workflow/studies/laptop.yaml", f"workflow/studies/{folder.name}.yaml")
    kept = json.loads((folder / "study.json").read_text(encoding="utf-8")) | {"study": folder.name}
    (folder / "study.json").write_text(json.dumps(kept), encoding="utf-8")
    table = folder / "verdicts.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("undecided", "contradicted"), encoding="utf-8")
    seal(folder)
    page, again = (path.read_text(encoding="utf-8") for path in results_page.write_pages(Path()))
    assert f"| l2 | less is lost | {LINKED} | " in again
    assert " | [contradicted](docs/results.md#laptop_replicated-l2-kept)" in again
    assert "1 claim: 1 undecided, each in" in again
    assert " Asked again of another bank, with other models and horizons: 1 contradicted.\n" in again
    assert again.count("less is lost") == readme.count("less is lost") == 1
    assert page.count("less is lost") == 2
    # Another claim has a row of its own.
    table.write_text(table.read_text(encoding="utf-8").replace("kept", "lost"), encoding="utf-8")
    seal(folder)
    _, apart = (path.read_text(encoding="utf-8") for path in results_page.write_pages(Path()))
    assert "2 claims: 1 contradicted, 1 undecided, each in" in apart
    assert "another bank" not in apart
    assert apart.count("less is lost") == 2


def test_a_remark_follows_its_claim_while_its_verdict_stands(finished):
    page, readme = written(finished)
    path = Path("docs/data/remarks.yaml")
    path.write_text("laptop: {l2: {kept: {undecided: two seeds *cannot* say it}}}", encoding="utf-8")
    remarked, told = written(finished)
    new = [line for line in remarked.split("\n") if line not in page]
    assert new == [r"    - *Remark:* two seeds \*cannot\* say it"]
    assert told == readme.replace(LINKED, f"{LINKED}, with a remark")
    assert told != readme
    for text, problem in (
        ("laptop: {l2: {kept: {supported: so}}}", "is a remark on 'supported', but the claim is 'undecided' now"),
        ("laptop: {l2: {other: {undecided: so}}}", "laptop: l2: other: is no claim on record"),
        ("laptop: {l2: so}", "laptop: l2: is str, not what is read here"),
        ("laptop: {l2: {kept: {undecided: ' '}}}", "laptop: l2: kept: undecided: is str, not"),
        ("- so", "the file: is list, not what is read here"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(StudyError, match=re.escape(problem)):
            results_page.write_pages(Path())


def test_seeds_that_are_not_trained_yet_are_said_to_be_left_out(finished):
    written(finished)
    more = LAPTOP.replace("seeds: [0, 1]", "seeds: [0, 1, 2]") + "  later: {horizon: 3072, model: {width: 32}}\n"
    page, _ = written(plan_of(Path(), more))
    assert "**Not finished:** 1 of 3 lanes are left out.\n" in page
    assert "**Not finished:** 2 of 6 lanes are left out.\n" in page
    assert "**Not finished:** 3 of 3 lanes are left out, so that there are no tables yet.\n" in page
    assert page.count("Figure and numbers are of 2 of 3 seeds.\n") == 2
    assert "**2 of 3 experiments so far**; not yet: later.\n" in page
    assert "| 2 of 3 | 4 of 9 |" in page


THAN = "than: l2.strength=0.0001}"
NO_RUN = r"l2: .*run l2\.strength=0 of them is not declared"

# Beside the runs that the plan declares, those of which the tables in the folder are.
OTHER = {
    "another learning rate": (
        LAPTOP.replace("horizon: 2048", "horizon: 2048\n    optimizer: {learning_rate: 0.5}"),
        r"l2: .* the metrics of those cannot be read",
    ),
    "other statistics": (
        LAPTOP.replace("    claims:", "    statistics: {smoothing: 1}\n    claims:"),
        r"l2: .*transience\.csv: \w+ of run l2\.strength=\S+, seed \d is \S+, and theirs is ",
    ),
    "another run": (LAPTOP.replace("[0, 1.0e-3]", "[0, 1.0e-3, 1.0e-2]"), r"l2: .* they lack run l2\.strength=0\.01"),
    "no such run": (LAPTOP.replace("[0, 1.0e-3]", "[1.0e-4, 1.0e-3]").replace("than: l2.strength=0}", THAN), NO_RUN),
    "fewer seeds": (LAPTOP.replace("[0, 1]", "[0]"), "transience: .* seed 1 of them is not declared"),
}


@pytest.mark.parametrize("other", OTHER)
def test_tables_of_other_runs_than_the_plan_declares_are_refused_before_anything_is_written(finished, other):
    text, problem = OTHER[other]
    again = (
        r".*: say `snakemake --config study=\S*laptop\.yaml results=\S*`, which makes them again, or delete that folder"
    )
    with pytest.raises(StudyError, match="experiment " + problem + again):
        written(plan_of(Path(), text))
    assert not Path("docs/data").exists()


def test_tables_whose_seeds_were_taken_for_each_other_are_refused(finished):
    folder = Path(finished.paths.experiment_folder("transience"))
    for name in ("transience.csv", "curves.csv"):
        table = tables_file.read_csv(folder / name)
        tables_file.write_csv(
            folder / name, table.assign(seed=table["seed"].replace(["0", "1"], ["1", "0"])), digits=10
        )
    checksums.write_checksums(folder, tables_file.TABLES)
    with pytest.raises(StudyError, match=r"transience: .*transience\.csv: \w+ of run baseline, seed"):
        written(finished)


def test_what_is_missing_in_both_tables_is_no_difference_and_in_one_is():
    right = pd.DataFrame({"run": "a", "seed": ["0", "1"], "peak_at_censored": [True, None]})
    assert verified.difference(right.copy(), right) == ""
    found = right.assign(peak_at_censored=[True, False])
    assert verified.difference(found, right) == "peak_at_censored of run a, seed 1 is False, and theirs is None"


def test_what_is_kept_and_not_as_it_was_recorded_makes_no_page(finished):
    page, readme = written(finished)
    folder = Path("docs/data/laptop")
    study = folder / "study.json"
    for spoilt, problem in (
        (folder / "verdicts.csv", r"verdicts\.csv: is not as it was recorded"),
        (folder / "l2/transience.csv", r"l2/transience\.csv: is not as it was recorded"),
        (folder / "SHA256SUMS", "study.json: was not recorded with the tables beside and below it"),
        (Path("docs/images/laptop-l2.png"), "laptop-l2.png: not there"),
    ):
        content = spoilt.read_bytes()
        spoilt.unlink()
        with pytest.raises(StudyError, match=problem + ".*: say `git checkout -- docs/data docs/images`, or record"):
            results_page.write_pages(Path())
        spoilt.write_bytes(content)
    text = study.read_text(encoding="utf-8")
    for other, problem in (
        ("{", "study.json: is not as it was recorded .*: delete it, and record the study again"),
        (text.replace('"study": "laptop"', '"study": "tiny"'), "is of study 'tiny'"),
    ):
        study.write_text(other, encoding="utf-8")
        with pytest.raises(StudyError, match=problem):
            results_page.write_pages(Path())
    study.write_text(text, encoding="utf-8")
    results_page.write_pages(Path())
    assert (Path("docs/results.md").read_text(), Path("README.md").read_text()) == (page, readme)


@pytest.mark.parametrize("kept", [False, True])
def test_a_record_that_was_interrupted_makes_no_page_until_it_is_made_again(finished, monkeypatch, kept):
    written(finished)
    if kept:
        forget(finished, "l2", packs=False)
    more = LAPTOP.replace("less is lost", "less of it is lost")
    with monkeypatch.context() as patch:
        patch.setattr(recorded.on_record, "digests", lambda folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recorded.record(plan_of(Path(), more), Path("docs"))
    with pytest.raises(StudyError, match=r"study\.json: was not recorded with the tables"):
        results_page.write_pages(Path())
    assert "less of it is lost" in written(plan_of(Path(), more))[0]


def test_a_claim_may_be_of_numbers_and_its_source_a_year(finished):
    page, readme = written(plan_of(Path(), LAPTOP.replace("text: less is lost", "text: '42', source: '2024'")))
    assert f"- {PLACE}**Undecided**: 42 (2024).\n    - Tested: " in page
    assert f"| l2 | 42 | {LINKED} |" in readme


def test_a_study_that_does_not_ship_is_not_recorded(finished):
    with pytest.raises(StudyError, match=r"laptop\.yaml: results are recorded of studies that ship alone"):
        results_page.record(finished, Path())
    assert not Path("docs/data").exists()


def test_a_seed_below_those_of_the_tables_is_not_passed_over(finished):
    # The tables have seeds 0 and 1, between which it is read.
    below = LAPTOP.replace("seeds: [0, 1]", "seeds: [0, 1, {init: 0, data: 1}]")
    with pytest.raises(StudyError, match="seed init0-data1 is declared and not in its tables, which have later ones"):
        written(plan_of(Path(), below))


def test_experiments_are_recorded_one_by_one_and_claims_of_the_others_are_not_tested_yet(finished):
    folder = Path(finished.paths.experiment_folder("l2"))
    shutil.move(folder, "elsewhere")
    page, readme = written(finished)
    assert "| 1 claim: 1 not tested yet | 1 of 2 | 4 of 4 |" in page
    assert "**1 of 2 experiments so far**; not yet: l2.\n" in page
    assert f"- {PLACE}**Not tested yet**: less is lost.\n" in page
    assert f"| l2 | less is lost | {LINKED.replace('undecided', 'not tested yet')} | none |  | 0 |" in readme
    assert sorted(path.name for path in Path("docs/data/laptop").iterdir()) == [
        *("SHA256SUMS", "evidence.csv", "study.json", "transience", "verdicts.csv"),
    ]
    assert [path.name for path in Path("docs/images").iterdir()] == ["laptop-transience.png"]
    shutil.move("elsewhere", folder)
    written(finished)
    # Nothing stays of an experiment that the study has no more.
    written(plan_of(Path(), LAPTOP[: LAPTOP.index("  l2:")]))
    assert sorted(path.name for path in Path("docs/data/laptop").iterdir()) == ["study.json", "transience"]
    assert [path.name for path in Path("docs/images").iterdir()] == ["laptop-transience.png"]


def forget(plan: Plan, experiment: str, *, packs: bool) -> None:
    """Remove an experiment's tables from results; packs: and what has been trained of it."""
    shutil.rmtree(plan.paths.experiment_folder(experiment))
    if packs:
        own, *others = (
            {lane.pack for run in plan.records.experiment(name, figures=False).runs for lane in run.lanes}
            for name in (experiment, *(name for name in plan.study.experiments if name != experiment))
        )
        for pack in own.difference(*others):
            shutil.rmtree(Path(plan.paths.packs, pack))


def study_on_record() -> dict:
    return json.loads(Path("docs/data/laptop/study.json").read_text(encoding="utf-8"))


def test_an_experiment_that_is_on_record_and_not_in_the_results_stays(finished):
    pages, study = written(finished), study_on_record()
    folder = Path("docs/data/laptop/l2")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    forget(finished, "l2", packs=True)
    assert written(finished) == pages
    assert study_on_record() == study
    assert (study["lanes"], study["done"]) == (4, 4)
    # Whatever seeds and claims are added to it.
    more = LAPTOP.replace("less is lost", "less of it is lost").replace("seeds: [0, 1]", "seeds: [0, 1, 2]")
    told, _ = written(plan_of(Path(), more))
    assert f"- {PLACE}**Undecided**: less of it is lost.\n" in told
    assert told.count("Figure and numbers are of 2 of 3 seeds.\n") == 2
    assert "**Not finished:** 2 of 6 lanes are left out.\n" in told
    assert "| 2 of 2 | 4 of 6 |" in told
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    of_results = ("seconds", "own_seconds", "seeds_in_tables", "ends", "figure")
    now, then = (one["experiments"]["l2"] for one in (study_on_record(), study))
    assert [now[key] for key in of_results] == [then[key] for key in of_results]
    assert study_on_record()["seconds"] == study["seconds"]
    # The verdict is of what is here and what is on record.
    verdict, evidence = (Path("docs/data/laptop", name) for name in ("verdicts.csv", "evidence.csv"))
    assert list(tables_file.read_csv(verdict)["seeds"]) == [2]
    assert set(tables_file.read_csv(evidence)["experiment"]) == {"l2"}


def test_an_experiment_whose_folder_was_deleted_is_on_record_no_more(finished):
    written(finished)
    forget(finished, "l2", packs=False)
    shutil.rmtree("docs/data/laptop/l2")
    page, _ = written(finished)
    assert f"- {PLACE}**Not tested yet**: less is lost.\n" in page
    assert [path.name for path in Path("docs/images").iterdir()] == ["laptop-transience.png"]


def test_a_lane_that_experiments_share_counts_once_in_a_studys_time_in_the_first_with_tables(finished):
    written(finished)
    transience, l2 = (study_on_record()["experiments"][name] for name in ("transience", "l2"))
    assert transience["own_seconds"] == transience["seconds"]
    assert l2["own_seconds"]["training"] < l2["seconds"]["training"]
    # Two rounded to a tenth are added in the one, and the other is rounded once.
    assert study_on_record()["seconds"]["training"] == pytest.approx(l2["seconds"]["training"], abs=0.151)
    shutil.rmtree("docs/data")
    forget(finished, "transience", packs=False)
    written(finished)
    transience, l2 = (study_on_record()["experiments"][name] for name in ("transience", "l2"))
    assert transience["own_seconds"] == {"training": 0, "evaluation": 0, "circuits": 0}
    assert l2["own_seconds"] == l2["seconds"]


OTHER_RUNS = "what is on record of it is of other runs than the study declares now"
CLAIM = "claims: {comes: {text: it comes, kind: threshold, of: peak, direction: above, value: 0.5}}"
# What makes a record untrue of the study as it is now, of which experiment, and what is said.
NOT_KEPT = {
    "other runs": ("l2", LAPTOP.replace("[0, 1.0e-3]", "[0, 1.0e-3, 1.0e-2]"), {}, OTHER_RUNS),
    "other levels": ("l2", LAPTOP.replace("1.0e-3]", "2.0e-3]").replace("=0.001", "=0.002"), {}, OTHER_RUNS),
    "another horizon": ("l2", LAPTOP.replace("horizon: 2048", "horizon: 1024"), {}, OTHER_RUNS),
    "other statistics": ("l2", LAPTOP + "    statistics: {smoothing: 1}\n", {}, OTHER_RUNS),
    "fewer seeds": ("l2", LAPTOP + "    seeds: [0]\n", {}, "has seed 1, which the study does not declare now"),
    "a first claim": (
        "transience",
        LAPTOP.replace('go?"}', f'go?", {CLAIM}}}'),
        {},
        "has no lanes to judge its claims by",
    ),
    "another torch": ("l2", LAPTOP, {"versions": {"torch": "1.0"}}, "versions {'torch': '1.0'}, not {'icl-transience'"),
    "another machine": ("l2", LAPTOP, {"cores": 640, "gpus": ["one"]}, r"cores 640, not \d+; gpus \['one'\], not"),
    "an older record": ("l2", LAPTOP, {"declared": None}, "does not say of which runs it is"),
}


@pytest.mark.parametrize("other", NOT_KEPT)
def test_a_record_that_is_not_of_the_study_as_it_is_now_is_not_kept_beside_new_results(finished, other):
    name, text, said, problem = NOT_KEPT[other]
    written(finished)
    path = Path("docs/data/laptop/study.json")
    study = study_on_record() | {key: value for key, value in said.items() if key != "declared"}
    if "declared" in said:
        del study["experiments"][name]["declared"]
    path.write_text(json.dumps(study), encoding="utf-8")
    before = {file: file.read_bytes() for file in Path("docs").rglob("*") if file.is_file()}
    forget(finished, name, packs=False)
    again = (
        rf"{name}: it has no tables, .*{problem}.*: run `snakemake` for it first, or delete docs/data/laptop/{name},"
    )
    with pytest.raises(StudyError, match=again):
        written(plan_of(Path(), text))
    assert {file: file.read_bytes() for file in Path("docs").rglob("*") if file.is_file()} == before


def test_a_seed_below_those_on_record_is_not_passed_over(finished):
    written(finished)
    forget(finished, "l2", packs=False)
    below = LAPTOP + "    seeds: [0, 1, {init: 0, data: 1}]\n"
    with pytest.raises(StudyError, match="l2: seed init0-data1 is declared and not in its tables, which have later"):
        written(plan_of(Path(), below))


def test_seeds_on_record_are_not_forgotten_because_the_tables_have_fewer_unless_the_study_has_them_no_more(finished):
    written(finished)
    path, study = Path("docs/data/laptop/study.json"), study_on_record()
    study["experiments"]["l2"]["seeds_in_tables"] = ["0", "1", "2"]
    path.write_text(json.dumps(study), encoding="utf-8")
    more = plan_of(Path(), LAPTOP + "    seeds: [0, 1, 2]\n")
    with pytest.raises(StudyError, match=r"experiment l2: its tables lack seed 2, which is on record"):
        written(more)
    written(plan_of(Path()))
    assert study_on_record()["experiments"]["l2"]["seeds_in_tables"] == ["0", "1"]


def test_a_study_of_which_a_part_is_left_out_here_is_not_recorded_without_it(finished, monkeypatch):
    drawn = "  drawn:\n    optional: true\n    bank: {source: tokens, tokens: {classes: 40, holdout_classes: 10}}\n"
    written(plan_of(Path()))
    study = study_on_record()
    study["experiments"]["drawn"] = study["experiments"]["l2"] | {"ends": {}}
    Path("docs/data/laptop/study.json").write_text(json.dumps(study), encoding="utf-8")
    monkeypatch.delenv("ICL_TOKENS", raising=False)
    plan = plan_of(Path(), LAPTOP + drawn)
    assert list(plan.study.left_out) == ["drawn"]
    with pytest.raises(StudyError, match=r"experiment drawn: is part of what is recorded in .*ICL_TOKENS"):
        written(plan)


@pytest.mark.parametrize("spoilt", ["l2/transience.csv", "l2/SHA256SUMS", "../../images/laptop-l2.png"])
def test_what_is_kept_beside_new_results_is_as_it_was_recorded(finished, spoilt):
    pages = written(finished)
    forget(finished, "l2", packs=False)
    path = Path("docs/data/laptop", spoilt)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(StudyError, match=rf"{path.name}: (is not as it was recorded|not there): say `git checkout"):
        written(finished)
    path.write_bytes(content)
    # What new results replace need not be.
    for other in ("data/laptop/transience/runs.csv", "data/laptop/verdicts.csv", "images/laptop-transience.png"):
        Path("docs", other).unlink()
    assert written(finished) == pages


def test_the_table_of_the_threshold_is_made_of_the_tables_beside_it_and_goes_with_the_question(finished):
    text = LAPTOP.replace("    claims:", "    statistics: {acquisition: true}\n    claims:")
    asks, source = plan_of(Path(), text), Path(finished.paths.experiment_folder("l2"))
    (source / "threshold.csv").write_text("of other results\n", encoding="utf-8")
    page, _ = written(asks)
    recorded_here, lanes = Path("docs/data/laptop/l2"), tables_file.read_csv(source / "transience.csv")
    acquisition.write_tables(source, lanes, "optimizer.l2.strength", 0.95)
    right = (source / "threshold.csv").read_bytes()
    assert (recorded_here / "threshold.csv").read_bytes() == right
    assert "![Study laptop, experiment l2: survival](images/laptop-l2.png)" in page
    # Where pictures of the documentation are drawn from the tables, too.
    for name in tables_file.TABLES:
        shutil.copyfile(source / name, recorded_here / name)
    (recorded_here / "threshold.csv").unlink()
    assert written(asks)[0] == page
    assert (recorded_here / "threshold.csv").read_bytes() == right
    checksums.check_checksums(recorded_here, tables_file.TABLES, move=False)
    written(finished)
    assert not (recorded_here / "threshold.csv").exists()


def test_a_study_of_twelve_claims_is_read_claim_by_claim(finished):
    claim = LAPTOP[LAPTOP.index("      kept:") :]
    more = "".join(claim.replace("kept", f"kept{n}").replace("less is lost", f"claim {n}") for n in range(11))
    page, readme = written(plan_of(Path(), LAPTOP + more))
    assert "| 12 claims: 12 undecided |" in page
    lines = [line for line in page.splitlines() if "**Undecided**: " in line]
    assert len(lines) == 12
    assert all(len(line) < 400 for line in lines)
    assert readme.count("\n| [`laptop`](docs/results.md#laptop) | ") == 12


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
    with pytest.raises(StudyError, match=r"README\.md: has no lines <!-- claims"):
        results_page.record(finished, Path())
    assert not Path("docs/data").exists()
    Path("README.md").unlink()
    with pytest.raises(StudyError, match=r"README\.md: not there"):
        results_page.write_pages(Path())
