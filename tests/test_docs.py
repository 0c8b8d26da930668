"""The documentation: pictures are what the code draws, links lead somewhere, examples work, words are explained."""

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from pipeline import Clone, environment, python

from icl_transience.analysis import transience, words
from icl_transience.planning.plan import Plan
from icl_transience.report import results_page
from icl_transience.specs.config import Config
from icl_transience.specs.evaluators import EVALUATORS, METRICS
from icl_transience.specs.keys import declared

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("pictures", ROOT / "docs/pictures.py")
pictures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pictures)

PAGES = sorted(
    [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
    + [ROOT / name for name in ("results/README.md", "config/README.md", "benchmarks/NOTES.md")]
)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code on a page in a language."""
    return [text for _, named, text in FENCE.findall((ROOT / page).read_text(encoding="utf-8")) if named == language]


# Pictures.


@pytest.mark.parametrize("picture", pictures.PICTURES)
def test_a_picture_is_what_its_tables_and_the_code_draw(tmp_path, monkeypatch, picture):
    monkeypatch.setattr(pictures, "PICTURES", {picture: pictures.PICTURES[picture]})
    (drawn,) = pictures.draw(ROOT / "docs/data", tmp_path)
    assert drawn.read_bytes() == (ROOT / "docs" / drawn.name).read_bytes(), "say `make docs-figures`, and commit"


def test_a_picture_without_tables_is_what_the_code_draws(tmp_path):
    for drawn in pictures.draw_without_tables(tmp_path):
        assert drawn.read_bytes() == (ROOT / "docs" / drawn.name).read_bytes(), "say `make docs-figures`, and commit"


def test_the_documentation_shows_pictures_that_are_made_and_no_others():
    made = {f"docs/{name}.svg" for name in [*pictures.PICTURES, *pictures.DRAWINGS]}
    shown = set()
    for page in PAGES:
        links = re.findall(r"!\[[^]]+\]\(([^()]*\.(?:svg|png))\)", page.read_text(encoding="utf-8"))
        shown |= {str((page.parent / link).relative_to(ROOT)) for link in links}
    # Those of docs/results.md are recorded results: test_results_page.py.
    assert {one for one in shown if not one.startswith("docs/images/")} == made
    assert {f"docs/{path.name}" for kind in ("svg", "png") for path in (ROOT / "docs").glob(f"*.{kind}")} == made


def test_tables_that_are_taken_from_a_study_draw_what_the_studys_own_do(tmp_path):
    """Of the committed ones, which hold no more than is drawn, nothing is left out."""
    for study in {picture.study for picture in pictures.PICTURES.values()}:
        shutil.copytree(ROOT / "docs/data" / study, tmp_path / study)
        pictures.take_tables(tmp_path / study, tmp_path / "data")
    drawn_from = {ROOT / "docs/data" / one.study / one.experiment for one in pictures.PICTURES.values()}
    for path in (path for folder in drawn_from for path in folder.glob("*.csv")):
        assert (tmp_path / "data" / path.relative_to(ROOT / "docs/data")).read_bytes() == path.read_bytes()
    assert sum(path.stat().st_size for path in (ROOT / "docs/data").rglob("*") if path.is_file()) < 1_200_000


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


# Links.


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub names them, and of places that have a name."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = [
        re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    ]
    named = set(re.findall(r'<a id="([^"]+)"></a>', text))
    return named | {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page):
    links = re.findall(r"\]\(([^()\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8")))
    for link in links:
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://")
            continue
        path, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / unquote(path))) if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_sites_menu_and_linked_from_the_readme():
    menu = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in menu
        assert f"(docs/{page.name}" in readme, page.name


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    missing = [name for name in ("mkdocs", "material") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip("the generator of the site is not installed: `make docs` installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(site):
    pages = sorted(site.rglob("*.html"))
    names = {str(path.relative_to(site)) for path in pages}
    assert {"index.html", "glossary.html", "contributing.html", "notebooks/first-look.html"} <= names
    assert "source/src/icl_transience/model/transformer.py.html" in names
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]*)", text)
        fetched += re.findall(r"<link\b(?=[^>]*stylesheet|[^>]*icon|[^>]*preload)[^>]*\bhref=\"([^\"]*)", text)
        for link in fetched:
            # A server shows the page 404 at any address, so that its links begin at the top.
            target = (
                site / link[1:] if link.startswith("/") and page.name == "404.html" else page.parent / unquote(link)
            )
            assert link.startswith("data:") or target.is_file(), (page.name, link)


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed")
def test_search_finds_a_page_from_a_disk_and_without_a_network(site):
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    command = [
        BROWSER,
        *options,
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"{(site / 'index.html').as_uri()}?q=transience",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.search(r"[1-9]\d* matching documents", shown)


# What pages promise.


def test_the_readme_is_short_and_says_what_to_type():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    # The table of claims grows with what is recorded, a row a claim.
    before, _, rest = text.partition(results_page.BEGIN)
    assert (before + rest.partition(results_page.END)[2]).count("\n") <= 119
    assert re.search(r"^make +#.*\nmake test +#", text, re.MULTILINE)


def test_the_readme_and_the_tutorial_show_what_the_default_study_says():
    (said,) = words.experiment_in_words(ROOT / "docs/data/laptop/transience")
    said = said.replace(str(ROOT / "docs/data"), "results/studies")
    for page in ("README.md", "docs/tutorial.md"):
        assert said in " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_the_readme_lists_every_study():
    rows = re.findall(r"^\| \[`(\w+)`\]\(workflow/studies/\1\.yaml\)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(path.stem for path in (ROOT / "workflow/studies").glob("*.yaml"))


def test_what_pages_ask_make_for_is_there():
    targets = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split())
    for page in PAGES:
        asked = re.findall(r"(?:^|`)make ([a-z][a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(asked) <= targets, page


VOCABULARY = """
bank recipe evaluator run lane pack segment snapshot experiment study place intervention verdict
exemplar class context query bursty distractor support horizon checkpoint emergence peak half-life index outcome claim
evidence measure graft engine base card axis seed metric transience
"""


def test_the_glossary_has_every_word_evaluator_and_metric():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    defined = set(re.findall(r"^\| \*\*(.*?)\*\*.*\| \S", text, re.MULTILINE))
    assert {*VOCABULARY.split(), "sequences seen"} <= defined
    rows = set(re.findall(r"^\| `(\w+)` \| \S", text, re.MULTILINE))
    assert {*EVALUATORS, *METRICS} <= rows
    assert all(f"*{outcome}*" in text for outcome in transience.OUTCOMES)
    (engine,) = (key for key in declared(Config) if key.name == "engine")
    assert all(f"`{name}`" in text for name in engine.key.choices if name != "auto")


STUDIES = [("experiments.md", 0), ("tutorial.md", 1), ("claims.md", 0)]


@pytest.mark.parametrize(("page", "number"), STUDIES)
def test_a_study_on_a_page_is_one(tmp_path, page, number):
    text = blocks(f"docs/{page}", "yaml")[number]
    if page == "claims.md":
        text = "defaults: {seeds: [0, 1, 2]}\n" + text
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    plan = Plan({"study": str(tmp_path / "mine.yaml"), "results": str(tmp_path)}, ROOT)
    assert plan.study.experiments.keys() == yaml.safe_load(text)["experiments"].keys()


def test_the_tutorials_experiment_shares_its_lanes_of_depth_2_with_the_default_study(tmp_path):
    (tmp_path / "depth.yaml").write_text(blocks("docs/tutorial.md", "yaml")[1], encoding="utf-8")
    plans = [
        Plan({"study": study, "results": str(tmp_path)}, ROOT) for study in ("laptop", str(tmp_path / "depth.yaml"))
    ]
    ours, theirs = ({lane for each in plan.study.experiments.values() for lane in each.lanes()} for plan in plans)
    assert (len(theirs), len(ours & theirs)) == (4, 2)
    assert plans[0].sets.keys() == plans[1].sets.keys()


def test_embeddings_of_any_encoder_become_a_bank_in_five_lines(tmp_path, monkeypatch):
    (tmp_path / "embeddings").mkdir()
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("docs/own-data.md", "python")
    assert len(code.strip().splitlines()) <= 5
    rng = np.random.default_rng(0)
    exec(code, {"classes": [["a bird"] * 16] * 200, "encode": lambda inputs: rng.normal(size=(len(inputs), 384))})
    (tmp_path / "birds.yaml").write_text(blocks("docs/own-data.md", "yaml")[0], encoding="utf-8")
    monkeypatch.setenv("ICL_IMPORTED", str(tmp_path / "embeddings"))
    plan = Plan({"study": str(tmp_path / "birds.yaml"), "results": str(tmp_path)}, ROOT)
    (bank,) = plan.banks.values()
    assert (bank.shape.n_classes, bank.shape.n_exemplars, bank.shape.width) == (200, 16, 384)


@functools.cache
def slurm_command() -> list[str]:
    text = next(text for text in blocks("docs/cluster.md", "bash") if "--default-resources" in text)
    return text.replace("\\\n", " ").split()[1:]


@pytest.mark.slow
def test_a_cluster_is_named_without_editing_a_tracked_file(tmp_path):
    """As docs/cluster.md types it; of a study whose cluster jobs measure inside models beside evaluating them."""
    clone = Clone.make(tmp_path / "clone")
    clone.change("horizon: 2048", "horizon: 2048\n  circuits: {evaluators: [icl]}")
    arguments, settings = slurm_command()[: slurm_command().index("--config")], slurm_command()[-2:]
    output = clone.build("-n", *arguments, config=tuple(settings))
    resources = re.search(r"^ *rule train:\n.*?^ +resources: (.*?)$", output, re.MULTILINE | re.DOTALL)[1]
    for asked in ("slurm_partition=gpu", "slurm_account=project", "gpu_model=h200", "gpu=1", "device=cuda"):
        assert f" {asked}" in resources


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["module", "snakedeploy"])
def test_another_workflow_uses_this_one_as_the_page_types_it(tmp_path, number):
    snakefile = blocks("docs/other-workflows.md", "python")[number]
    snakefile = re.sub(r'"(/path/to/|../../)?icl-transience/', f'"{ROOT}/', snakefile)
    if number == 1:
        (tmp_path / "config").mkdir()
        shutil.copy(ROOT / "config.yaml", tmp_path / "config")
    (tmp_path / "Snakefile").write_text(snakefile, encoding="utf-8")
    command = python("snakemake", "-n", ["icl_all", "all"][number], "--config", "study=synthetic")
    done = subprocess.run(
        **command | {"cwd": tmp_path, "env": environment()}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^(icl_)?train +\d+$", done.stdout + done.stderr, re.MULTILINE)


@pytest.mark.slow
def test_results_lie_below_another_folder_as_the_page_types_it(tmp_path):
    """A folder with a space and an umlaut, which is a link."""
    (tmp_path / "Größe x").mkdir()
    (tmp_path / "link").symlink_to("Größe x")
    (tmp_path / "link/mine.yaml").write_text(blocks("docs/tutorial.md", "yaml")[1], encoding="utf-8")
    (line,) = (text for text in blocks("docs/other-workflows.md", "bash") if "--directory" in text)
    arguments = [str(tmp_path / "link") if word == "/scratch/me" else word for word in line.split()[1:]]
    command = python("snakemake", "-n", *arguments) | {"cwd": ROOT, "env": environment()}
    done = subprocess.run(**command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"output: results/studies/mine/depth/curves\.svg", done.stdout + done.stderr)
