"""From configuration to files."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import TINY

from icl_transience.planning import describe
from icl_transience.planning.plan import Plan, study_files
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import from_values
from icl_transience.specs.model import Positions
from icl_transience.specs.recipes import Relabelling
from icl_transience.specs.runs import Export
from icl_transience.system import memory

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tiny(tmp_path) -> Plan:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    config = {"study": str(path), "results": str(tmp_path / "results"), "lanes_per_pack": 8, "segment_sequences": 1024}
    return Plan(config, ROOT)


def test_a_chain_of_segments_reaches_the_horizon(tiny):
    for pack_id, pack in tiny.packs.items():
        assert pack.boundaries == (0, 1024, 2048)
        assert tiny.targets.previous_segment(pack_id, 0) is None
        previous = tiny.targets.previous_segment(pack_id, 1024)
        assert previous.endswith(f"packs/{pack_id}/segment-000000000000-000000001024.h5")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_a_segments_measurements_ask_for_fits_a_node_together(tmp_path, device):
    """On a GPU they wait for each other, unless a cluster is asked for it by `gres`."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("horizon: 2048", "horizon: 2048\n  circuits: {evaluators: [icl]}"))
    plan = Plan({"study": str(path), "results": str(tmp_path), "memory": 5000, "device": device}, ROOT)
    pack_id, pack = next(iter(plan.packs.items()))
    ends = pack.boundaries[:2]
    (circuits,) = plan.circuits.ids(grafts=False)
    (evaluated,) = plan.sets
    for attempt in (1, 9):
        found = [
            plan.jobs.evaluate(pack_id, evaluated, *ends).mem_mb(attempt),
            plan.jobs.circuits(pack_id, circuits, *ends).mem_mb(attempt),
        ]
        assert sum(found) <= 5000
    assert sum(found) > 4990


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text(TINY)
    plan = Plan({"study": "~/mine.yaml", "results": "~/kept/"}, ROOT)
    assert plan.study_path == tmp_path / "mine.yaml"
    assert plan.paths.root == f"{tmp_path}/kept"


def test_an_experiment_reads_the_metrics_of_all_its_segments(tiny):
    assert len(tiny.targets.metrics("transience")) == 2
    assert len(tiny.targets.metrics("l2")) == 4
    assert set(tiny.targets.metrics("transience")) < set(tiny.targets.metrics("l2"))


def test_what_a_job_gets_says_everything_about_its_pack(tiny):
    (first, *_) = tiny.packs.values()
    document = json.loads(first.spec.json)
    assert [lane["data"] for lane in document["lanes"]] == [0, 1]
    (run,) = document["runs"].values()
    assert run["optimizer"]["learning_rate"] == 0.001
    assert "seeds" not in run
    assert "horizon" not in run


def test_a_longer_study_asks_for_memory_in_proportion(tiny):
    (pack_id, *_) = tiny.packs
    assert 600 <= tiny.jobs.train(pack_id, 0, 1024).megabytes < 700
    assert tiny.jobs.train(pack_id, 0, 1024).gpu == 0


def test_a_run_is_exported_under_its_own_name_and_under_its_experiments(tiny):
    assert list(tiny.targets.exports) == [
        "baseline",
        "l2.strength=0",
        "l2.strength=0.001",
        "transience-baseline",
        "l2-l2.strength=0",
        "l2-l2.strength=0.001",
    ]
    export = tiny.targets.exports["l2-l2.strength=0.001"]
    assert export.run.optimizer.l2.strength == 0.001
    assert (export.seed.data, export.training_sequences) == (0, 10_000)
    assert from_values(Export, json.loads(export.json)) == export


def test_a_name_that_several_runs_bear_needs_its_experiment(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(
        "experiments: {deep: {model: {depth: 3}}, shallow: {model: {depth: 1}}, again: {model: {depth: 1}}}"
    )
    exports = Plan({"study": str(path), "results": str(tmp_path / "results")}, ROOT).targets.exports
    assert list(exports) == ["deep-baseline", "shallow-baseline", "again-baseline"]
    assert exports["shallow-baseline"] == exports["again-baseline"] != exports["deep-baseline"]


def test_a_figure_says_how_its_runs_sequences_are_composed():
    shipped = Plan({"study": "recipes"}, ROOT).study.experiments
    captions = {
        f"{experiment.name}/{named.name}": "; ".join(describe.describe(named))
        for experiment in shipped.values()
        for named in experiment.runs
    }
    assert "context 8, burstiness 3;" in captions["zipf/uniform"]
    assert "context 8, 0.9 of: burstiness 3; 0.1 of: no support;" in captions["mixture/unsupported.share=0.1"]
    assert "Zipf α = 1 (identity ranks)" in captions["zipf/in_order"]
    assert "burstiness 1, no distractor" in captions["distractor/recipe.distractor=False,recipe.burstiness=1"]
    assert "exemplars match with p = 0.5" in captions["exemplars/some_match"]
    assert "different exemplars" in captions["exemplars/all_differ"]
    assert "classes independent, different exemplars, free items apart" in captions["exemplars/as_chan"]
    assert "burstiness 4, labels relabelled" in captions["strategies/icl_only"]
    assert "no support, labels copied" in captions["strategies/ciwl_only"]
    assert "label noise 0.1" in captions["noise/labels"]
    assert "input noise σ = 0.3" in captions["noise/exemplars"]
    assert "a pool of 2,000 sequences" in captions["pool/recipe.pool=2000"]
    assert "50 labels" in captions["polysemy/thirty_two_a_label"]
    (named,) = shipped["pool"].runs[:1]
    for relabelling, expected in (
        (Relabelling(labels=5, holdout_share=0.2), "relabelling with pairs of 5 labels, 2 of 10 held out"),
        (Relabelling(labels=3), "relabelling with pairs of 3 labels;"),
        (Relabelling(), None),
    ):
        run = replace(named.run, recipe=replace(named.run.recipe, relabelling=relabelling))
        text = "; ".join(describe.describe(replace(named, run=run))) + ";"
        assert expected in text if expected else "relabelling" not in text


def test_a_figure_says_how_its_runs_train():
    shipped = Plan({"study": "training"}, ROOT).study.experiments
    captions = {
        f"{experiment.name}/{named.name}": "; ".join(describe.describe(named))
        for experiment in shipped.values()
        for named in experiment.runs
    }
    assert "Adam 0.002, batch 32; no L2" in captions["update_rules/adam"]
    assert captions["update_rules/adam"].endswith("no L2")
    assert "AdamW 0.002, weight decay 0.1, gradients clipped at 1" in captions["update_rules/adamw"]
    assert "SGD 0.05, momentum 0.9" in captions["update_rules/sgd"]
    assert "warm-up 4,000, then √(warm-up/n)" in captions["schedules/as_published"]
    assert "warm-up 1,000, cosine to × 0.1 at 24,000" in captions["schedules/cosine"]
    assert "λ = 0.0001 (mlp)" in captions["l2_by_component/mlp_alone"]
    assert "λ = 0.0001 (embedder), 0.0001 (attention)" in captions["l2_by_component/all_but_mlp"]
    assert "positions learned" in captions["positions/positions.kind=learned"]
    plain = shipped["dropout"].runs[0]
    model = replace(plain.run.model, positions=Positions(layout="halves"), attention_bias=True)
    as_chan = replace(plain, run=replace(plain.run, model=model))
    assert "positions: sines, then cosines, biases in attention;" in "; ".join(describe.describe(as_chan))
    assert "dropout 0.1" in captions["dropout/model.dropout=0.1"]
    assert "from 16,000 sequences on: Adam 0.002, L2 λ·Σθ² (squared), λ = 0.0001" in captions["interventions/l2_late"]
    assert captions["interventions/icl_only_late"].endswith("on: context 8, burstiness 4, labels relabelled")
    assert captions["forgetting/always"].endswith("; label embeddings drawn anew every 8,000 sequences")
    anew = "; label embeddings and the unembedding drawn anew every 8,000 sequences until 16,000"
    assert captions["forgetting/for_a_time"].endswith(anew)


@pytest.mark.parametrize(
    ("settings", "device", "problem"),
    [
        ("model: {dropout: 0.1}", "cpu", "native has no dropout"),
        ("forgetting: {every: 100}", "cuda", "graph knows no learning-rate schedules, interventions or forgetting"),
    ],
)
def test_an_engine_that_cannot_train_a_run_is_refused_before_anything_runs(settings, device, problem, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"experiments: {{a: {{{settings}}}}}")
    config = {"study": str(path), "results": str(tmp_path / "results"), "device": device}
    with pytest.raises(StudyError, match=rf"config: engine: {problem}: choose auto or eager \(a: baseline\)"):
        Plan(config | {"engine": problem.split()[0]}, ROOT)
    assert Plan(config | {"engine": "auto"}, ROOT).packs


@pytest.mark.parametrize(
    "settings", ["recipe: {pool: 4194304}", "interventions: {x: {at: 9, recipe: {pool: 4194304}}}"]
)
def test_a_pool_takes_memory(settings, tiny, tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(f"experiments: {{a: {{{settings}}}}}")
    pooled = Plan({"study": str(path), "results": str(tmp_path / "results"), "lanes_per_pack": 8}, ROOT)
    (pack_id, *_) = pooled.packs
    # Three lanes of 32 MB, and some 800 MB while an order is made.
    assert 1400 < pooled.jobs.train(pack_id, 0, 1024).megabytes < 1800


def test_words_on_a_figure_do_not_make_its_tables_again(tiny):
    assert "come and go" in tiny.records.experiment_text("transience", figures=True)
    assert "come and go" not in tiny.records.experiment_text("transience", figures=False)
    assert "initial weights" not in tiny.records.experiment_text("transience", figures=False)


def test_no_tag_begins_in_what_snakemake_puts_into_a_page(tmp_path):
    question = "</script><script>alert(1)</script> a < b"
    (tmp_path / "tiny.yaml").write_text(TINY.replace("does it come and go?", question))
    report = Plan({"study": str(tmp_path / "tiny.yaml")}, ROOT).records.experiment_text("transience", figures=True)
    assert "<" not in report
    assert json.loads(report)["question"] == question


def test_claims_are_judged_once_a_study_from_the_experiments_that_make_any(tiny, tmp_path):
    assert (tiny.records.claims_text(), tiny.targets.judged_tables(), tiny.targets.verdicts()) == ("[]", [], [])
    claim = "{text: so, kind: threshold, of: peak, direction: above, value: 1}"
    path = tmp_path / "claiming.yaml"
    path.write_text(TINY.replace('it come and go?"', f'it come and go?", claims: {{c: {claim}}}'))
    config = {"study": str(path), "results": str(tmp_path / "results"), "lanes_per_pack": 8, "segment_sequences": 1024}
    claiming = Plan(config, ROOT)
    folder = f"{tmp_path}/results/studies/claiming"
    assert claiming.targets.judged_tables() == [
        f"{folder}/transience/{name}" for name in ("transience.csv", "SHA256SUMS")
    ]
    *of_claims, declared = claiming.targets.verdicts()
    assert of_claims == [f"{folder}/{name}" for name in ("verdicts.csv", "evidence.csv", "SHA256SUMS")]
    assert declared.startswith(f"{folder}/.declared-")
    assert claiming.targets.evidence() == [f"{folder}/evidence.svg", f"{folder}/evidence.png"]
    assert tiny.targets.evidence() == []
    assert {*claiming.targets.verdicts(), *claiming.targets.evidence()} < set(claiming.targets.all())
    (only,) = json.loads(claiming.records.claims_text())
    assert (only["experiment"], only["runs"], only["alpha"]) == ("transience", ["baseline"], 0.05)
    # Claims of an experiment that is left out are in the table too, if they are all that there is; what is missing on
    # this machine is not.
    words = f"  words: {{optional: true, bank: {{source: tokens}}, claims: {{c: {claim}}}}}\n"
    path.write_text(TINY + words)
    left_out = Plan(config | {"tokens": str(tmp_path / "nowhere")}, ROOT)
    assert left_out.targets.judged_tables() == []
    assert left_out.targets.verdicts()[:3] == of_claims
    assert left_out.targets.verdicts()[3] != declared
    (only,) = json.loads(left_out.records.claims_text())
    assert (only["experiment"], only["left_out"]) == ("words", True)
    assert str(tmp_path) not in left_out.records.claims_text()
    # Neither tables nor figures read them.
    for figures in (False, True):
        assert claiming.records.experiment_text("transience", figures=figures) == tiny.records.experiment_text(
            "transience", figures=figures
        ).replace('"study":"tiny"', '"study":"claiming"')


def test_figures_say_the_initialisation_its_scale_and_the_form_of_l2(tiny):
    captions = [" ".join(describe.describe(run)) for run in tiny.study.experiments["l2"].runs]
    assert all("initial weights uniform ±1/√fan-in (PyTorch's default) × 1" in caption for caption in captions)
    assert "no L2" in captions[0]
    assert "L2 λ·Σθ² (squared), λ = 0.001" in captions[1]


# Memory.


def bank_plan(folder: Path, bank: str, **config) -> Plan:
    path = folder / "bank.yaml"
    path.write_text(f"experiments: {{a: {{bank: {bank}, evaluation: {{evaluators: [icl]}}}}}}")
    return Plan({"study": str(path), "results": str(folder / "results")} | config, ROOT)


LARGE = "{source: manifold, manifold: {classes: 20_000, exemplars: 100, holdout_exemplars: 0, dim: 256}}"


def test_a_bank_that_does_not_fit_is_refused_before_anything_runs_with_what_it_takes(tmp_path):
    with pytest.raises(StudyError) as error:
        bank_plan(tmp_path, LARGE, memory=4000)
    message = str(error.value)
    assert "20,100 classes x 100 exemplars x 256 coordinates: making it takes about" in message
    assert "training on it takes about" in message
    assert "a job may take 4,000 MB" in message
    # 20,100 x 100 x 256 numbers are 2 GB as they are and seven times that on the way.
    needed = int(re.search(r"making it takes about ([\d,]+) MB", message)[1].replace(",", ""))
    assert 14_000 < needed < 17_000
    assert bank_plan(tmp_path, LARGE, memory=needed).banks


def test_without_a_limit_it_is_the_machines_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "for_jobs", lambda: 500)
    with pytest.raises(StudyError, match="a job may take 500 MB"):
        bank_plan(tmp_path, LARGE)
    monkeypatch.setattr(memory, "for_jobs", lambda: 100_000)
    assert bank_plan(tmp_path, LARGE).banks


MEASURED = {
    "manifold": "{source: manifold, manifold: {classes: 3000, holdout_classes: 0, exemplars: 20, dim: 256}}",
    "gaussian": "{source: gaussian, gaussian: {classes: 3000, holdout_classes: 0, exemplars: 20, dim: 256}}",
    "pixels": "{source: omniglot, omniglot: {characters: 200, encoder: pixels, side: 28, dim: 784}}",
    "pca": "{source: omniglot, omniglot: {characters: 200, side: 28}}",
}


@pytest.mark.parametrize("bank", MEASURED.values(), ids=MEASURED)
def test_a_bank_takes_no_more_memory_than_is_said_and_not_far_less(tmp_path, monkeypatch, omniglot_folder, bank):
    monkeypatch.setenv("ICL_OMNIGLOT", str(omniglot_folder))
    planned = bank_plan(tmp_path, bank)
    ((bank_id, spec),) = planned.banks.items()
    arguments = ["bank", "--spec", spec.json, "--files", json.dumps(planned.sources.of_bank(bank_id))]
    arguments += ["--output", str(tmp_path / "bank.h5")]
    code = (
        "import re, sys; from icl_transience.__main__ import main; assert main(sys.argv[1:]) == 0;"
        # Of this program alone: ru_maxrss begins at what the process that started it takes.
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) // 1024)"
    )
    # One thread, as Snakemake gives it.
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=env)
    said = planned.jobs.bank(bank_id).megabytes
    assert 0.35 * said < int(done.stdout) <= said


def test_what_editors_and_file_managers_put_beside_studies_is_no_study(tmp_path):
    folder = tmp_path / "workflow/studies"
    folder.mkdir(parents=True)
    for name in ("mine.yaml", "._mine.yaml", "#mine.yaml#", "#mine.yaml", ".mine.yaml.swp", "mine.yaml~", "~mine.yaml"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    # As Emacs marks a file that it edits: a link to nothing.
    (folder / ".#mine.yaml").symlink_to("user@host.7")
    assert study_files(tmp_path) == [folder / "mine.yaml"]
    with pytest.raises(StudyError, match=r"\(there are mine; a path"):
        Plan({"study": "other"}, tmp_path)
