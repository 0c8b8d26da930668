"""Every engine against the float64 reference: answers, gradients, a hundred steps; and what a missing compiler does.

The unit u is float32's unit roundoff, 2^-24. A gradient is a chain of some 15 operations a block, forward and back,
that each round a result by at most u; a product over n terms adds up to sqrt(n) u, n <= 544, as roundings do not
conspire. So errors of a few u to some tens of u of the norm are rounding, and GRADIENT allows 64 u = 4e-6. A wrong or
missing term is no rounding: it is over 1e-3 of its array's gradient.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import TINY_BANK, changed, lane, pack, tiny_run

from icl_transience import banks, engines, native, training
from icl_transience import model as transformer
from icl_transience.packs import PackSpec
from icl_transience.spec import Model, Recipe, Run, StudyError

UNIT = 2.0**-24
GRADIENT = 64 * UNIT
BANK = torch.from_numpy(banks.build(TINY_BANK).embeddings)
CPU = torch.device("cpu")

SHAPES = {
    "one block": {"model.depth": 1},
    "attention only": {"model.mlp_ratio": 0},
    "mlp": {"model.mlp_ratio": 4, "model.width": 16, "model.heads": 4},
    "deep": {"model.depth": 5, "model.width": 24, "model.heads": 3},
    "one head": {"model.heads": 1},
    "short context": {"recipe.context": 2},
    "long context": {"recipe.context": 16, "recipe.burstiness": 3},
    "a batch of 1": {"batch_size": 1},
    "a batch of whole vectors": {"batch_size": 32},
    "a batch of more": {"batch_size": 33},
    "paper": {
        "model": Model(depth=3, width=64, heads=8, mlp_ratio=4),
        "recipe": Recipe(context=8, burstiness=3),
        "batch_size": 32,
    },
}


@pytest.fixture(autouse=True)
def fresh_random_input():
    """Other numbers every time; pytest shows the seed of a test that fails."""
    print("torch.manual_seed", torch.seed())


def shaped(name: str, **changes) -> Run:
    return changed(tiny_run(), SHAPES[name] | changes)


def fresh_parameters(run: Run, lanes: int) -> transformer.Parameters:
    """Random everywhere, norms and biases too, so that no gradient is 0 by the values it meets."""
    shape = run.bank.shape
    shapes = transformer.parameter_shapes(run.model, shape.width, shape.n_train_classes)
    return {
        name: name.endswith(".scale") + torch.randn(lanes, *size) / (size[0] if len(size) > 1 else 4) ** 0.5
        for name, size in shapes.items()
    }


def fresh_batch(run: Run, lanes: int) -> tuple[torch.Tensor, torch.Tensor]:
    context, shape = run.recipe.context, run.bank.shape
    exemplars = torch.randn(lanes, run.batch_size, context + 1, shape.width)
    return exemplars, torch.randint(shape.n_train_classes, (lanes, run.batch_size, context + 1))


def gradients_of_reference(run: Run, parameters, exemplars, labels, dtype=torch.float64):
    """(loss [S], gradients) by autograd."""
    weights = {name: value.to(dtype).requires_grad_() for name, value in parameters.items()}
    geometry = transformer.Geometry(run.model, run.recipe.context, dtype)
    loss = engines.query_loss(weights, run.model, geometry, exemplars.to(dtype), labels)
    return loss.detach(), dict(zip(weights, torch.autograd.grad(loss.sum(), list(weights.values())), strict=True))


def gradients_of_native(run: Run, parameters, exemplars, labels):
    """(loss, gradients) of one lane by a program whose every buffer began as NaN."""
    shape = run.bank.shape
    program = native.Program(run.model, shape.width, shape.n_train_classes, run.recipe.context, run.batch_size)
    weights = {name: value[0].clone() for name, value in parameters.items()}
    gradients = {name: torch.full_like(value, torch.nan) for name, value in weights.items()}
    loss = torch.full((1,), torch.nan)
    recording = program.record(weights, gradients, loss)
    for buffer in [*program._buffers.values(), program.logits]:
        buffer.fill_(torch.nan)
    # Columns past the batch must not count, whatever finite numbers they hold.
    program.exemplars.normal_()
    program.exemplars.view(-1, program.columns, shape.width)[:, : run.batch_size] = exemplars[0].transpose(0, 1)
    program.labels[:, : run.batch_size] = labels[0, :, :-1].T
    program.targets[: run.batch_size] = labels[0, :, -1]
    for call in recording.forward + recording.backward:
        call()
    return loss, gradients


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", SHAPES)
def test_native_gradients_are_those_of_the_reference(name):
    run = shaped(name)
    parameters, (exemplars, labels) = fresh_parameters(run, 1), fresh_batch(run, 1)
    expected_loss, expected = gradients_of_reference(run, parameters, exemplars, labels)
    loss, gradients = gradients_of_native(run, parameters, exemplars, labels)
    assert relative_error(loss, expected_loss) < GRADIENT
    for which, gradient in gradients.items():
        assert relative_error(gradient, expected[which][0]) < GRADIENT, which


@pytest.mark.parametrize("name", SHAPES)
def test_native_answers_are_those_of_the_reference(name):
    run = shaped(name)
    parameters, (exemplars, labels) = fresh_parameters(run, 2), fresh_batch(run, 1)
    shared = exemplars[0], labels[0, :, :-1]
    found = engines.forward_for(run, CPU, run.batch_size + 3, "native")(parameters, *shared)
    reference = engines.eager_forward(run.model, run.recipe.context, torch.float64)
    expected = reference({name: value.double() for name, value in parameters.items()}, shared[0].double(), shared[1])
    assert found.shape == expected.shape == (2, run.batch_size, run.bank.shape.n_train_classes)
    assert relative_error(found, expected) < GRADIENT


@pytest.mark.parametrize("context", [2, 8, 17])
def test_native_answers_to_other_contexts_are_those_of_the_reference(context):
    run = shaped("mlp")
    batch = fresh_batch(changed(run, {"recipe.context": context}), 1)
    parameters, shared = fresh_parameters(run, 2), (batch[0][0], batch[1][0, :, :-1])
    found = engines.forward_for(run, CPU, run.batch_size, "native", context)(parameters, *shared)
    reference = engines.eager_forward(run.model, context, torch.float64)
    expected = reference({name: value.double() for name, value in parameters.items()}, shared[0].double(), shared[1])
    assert relative_error(found, expected) < GRADIENT
    eager = engines.forward_for(run, CPU, run.batch_size, "eager", context)(parameters, *shared)
    assert relative_error(eager, expected) < GRADIENT


def test_native_noise_is_that_of_the_reference_to_the_last_bit():
    """What is in the program's buffer when a batch has been answered is the batch of the eager step."""
    spec = pack(*(tiny_run(**{"recipe.input_noise": sigma, "batch_size": 5}) for sigma in (0.0, 0.5, 2.0)))
    for number in range(3):
        lane_alone = PackSpec(lanes=(spec.lanes[number],))
        state = training.initial_state(lane_alone)
        native_step = engines.NativeStep(lane_alone, state, BANK)
        eager_step = engines.EagerStep(lane_alone, training.initial_state(lane_alone), BANK)
        filled = []
        for _ in native_step.losses(20, 60):
            items = native_step.program.exemplars.view(-1, native_step.program.columns, 6)
            filled.append(items[:, :5].transpose(0, 1).clone())
        expected = [exemplars[0] for exemplars, _ in eager_step.batches(20, 60)]
        assert len(filled) == len(expected) == 8
        assert all(torch.equal(one, other) for one, other in zip(filled, expected, strict=True))


def test_the_kernels_exponential_is_one_over_the_whole_range():
    """Weights of attention and gates of GELU come from it; scores here reach far below float32's smallest number."""
    run = shaped("paper", **{"model.depth": 2})
    parameters, (exemplars, labels) = fresh_parameters(run, 1), fresh_batch(run, 1)
    for which in ("blocks.0.attention.qkv", "blocks.1.attention.qkv", "blocks.0.mlp.in.weight"):
        parameters[which] *= 12
    expected_loss, expected = gradients_of_reference(run, parameters, exemplars, labels)
    loss, gradients = gradients_of_native(run, parameters, exemplars, labels)
    eager_loss, eager = gradients_of_reference(run, parameters, exemplars, labels, torch.float32)
    # Sharp attention magnifies roundings of the scores, by as much in eager float32.
    assert relative_error(loss, expected_loss) < 4 * relative_error(eager_loss, expected_loss) + GRADIENT
    for which, gradient in gradients.items():
        allowed = 4 * relative_error(eager[which], expected[which]) + GRADIENT
        assert relative_error(gradient, expected[which][0]) < allowed, which


def trained(spec: PackSpec, until: int, engine: str) -> tuple[training.State, torch.Tensor]:
    state = training.initial_state(spec)
    embeddings = BANK.to(engines.DTYPES[spec.run.numerics])
    losses = training.train(spec, state, embeddings, until, lambda state: None, engine=engine)
    return state, torch.stack(losses.values)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer.l2.strength": 1e-2},
        {"optimizer.l2.strength": 1e-2, "optimizer.l2.form": "unsquared"},
        {"recipe.input_noise": 0.5},
        {"recipe.labelling.labels": 6},
    ],
    ids=["plain", "squared", "unsquared", "input noise", "fewer labels"],
)
@pytest.mark.parametrize("name", ["attention only", "mlp", "paper"])
def test_a_hundred_native_steps_stray_from_the_reference_no_further_than_eager_ones(name, changes):
    """Training magnifies roundings (Adam's first steps are signs of gradients), by the run's own measure.

    Two ways of rounding in float32 stray by amounts of one size; four times allows for luck, a mistake does not.
    """
    run = shaped(name, **changes)
    until = 128 * run.batch_size
    exact, exact_losses = trained(PackSpec(lanes=(lane(changed(run, {"numerics": "float64"})),)), until, "eager")
    strayed = {}
    for engine in ("eager", "native"):
        state, losses = trained(PackSpec(lanes=(lane(run),)), until, engine)
        weights = torch.cat([state.parameters[which].flatten() for which in exact.parameters])
        expected = torch.cat([value.flatten() for value in exact.parameters.values()])
        strayed[engine] = relative_error(weights, expected), relative_error(losses, exact_losses)
    for of_native, of_eager in zip(strayed["native"], strayed["eager"], strict=True):
        assert of_native < 4 * of_eager + GRADIENT


def test_a_native_lane_is_the_same_alone_and_packed_to_the_last_bit():
    runs = [
        tiny_run(),
        tiny_run(**{"optimizer.learning_rate": 3e-3}),
        tiny_run(**{"optimizer.l2.strength": 0.02, "optimizer.l2.form": "unsquared", "model.init.scale": 0.5}),
        tiny_run(**{"recipe.input_noise": 0.5, "recipe.pool": 30, "recipe.zipf.alpha": 1.0}),
    ]
    together = pack(*runs)
    until = 100 * runs[0].batch_size
    packed, losses = trained(together, until, "native")
    for number, one in enumerate(together.lanes):
        alone, alone_losses = trained(PackSpec(lanes=(one,)), until, "native")
        for name, weight in alone.parameters.items():
            assert torch.equal(packed.parameters[name][number], weight[0]), (number, name)
        assert torch.equal(losses[:, number], alone_losses[:, 0])


def test_weights_that_are_not_numbers_give_a_loss_that_is_none():
    run = shaped("paper")
    for which in ("embedder.weight", "blocks.1.mlp.in.bias", "unembedding.weight"):
        parameters, (exemplars, labels) = fresh_parameters(run, 1), fresh_batch(run, 1)
        parameters[which].view(-1)[0] = torch.nan
        assert gradients_of_native(run, parameters, exemplars, labels)[0].isnan().all()


# Choosing an engine.


def test_auto_is_native_where_it_works_and_eager_elsewhere():
    assert engines.chosen("auto", tiny_run(), CPU) == "native"
    assert engines.chosen("auto", tiny_run(numerics="float64"), CPU) == "eager"
    assert engines.chosen("auto", tiny_run(), torch.device("cuda")) != "native"
    assert engines.chosen("eager", tiny_run(), CPU) == "eager"


def test_an_engine_that_was_named_and_does_not_work_is_refused():
    with pytest.raises(StudyError, match="numerics are float64: choose auto or eager"):
        engines.chosen("native", tiny_run(numerics="float64"), CPU)
    with pytest.raises(StudyError, match=r"expected one of auto, native, eager, got 'fast'"):
        engines.chosen("fast", tiny_run(), CPU)


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ICL_CACHE", str(tmp_path))
    native.library.cache_clear()
    yield tmp_path
    native.library.cache_clear()


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_working_compiler_training_is_eager_and_says_so(compiler, fresh_cache, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(RuntimeWarning, match="slower"):
        assert engines.chosen("auto", tiny_run(), CPU) == "eager"
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(StudyError, match=r"engine: native does not work here: .*compile.*: choose"),
    ):
        engines.chosen("native", tiny_run(), CPU)
    assert not list(fresh_cache.iterdir())


def test_kernels_are_compiled_once_a_shape(fresh_cache, monkeypatch):
    native.library(tiny_run().model, 4)
    (compiled,) = fresh_cache.iterdir()
    made = compiled.stat().st_mtime_ns
    native.library(tiny_run(**{"model.depth": 7, "model.mlp_ratio": 1}).model, 4)
    native.library.cache_clear()
    native.library(tiny_run().model, 4)
    assert [path.stat().st_mtime_ns for path in fresh_cache.iterdir()] == [made]
    native.library(tiny_run().model, 5)
    assert len(list(fresh_cache.iterdir())) == 2


# A training job needs torch, numpy and h5py alone.

ALONE = """
import importlib.abc, sys
others = {"jsonschema", "matplotlib", "pandas", "PIL", "pygments", "yaml", "scipy", "snakemake", "pip", "setuptools"}
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in others:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from icl_transience.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_training_job_imports_nothing_beyond_torch_numpy_and_h5py(tmp_path):
    bank = tmp_path / "bank.h5"
    banks.save(banks.build(TINY_BANK), bank, TINY_BANK)
    output = tmp_path / "segment.h5"
    arguments = ["train", "--spec", pack().to_json(), "--bank", str(bank), "--from", "0", "--to", "64"]
    command = [sys.executable, "-c", ALONE, *arguments, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert output.is_file()
