"""What a change makes Snakemake do again, and what it must not: real dry runs on finished results."""

import base64
import os
from pathlib import Path

import pytest
import yaml
from pipeline import Clone

# One experiment's worth of tables, and its figures.
REDRAWN = {"tables": 1, "figures": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Clone:
    clone = Clone.make(tmp_path_factory.mktemp("incremental") / "clone")
    clone.build()
    return clone


@pytest.fixture
def clone(finished, tmp_path) -> Clone:
    return finished.copy(tmp_path / "clone")


def test_nothing_changed_runs_nothing(clone):
    assert clone.would_run() == {}


def test_a_new_seed_trains_its_lanes_alone(clone):
    clone.change("seeds: [0, 1]", "seeds: [0, 1, 2]")
    # A pack of one lane for each run, two segments each; two experiments are tabulated again.
    assert clone.would_run() == {"train": 4, "evaluate": 4, "tables": 2, "figures": 3}


def test_a_new_sweep_value_trains_its_run_alone(clone):
    clone.change("[0, 1.0e-3]", "[0, 1.0e-3, 1.0e-2]")
    assert clone.would_run() == {"train": 2, "evaluate": 2, "tables": 1, "figures": 2}


def test_an_experiment_whose_runs_are_there_trains_nothing(clone):
    clone.study.write_text(clone.study.read_text() + "  again: {}\n")
    assert clone.would_run() == REDRAWN


def test_a_longer_horizon_adds_segments(clone):
    clone.change("horizon: 2048", "horizon: 4096")
    assert clone.would_run() == {"train": 4, "evaluate": 4, "tables": 2, "figures": 3}


def test_a_shorter_horizon_trains_nothing(clone):
    clone.change("horizon: 2048", "horizon: 1024")
    assert clone.would_run() == {"tables": 2, "figures": 3}


def test_other_evaluators_evaluate_again_and_train_nothing(clone):
    clone.change("sequences: 64", "sequences: 65")
    assert clone.would_run() == {"sequences": 1, "evaluate": 4, "tables": 2, "figures": 3}


def test_other_statistics_change_tables_and_figures_alone(clone):
    clone.change("horizon: 2048", "horizon: 2048\n  statistics: {smoothing: 5}")
    assert clone.would_run() == {"tables": 2, "figures": 3}


def test_another_segment_length_runs_nothing(clone):
    assert clone.would_run(config=("segment_sequences=512",)) == {}


def test_other_packing_runs_nothing(clone):
    assert clone.would_run(config=("packing=shape", "lanes_per_pack=1")) == {}


def test_another_device_runs_nothing(clone):
    assert clone.would_run(config=("device=cuda",)) == {}


def test_a_default_written_out_runs_nothing(clone):
    clone.change("width: 16", "width: 16, depth: 2, positions: {base: 30.0}")
    assert clone.would_run() == {}


def test_another_bank_makes_everything_and_the_old_one_is_found_again(clone):
    clone.change("dim: 4", "dim: 5")
    assert clone.would_run()["bank"] == 1
    clone.change("dim: 5", "dim: 4")
    assert clone.would_run() == {}


def test_a_deleted_figure_is_drawn_again(clone):
    clone.path("studies/tiny/transience/curves.svg").unlink()
    assert clone.would_run() == {"figures": 1}


def test_a_deleted_table_is_written_again(clone):
    clone.path("studies/tiny/transience/runs.csv").unlink()
    assert clone.would_run() == REDRAWN


def test_touched_files_run_nothing(clone):
    for path in clone.folder.glob("results/**/*.*"):
        os.utime(path)
    assert clone.would_run() == {}
    # These are small; the profile says that size makes no difference.
    profile = yaml.safe_load((clone.folder / "profiles/default/config.yaml").read_text())
    assert profile["max-checksum-file-size"] >= 1e12


def mark_incomplete(clone: Clone, path: Path) -> None:
    """As Snakemake does when a job starts, and leaves where it is killed before it has recorded the job's end."""
    name = base64.b64encode(str(path.relative_to(clone.folder)).encode()).decode()
    marker = clone.folder / ".snakemake/incomplete" / name
    marker.parent.mkdir(exist_ok=True)
    marker.touch()


@pytest.mark.parametrize("pattern", ["banks/*.h5", "sequences/*.h5", "packs/*/segment-000000000000-*.h5"])
def test_one_more_call_finishes_what_a_killed_snakemake_left(clone, pattern):
    """The killed one was to add an L2 strength; its jobs' files are whole, but their end was not recorded."""
    clone.change("[0, 1.0e-3]", "[0, 1.0e-3, 1.0e-2]")
    for path in clone.folder.glob(f"results/{pattern}"):
        mark_incomplete(clone, path)
    would = clone.would_run()
    assert would["train"] >= 2
    assert would["tables"] >= 1


def test_a_reworded_question_changes_figures_alone(clone):
    clone.change("does it come and go?", "does it stay?")
    assert clone.would_run() == {"figures": 1}


def test_the_same_number_written_otherwise_runs_nothing(clone):
    clone.change("[0, 1.0e-3]", "[0.0, 0.001]")
    clone.change("horizon: 2048", "horizon: 2.048e3")
    assert clone.would_run() == {}


def test_a_deleted_segment_comes_back_without_training(clone):
    (metrics, *_) = sorted(clone.folder.glob("results/packs/*/metrics-*-000000000000-*.h5"))
    metrics.unlink()
    segment = next(metrics.parent.glob("segment-000000000000-*.h5"))
    segment.unlink()
    clone.build(str(metrics.relative_to(clone.folder)))
    assert segment.stat().st_ino == (segment.parent / ".kept" / segment.name).stat().st_ino
    log = clone.folder / "results/logs/packs" / metrics.parent.name / f"{segment.stem}.log"
    assert "finished before" in log.read_text()
    assert not {"train", "evaluate"} & set(clone.would_run())


def test_packs_are_found_again_when_their_index_is_lost(clone):
    indices = list(clone.folder.glob("results/packs/*/pack.json"))
    assert len(indices) == 2
    for index in indices:
        index.unlink()
    assert clone.would_run() == {}


def test_a_new_study_that_shares_lanes_trains_none_of_them(clone):
    (clone.folder / "workflow/studies/other.yaml").write_text(clone.study.read_text())
    assert clone.would_run(config=("study=other",)) == {"tables": 2, "figures": 3}
