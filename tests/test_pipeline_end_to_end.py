"""The pipeline as its user drives it: real Snakemake, every stage, from an empty results folder."""

import re
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from pipeline import TINY, Clone

from icl_transience.engines import select
from icl_transience.evaluation import evaluate
from icl_transience.specs import compute
from icl_transience.specs.evaluators import METRICS

OMNIGLOT = """
defaults:
  bank: {source: omniglot, omniglot: {characters: 20, holdout_characters: 4, dim: 16}}
  model: {width: 16, heads: 2}
  snapshots: {first: 256, every: 512}
  evaluation: {sequences: 64}
  horizon: 1024
  seeds: [0]
experiments:
  transience: {}
"""


@pytest.fixture
def built(finished_tiny) -> tuple[Clone, str]:
    return finished_tiny


def test_a_run_says_last_what_it_found_and_where_the_figure_is(built):
    _, output = built
    assert "transience, baseline: icl (in context accuracy, chance 0.5)" in output
    assert "of 2 seeds" in output
    assert "figure: results/studies/tiny/transience/curves.svg" in output


def test_every_experiment_has_its_tables_and_figures(built):
    clone, _ = built
    folder = clone.folder / "results/studies/tiny"
    tables = {"curves.csv", "transience.csv", "runs.csv", "SHA256SUMS", "experiment.json"}
    assert {path.name for path in (folder / "transience").glob("[!.]*")} == tables | {
        f"{name}.{kind}" for name in ("curves", "plane") for kind in ("svg", "png")
    }
    assert {path.name for path in (folder / "l2").glob("[!.]*")} == tables | {
        f"{name}.{kind}" for name in ("curves", "comparison", "summary", "plane") for kind in ("svg", "png")
    }


def test_curves_are_tidy_and_whole(built):
    clone, _ = built
    curves = pd.read_csv(clone.path("studies/tiny/l2/curves.csv"))
    assert list(curves.columns) == [
        "run",
        "seed",
        "optimizer.l2.strength",
        "sequences_seen",
        "evaluator",
        "metric",
        "value",
        "standard_error",
    ]
    snapshots = [0, 256, 384, 512, 736, 1024, 1536, 2048]
    metrics = curves[curves["evaluator"] != "training"]
    assert sorted(metrics["sequences_seen"].unique()) == snapshots
    assert set(metrics["evaluator"]) == {"train", "icl", "iwl", "ciwl", "flip", "icl_holdout", "icl_new_exemplar"}
    # 2 runs x 2 seeds x 8 snapshots x 7 evaluators x 8 metrics
    assert len(metrics) == 2 * 2 * len(snapshots) * 7 * len(METRICS)
    assert metrics["value"].notna().all()


def test_what_the_tables_say_is_what_the_snapshots_answer(built):
    """The last snapshot, read from HDF5 and evaluated here, gives the numbers in curves.csv."""
    import torch

    from icl_transience.specs.runs import PackSpec, Seed

    clone, _ = built
    curves = pd.read_csv(clone.path("studies/tiny/transience/curves.csv"))
    for segment in clone.folder.glob("results/packs/*/segment-000000001024-000000002048.h5"):
        with h5py.File(segment) as file:
            pack = PackSpec.from_json(file.attrs["spec"])
            group = file["snapshots/parameters"]
            parameters = {name: torch.from_numpy(group[name][-1]) for name in group}
            assert file["snapshots/sequences_seen"][-1] == 2048
        if pack.run.optimizer.l2.strength:
            continue
        with h5py.File(clone.path("sequences/*.h5")) as file:
            examples = torch.from_numpy(file["icl/examples"][()])
            labels = torch.from_numpy(file["icl/labels"][()]).long()
        forward = select.forward_for(pack.run, torch.device("cpu"), compute.EVALUATION_BATCH)
        values = evaluate.evaluate(parameters, forward, examples, labels)[..., 0]
        assert [lane.seed for lane in pack.lanes] == [Seed(init=n, data=n) for n in (0, 1)]
        for place, seed in enumerate((0, 1)):
            rows = curves.query(f"seed == {seed} and sequences_seen == 2048 and evaluator == 'icl'")
            written = rows.set_index("metric")["value"].loc[list(METRICS)].to_numpy()
            # The table is written with seven digits; the model's float32 carries as many.
            np.testing.assert_allclose(written, values[place].numpy(), rtol=1e-5, atol=1e-6)
        return
    pytest.fail("no segment of the baseline was found")


def test_the_same_study_in_another_place_gives_the_same_tables(built, tmp_path):
    clone, _ = built
    other = Clone.make(tmp_path / "other")
    # Other segments, other packs: neither may show in a number.
    other.build("transience", config=("segment_sequences=512", "lanes_per_pack=1"))
    for name in ("curves.csv", "transience.csv", "runs.csv"):
        first, second = (pd.read_csv(c.path(f"studies/tiny/transience/{name}")) for c in (clone, other))
        # A batched matrix product of two lanes may round otherwise than one of a single lane: float32 has 7 digits,
        # 64 steps lose some.
        pd.testing.assert_frame_equal(first, second, rtol=1e-3, atol=2e-3)


def test_an_experiments_name_is_a_target(tmp_path):
    clone = Clone.make(tmp_path / "clone")
    assert clone.would_run("transience") == {
        "bank": 1,
        "sequences": 1,
        "train": 2,
        "evaluate": 2,
        "declare": 1,
        "tables": 1,
        "figures": 1,
    }


def test_an_optional_experiment_without_its_files_is_left_out_and_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("ICL_TOKENS", raising=False)
    clone = Clone.make(tmp_path / "clone", TINY + "  words: {optional: true, bank: {source: tokens}}\n")
    done = clone.snakemake("-n")
    assert done.returncode == 0
    assert (done.stdout + done.stderr).count("experiment words is left out") == 1
    refused = clone.snakemake("-n", "words")
    assert refused.returncode != 0
    assert "bank source `tokens` reads files" in refused.stdout + refused.stderr


def test_a_figure_is_a_target(tmp_path):
    clone = Clone.make(tmp_path / "clone")
    assert clone.would_run("results/studies/tiny/transience/curves.svg")["figures"] == 1


def test_a_run_can_be_exported_and_is_not_made_again(built, tmp_path):
    clone = built[0].copy(tmp_path / "clone")
    target = "results/exports/tiny/baseline.h5"
    assert clone.would_run(target) == {"export": 1}
    clone.build(target, config=("export_sequences=100",))
    with h5py.File(clone.path("exports/tiny/baseline.h5")) as file:
        assert len(file) == 8
        assert file["train_sequences/examples"].shape == (100, 9, 4)
        assert file["icl/labels"].shape == (64, 9)
    with h5py.File(clone.path("exports/tiny/baseline.bank.h5")) as file:
        assert file["embeddings"].shape == (50, 5, 4)
    assert clone.would_run(target, config=("export_sequences=100",)) == {}
    assert clone.would_run(target, config=("export_sequences=200",)) == {"export": 1}


def test_a_part_of_the_results_can_be_built_alone(tmp_path):
    clone = Clone.make(tmp_path / "clone")
    clone.build("--until", "bank")
    assert clone.path("banks/*.h5").stat().st_size
    assert not list(clone.folder.glob("results/packs/*/segment-*"))


def test_a_dry_run_writes_nothing(tmp_path):
    clone = Clone.make(tmp_path / "clone")
    clone.would_run()
    assert not (clone.folder / "results").exists()


def test_a_bad_study_stops_before_any_job_and_without_a_traceback(tmp_path):
    clone = Clone.make(tmp_path / "clone", TINY.replace("heads: 2", "heads: 3"))
    done = clone.snakemake()
    assert done.returncode != 0
    assert "`model.heads` is 3, which does not divide `model.width` 16" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (clone.folder / "results").exists()


def test_real_drawings_go_through_the_whole_pipeline(tmp_path, omniglot_folder):
    clone = Clone.make(tmp_path / "clone", OMNIGLOT)
    clone.build(ICL_OMNIGLOT=str(omniglot_folder))
    runs = pd.read_csv(clone.path("studies/tiny/transience/runs.csv"))
    assert runs["seeds"].tolist() == [1]
    with h5py.File(clone.path("banks/*.h5")) as file:
        assert file["embeddings"].shape == (24 * 8, 20, 16)
        assert file.attrs["n_train_classes"] == 160
    # In a shell where the folder is not named nothing is made or downloaded again.
    assert clone.would_run(ICL_OMNIGLOT="") == {}
    assert clone.would_run("-R", "tables", ICL_OMNIGLOT="") == {"tables": 1, "figures": 1}
    assert "download" in clone.would_run("-R", "bank", ICL_OMNIGLOT="")


def test_a_folder_named_after_a_download_makes_nothing_again(tmp_path, omniglot_folder):
    clone = Clone.make(tmp_path / "clone", OMNIGLOT)
    sources = clone.folder / "results/sources"
    sources.mkdir(parents=True)
    for name in ("images_background_small1.zip", "images_background_small2.zip"):
        shutil.copy(omniglot_folder / name, sources)
    clone.build(ICL_OMNIGLOT="")
    assert clone.would_run(ICL_OMNIGLOT=str(omniglot_folder)) == {}
    shutil.rmtree(sources)
    for folder in ("", str(omniglot_folder)):
        assert clone.would_run(ICL_OMNIGLOT=folder) == {}


SOURCES = """
defaults:
  model: {width: 16, heads: 2}
  evaluation: {sequences: 16, evaluators: [train, icl]}
  recipe: {context: 4, burstiness: 1}
  snapshots: {first: 32, every: 32}
  horizon: 64
  seeds: [0]
experiments:
  sources:
    runs:
      onehot: {bank: {source: onehot, onehot: {classes: 20, holdout_classes: 2}}}
      tokens: {bank: {source: tokens, tokens: {clusters: 20, classes: 6, exemplars: 5, holdout_classes: 1, dim: 8}}}
      imported:
        bank:
          source: imported
          imported: {classes: 10, holdout_classes: 2, exemplars: 4, dim: 8, scale: raw}
      trained:
        bank:
          source: omniglot
          omniglot: {characters: 3, holdout_characters: 1, encoder: trained, side: 12, dim: 8, trained: {epochs: 1}}
"""


def test_every_source_becomes_a_bank_with_a_card_and_is_trained_on(tmp_path, omniglot_folder):
    generator = np.random.default_rng(0)
    clone = Clone.make(tmp_path / "clone", SOURCES)
    # Folders that a shell, and Snakemake where it fills in wildcards, would read otherwise. Of tokens without braces,
    # which no input may have: the vocabulary is one.
    odd = '"mine" it\'s $HOME #1 ä'
    folder, drawings = tmp_path / f"files {odd}", tmp_path / f"drawings {{of}} {odd}"
    folder.mkdir()
    drawings.symlink_to(omniglot_folder)
    rows = generator.standard_normal((20, 1, 12)) + 0.1 * generator.standard_normal((20, 30, 12))
    safetensors.numpy.save_file({"wte.weight": rows.reshape(600, 12).astype(np.float32)}, folder / "m.safetensors")
    # In Latin-1, and with an end before the table's: a card stops nothing.
    (folder / "vocab.txt").write_bytes("\n".join(f"wörd{row}" for row in range(500)).encode("latin-1"))
    with h5py.File(folder / "embeddings.h5", "w") as file:
        file["embeddings"] = generator.standard_normal((12, 8, 8))
    env = {"ICL_TOKENS": str(folder), "ICL_IMPORTED": str(folder), "ICL_OMNIGLOT": str(drawings)}
    assert "train" not in clone.build("cards", **env)
    banks = sorted(path.stem for path in clone.folder.glob("results/banks/*.h5"))
    assert [name.split("-")[0] for name in banks] == ["imported", "omniglot", "onehot", "tokens"]
    for name in banks:
        for kind in ("svg", "png"):
            assert clone.path(f"banks/{name}.{kind}").stat().st_size > 10_000
    assert "line 1 is not UTF-8" in clone.path("logs/banks/tokens-*-card.log").read_text()
    with h5py.File(clone.path("encoders/*.h5")) as file:
        assert 0 <= file.attrs["training_accuracy"] <= 1
    clone.build(**env)
    curves = pd.read_csv(clone.path("studies/tiny/sources/curves.csv"))
    assert set(curves["run"]) == {"onehot", "tokens", "imported", "trained"}
    assert clone.snakemake("-n", **env).stdout.count("Nothing to be done") == 1
    # Another place of the same files is no reason to make anything again.
    (tmp_path / "elsewhere").symlink_to(folder)
    moved = env | {"ICL_TOKENS": str(tmp_path / "elsewhere"), "ICL_IMPORTED": str(tmp_path / "elsewhere")}
    assert "bank " not in clone.snakemake("-n", **moved).stdout.replace("banks ", "")


def test_without_the_zips_they_would_be_downloaded(tmp_path):
    clone = Clone.make(tmp_path / "clone", OMNIGLOT)
    output = clone.snakemake("-n", ICL_OMNIGLOT="").stdout
    counts = dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))
    assert (counts["download"], counts["bank"]) == ("2", "1")
    assert not list(clone.folder.glob("results/sources/*"))
