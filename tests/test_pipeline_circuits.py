"""Circuits in a study: what Snakemake measures, measures again, and puts into tables, report, archive and care."""

import tarfile
from collections.abc import Mapping

import pandas as pd
import pytest
from pipeline import Clone

# Two layers of two heads. The peak of some lane may not exist: one that has none has no value of the graft from it.
CIRCUITS = """seeds: [0, 1]
  circuits:
    measures: [induction, k_composition, patterns]
    evaluators: [icl]
    interventions:
      no_layer0: {ablate: block0.*}
      as_at_first: {graft: {place: residual0, from: start}}"""
# Of two packs with two segments each; of `as_at_first` a spec of its own, which waits for the first segment.
JOBS = {"circuits": 4, "grafts": 4}
TABLES = {"declare": 2, "tables": 2, "circuits_tables": 2, "figures": 2}
DRAWN = {"circuits_figures_transience": 1, "circuits_figures_l2": 1}


@pytest.fixture(scope="module")
def built(finished_tiny, tmp_path_factory) -> Clone:
    clone = finished_tiny[0].copy(tmp_path_factory.mktemp("circuits") / "clone")
    clone.change("seeds: [0, 1]", CIRCUITS)
    assert clone.would_run() == JOBS | TABLES | DRAWN
    clone.build("--cores", "2")
    return clone


def table(clone: Clone, name: str, experiment: str = "l2") -> pd.DataFrame:
    return pd.read_csv(clone.path(f"studies/tiny/{experiment}/{name}"), dtype={"seed": str})


def measured_at(of_lane: pd.DataFrame, values: Mapping[str, object]) -> int:
    chosen = of_lane
    for column, value in values.items():
        chosen = chosen[chosen[column] == value]
    return len(chosen)


def test_tables_have_every_head_and_what_is_answered_under_interventions(built):
    assert built.would_run() == {}
    curves, heads = table(built, "curves.csv"), table(built, "circuits/heads.csv")
    lane = {"run": "l2.strength=0", "seed": "0"}
    points = measured_at(curves, lane | {"evaluator": "icl", "metric": "accuracy"})
    assert points > 4
    for name in ("icl|no_layer0", "icl|as_at_first"):
        assert measured_at(curves, lane | {"evaluator": name, "metric": "accuracy"}) == points
    assert measured_at(heads, lane | {"measure": "induction"}) == 2 * 2 * points
    composition = table(built, "circuits/composition.csv")
    assert measured_at(composition, lane | {"measure": "k_composition"}) == 2 * 2 * points
    shown = table(built, "circuits/attention.csv")["sequences_seen"]
    assert (shown.min(), shown.max()) == (0, 2048)
    lanes = table(built, "transience.csv")
    assert lanes["final_icl|no_layer0"].notna().all()
    # At the start the grafted stream is the snapshot's own.
    first = curves[(curves["sequences_seen"] == 0) & (curves["metric"] == "loss")].set_index(["run", "seed"])
    own, grafted = (first[first["evaluator"] == name]["value"] for name in ("icl", "icl|as_at_first"))
    pd.testing.assert_series_equal(own, grafted, check_exact=True)


def test_another_intervention_changes_nothing_of_what_is_there(built, tmp_path):
    clone = built.copy(tmp_path / "clone")
    before = table(clone, "circuits/heads.csv")
    clone.change(
        "      no_layer0: {ablate: block0.*}", "      no_layer0: {ablate: block0.*}\n      soft: {ablate: block1.*}"
    )
    assert clone.would_run() == {"circuits": 4} | TABLES | DRAWN
    clone.build("--cores", "2")
    pd.testing.assert_frame_equal(table(clone, "circuits/heads.csv"), before, check_exact=True)
    # The smaller spec's files are what no study refers to now.
    listed = clone.build("orphans")
    assert listed.count("circuits-") >= 4


def test_a_reworded_question_and_a_figure_s_code_draw_alone(built, tmp_path):
    clone = built.copy(tmp_path / "clone")
    clone.change("does it come and go?", "does it stay?")
    assert clone.would_run() == {"figures": 1, "circuits_figures_transience": 1}
    clone.study.write_text(built.study.read_text())
    library = clone.change_library("report/figures/heads.py", "0.35 + 0.09", "0.36 + 0.09")
    assert clone.would_run(**library) == DRAWN


def test_care_knows_them(built, tmp_path):
    clone = built.copy(tmp_path / "clone")
    assert "circuits" not in clone.build("orphans")
    assert clone.build("status").count(" done") >= 4
    # As of metrics: a file that was lost is made again once something needs it. Lanes at no L2 are in both experiments.
    next(clone.folder.glob("results/packs/*/circuits-*-000000001024.h5")).unlink()
    assert clone.would_run() == {}
    clone.path("studies/tiny/l2/circuits/heads.csv").unlink()
    again = clone.would_run()
    assert again.get("circuits", 0) + again.get("grafts", 0) == 1
    assert again["circuits_tables"] in (1, 2)
    assert not {"train", "evaluate"} & set(again)
    clone.study.write_text(clone.study.read_text().replace(CIRCUITS, "seeds: [0, 1]"))
    listed = clone.build("orphans")
    for path in clone.folder.glob("results/packs/*/circuits-*.h5"):
        assert path.name in listed


def test_the_archive_holds_them_and_draws_them_again(built, tmp_path):
    clone = built.copy(tmp_path / "clone")
    clone.build("archive")
    with tarfile.open(clone.path("archives/tiny.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    done = clone.library("redraw", "--archive", str(tmp_path / "tiny"), "--folder", str(tmp_path / "redrawn"))
    assert done.returncode == 0, done.stderr
    drawn = sorted(path.relative_to(tmp_path / "redrawn") for path in (tmp_path / "redrawn").rglob("circuits/*.*"))
    assert {path.stem for path in drawn} == {"heads", "head_lines", "interventions", "attention", "composition"}
    for path in drawn:
        assert (tmp_path / "redrawn" / path).read_bytes() == (tmp_path / "tiny" / path).read_bytes(), path
