"""What a change makes Snakemake do again, and what it must not: real dry runs on finished results."""

import base64
import os
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml
from pipeline import Clone

from icl_transience.store import hdf5

# One experiment's worth of tables, and its figures.
REDRAWN = {"tables": 1, "figures": 1}


@pytest.fixture
def clone(finished_tiny, tmp_path) -> Clone:
    return finished_tiny[0].copy(tmp_path / "clone")


def test_nothing_changed_runs_nothing(clone):
    assert clone.would_run() == {}


def test_a_new_seed_trains_its_lanes_alone(clone):
    clone.change("seeds: [0, 1]", "seeds: [0, 1, 2]")
    # A pack of one lane for each run, two segments each; two experiments are tabulated again.
    assert clone.would_run() == {"train": 4, "evaluate": 4, "declare": 2, "tables": 2, "figures": 2}


def test_a_new_sweep_value_trains_its_run_alone(clone):
    clone.change("[0, 1.0e-3]", "[0, 1.0e-3, 1.0e-2]")
    assert clone.would_run() == {"train": 2, "evaluate": 2, "declare": 1, "tables": 1, "figures": 1}


def test_a_dry_run_says_which_seeds_of_which_runs_it_would_train(clone):
    clone.change("[0, 1.0e-3]", "[0, 1.0e-3, 1.0e-2]")
    clone.change("seeds: [0, 1]", "seeds: [0, 1, 2]")
    said = [line for line in clone.snakemake("-n").stdout.splitlines() if line.startswith("would ")]
    to = "segment to 2.05k of 2.05k, the last of 2"
    assert said == [
        f"would train l2 l2.strength=0.001, seed 2: {to}",
        f"would train l2 l2.strength=0.01, seeds 0-2: {to}",
        f"would train transience baseline (+1 more), seed 2: {to}",
    ]
    assert "would " not in clone.snakemake("-n", "-q").stdout


def test_a_dry_run_says_of_no_segment_that_is_kept_that_it_would_be_trained(clone):
    said = clone.snakemake("-Fn").stdout
    assert re.search(r"^train +4$", said, re.MULTILINE)
    assert "would " not in said


def test_an_experiment_whose_runs_are_there_trains_nothing(clone):
    clone.study.write_text(clone.study.read_text() + "  again: {}\n")
    assert clone.would_run() == {"declare": 1, "tables": 1, "figures": 1}


def test_a_longer_horizon_adds_segments(clone):
    clone.change("horizon: 2048", "horizon: 4096")
    assert clone.would_run() == {"train": 4, "evaluate": 4, "declare": 2, "tables": 2, "figures": 2}


def test_a_shorter_horizon_trains_nothing(clone):
    clone.change("horizon: 2048", "horizon: 1024")
    assert clone.would_run() == {"declare": 2, "tables": 2, "figures": 2}


def test_other_evaluators_evaluate_again_and_train_nothing(clone):
    clone.change("sequences: 64", "sequences: 65")
    assert clone.would_run() == {"sequences": 1, "evaluate": 4, "declare": 2, "tables": 2, "figures": 2}


def test_other_statistics_change_tables_and_figures_alone(clone):
    clone.change("horizon: 2048", "horizon: 2048\n  statistics: {smoothing: 5}")
    assert clone.would_run() == {"declare": 2, "tables": 2, "figures": 2}


def test_another_segment_length_runs_nothing(clone):
    assert clone.would_run(config=("segment_sequences=512",)) == {}


def test_other_packing_runs_nothing(clone):
    assert clone.would_run(config=("packing=shape", "lanes_per_pack=1")) == {}


def test_another_time_limit_of_the_queue_runs_nothing(clone):
    assert clone.would_run(config=("segment_minutes=0.01", "time_limit=30", "gflops=1")) == {}


def test_another_device_runs_nothing(clone):
    assert clone.would_run(config=("device=cuda",)) == {}


def test_a_gpu_that_is_missing_is_told_before_any_job(clone):
    clone.change("dim: 4", "dim: 5")
    banks = set(clone.folder.glob("results/banks/*"))
    done = clone.snakemake(config=("device=cuda",), CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 1
    assert "`device` is 'cuda', but PyTorch sees 0 GPU(s)" in done.stdout + done.stderr
    assert set(clone.folder.glob("results/banks/*")) == banks


def test_a_default_written_out_runs_nothing(clone):
    clone.change("width: 16", "width: 16, depth: 2, positions: {base: 30.0}")
    assert clone.would_run() == {}


def test_another_bank_makes_everything_and_the_old_one_is_found_again(clone):
    clone.change("dim: 4", "dim: 5")
    made = {"bank": 1, "card": 1, "sequences": 1, "train": 4, "evaluate": 4}
    assert clone.would_run() == made | {"declare": 2, "tables": 2, "figures": 2}
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


CLAIM = """
  l2:
    axes: {optimizer.l2.strength: [0, 1.0e-3]}
    claims:
      less: {text: it falls, kind: difference, of: final, direction: less, run: l2.strength=0.001, than: l2.strength=0}
"""


def test_a_claim_is_judged_from_what_is_there_and_another_one_judged_alone(clone):
    clone.change("  l2: {axes: {optimizer.l2.strength: [0, 1.0e-3]}}", CLAIM)
    of_claims = {"verdicts": 1, "evidence": 1}
    assert clone.would_run() == of_claims
    output = clone.build()
    assert "l2, claim less, undecided: it falls (final: l2.strength=0.001 < l2.strength=0; median difference " in output
    assert clone.path("studies/tiny/evidence.svg").exists()
    assert clone.would_run() == {}
    for old, new in (
        ("it falls", "it is less"),
        ("of: final", "of: peak"),
        ("2048", "2048\n  statistics: {claims_alpha: 0.1}"),
        ("2048", "2048\n  statistics: {evidence: fixed}"),
    ):
        clone.change(old, new)
        assert clone.would_run() == of_claims
        clone.change(new, old)
    clone.path("studies/tiny/verdicts.csv").unlink()
    assert clone.would_run() == of_claims
    # Nothing that Snakemake recorded is needed to see that the verdict is on another claim.
    shutil.rmtree(clone.folder / ".snakemake")
    clone.build()
    shutil.rmtree(clone.folder / ".snakemake")
    assert clone.would_run() == {}
    clone.change("of: final", "of: peak")
    assert clone.would_run()["verdicts"] == 1
    clone.change("of: peak", "of: final")
    clone.path("studies/tiny/evidence.png").unlink()
    assert clone.would_run() == {"evidence": 1}
    clone.build()
    clone.change("[0, 1]", "[0, 1, 2]")
    of_new_lanes = {"train": 4, "evaluate": 4, "declare": 2, "tables": 2, "figures": 2}
    assert clone.would_run() == of_new_lanes | of_claims


def test_another_test_of_claims_judges_again_and_draws_nothing(clone):
    clone.change("  l2: {axes: {optimizer.l2.strength: [0, 1.0e-3]}}", CLAIM)
    clone.build("evidence")
    library = clone.change_library("analysis/paired_tests.py", "import math", "import math\n\nUNUSED = 1")
    assert clone.would_run(**library) == {"verdicts": 1, "evidence": 1}


@pytest.mark.parametrize(("rate", "more"), [([], False), (["--max-jobs-per-timespan", "99/1s"], True)])
def test_waiting_jobs_are_looked_at_when_one_ends_and_not_every_second_besides(rate, more, clone):
    clone.change("[0, 1]", "[0, 1, 2, 3]")
    n_jobs = sum(clone.would_run().values())
    done = clone.snakemake("--cores", "1", "--verbose", *rate)
    assert done.returncode == 0
    looks = (done.stdout + done.stderr).count("Resources before job selection")
    # At the start, and after each job.
    assert looks > 0
    assert (looks > n_jobs + 1) == more, (looks, n_jobs)


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


@pytest.mark.parametrize("name", ["survival.csv", "threshold.csv", "forecast.csv", "circuits/heads.csv"])
def test_a_table_that_a_study_does_not_declare_is_made_by_no_job(clone, name):
    done = clone.snakemake("-n", f"results/studies/tiny/transience/{name}")
    assert done.returncode != 0
    assert "MissingRuleException" in done.stdout


def test_packs_are_found_again_when_their_index_is_lost(clone):
    indices = list(clone.folder.glob("results/packs/*/pack.json"))
    assert len(indices) == 2
    for index in indices:
        index.unlink()
    assert clone.would_run() == {}


def test_another_snapshot_density_makes_new_runs_and_the_old_ones_are_found_again(clone):
    clone.change("every: 512", "every: 256")
    assert clone.would_run() == {"train": 4, "evaluate": 4, "declare": 2, "tables": 2, "figures": 2}
    clone.change("every: 256", "every: 512")
    assert clone.would_run() == {}


def test_another_list_of_evaluators_evaluates_again_and_trains_nothing(clone):
    clone.change("sequences: 64", "sequences: 64, evaluators: [train, icl, iwl]")
    assert clone.would_run() == {"sequences": 1, "evaluate": 4, "declare": 2, "tables": 2, "figures": 2}


def test_a_new_metric_evaluates_again_and_trains_nothing(clone):
    # As an edit of the code of metrics looks from outside: a line more.
    library = clone.change_library("specs/evaluators.py", "METRICS = (", "UNUSED = 1\nMETRICS = (")
    assert clone.would_run(**library) == {"evaluate": 4, "declare": 2, "tables": 2, "figures": 2}


def test_another_statistic_tabulates_again(clone):
    library = clone.change_library("analysis/transience.py", "import numpy as np", "import numpy as np\n\nUNUSED = 1")
    assert clone.would_run(**library) == {"declare": 2, "tables": 2, "figures": 2}


def test_another_style_of_figures_draws_again(clone):
    library = clone.change_library("report/figures/style.py", '"font.size": 9', '"font.size": 10')
    assert clone.would_run(**library) == {"figures": 2, "card": 1}


@pytest.mark.parametrize(
    "asked", ["x: linear", "title: false", "metric: accuracy", "evaluators: [icl, train]", "formats: [svg, png, pdf]"]
)
def test_what_figures_show_draws_again_and_makes_nothing_else(asked, clone):
    clone.change("  transience: {question", f"  transience: {{figures: {{{asked}}}, question")
    assert clone.would_run() == {"figures": 1}
    clone.change("  horizon: 2048", f"  horizon: 2048\n  figures: {{{asked}}}")
    assert clone.would_run() == {"figures": 2}


def test_figures_that_are_no_longer_asked_for_are_gone_and_others_there(clone):
    clone.change("  horizon: 2048", "  horizon: 2048\n  figures: {formats: [pdf], evaluators: [icl]}")
    said = clone.build()
    there = {
        path.name for kind in ("svg", "png", "pdf") for path in clone.folder.glob(f"results/studies/tiny/*/*.{kind}")
    }
    assert there == {"curves.pdf", "comparison.pdf", "summary.pdf"}
    assert "figure: results/studies/tiny/transience/curves.pdf" in said
    assert clone.would_run() == {}


def test_another_caption_of_the_report_runs_nothing(clone):
    caption = clone.folder / "workflow/report/curves.rst"
    caption.write_text(caption.read_text() + "\nMore.\n")
    assert clone.would_run() == {}


@pytest.mark.parametrize(
    "module", ["training/loop.py", "training/segments.py", "sequences/draw.py", "store/hdf5.py", "banks/gaussian.py"]
)
def test_library_code_of_banks_and_training_runs_nothing(module, clone):
    """Two-day runs follow SEMANTICS in specs/identity.py alone."""
    assert clone.would_run(**clone.change_library(module, "\nimport ", "\nUNUSED = 1\nimport ")) == {}


def test_a_raised_semantics_number_trains_again(clone):
    library = clone.change_library("specs/identity.py", '"training": 1', '"training": 999')
    assert clone.would_run(**library) == {"train": 4, "evaluate": 4, "declare": 2, "tables": 2, "figures": 2}


def test_results_that_were_moved_run_nothing(clone, tmp_path):
    elsewhere = tmp_path / "else where"
    (clone.folder / "results").rename(elsewhere)
    assert clone.would_run(config=(f"results={elsewhere}",)) == {}


def test_without_snakemakes_records_nothing_runs_but_what_is_new(clone):
    shutil.rmtree(clone.folder / ".snakemake")
    assert clone.would_run() == {}
    clone.change("seeds: [0, 1]", "seeds: [0, 1, 2]")
    assert clone.would_run() == {"train": 4, "evaluate": 4, "declare": 2, "tables": 2, "figures": 2}


def test_results_copied_into_a_fresh_clone_with_their_times_run_nothing(clone, tmp_path):
    fresh = Clone.make(tmp_path / "fresh", clone.study.read_text())
    shutil.copytree(clone.folder / "results", fresh.folder / "results", dirs_exist_ok=True)
    assert fresh.would_run() == {}
    fresh.change("[0, 1.0e-3]", "[0, 1.0e-3, 1.0e-2]")
    assert fresh.would_run() == {"train": 2, "evaluate": 2, "declare": 1, "tables": 1, "figures": 1}


def test_results_copied_without_their_times_train_nothing_and_touch_declares_them_current(clone, tmp_path):
    fresh = Clone.make(tmp_path / "fresh", clone.study.read_text())
    shutil.copytree(clone.folder / "results", fresh.folder / "results", copy_function=shutil.copyfile)
    # As if copied in the worst order: what comes first in the flow of data is newest.
    for path in fresh.folder.glob("results/packs/**/*.h5"):
        os.utime(path, (time.time() - 60,) * 2)
    assert fresh.would_run()["train"] == 4
    fresh.build("--touch")
    assert fresh.would_run() == {}
    checksums = trained(fresh)
    assert checksums == trained(clone)


def trained(clone: Clone) -> dict[str, str]:
    """Every segment and metrics file -> the checksum of its content."""
    folder = clone.folder / "results/packs"
    return {str(path.relative_to(folder)): hdf5.read_attribute(path, "checksum") for path in folder.glob("*/*.h5")}


def test_a_seed_added_when_the_bank_is_gone_trains_its_lanes_alone(clone):
    """Snakemake runs every job downstream of a bank that it has to make; the finished ones find their files kept."""
    before = trained(clone)
    clone.path("banks/*.h5").unlink()
    assert clone.would_run() == {}
    clone.change("seeds: [0, 1]", "seeds: [0, 1, 2]")
    would = {"bank": 1, "card": 1, "sequences": 1, "train": 8, "evaluate": 8, "declare": 2, "tables": 2, "figures": 2}
    assert clone.would_run() == would
    clone.build()
    after = trained(clone)
    assert len(after) == len(before) + 8
    assert {name: after[name] for name in before} == before
    for pack in {name.split("/")[0] for name in before}:
        logs = [log.read_text() for log in clone.folder.glob(f"results/logs/packs/{pack}/*.log")]
        assert [("finished before" in text, "answered before" in text) for text in logs if "before" not in text] == []
    assert clone.would_run() == {}


@pytest.mark.parametrize("execution", ["packing=shape", "lanes_per_pack=1", "segment_sequences=512"])
def test_execution_changed_midway_shapes_new_packs_alone(execution, clone):
    clone.change("seeds: [0, 1]", "seeds: [0, 1, 2]")
    segments = 2 if execution != "segment_sequences=512" else 4
    packs = 2 if execution != "packing=shape" else 1
    new = segments * packs
    assert clone.would_run(config=(execution,)) == {
        "train": new,
        "evaluate": new,
        "declare": 2,
        "tables": 2,
        "figures": 2,
    }


def test_a_new_study_that_shares_lanes_trains_none_of_them(clone):
    (clone.folder / "workflow/studies/other.yaml").write_text(clone.study.read_text())
    assert clone.would_run(config=("study=other",)) == {"declare": 2, "tables": 2, "figures": 2}


def test_circuits_measure_what_is_there_and_train_and_evaluate_nothing(clone):
    clone.change("seeds: [0, 1]", "seeds: [0, 1]\n  circuits: {measures: [induction]}")
    # Two packs of two segments; a job a segment, and of each of two experiments the tables, of curves too.
    made = {"circuits": 4, "declare": 2, "tables": 2, "circuits_tables": 2, "figures": 2}
    assert clone.would_run() == made | {"circuits_figures_transience": 1, "circuits_figures_l2": 1}
