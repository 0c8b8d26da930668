"""An image encoder that trains together with the transformer: what it computes, how it trains, what it refuses."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import TINY_RUN, lane
from pipeline import ROOT

from icl_transience.access.forward import ForwardPass
from icl_transience.access.module import module_of
from icl_transience.circuits import measures
from icl_transience.circuits.network import Network
from icl_transience.engines import select, verify
from icl_transience.engines.native.resnet import NativeResNet
from icl_transience.engines.state import State, initial_state
from icl_transience.evaluation import evaluate
from icl_transience.evaluation.images import ImageExamples
from icl_transience.model import encoder
from icl_transience.planning.rates import Rates
from icl_transience.planning.resources import training_megabytes
from icl_transience.sequences import frozen
from icl_transience.sequences.views import gather
from icl_transience.specs.banks import BankSpec, Omniglot
from icl_transience.specs.compute import engine_problem, evaluation_flop, forward_flop, lane_bytes, n_parameters
from icl_transience.specs.encoder import ResNet, encoder_flop, encoder_shapes, statistic_shapes
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.identity import identity_values
from icl_transience.specs.model import COMPONENTS, Model, component, parameter_shapes, parameters_named
from icl_transience.specs.runs import PackSpec, Run
from icl_transience.specs.sources import ImageShape
from icl_transience.specs.training import L2, Freeze, Optimizer
from icl_transience.store import hdf5, segment_file
from icl_transience.study.checks import impossible
from icl_transience.training import segments

# Sizes that are all unlike, so that none is taken for another.
SMALL = ResNet(kernel=5, stem=12, channels=(8, 16), blocks=(1, 2), strides=(1, 2))
BANK = Omniglot(
    zips=("images_background_small1.zip",),
    characters=5,
    holdout_characters=1,
    exemplars=3,
    holdout_exemplars=1,
    side=11,
    encoder="none",
    dim=121,
)


def image_run(model: Model | None = None, **changes) -> Run:
    model = model or Model(depth=2, width=16, heads=2, mlp_ratio=1, embedder="resnet", resnet=SMALL)
    bank = BankSpec(seed=0, parameters=BANK)
    return replace(TINY_RUN, **{"bank": bank, "model": model} | changes)


def images_of(run: Run) -> torch.Tensor:
    """A bank's file, of noise."""
    shape, images = run.bank.shape, run.bank.images
    drawn = shape.n_classes // images.views, shape.n_exemplars, images.side, images.side, images.channels
    return torch.randint(256, drawn, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def pack_of(*runs: Run) -> PackSpec:
    return PackSpec(lanes=tuple(lane(run, seed) for seed, run in enumerate(runs)))


def trained(pack: PackSpec, batches: int, engine: str = "eager") -> tuple[State, torch.Tensor]:
    """The state after some batches, and the losses on the way, [batches, S]."""
    state = initial_state(pack)
    step = select.step_for(pack, state, images_of(pack.run), engine)
    return state, torch.stack(list(step.losses(0, batches * pack.run.batch_size)))


def peer():
    """The benchmark's file of plain PyTorch, whose ResNet is made of torch.nn's modules and knows nothing of ours."""
    spec = importlib.util.spec_from_file_location("peer", ROOT / "benchmarks/peers/plain_pytorch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded(resnet: ResNet, channels: int, parameters: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Torch's ResNet with our parameters, in float64, and where each of ours stands in it."""
    sizes = {
        name: getattr(resnet, name) for name in ("kernel", "stride", "stem", "pool", "channels", "blocks", "strides")
    }
    module = peer().ResNet(image_channels=channels, **sizes).double()
    for name, value in parameters.items():
        module.get_parameter(torchs(name)).data.copy_(value)
    return module


def torchs(name: str) -> str:
    """Torch's name of a parameter or running statistic."""
    name = name.removeprefix("embedder.")
    if name.startswith("stem"):
        name = name.replace("stem.norm", "bn").replace("stem.weight", "conv.weight")
    else:
        name = (
            name.replace("blocks.", "groups.")
            .replace("shortcut.norm", "shortcut.1")
            .replace("shortcut.w", "shortcut.0.w")
        )
        for number in "123":
            name = name.replace(f"conv{number}.norm", f"bn{number}")
    return name.replace(".scale", ".weight")


def drawn_parameters(resnet: ResNet, channels: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: name.endswith(".scale") + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in encoder_shapes(resnet, channels).items()
    }


SIZES = [
    pytest.param(ResNet(), 28, 1, id="paper"),
    pytest.param(SMALL, 11, 3, id="colour"),
    pytest.param(
        ResNet(stem=6, pool=1, stride=1, kernel=3, channels=(8,), blocks=(2,), strides=(3,)), 9, 1, id="no pool"
    ),
    pytest.param(ResNet(stem=5, pool=5, stride=3, channels=(16,), blocks=(1,), strides=(2,)), 25, 1, id="wide pool"),
]


@pytest.mark.parametrize(("resnet", "side", "channels"), SIZES)
def test_it_is_torch_nns_resnet_forward_backward_and_in_its_running_statistics(resnet, side, channels):
    parameters = drawn_parameters(resnet, channels)
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    module = loaded(resnet, channels, parameters)
    running = {name: value.double() for name, value in encoder.initial_statistics(resnet, channels).items()}
    generator = torch.Generator().manual_seed(2)
    for _ in range(2):
        images = torch.rand(7, side, side, channels, generator=generator, dtype=torch.float64)
        found, statistics = encoder.encode_lane(leaves, resnet, images, training=True)
        expected = module(images.permute(0, 3, 1, 2))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
        found.backward(weights)
        expected.backward(weights)
        for name, value in statistics.items():
            encoder.moved(running[name], value)
    for name, leaf in leaves.items():
        assert verify.relative_error(leaf.grad, module.get_parameter(torchs(name)).grad) < 1e-10, name
    for name, value in running.items():
        torch.testing.assert_close(value, module.get_buffer(torchs(name)), rtol=1e-10, atol=1e-12)
    found, statistics = encoder.encode_lane(parameters | running, resnet, images, training=False)
    torch.testing.assert_close(found, module.eval()(images.permute(0, 3, 1, 2)), rtol=1e-10, atol=1e-12)
    assert not statistics


@pytest.mark.parametrize(("resnet", "side", "channels"), SIZES)
def test_the_kernels_compute_what_the_model_says_of_images_that_a_batch_has_several_times(resnet, side, channels):
    generator = torch.Generator().manual_seed(3)
    parameters = drawn_parameters(resnet, channels)
    counts = torch.randint(1, 4, (37,), generator=generator)
    images = torch.rand(37, side, side, channels, generator=generator, dtype=torch.float64)
    copies = torch.arange(37).repeat_interleave(counts)
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    expected, statistics = encoder.encode_lane(leaves, resnet, images[copies], training=True)
    weights = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    expected.backward(weights)
    kernels = NativeResNet(resnet, ImageShape(side=side, channels=channels, views=1), 60, torch.float64)
    # Buffers hold what an earlier, larger batch left.
    kernels.forward(parameters, torch.rand(60, side, side, channels), torch.ones(60), training=True)
    found, moved = kernels.forward(parameters, images, counts, training=True)
    assert verify.relative_error(found[:, copies].T, expected.detach()) < 1e-11
    gradients = {name: torch.full_like(value, torch.nan) for name, value in parameters.items()}
    kernels.backward(weights.new_zeros(found.shape).index_add_(1, copies, weights.T), gradients)
    for name, leaf in leaves.items():
        assert verify.relative_error(gradients[name], leaf.grad) < 1e-11, name
    for name, value in statistics.items():
        assert verify.relative_error(moved[name], value) < 1e-11, name


def test_parameters_are_counted():
    images = ImageShape(side=105, channels=1, views=8)
    paper = Model(depth=12, width=64, heads=8, mlp_ratio=4, embedder="resnet")
    shapes = parameter_shapes(paper, images.width, 1600, 8, 1)
    count = sum(torch.Size(shape).numel() for name, shape in shapes.items() if component(name) == "encoder")
    torchs_own = sum(value.numel() for value in peer().ResNet().parameters())
    assert count == torchs_own == 22_176
    statistics = sum(torch.Size(shape).numel() for shape in statistic_shapes(ResNet(), 1).values())
    assert (
        statistics
        == sum(value.numel() for name, value in peer().ResNet().named_buffers() if "running" in name)
        == 1_280
    )
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 825_440


def test_flop_are_those_of_the_convolutions():
    module, counted = peer().ResNet(), []

    def count(one, _, output):
        counted.append(2 * output[0].numel() * one.weight[0].numel())

    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(count)
    for side in (28, 105):
        counted.clear()
        module(torch.rand(2, 1, side, side))
        assert encoder_flop(ResNet(), side, 1) == sum(counted)
    run = image_run()
    linear = replace(run, model=replace(run.model, embedder="linear"), bank=TINY_RUN.bank)
    of_linear = 2 * linear.bank.shape.width * linear.model.width + 2 * run.model.width * (
        linear.n_labels - run.n_labels
    ) / (run.recipe.context + 1)
    assert forward_flop(run) - forward_flop(linear) == (run.recipe.context + 1) * (
        encoder_flop(SMALL, 11, 1) - of_linear
    )


def test_initial_weights_are_those_of_the_paper():
    lecun = replace(image_run().model, init=replace(image_run().model.init, distribution="lecun_normal"))
    state = initial_state(pack_of(image_run(lecun)))
    for name, value in state.parameters.items():
        if name.endswith("conv3.norm.scale") or (component(name) == "encoder" and name.endswith(".bias")):
            assert not value.any(), name
        elif name.endswith(".norm.scale"):
            assert (value == 1).all(), name
    stem = state.parameters["embedder.stem.weight"]
    assert stem.std().item() == pytest.approx(1 / 5, rel=0.15)
    assert all((value == name.endswith("var")).all() for name, value in state.statistics.items())


# Training.


def test_native_training_follows_eager():
    pack = pack_of(image_run(), image_run())
    (eager, losses), (native, same) = (trained(pack, 12, engine) for engine in ("eager", "native"))
    # Roundings alone, and what rectifiers make of them; an encoder that stood still is off by more.
    torch.testing.assert_close(same, losses, rtol=0, atol=2e-4)
    for name, value in eager.statistics.items():
        torch.testing.assert_close(native.statistics[name], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("engine", ["eager", "native"])
def test_the_encoder_learns_with_the_transformer(engine):
    state, _ = trained(pack_of(image_run()), 3, engine)
    before = initial_state(pack_of(image_run()))
    for name, value in before.weights.items():
        assert not torch.equal(state.weights[name], value), name


def test_a_lane_learns_in_a_pack_what_it_learns_alone():
    runs = [image_run(numerics="float64"), image_run(numerics="float64", optimizer=Optimizer(learning_rate=0.01))]
    packed, _ = trained(pack_of(*runs), 4)
    for number, run in enumerate(runs):
        alone, _ = trained(PackSpec(lanes=(lane(run, number),)), 4)
        for name, value in alone.weights.items():
            torch.testing.assert_close(packed.weights[name][number], value[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("batch_size", [3, 16])
def test_a_lane_that_diverges_changes_no_bit_of_the_one_behind_it(batch_size):
    """At 3 the native engine's batch is padded to a whole vector; what stands there must not be the other's."""
    wild, tame = (
        image_run(batch_size=batch_size, optimizer=Optimizer(name="sgd", learning_rate=rate)) for rate in (1e30, 0.01)
    )
    packed, losses = trained(pack_of(wild, tame), 5, "native")
    assert not losses[:, 0].isfinite().all()
    alone, _ = trained(PackSpec(lanes=(lane(tame, 1),)), 5, "native")
    for name, value in alone.weights.items():
        assert torch.equal(packed.weights[name][1], value[0]), name


def test_no_convolution_takes_steps_over_single_pixels(monkeypatch):
    """Its backward pass writes outside its memory in PyTorch 2.13, channels last, with 3 to 6 channels."""
    steps, convolve = [], encoder.functional.conv2d

    def seen(x, weight, stride, padding):
        steps.append((weight.shape[-1], stride))
        return convolve(x, weight, stride=stride, padding=padding)

    monkeypatch.setattr(encoder.functional, "conv2d", seen)
    small = replace(SMALL, kernel=1, stride=2)
    model = Model(depth=2, width=16, heads=2, mlp_ratio=1, embedder="resnet", resnet=small)
    trained(pack_of(image_run(model)), 1)
    assert (3, 2) in steps
    assert not [kernel for kernel, stride in steps if kernel == 1 and stride > 1]


def test_a_gradient_that_is_nothing_but_rounding_refuses_no_engine():
    """All that is pooled is positive, as its bias is large, and the norm behind it takes out what the bias adds."""
    resnet = ResNet(kernel=7, stem=3, pool=5, channels=(8, 8), blocks=(2, 1), strides=(1, 2))
    model = Model(depth=1, width=8, heads=2, mlp_ratio=0, embedder="resnet", resnet=resnet)
    bank = BankSpec(seed=0, parameters=replace(BANK, side=8, dim=64))
    run = image_run(model, bank=bank, batch_size=2)
    leaves = {
        name: (value[0].double() + 100 * (name == "embedder.stem.norm.bias")).requires_grad_()
        for name, value in verify.normal_parameters(run, torch.empty(0, dtype=torch.float64)).items()
        if component(name) == "encoder"
    }
    encoded, _ = encoder.encode_lane(leaves, resnet, torch.rand(20, 8, 8, 1, dtype=torch.float64), training=True)
    encoded.square().sum().backward()
    sizes = {name: float(leaf.grad.norm()) for name, leaf in leaves.items() if leaf.grad is not None}
    assert sizes["embedder.stem.norm.bias"] < 1e-10 * max(sizes.values())
    assert verify.check_step(pack_of(run), images_of(run), 0, "native")


@pytest.mark.parametrize("engine", ["eager", "native"])
def test_resumed_equals_uninterrupted_bit_for_bit(engine, tmp_path):
    pack, batch = pack_of(image_run(), image_run()), TINY_RUN.batch_size
    bank = images_of(pack.run).numpy()

    def job(name: str, start: int, end: int, previous: Path | None = None) -> Path:
        made = segments.SegmentJob(tmp_path / name, pack, bank, previous, start * batch, end * batch, engine=engine)
        segments.run_segment(made)
        return made.path

    whole, cut = job("whole.h5", 0, 5), job("later.h5", 2, 5, job("first.h5", 0, 2))
    with segment_file.opened(whole, pack) as one, segment_file.opened(cut, pack) as other:
        expected, found = one.end_parameters(), other.end_parameters()
    assert set(expected) == {*pack.run.parameter_shapes, *pack.run.running_shapes}
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("engine", ["eager", "native"])
def test_a_frozen_encoder_encodes_as_at_evaluation_and_nothing_of_it_moves(engine):
    run = image_run()
    frozen = Freeze(parameters=parameters_named(["encoder"], run.model), from_=2 * run.batch_size)
    pack = pack_of(replace(run, freeze=frozen), run)
    before, first = trained(pack, 2, engine)
    after, losses = trained(pack, 4, engine)
    torch.testing.assert_close(losses[:2], first, rtol=0, atol=0)
    for name, value in before.weights.items():
        moved = not torch.equal(after.weights[name][0], value[0])
        assert moved == (component(name) != "encoder"), name
        assert not torch.equal(after.weights[name][1], value[1]), name
    (expected,) = select.step_for(pack, before, images_of(run), "eager").losses(2 * run.batch_size, 3 * run.batch_size)
    torch.testing.assert_close(losses[2], expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_encoder_goes_by_its_running_statistics():
    run = image_run(freeze=Freeze(parameters=parameters_named(["encoder"], image_run().model)))
    state = initial_state(pack_of(run))
    for value in state.statistics.values():
        value += 1
    eager = select.EagerStep(pack_of(run), state, images_of(run))
    rows = torch.arange(12).view(1, 4, 3)
    images = gather(images_of(run), 8, rows // 4, rows % 4)
    encoded = eager.encoded(images, 0)
    expected, _ = encoder.encode(state.weights, run.model.resnet, images.flatten(1, 2), training=False)
    torch.testing.assert_close(encoded.flatten(1, 2), expected)


def test_l2_of_the_encoder_alone():
    components = {name: component(name) for name in image_run().parameter_shapes}
    assert set(components.values()) == set(COMPONENTS)
    assert {name for name, part in components.items() if part == "embedder"} == {"label_embedding"}
    assert L2(strength=1.0, embedder=2.0).of("encoder") == 2.0
    assert L2(strength=1.0, embedder=2.0, encoder=0.0).of("encoder") == 0.0
    assert L2(strength=1.0).of("encoder") == 1.0
    plain = initial_state(pack_of(image_run()))
    steps = {}
    for strength in (0.0, 1.0):
        run = image_run(optimizer=Optimizer(learning_rate=0.1, name="sgd", l2=L2(encoder=strength)))
        steps[strength], _ = trained(pack_of(run), 1)
    for name, value in plain.parameters.items():
        # SGD steps by rate * 2 * value more.
        more = steps[0.0].parameters[name] - steps[1.0].parameters[name]
        torch.testing.assert_close(more, 0.2 * value * (component(name) == "encoder"), rtol=1e-3, atol=1e-6)
    for name, value in steps[0.0].statistics.items():
        assert torch.equal(steps[1.0].statistics[name], value), name


def test_frozen_embedder_is_the_encoder_too_and_the_encoder_is_not_the_label_table():
    model = image_run().model
    assert "label_embedding" in parameters_named(["embedder"], model)
    assert set(parameters_named(["encoder"], model)) == set(parameters_named(["embedder"], model)) - {"label_embedding"}


# Evaluation.


@pytest.mark.parametrize("engine", ["eager", "native"])
def test_metrics_are_those_of_images_encoded_one_by_one(engine, tmp_path):
    pack = pack_of(image_run(), image_run())
    bank = images_of(pack.run)
    job = segments.SegmentJob(tmp_path / "segment.h5", pack, bank.numpy(), None, 0, 2 * pack.run.batch_size)
    segments.run_segment(job)
    names = ("train", "icl", "icl_new_exemplar")
    sets = SequenceSet(bank=pack.run.bank, recipe=pack.run.recipe, evaluators=names, sequences=10, seed=0)
    frozen.write_sequences(tmp_path / "set.h5", sets, bank.numpy())
    given = tmp_path / "metrics.h5", pack, job.path, sets, tmp_path / "set.h5", "cpu", engine
    with pytest.raises(StudyError, match="give its file as --bank"):
        evaluate.write_metrics(*given)
    evaluate.write_metrics(*given, bank=bank.numpy())
    with segment_file.opened(job.path, pack) as reader:
        weights = reader.end_parameters()
    for name in names:
        with hdf5.reading(tmp_path / "set.h5", "sequences") as file:
            parts = (hdf5.array(file, f"{name}/{part}") for part in ("classes", "exemplars", "labels"))
            classes, exemplars, labels = (torch.from_numpy(part).long() for part in parts)
        images = gather(bank, 8, classes, exemplars)
        embedded = torch.stack(
            [encoder.encode(weights, SMALL, one.expand(2, *one.shape), training=False)[0] for one in images], dim=1
        )
        forward = select.forward_for(pack.run, torch.device("cpu"), 64, "eager")
        expected = evaluate.evaluate(weights, forward, embedded, labels)
        with hdf5.reading(tmp_path / "metrics.h5", "metrics") as file:
            np.testing.assert_allclose(hdf5.array(file, f"{name}/mean")[-1], expected[..., 0], rtol=1e-4, atol=1e-5)


def test_each_image_is_encoded_once_a_snapshot():
    run, encoded = image_run(), []
    rows = {"one": torch.tensor([[3, 3, 5]]), "two": torch.tensor([[5, 1, 3], [7, 7, 7]])}
    examples = ImageExamples(run, images_of(run), rows, "eager")
    encode = examples.encode
    examples.encode = lambda weights, images: encoded.append(len(images)) or encode(weights, images)
    found = examples.of(initial_state(pack_of(run, run)).weights)
    assert encoded == [4]
    assert found["two"].shape == (2, 2, 3, 16)
    torch.testing.assert_close(found["two"][:, 0, 2], found["one"][:, 0, 1])


# In Python, and inside.


def snapshot(run: Run, seed: int = 0) -> dict[str, torch.Tensor]:
    state, _ = trained(PackSpec(lanes=(lane(run, seed),)), 3)
    return {name: value[0] for name, value in state.weights.items()}


def some_images(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    classes = torch.randint(40, (6, run.recipe.context + 1), generator=generator)
    return gather(images_of(run), 8, classes, classes % 3), classes


def test_the_module_of_a_snapshot_takes_images():
    run = image_run()
    weights, (images, labels) = snapshot(run), some_images(run)
    passed = ForwardPass(run=run, parameters=weights, intervention=None, others={})
    found = module_of(run, weights)(images, labels[:, :-1])
    torch.testing.assert_close(found, passed.logits(images, labels), rtol=1e-4, atol=1e-5)


def test_a_graft_comes_from_what_the_other_snapshots_own_encoder_makes():
    run, place = image_run(), ("embedding",)
    (one, other), (images, labels) = (snapshot(run), snapshot(run, 1)), some_images(run)

    def passed(own, given, intervention=None):
        others = {"other": (run, given)}
        return ForwardPass(run=run, parameters=own, intervention=intervention, others=others).logits(images, labels)

    # All that goes in comes from the other: blocks on its tokens.
    given = {name: one[name] if name.startswith(("blocks", "norm", "unembedding")) else other[name] for name in one}
    graft = {"graft": {"from": "other", "place": list(place)}}
    torch.testing.assert_close(passed(one, other, graft), passed(given, other))
    # What goes out after the first block goes on in the other.
    late = ("blocks.1", "norm", "unembedding")
    given = {name: other[name] if name.startswith(late) else one[name] for name in one}
    out = {"graft": {"from": "other", "place": ["residual0"], "direction": "out"}}
    torch.testing.assert_close(passed(one, other, out), passed(given, other))


def test_measures_of_circuits_read_what_each_lanes_encoder_makes():
    run = image_run()
    images, labels = some_images(run)
    labels[:, 0] = labels[:, -1]
    lanes = [snapshot(run), snapshot(run, 1)]
    weights = {name: torch.stack([one[name] for one in lanes]) for name in lanes[0]}
    of_lanes = images.flatten(0, 1).expand(2, *images.flatten(0, 1).shape)
    encoded = encoder.encode(weights, SMALL, of_lanes, training=False)[0].unflatten(1, images.shape[:2])
    found = measures.measure(Network(weights, run.model, run.recipe.context), encoded, labels, ["induction"])
    for number, one in enumerate(lanes):
        alone = Network({name: value[None] for name, value in one.items()}, run.model, run.recipe.context)
        expected = measures.measure(alone, encoded[number], labels, ["induction"])
        torch.testing.assert_close(found.heads["induction"][number], expected.heads["induction"][0])


# What is refused, and what is checked.


def refusals(run: Run) -> list[str]:
    return list(impossible(run, [], {"contexts": {}, "evaluators": []}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": TINY_RUN.model}, "say `model.embedder: resnet`"),
        ({"bank": TINY_RUN.bank}, "have `encoder: none`"),
        ({"model": replace(image_run().model, width=32)}, "`model.width` 32: make them equal"),
        ({"model": replace(image_run().model, resnet=replace(SMALL, blocks=(1,)))}, "expected one of each"),
        ({"model": replace(image_run().model, resnet=replace(SMALL, kernel=4))}, "`model.resnet.kernel` is 4"),
        ({"recipe": replace(TINY_RUN.recipe, input_noise=0.1)}, "`recipe.input_noise` is added to embeddings"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, expected):
    assert not refusals(image_run())
    assert expected in "\n".join(refusals(replace(image_run(), **changes)))


def test_evaluation_counts_each_image_once():
    run = image_run()
    few, many = (
        SequenceSet(bank=run.bank, recipe=run.recipe, evaluators=("train",), sequences=count, seed=0)
        for count in (1, 1000)
    )
    images, of_image = run.bank.shape.n_classes * run.bank.shape.n_exemplars, encoder_flop(SMALL, 11, 1)
    exemplars = run.recipe.context + 1
    transformer = forward_flop(run) - exemplars * of_image
    assert evaluation_flop(run, few) == transformer + exemplars * of_image
    assert evaluation_flop(run, many) == 1000 * transformer + images * of_image


def test_memory_and_files_know_of_the_encoder():
    def at(side: int) -> Run:
        return image_run(bank=BankSpec(seed=0, parameters=replace(BANK, side=side, dim=side**2)), batch_size=64)

    assert training_megabytes(pack_of(at(105))) > 100 + training_megabytes(pack_of(at(11)))
    run = image_run()
    numbers = n_parameters(run) + sum(torch.Size(shape).numel() for shape in run.running_shapes.values())
    assert lane_bytes(run, 3) - lane_bytes(run, 2) == 4 * numbers


def test_a_rate_is_that_of_another_model_which_encodes_images():
    config = {"device": "cpu", "engine": "auto", "gflops": None}
    rates, cases = Rates(config, ROOT), []
    for shape, flops in (("a", 1e9), ("e", 2e9)):
        case = {"numerics": "float32", "engine": "native", "jobs": 1, "lanes": 1, "rate": 1.0, "shape": shape}
        cases.append(case | {"flops": flops})
    rates.__dict__["_machines"] = [{"machine": "a", "date": "b", "cases": cases}]
    assert rates.of(pack_of(image_run())).flops == 2e9
    assert rates.of(pack_of(TINY_RUN)).flops == 1e9


def test_an_engine_that_encodes_no_images_says_so():
    assert "encodes no images" in str(engine_problem("graph", "cuda", image_run()))
    assert engine_problem("native", "cpu", image_run()) is None


def test_what_only_an_encoder_has_is_refused_without_one():
    assert "`optimizer.l2.encoder`" in "\n".join(
        refusals(replace(TINY_RUN, optimizer=Optimizer(learning_rate=0.1, l2=L2(encoder=0.1))))
    )
    model = replace(TINY_RUN.model, resnet=SMALL)
    assert "`model.resnet` is given" in "\n".join(refusals(replace(TINY_RUN, model=model)))


def test_models_without_an_encoder_are_what_they_were():
    assert not {"embedder", "resnet"} & set(identity_values(TINY_RUN)["model"])
    assert not TINY_RUN.running_shapes
    assert n_parameters(TINY_RUN) == sum(torch.Size(shape).numel() for shape in TINY_RUN.parameter_shapes.values())


def test_a_kernel_that_computes_something_else_is_refused_before_a_job(monkeypatch):
    run = image_run()
    assert verify.check_encoder(run, "native")
    assert verify.check_answers(run, torch.device("cpu"), run.recipe.context, "native")
    monkeypatch.setattr(encoder, "BATCH_NORM_EPSILON", 1e-4)
    with pytest.raises(StudyError, match="does not compute what the model says: in float64"):
        verify.check_encoder(run, "native")
