"""The papers' study at their scale: what can be said of it without a GPU, Omniglot's large zips or LLaMA.

Every shape of model and bank trains one short segment and answers, on Gaussian classes in the place of its drawings or
tokens.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders import lane

from icl_transience import banks, evaluation, segments
from icl_transience.model import parameter_shapes
from icl_transience.packs import PackSpec
from icl_transience.plan import Plan
from icl_transience.spec import BankSpec, Gaussian, Snapshots
from icl_transience.study import NamedRun

ROOT = Path(__file__).parents[1]
LLAMA = {"llama-7b": 4096, "llama-13b": 5120, "llama-30b": 6656, "llama-65b": 8192}
CONFIG = {"study": "paper", "segment_sequences": 64_000_000}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """Checkpoints that say they hold LLaMA's tables; what they hold is a hole in the file, which nobody reads."""
    folder = tmp_path_factory.mktemp("llama")
    for name, width in LLAMA.items():
        size = 32_000 * width
        tensor = {"dtype": "F8_E4M3", "shape": [32_000, width], "data_offsets": [0, size]}
        header = json.dumps({"model.embed_tokens.weight": tensor})
        (folder / name).mkdir()
        with (folder / name / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header.encode())
            file.truncate(8 + len(header) + size)
    return folder


@pytest.fixture(scope="module")
def plan(llama, tmp_path_factory) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ICL_OMNIGLOT", raising=False)
        # Where digests of large files are remembered.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        results = str(tmp_path_factory.mktemp("paper") / "results")
        return Plan(CONFIG | {"results": results, "tokens": str(llama), "memory": 64_000}, ROOT)


def shapes(plan: Plan) -> Iterator[tuple[str, NamedRun]]:
    """One run of each shape of model, bank and sequence."""
    seen = set()
    for experiment in plan.study.experiments.values():
        for named in experiment.runs:
            run = named.run
            shape = run.bank.shape, run.model.depth, run.model.width, run.model.mlp_ratio, run.recipe, run.optimizer.l2
            if shape not in seen:
                seen.add(shape)
                yield f"{experiment.name}, {named.name}", named


def test_it_has_every_experiment_whatever_is_at_hand(plan):
    assert not plan.study.left_out
    assert len(plan.study.experiments) == 18
    with_drawings = [name for name in plan.study.experiments if not name.startswith("tokens")]
    without = Plan(CONFIG | {"results": plan.results, "memory": 64_000}, ROOT)
    assert list(without.study.experiments) == with_drawings
    assert list(without.study.left_out) == ["tokens_7b", "tokens_13b", "tokens_30b", "tokens_65b"]


def test_the_model_has_as_many_parameters_as_the_papers(plan):
    (baseline,) = plan.study.experiments["transience"].runs
    shapes = parameter_shapes(baseline.run.model, baseline.run.bank.shape.width, baseline.run.n_labels)
    assert sum(map(math.prod, shapes.values())) == 836_096


def test_enough_seeds_decide_every_claim(plan):
    """The smallest p that a test can give, corrected for all claims of the study."""
    claims = [(claim, experiment) for experiment in plan.study.experiments.values() for claim in experiment.claims]
    for claim, experiment in claims:
        orders = math.factorial(len(claim.runs)) if claim.kind == "trend" else 2
        least = 2 / orders ** len(experiment.seeds)
        assert least * len(claims) <= experiment.claims_alpha, (experiment.name, claim.name)


def test_every_shape_trains_and_answers(plan, tmp_path):
    for number, (name, named) in enumerate(shapes(plan)):
        shape = named.run.bank.shape
        stand_in = BankSpec(
            source="gaussian",
            seed=0,
            gaussian=Gaussian(
                classes=shape.n_train_classes,
                holdout_classes=shape.n_classes - shape.n_train_classes,
                exemplars=shape.n_train_exemplars,
                holdout_exemplars=shape.n_exemplars - shape.n_train_exemplars,
                dim=shape.width,
                noise=0.5,
            ),
        )
        run = replace(named.run, bank=stand_in, snapshots=Snapshots(first=64, per_doubling=1, every=64))
        pack = PackSpec(lanes=(lane(run, seed=0),))
        answered = replace(named.sequence_set, bank=stand_in, sequences=8)
        bank = banks.build(stand_in, [])
        segment, frozen, metrics = (tmp_path / f"{number}-{kind}.h5" for kind in ("segment", "frozen", "metrics"))
        segments.run_segment(segment, pack, bank.embeddings, None, 0, 64)
        evaluation.write_sequences(frozen, answered, bank.embeddings)
        evaluation.write_metrics(metrics, pack, segment, answered, frozen, "cpu", "auto")
        with h5py.File(segment) as file, h5py.File(metrics) as of_metrics:
            assert np.isfinite(file["train_loss/value"][()]).all(), name
            assert set(answered.evaluators) <= set(of_metrics), name
        for path in (segment, frozen, metrics):
            path.unlink()
