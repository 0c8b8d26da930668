"""Every engine against the float64 reference: answers, gradients, a hundred steps; and what a missing compiler does.

How far roundings may move a result, engines/verify.py says and gives.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import TINY_BANK, changed, lane, pack, tiny_run

from icl_transience.banks import bank as banks_bank
from icl_transience.engines import lanes as lanes_module
from icl_transience.engines import select
from icl_transience.engines.answers import EagerForward, answers
from icl_transience.engines.eager import EagerStep, query_loss
from icl_transience.engines.interface import DTYPES
from icl_transience.engines.native import compiler
from icl_transience.engines.native.compiler import _FLAGS, library
from icl_transience.engines.native.engine import NativeStep
from icl_transience.engines.native.program import Program, Recording
from icl_transience.engines.state import State, initial_state
from icl_transience.engines.verify import UNIT, allowed, reference_gradients, relative_error
from icl_transience.model import transformer
from icl_transience.specs.compute import engine_problem
from icl_transience.specs.errors import StudyError
from icl_transience.specs.model import Model, Positions, parameter_shapes
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import PackSpec, Run
from icl_transience.specs.training import L2, Forgetting, Intervention, Schedule
from icl_transience.training import loop

BANK = torch.from_numpy(banks_bank.build(TINY_BANK).embeddings)
CPU = torch.device("cpu")

SHAPES = {
    "one block": {"model.depth": 1},
    "attention only": {"model.mlp_ratio": 0},
    "mlp": {"model.mlp_ratio": 4, "model.width": 16, "model.heads": 4},
    "deep": {"model.depth": 5, "model.width": 24, "model.heads": 3},
    "one head": {"model.heads": 1},
    "short context": {"recipe.context": 2},
    "long context": {"recipe.context": 16, "recipe.burstiness": 3},
    "learned positions": {"model.positions": Positions(kind="learned")},
    "no positions": {"model.positions": Positions(kind="none")},
    "sines, then cosines": {"model.positions": Positions(layout="halves")},
    "biases everywhere": {"model.attention_bias": True, "model.mlp_ratio": 4},
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
    shapes = parameter_shapes(run.model, shape.width, shape.n_train_classes, run.recipe.context)
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
    loss = query_loss(weights, run.model, geometry, exemplars.to(dtype), labels)
    return loss.detach(), dict(zip(weights, torch.autograd.grad(loss.sum(), list(weights.values())), strict=True))


def gradients_of_eager(run: Run, parameters, exemplars, labels):
    """(loss, gradients) of one lane, as EagerStep hands them to its optimizer."""
    spec = PackSpec(lanes=(lane(run),))
    state = initial_state(spec)
    for name, value in parameters.items():
        state.parameters[name].copy_(value)
    step = EagerStep(spec, state, BANK)
    step.optimizers = []
    loss = step.train_step(exemplars, labels, 0)
    return loss, lanes_module.select_lane(step.gradients, 0)


def gradients_of_native(run: Run, parameters, exemplars, labels):
    """(loss, gradients) of one lane by a program whose every buffer began as NaN."""
    shape = run.bank.shape
    sizes = shape.width, shape.n_train_classes, run.recipe.context, run.batch_size
    program = Program(run.model, *sizes, bfloat16=run.numerics == "bfloat16")
    weights = {name: value[0].clone() for name, value in parameters.items()}
    gradients = {name: torch.full_like(value, torch.nan) for name, value in weights.items()}
    loss = torch.full((1,), torch.nan)
    recording = Recording(program, weights, gradients, loss)
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


def moved_by_rounding(run: Run, parameters, exemplars, labels) -> dict[str, float]:
    """How far rounding all inputs once moves the loss ("loss") and each gradient, relative."""
    return reference_gradients(run, parameters, exemplars, labels, draws=8)[1]


@pytest.mark.parametrize(
    ("engine", "numerics"), [("eager", "float32"), ("native", "float32"), ("eager", "bfloat16"), ("native", "bfloat16")]
)
@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_those_of_the_reference_but_for_rounding(name, engine, numerics):
    run = shaped(name, numerics=numerics)
    given = fresh_parameters(run, 1), *fresh_batch(run, 1)
    expected_loss, expected = gradients_of_reference(run, *given)
    loss, gradients = {"eager": gradients_of_eager, "native": gradients_of_native}[engine](run, *given)
    errors = {which: relative_error(gradient, expected[which][0]) for which, gradient in gradients.items()}
    errors["loss"] = relative_error(loss, expected_loss)
    for which, moved in moved_by_rounding(run, *given).items():
        assert errors[which] < allowed(run.model, numerics) * moved, which
    # Products in bfloat16 err thousands of times more than in float32: these are what they say.
    assert (max(errors.values()) > 1e-3) == (numerics == "bfloat16")


def test_tf32_is_float32_on_a_cpu():
    run = shaped("mlp")
    parameters, batch = fresh_parameters(run, 1), fresh_batch(run, 1)
    for gradients_of in (gradients_of_eager, gradients_of_native):
        _, plain = gradients_of(run, parameters, *batch)
        _, rounded = gradients_of(changed(run, {"numerics": "tf32"}), parameters, *batch)
        assert all(torch.equal(plain[name], rounded[name]) for name in plain)


@pytest.mark.parametrize("name", SHAPES)
def test_native_answers_are_those_of_the_reference(name):
    # Of few answers one that is not clear would be more than a tenth.
    run = changed(shaped(name), {"batch_size": 64})
    parameters, (exemplars, labels) = fresh_parameters(run, 2), fresh_batch(run, 1)
    # One label stands outside every context; without any there is nothing to compare.
    labels[:, :, :-1] %= run.bank.shape.n_train_classes - 1
    native_forward = select.forward_for(run, CPU, run.batch_size + 3, "native")
    native_forward.load(parameters)
    found = native_forward(exemplars[0], labels[0])

    reference = EagerForward(run.model, run.recipe.context, "float64")
    double = {name: value.double() for name, value in parameters.items()}
    reference.load(double)
    logits = reference.logits(exemplars[0].double(), labels[0, :, :-1])
    reference.load(
        {name: value * (1 + UNIT["float32"] * (2 * torch.rand(value.shape) - 1)) for name, value in double.items()}
    )
    moved = relative_error(reference.logits(exemplars[0].double(), labels[0, :, :-1]), logits)
    may = allowed(run.model, "float32") * max(moved, UNIT["float32"])

    expected = answers(logits, labels[0])
    for part in ("context_logits", "max_other_logit", "logsumexp_other", "target_logit"):
        assert getattr(found, part).shape == getattr(expected, part).shape
        # A single logit may be near 0: the error is told by the size of all.
        error = (getattr(found, part) - getattr(expected, part)).norm() / logits.norm()
        assert error < may, part
    outside = logits.scatter(-1, labels[:, :, :-1].expand(2, -1, -1), -torch.inf)
    best_by_margin = outside.topk(2).values
    clear = best_by_margin[..., 0] - best_by_margin[..., 1] > 1e-4 * logits.abs().max()
    assert clear.float().mean() > 0.9
    assert torch.equal(found.max_other_label[clear], expected.max_other_label[clear])


def test_answers_to_shorter_contexts_have_the_first_learned_places():
    run = shaped("learned positions")
    parameters, (exemplars, labels) = fresh_parameters(run, 2), fresh_batch(changed(run, {"recipe.context": 2}), 1)
    found = []
    for engine in ("native", "eager"):
        forward = select.forward_for(run, CPU, run.batch_size, engine, 2)
        forward.load(parameters)
        found.append(forward(exemplars[0], labels[0]).context_logits)
    # Of rounding alone, as above.
    assert relative_error(found[0], found[1].double()) < 1e-4
    moved = parameters | {"positions": parameters["positions"] + torch.arange(9)[:, None].gt(4)}
    forward.load(moved)
    assert torch.equal(forward(exemplars[0], labels[0]).context_logits, found[1])


@pytest.mark.parametrize("context", [2, 6, 8])
def test_answers_to_other_contexts_are_those_of_a_run_with_that_context(context):
    run = shaped("mlp")
    longer = changed(run, {"recipe.context": context})
    parameters, (exemplars, labels) = fresh_parameters(run, 2), fresh_batch(longer, 1)
    reference = EagerForward(run.model, context, "float64")
    reference.load({name: value.double() for name, value in parameters.items()})
    logits = reference.logits(exemplars[0].double(), labels[0, :, :-1])
    expected = answers(logits, labels[0])
    for engine in ("native", "eager"):
        forward = select.forward_for(run, CPU, run.batch_size, engine, context)
        forward.load(parameters)
        found, trained_there = (
            forward(exemplars[0], labels[0]),
            select.forward_for(longer, CPU, run.batch_size, engine),
        )
        trained_there.load(parameters)
        for part in ("context_logits", "max_other_logit", "logsumexp_other", "target_logit"):
            assert torch.equal(getattr(found, part), getattr(trained_there(exemplars[0], labels[0]), part)), part
            # Of rounding alone; that the native engine rounds as little as it may is tested above.
            error = (getattr(found, part) - getattr(expected, part)).norm() / logits.norm()
            assert error < 1e-4, part


def test_native_noise_is_that_of_the_reference_to_the_last_bit():
    """What is in the program's buffer when a batch has been answered is the batch of the eager step."""
    runs = [tiny_run(**{"recipe.input_noise": sigma, "batch_size": 5}) for sigma in (0.0, 0.5, 2.0)]
    # And one whose noise begins with an intervention.
    later = Intervention(at=40, recipe=runs[1].recipe, optimizer=runs[1].optimizer)
    spec = pack(*runs, changed(runs[0], {"interventions": (later,)}))
    for number in range(4):
        lane_alone = PackSpec(lanes=(spec.lanes[number],))
        state = initial_state(lane_alone)
        native_step = NativeStep(lane_alone, state, BANK)
        eager_step = EagerStep(lane_alone, initial_state(lane_alone), BANK)
        filled = []
        for _ in native_step.losses(20, 60):
            items = native_step.program.exemplars.view(-1, native_step.program.columns, 6)
            filled.append(items[:, :5].transpose(0, 1).clone())
        expected = [eager_step.exemplars(batch)[0] for batch in lanes_module.batches(lane_alone, BANK, 20, 60)]
        assert len(filled) == len(expected) == 8
        assert all(torch.equal(one, other) for one, other in zip(filled, expected, strict=True))


def test_answers_where_the_context_has_every_label():
    run = shaped("long context")
    labels = torch.arange(17).expand(run.batch_size, -1) % run.bank.shape.n_train_classes
    (exemplars, _) = fresh_batch(run, 1)
    for forward in (select.forward_for(run, CPU, 4, engine) for engine in ("native", "eager")):
        forward.load(fresh_parameters(run, 1))
        found = forward(exemplars[0], labels)
        assert (found.logsumexp_other == -torch.inf).all()
        assert found.context_logits.isfinite().all()


def test_sharp_attention_and_saturated_gates_are_right_too():
    """Scores here reach far below what float32's exponential can tell from 0.

    Where one weight is nearly 1, what is left of 1 - weight has few digits, in eager float32 as here: allow four times.
    """
    run = shaped("paper", **{"model.depth": 2})
    parameters, batch = fresh_parameters(run, 1), fresh_batch(run, 1)
    for which in ("blocks.0.attention.qkv", "blocks.1.attention.qkv", "blocks.0.mlp.in.weight"):
        parameters[which] *= 12
    expected_loss, expected = gradients_of_reference(run, parameters, *batch)
    loss, gradients = gradients_of_native(run, parameters, *batch)
    moved, four_times = moved_by_rounding(run, parameters, *batch), 4 * allowed(run.model, "float32")
    assert relative_error(loss, expected_loss) < four_times * moved["loss"]
    for which, gradient in gradients.items():
        assert relative_error(gradient, expected[which][0]) < four_times * moved[which], which


def trained(spec: PackSpec, until: int, engine: str) -> tuple[State, torch.Tensor]:
    state = initial_state(spec)
    embeddings = BANK.to(DTYPES[spec.run.numerics])
    losses = loop.train(spec, state, embeddings, until, lambda state: None, engine=engine)
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
    assert_strays_no_further_than_eager(shaped(name, **changes))


def assert_strays_no_further_than_eager(run: Run) -> None:
    until = 128 * run.batch_size
    exact, exact_losses = trained(PackSpec(lanes=(lane(changed(run, {"numerics": "float64"})),)), until, "eager")
    strayed = {}
    for engine in ("eager", "native"):
        state, losses = trained(PackSpec(lanes=(lane(run),)), until, engine)
        weights = torch.cat([state.parameters[which].flatten() for which in exact.parameters])
        expected = torch.cat([value.flatten() for value in exact.parameters.values()])
        strayed[engine] = relative_error(weights, expected), relative_error(losses, exact_losses)
    for of_native, of_eager in zip(strayed["native"], strayed["eager"], strict=True):
        assert of_native < 4 * of_eager + allowed(run.model, "float32") * UNIT["float32"]


LATER = tiny_run(**{"recipe.burstiness": 2, "recipe.labels": "relabelled", "optimizer.l2.strength": 0.01})
EVENTFUL = {
    "l2 by component": {"optimizer.l2": L2(strength=0.01, mlp=0.0, attention=0.03, norm=0.02)},
    "unsquared l2 by component": {"optimizer.l2": L2(form="unsquared", unembedding=0.02, attention=0.01)},
    "clip": {"optimizer.clip": 0.5, "optimizer.l2.mlp": 0.01},
    "adamw": {"optimizer.name": "adamw", "optimizer.weight_decay": 0.1, "optimizer.schedule": Schedule(warmup=99)},
    "sgd": {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.learning_rate": 0.02},
    "cosine": {"optimizer.schedule": Schedule(kind="cosine", warmup=50, length=301)},
    "intervention": {"interventions": (Intervention(at=90, recipe=LATER.recipe, optimizer=LATER.optimizer),)},
    "forgetting": {"forgetting": Forgetting(every=100)},
    "forgetting the unembedding, too": {"forgetting": Forgetting(every=100, unembedding=True)},
    "learned positions": {"model.positions.kind": "learned"},
}


@pytest.mark.parametrize("changes", EVENTFUL.values(), ids=EVENTFUL)
def test_native_steps_of_every_kind_stray_from_the_reference_no_further_than_eager_ones(changes):
    assert_strays_no_further_than_eager(tiny_run(**changes))


def test_a_native_lane_is_the_same_alone_and_packed_to_the_last_bit():
    runs = [
        tiny_run(),
        tiny_run(**{"optimizer.learning_rate": 3e-3}),
        tiny_run(**{"optimizer.l2.strength": 0.02, "optimizer.l2.form": "unsquared", "model.init.scale": 0.5}),
        tiny_run(**{"recipe.input_noise": 0.5, "recipe.pool": 30, "recipe.zipf.alpha": 1.0}),
        *(run for changes in EVENTFUL.values() if (run := tiny_run(**changes)).tensor_shape == tiny_run().tensor_shape),
    ]
    assert len(runs) == 11
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
    assert select.chosen("auto", tiny_run(), CPU) == "native"
    assert select.chosen("auto", tiny_run(numerics="float64"), CPU) == "eager"
    assert select.chosen("auto", tiny_run(), torch.device("cuda")) != "native"
    assert select.chosen("eager", tiny_run(), CPU) == "eager"
    for changes in EVENTFUL.values():
        assert select.chosen("auto", tiny_run(**changes), CPU) == "native"


@pytest.mark.parametrize(
    ("engine", "device", "changes", "reason"),
    [
        ("native", "cpu", {"numerics": "float64"}, "does not compute in float64"),
        ("native", "cpu", {"model.dropout": 0.1}, "has no dropout"),
        ("native", "cpu", {"model.positions.kind": "rotary"}, "has no rotary positions"),
        ("graph", "cuda", {"recipe.input_noise": 0.1}, "draws no input noise"),
        ("graph", "cuda", {"model.dropout": 0.1}, "has no dropout"),
        *(
            ("graph", "cuda", EVENTFUL[name], "knows no learning-rate schedules, interventions or forgetting")
            for name in ("cosine", "adamw", "intervention", "forgetting")
        ),
    ],
)
def test_what_an_engine_cannot_do_is_refused_by_name_and_left_to_eager_otherwise(engine, device, changes, reason):
    run = tiny_run(**changes)
    with pytest.raises(StudyError, match=f"^engine: {engine} {reason}: choose auto or eager$"):
        select.chosen(engine, run, torch.device(device))
    assert select.chosen("auto", run, torch.device(device)) == "eager"


def test_an_engine_that_was_named_and_does_not_work_is_refused():
    with pytest.raises(StudyError, match="native does not compute in float64: choose auto or eager"):
        select.chosen("native", tiny_run(numerics="float64"), CPU)
    with pytest.raises(StudyError, match="graph is for device cuda, got device 'cpu'"):
        select.chosen("graph", tiny_run(), CPU)
    with pytest.raises(StudyError, match=r"expected one of auto, native, triton, graph, eager, got 'fast'"):
        select.chosen("fast", tiny_run(), CPU)


def test_an_engine_is_refused_whichever_of_a_packs_lanes_it_cannot_train(monkeypatch):
    monkeypatch.setattr(select, "chosen", lambda engine, *_: engine)
    monkeypatch.setattr(select, "engine_problem", lambda engine, device, run: engine_problem(engine, "cuda", run))
    for name in ("cosine", "forgetting"):
        lanes = pack(tiny_run(), tiny_run(**EVENTFUL[name]))
        with pytest.raises(StudyError, match="graph knows no learning-rate schedules"):
            select.step_for(lanes, initial_state(lanes), BANK, "graph")


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ICL_CACHE", str(tmp_path))
    library.cache_clear()
    yield tmp_path
    library.cache_clear()


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_working_compiler_training_is_eager_and_says_so(compiler, fresh_cache, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(RuntimeWarning, match="slower"):
        assert select.chosen("auto", tiny_run(), CPU) == "eager"
    with pytest.raises(StudyError, match=r"engine: native does not work here: .*compile.*: choose"):
        select.chosen("native", tiny_run(), CPU)
    assert not list(fresh_cache.iterdir())


def test_where_kernels_cannot_be_kept_training_is_eager_and_says_so(fresh_cache, monkeypatch):
    (fresh_cache / "file").touch()
    monkeypatch.setenv("ICL_CACHE", str(fresh_cache / "file" / "below"))
    with pytest.warns(RuntimeWarning, match="could not be compiled or kept: .*ICL_CACHE names another folder"):
        assert select.chosen("auto", tiny_run(), CPU) == "eager"


def test_an_empty_kernel_is_compiled_again(fresh_cache, monkeypatch):
    library(tiny_run().model, 4)
    (compiled,) = fresh_cache.iterdir()
    # As a machine leaves it that loses power. Elsewhere, since what is loaded is found again by its path.
    empty = fresh_cache / "elsewhere" / compiled.name
    empty.parent.mkdir()
    empty.touch()
    monkeypatch.setenv("ICL_CACHE", str(empty.parent))
    library.cache_clear()
    library(tiny_run().model, 4)
    assert empty.stat().st_size == compiled.stat().st_size


def test_the_compiler_may_come_with_options(fresh_cache, monkeypatch):
    monkeypatch.setenv("CXX", "c++ -g0")
    library(tiny_run().model, 4)
    assert len(list(fresh_cache.iterdir())) == 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction sets are x86-64's")
@pytest.mark.parametrize("instructions", ["x86-64", "x86-64-v3"])
def test_kernels_for_processors_with_shorter_vectors_are_right_too(instructions, fresh_cache, monkeypatch):
    flags = (flag if "march" not in flag else f"-march={instructions}" for flag in _FLAGS)
    monkeypatch.setattr(compiler, "_FLAGS", tuple(flags))
    test_gradients_are_those_of_the_reference_but_for_rounding("paper", "native", "float32")
    test_native_answers_are_those_of_the_reference("paper")


def test_kernels_are_compiled_once_a_shape(fresh_cache, monkeypatch):
    library(tiny_run().model, 4)
    (compiled,) = fresh_cache.iterdir()
    made = compiled.stat().st_mtime_ns
    library(tiny_run(**{"model.depth": 7, "model.mlp_ratio": 1}).model, 4)
    library.cache_clear()
    library(tiny_run().model, 4)
    assert [path.stat().st_mtime_ns for path in fresh_cache.iterdir()] == [made]
    library(tiny_run().model, 5)
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
    banks_bank.save(banks_bank.build(TINY_BANK), bank, TINY_BANK)
    output = tmp_path / "segment.h5"
    arguments = ["train", "--spec", pack().json, "--bank", str(bank), "--from", "0", "--to", "64"]
    command = [sys.executable, "-c", ALONE, *arguments, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert output.is_file()


def test_a_compiler_that_was_killed_is_no_reason_to_train_on_another_engine(fresh_cache, tmp_path, monkeypatch):
    """A queue's SIGTERM reaches the compiler too; the next call would go on from the eager engine's bits."""
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo 1 && exit\nkill -TERM $$\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(StudyError, match=r"was killed while it compiled .* run the same snakemake command again"):
        select.chosen("auto", tiny_run(), torch.device("cpu"))
