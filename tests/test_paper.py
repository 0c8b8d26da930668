"""The claims of the papers: at their scale, and scaled down for two cores.

Of the former, what can be said without a GPU, Omniglot's large zips or LLaMA: every shape of model and bank trains one
short segment and answers, on made-up numbers in the place of drawings or tokens.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy
from builders import lane
from pipeline import Clone

from icl_transience.analysis.eprocess import e_value
from icl_transience.evaluation import evaluate
from icl_transience.planning.plan import Plan
from icl_transience.results import cost
from icl_transience.sequences.frozen import write_sequences
from icl_transience.specs.banks import BankSpec, Gaussian
from icl_transience.specs.compute import training_flop
from icl_transience.specs.model import parameter_shapes
from icl_transience.specs.runs import Lane, PackSpec
from icl_transience.specs.training import Snapshots
from icl_transience.study import load
from icl_transience.study.experiments import NamedRun, Study
from icl_transience.training import segments

ROOT = Path(__file__).parents[1]
LLAMA = {"llama-7b": 4096, "llama-13b": 5120, "llama-30b": 6656, "llama-65b": 8192}
CONFIG = {"study": "paper", "segment_sequences": 64_000_000}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """Checkpoints that say they hold LLaMA's tables; what they hold is a hole in the file, which nobody reads."""
    folder = tmp_path_factory.mktemp("llama")
    for name, width in LLAMA.items():
        size = 2 * 32_000 * width
        tensor = {"dtype": "F16", "shape": [32_000, width], "data_offsets": [0, size]}
        header = json.dumps({"model.embed_tokens.weight": tensor})
        (folder / name).mkdir()
        with (folder / name / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header.encode())
            file.truncate(8 + len(header) + size)
    return folder


def scaled_down(name: str, folder: Path) -> Study:
    """A study that judges claims on two cores, on a table of tokens of the size that it was judged on."""
    table = np.zeros((30_522, 384), np.float16)
    safetensors.numpy.save_file({"word_embeddings.weight": table}, folder / "model.safetensors")
    return load.load(ROOT / f"workflow/studies/{name}.yaml", {"tokens": folder})


@pytest.fixture(scope="module")
def plan(llama, tmp_path_factory) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ICL_OMNIGLOT", raising=False)
        # Where digests of large files are remembered.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        results = str(tmp_path_factory.mktemp("paper") / "results")
        return Plan(CONFIG | {"results": results, "tokens": str(llama), "memory": 64_000}, ROOT)


def shapes(plan: Plan) -> dict[tuple, NamedRun]:
    """One run of each shape of bank, model and sequence."""
    runs = [named for experiment in plan.study.experiments.values() for named in experiment.runs]
    return {
        (named.run.bank.shape, replace(named.run.model, init=runs[0].run.model.init), named.run.recipe.context): named
        for named in runs
    }


def test_it_has_every_experiment_whatever_is_at_hand(plan, monkeypatch):
    for source in ("OMNIGLOT", "TOKENS"):
        monkeypatch.delenv(f"ICL_{source}", raising=False)
    assert not plan.study.left_out
    assert len(plan.study.experiments) == 20
    with_drawings = [name for name in plan.study.experiments if not name.startswith("tokens")]
    without = Plan(CONFIG | {"results": plan.paths.root, "memory": 64_000}, ROOT)
    assert list(without.study.experiments) == with_drawings
    assert list(without.study.left_out) == ["tokens_7b", "tokens_13b", "tokens_30b", "tokens_65b"]


def test_snakemake_plans_all_of_it(tmp_path, monkeypatch):
    for source in ("OMNIGLOT", "TOKENS"):
        monkeypatch.delenv(f"ICL_{source}", raising=False)
    clone = Clone.make(tmp_path / "clone")
    jobs = clone.would_run(config=("study=paper", "segment_sequences=64000000"))
    # Both zips and the weights of ResNet-18; a bank each for 1,600 x 20, x 10, x 5, for three other numbers of
    # characters and for the two layouts of 12,800 x 20; of images six, for three numbers of characters x 10 and x 20.
    assert (jobs["download"], jobs["bank"], jobs["train"]) == (3, 14, jobs["evaluate"])
    assert {"declare", "tables", "verdicts"} <= set(jobs)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_at_its_defaults_it_is_less_than_ten_thousand_segments_and_350_gigabytes(device, llama, tmp_path, monkeypatch):
    """Of the drawings; LLaMA's tables of tokens add a quarter of that, and fewer than ten thousand segments in all."""
    for source in ("OMNIGLOT", "TOKENS"):
        monkeypatch.delenv(f"ICL_{source}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = {"study": "paper", "results": str(tmp_path / "results"), "memory": 64_000, "device": device}
    for tokens, bytes_at_most in ((None, 0.35e12), (str(llama), 0.45e12)):
        planned = Plan(config | {"tokens": tokens}, ROOT)
        counted = cost.count(planned)
        assert counted.total.segments < bytes_at_most
        assert counted.jobs < 10_000
        assert all(len(one.boundaries) - 1 <= 24 for one in planned.packs.values())
        if device == "cpu":
            assert len(planned.packs) == counted.total.lanes
            continue
        # A pack a run, but where the lanes of one that encodes images take more than a GPU has.
        runs = {run.run.id: run.run for experiment in planned.study.experiments.values() for run in experiment.runs}
        on_embeddings = [run for run in runs.values() if not run.model.encodes_images]
        packs = [pack for pack in planned.packs.values() if not pack.spec.run.model.encodes_images]
        assert len(packs) == len(on_embeddings)
        assert len(runs) <= len(planned.packs) < counted.total.lanes


def test_the_model_has_as_many_parameters_as_the_papers(plan):
    (baseline,) = plan.study.experiments["transience"].runs
    shapes = parameter_shapes(baseline.run.model, baseline.run.bank.shape.width, baseline.run.n_labels)
    assert sum(map(math.prod, shapes.values())) == 836_096


def test_its_joint_runs_have_the_values_of_the_base_chan(plan, tmp_path, monkeypatch):
    monkeypatch.delenv("ICL_OMNIGLOT", raising=False)
    path = tmp_path / "mine.yaml"
    path.write_text("extends: chan\ndefaults: {snapshots: {per_doubling: 8, every: 16_000_000}}\nexperiments: {a: {}}")
    (alone,) = load.load(path, {}, ROOT / "workflow/studies/bases").experiments["a"].runs
    baseline, l2, l2_embedder = plan.study.experiments["joint"].runs
    assert baseline.run == alone.run
    assert baseline.sequence_set.replacement is False
    assert (l2.run.optimizer.l2.of("attention"), l2.run.optimizer.l2.of("encoder")) == (1e-4, 1e-4)
    assert (l2_embedder.run.optimizer.l2.of("attention"), l2_embedder.run.optimizer.l2.of("encoder")) == (0, 1e-4)


@pytest.mark.parametrize("name", ["paper", "claims", "claims_replicated"])
def test_enough_seeds_decide_every_claim(name, plan, tmp_path):
    """The smallest p that its seeds can give, corrected for all claims of the study."""
    loaded = plan.study if name == "paper" else scaled_down(name, tmp_path)
    claims = [(claim, experiment) for experiment in loaded.experiments.values() for claim in experiment.claims]
    for claim, experiment in claims:
        n_seeds = np.array(len(experiment.seeds))
        orders = math.factorial(len(claim.runs)) if claim.kind == "trend" else 2
        fixed, anytime = 2 / orders ** len(experiment.seeds), 1 / float(e_value(n_seeds, np.array(0)))
        least = fixed if experiment.evidence == "fixed" else anytime
        assert least * len(claims) <= experiment.claims_alpha, (experiment.name, claim.name)


def stand_in_of(bank: BankSpec) -> tuple[BankSpec, np.ndarray]:
    """A bank of equal sizes, and what it holds: Gaussian numbers; of images one drawing, which is each of them."""
    shape, random = bank.shape, np.random.default_rng(0)
    if bank.images:
        one = random.integers(0, 256, (bank.images.side, bank.images.side, bank.images.channels), dtype=np.uint8)
        stored = (shape.n_classes // bank.images.views, shape.n_exemplars, *one.shape)
        return bank, np.lib.stride_tricks.as_strided(one, stored, (0, 0, *one.strides))
    stand_in = BankSpec(
        seed=0,
        parameters=Gaussian(
            classes=shape.n_train_classes,
            holdout_classes=shape.n_classes - shape.n_train_classes,
            exemplars=shape.n_train_exemplars,
            holdout_exemplars=shape.n_exemplars - shape.n_train_exemplars,
            dim=shape.width,
            noise=0.5,
        ),
    )
    assert stand_in.shape == shape
    numbers = random.standard_normal(1 << 20, dtype=np.float32)
    return stand_in, np.resize(numbers, (shape.n_classes, shape.n_exemplars, shape.width))


def test_every_shape_trains_and_answers(plan, tmp_path):
    found = shapes(plan)
    assert len(found) == 28
    for shape, named in found.items():
        stand_in, embeddings = stand_in_of(named.run.bank)
        # An image of 105 x 105 takes a thousand times as long as an embedding.
        trained, asked = (4, 2) if stand_in.images else (64, 8)
        often = Snapshots(first=trained, per_doubling=1, every=trained)
        batch_size = min(trained, named.run.batch_size)
        run = replace(named.run, bank=stand_in, snapshots=often, batch_size=batch_size)
        pack = PackSpec(lanes=(lane(run, seed=0),))
        answered = replace(named.sequence_set, bank=stand_in, sequences=asked)
        segment, frozen, metrics = (tmp_path / f"{kind}.h5" for kind in ("segment", "frozen", "metrics"))
        segments.run_segment(segments.SegmentJob(segment, pack, embeddings, None, 0, trained))
        write_sequences(frozen, answered, embeddings)
        images = embeddings if stand_in.images else None
        evaluate.write_metrics(metrics, pack, segment, answered, frozen, bank=images)
        with h5py.File(segment) as file, h5py.File(metrics) as of_metrics:
            assert file["snapshots/sequences_seen"][()].tolist() == [0, trained], shape
            assert np.isfinite(file["train_loss/value"][()]).all(), shape
            for evaluator in answered.evaluators:
                assert np.isfinite(of_metrics[evaluator]["mean"][()]).all(), (shape, evaluator)


@pytest.mark.parametrize(("name", "rate", "most_hours"), [("claims", 60e9, 5), ("claims_replicated", 26e9, 1.5)])
def test_the_scaled_down_studies_keep_to_their_limits(name, rate, most_hours, tmp_path):
    """With twelve seeds, on two cores. rate: FLOP/s that a core reached on these models, evaluation included."""
    loaded = scaled_down(name, tmp_path)
    horizons: dict[Lane, int] = {}
    for experiment in loaded.experiments.values():
        assert experiment.claims, experiment.name
        assert experiment.evidence == "anytime", experiment.name
        seeds = [seed.init for seed in experiment.seeds]
        # Ascending and without a gap: no seed is left out for what it shows, and seeds that others were judged or tuned
        # on, and those of the search, are not used.
        assert seeds == list(range(13, 13 + len(seeds))), experiment.name
        assert max(seeds) < 33, experiment.name
        for one in experiment.lanes():
            if one.seed.init < 25:
                horizons[one] = max(horizons.get(one, 0), experiment.horizon)
    flop = sum(training_flop(one.run) * horizon for one, horizon in horizons.items())
    assert flop / rate / 2 <= most_hours * 3600


def test_the_studies_of_claims_judge_the_same_claims_at_the_same_thresholds(tmp_path):
    """But for that on tokens, which is about one bank."""
    judged, again = (
        {
            claim.name: [replace(part, runs=(), axis="", levels=()) for part in claim.parts]
            for name, experiment in scaled_down(study, tmp_path).experiments.items()
            for claim in experiment.claims
            if name != "tokens"
        }
        for study in ("claims", "claims_replicated")
    )
    assert judged == again
