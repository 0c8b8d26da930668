"""The minimal model in a study: what Snakemake makes of it, makes again, and puts into report and archive."""

import tarfile

import pytest
from pipeline import Clone

MODEL = """
minimal_model:
  n_seeds: 3
  steps: 6200
  variants: {published: {}, no_cost: {alpha: 0}}
  beside: {transience: baseline}
"""
MADE = {"declare": 1, "minimal_model_tables": 1, "minimal_model_figure": 1}
FIGURE = {"minimal_model_figure": 1}


def with_minimal_model(clone: Clone) -> Clone:
    clone.study.write_text(clone.study.read_text() + MODEL)
    return clone


@pytest.fixture(scope="module")
def built(finished_tiny, tmp_path_factory) -> tuple[Clone, str]:
    clone = with_minimal_model(finished_tiny[0].copy(tmp_path_factory.mktemp("minimal_model") / "clone"))
    assert clone.would_run() == MADE
    return clone, clone.build()


def test_it_is_made_by_itself_and_said_in_words(built):
    clone, said = built
    assert clone.would_run() == {}
    assert "minimal_model, published: the loss of ICL falls to" in said
    assert "(medians of 3 seeds: 2 stopped, 1 unfinished)" in said
    assert "figure: results/studies/tiny/minimal_model/minimal_model.svg" in said
    assert "results/studies/tiny/minimal_model" not in clone.build("orphans")


def test_a_change_makes_no_more_again_than_it_must(built, tmp_path):
    clone = built[0].copy(tmp_path / "clone")
    for old, new, again in (
        ("{alpha: 0}", "{alpha: 0.01}", MADE),
        ("n_seeds: 3", "n_seeds: 4", MADE),
        ("no_cost", "without_cost", MADE),
        ("  beside: {transience: baseline}", "", FIGURE),
        # What it is drawn beside is drawn again, and it with that; nothing of it is computed again.
        ("seeds: [0, 1]", "seeds: [0]", {"declare": 2, "tables": 2, "figures": 2} | FIGURE),
        ("does it come and go?", "does it stay?", {"figures": 1}),
    ):
        clone.change(old, new)
        assert clone.would_run() == again, new
        clone.study.write_text(built[0].study.read_text())
    assert clone.would_run() == {}
    library = clone.change_library("report/figures/minimal_model.py", "_FIRST_STEP = ", "_FIRST_STEP = 2 * ")
    assert clone.would_run(**library) == FIGURE


def test_without_snakemake_s_records_it_is_seen_what_the_tables_were_made_from(built, tmp_path):
    clone = built[0].copy(tmp_path / "clone")
    for path in (clone.folder / ".snakemake").rglob("*"):
        if path.is_file():
            path.unlink()
    clone.change("n_seeds: 3", "n_seeds: 4")
    assert clone.would_run() == MADE


def test_a_study_without_one_has_no_rules_for_it(finished_tiny):
    done = finished_tiny[0].snakemake("-n", "minimal_model")
    assert done.returncode != 0
    assert "minimal_model" in done.stdout + done.stderr


def test_report_and_archive_have_it_and_the_archive_draws_it_again(built, tmp_path):
    clone = built[0].copy(tmp_path / "clone")
    clone.build("archive")
    assert "the loss of ICL falls to" in clone.path("studies/tiny/report.html").read_text()
    with tarfile.open(clone.path("archives/tiny.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "tiny"
    done = clone.library("redraw", "--archive", str(folder), "--folder", str(tmp_path / "redrawn"))
    assert done.returncode == 0, done.stderr
    for kind in ("svg", "png"):
        name = f"minimal_model/minimal_model.{kind}"
        assert (tmp_path / "redrawn" / name).read_bytes() == (folder / name).read_bytes()
