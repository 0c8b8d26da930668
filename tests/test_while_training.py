"""Training under interventions on activations, and with parameters that are frozen.

Under these the engine is the eager one, which computes lanes together: in float64 a lane of several differs from the
lane alone by roundings, if at all, see test_training.py.
"""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from builders import TINY_BANK, TINY_RUN, lane, pack, tiny_run
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from icl_transience.banks import bank as banks_bank
from icl_transience.circuits.interventions import tap_of
from icl_transience.circuits.network import Network
from icl_transience.engines import eager, graph, lanes, select
from icl_transience.engines.interface import DTYPES
from icl_transience.engines.state import State, initial_state
from icl_transience.model import transformer
from icl_transience.specs.compute import engine_problem, why_not_native
from icl_transience.specs.errors import StudyError
from icl_transience.specs.interventions import parse
from icl_transience.specs.model import COMPONENTS, Model, component, parameter_shapes, parameters_named
from icl_transience.specs.runs import PackSpec, Run
from icl_transience.specs.training import ActivationIntervention, Freeze, StrengthAt
from icl_transience.store import layout
from icl_transience.training import checkpoint, loop, segments

BANK = banks_bank.build(TINY_BANK).embeddings
BATCH = TINY_RUN.batch_size
NAMES = tuple(parameter_shapes(TINY_RUN.model, 6, 10, 4))


def intervention(operations: dict, *points: tuple[int, float]) -> ActivationIntervention:
    strength = tuple(StrengthAt(at=at, strength=value) for at, value in points or [(0, 1.0)])
    return ActivationIntervention(strength=strength, operations=parse(operations))


def with_activations(*done: ActivationIntervention, **changes) -> Run:
    return dataclasses.replace(tiny_run(**changes), activation_interventions=done)


def freezing(*named: str, **when) -> Freeze:
    return Freeze(parameters=parameters_named(named, TINY_RUN.model), **when)


def trained(spec: PackSpec, until: int, engine: str = "eager", at: dict | None = None) -> State:
    """The state after training; at: filled with copies of the weights at snapshots."""

    def keep(state: State) -> None:
        if at is not None:
            at[state.sequences_seen] = {name: value.clone() for name, value in state.parameters.items()}

    state = initial_state(spec)
    loop.train(spec, state, torch.from_numpy(BANK).to(DTYPES[spec.run.numerics]), until, keep, engine=engine)
    return state


def assert_same(one: State, other: State) -> None:
    for part in ("parameters", "first_moments", "second_moments"):
        for name, value in getattr(one, part).items():
            assert torch.equal(getattr(other, part)[name], value), (part, name)
    assert torch.equal(one.loss_sum, other.loss_sum)


CLAMP = {"clamp": {"place": "block1.head0.pattern", "to": "induction"}}
OPERATIONS = {
    "ablate": {"ablate": ["block0.head1", "block1.mlp"]},
    "only": {"only": "block1.head1"},
    "keep": {"ablate": "block0.heads", "keep": ["patterns"]},
    "clamp": CLAMP,
    "match": {"clamp": {"place": "block1.head1.pattern", "to": "match", "temperature": 0.5}},
    "forbid": {"forbid": {"place": "block0.scores", "tokens": "previous_token"}},
    "temperature": {"temperature": {"place": "block1.head1.scores", "by": 4}},
    "patch": {"patch": {"place": "block0.values", "from": "other_labels", "tokens": "labels"}},
    "copy": {"copy": "block1.head0"},
}


# Strength over time.


def test_strength_is_linear_between_points_and_constant_outside():
    one = intervention(CLAMP, (80, 1.0), (160, 0.5), (240, 0.0))
    strengths = [one.strength_at(4, seen) for seen in (0, 80, 120, 160, 180, 240, 10_000)]
    assert strengths == [1.0, 1.0, 0.75, 0.5, 0.375, 0.0, 0.0]


def test_two_points_at_one_time_are_a_step():
    one = intervention(CLAMP, (0, 1.0), (80, 1.0), (80, 0.0))
    assert [one.strength_at(4, seen) for seen in (0, 76, 80, 84)] == [1.0, 1.0, 0.0, 0.0]


def test_points_lie_at_whole_batches():
    one = intervention(CLAMP, (0, 0.0), (78, 0.0), (78, 1.0))
    assert [one.strength_at(4, seen) for seen in (76, 80)] == [0.0, 1.0]


@given(
    st.lists(st.tuples(st.integers(0, 400), st.floats(0, 1)), min_size=1, max_size=4, unique_by=lambda point: point[0]),
    st.integers(0, 120),
)
def test_strength_stays_within_that_of_its_points(points, batch):
    one = intervention(CLAMP, *sorted(points))
    values = [strength for _, strength in points]
    assert min(values) - 1e-12 <= one.strength_at(4, 4 * batch) <= max(values) + 1e-12


def test_several_at_a_time_are_done_as_one():
    later = intervention(CLAMP, (0, 0.0), (40, 0.0), (40, 0.5))
    run = with_activations(intervention({"ablate": "block0.head0"}), later)
    assert run.activations_at(0) == parse({"ablate": "block0.head0"})
    clamp = {"place": "block1.head0.pattern", "to": "induction", "strength": 0.5}
    assert run.activations_at(40) == parse({"ablate": "block0.head0", "clamp": clamp})


# What is computed.


@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_step_goes_along_the_gradient_of_the_loss_under_the_intervention(kind):
    run = with_activations(intervention(OPERATIONS[kind]), numerics="float64")
    spec = pack(run)
    state, embeddings = initial_state(spec), torch.from_numpy(BANK).double()
    step = eager.EagerStep(spec, state, embeddings)
    (batch,) = lanes.batches(spec, embeddings, 0, BATCH)
    weights = {name: value.clone().requires_grad_() for name, value in state.parameters.items()}
    network, exemplars = Network(weights, run.model, run.recipe.context), step.exemplars(batch)
    tap = tap_of(network, exemplars, batch.labels, parse(OPERATIONS[kind]))
    loss = functional.cross_entropy(network.logits(exemplars, batch.labels, tap)[0], batch.labels[0, :, -1])
    loss.backward()
    assert step.train_step(exemplars, batch.labels, 0).item() == pytest.approx(loss.item(), rel=1e-12)
    for name, weight in weights.items():
        expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
        assert torch.allclose(step.gradients[name], expected, rtol=1e-12, atol=1e-15), name
    plain = eager.EagerStep(pack(tiny_run(numerics="float64")), initial_state(spec), embeddings)
    plain.train_step(exemplars, batch.labels, 0)
    assert any(not torch.equal(plain.gradients[name], step.gradients[name]) for name in NAMES)


def test_gradients_flow_through_a_clamped_pattern_to_values_and_not_to_queries():
    run = with_activations(intervention({"clamp": {"place": "block1.pattern", "to": "induction"}}))
    step = eager.EagerStep(pack(run), initial_state(pack(run)), torch.from_numpy(BANK))
    (batch,) = lanes.batches(step.pack, step.embeddings, 0, BATCH)
    # One class alone in a context leaves nothing to clamp; here both sides are there.
    assert ((batch.labels[..., :-1] == batch.labels[..., -1:]).any(-1)).all()
    step.train_step(step.exemplars(batch), batch.labels, 0)
    queries, keys, values = step.gradients["blocks.1.attention.qkv"][0].chunk(3, dim=-1)
    assert not queries.any()
    assert not keys.any()
    assert values.any()


@pytest.mark.parametrize("kind", OPERATIONS)
def test_at_strength_0_training_is_the_plain_one_bit_for_bit(kind):
    run, until = with_activations(intervention(OPERATIONS[kind], (0, 0.0))), 3 * BATCH
    assert_same(trained(pack(run), until), trained(pack(), until))


def test_until_its_strength_rises_training_is_the_plain_one_bit_for_bit():
    done = intervention(CLAMP, (0, 0.0), (48, 0.0), (48, 1.0))
    assert_same(trained(pack(with_activations(done)), 48), trained(pack(), 48))
    assert not torch.equal(
        trained(pack(with_activations(done)), 52).parameters["embedder.weight"],
        trained(pack(), 52).parameters["embedder.weight"],
    )


EVENTFUL = (
    intervention({"ablate": "block0.head1", "keep": ["patterns"]}, (20, 1.0), (90, 0.0), (90, 1.0)),
    intervention(CLAMP, (0, 0.25), (150, 1.0)),
)


def trained_in_segments(folder: Path, spec: PackSpec, boundaries: list[int]) -> Path:
    paths: list[Path] = []
    for start, end in itertools.pairwise(boundaries):
        path = folder / layout.segment_name(start, end)
        segments.run_segment(segments.SegmentJob(path, spec, BANK, paths[-1] if paths else None, start, end))
        paths.append(path)
    return paths[-1]


@pytest.mark.parametrize("activations", [EVENTFUL, ()], ids=["intervened", "native"])
def test_resumed_equals_uninterrupted_bit_for_bit(activations, tmp_path):
    frozen = freezing("blocks.0.*", "label_embedding", from_=30, until=130)
    changes = {"optimizer.clip": 0.5, "optimizer.l2.strength": 0.01}
    run = dataclasses.replace(with_activations(*activations, **changes), freeze=frozen)
    spec = pack(run, dataclasses.replace(run, freeze=freezing("attention", until=61)))
    whole = checkpoint.load_checkpoint(trained_in_segments(tmp_path / "whole", spec, [0, 200]), spec, 200)
    for cuts in ([32, 132], [28, 92, 104]):
        last = trained_in_segments(tmp_path / str(cuts), spec, [0, *cuts, 200])
        assert_same(checkpoint.load_checkpoint(last, spec, 200), whole)


def test_lanes_learn_in_a_pack_what_they_learn_alone_bit_for_bit():
    runs = [
        with_activations(*EVENTFUL, numerics="float64", **changes)
        for changes in ({}, {"optimizer.learning_rate": 3e-3}, {"optimizer.l2.strength": 0.01, "optimizer.clip": 0.1})
    ]
    runs.append(dataclasses.replace(runs[0], freeze=freezing("mlp", until=60)))
    assert len({run.tensor_shape for run in runs}) == 1
    packed = trained(pack(*runs), 50 * BATCH)
    for number, run in enumerate(runs):
        alone = trained(PackSpec(lanes=(lane(run, number),)), 50 * BATCH)
        for name in NAMES:
            assert torch.equal(packed.parameters[name][number], alone.parameters[name][0]), (number, name)


def test_lanes_of_other_interventions_do_not_train_together():
    shapes = {with_activations(*done).tensor_shape for done in ((), EVENTFUL[:1], EVENTFUL)}
    assert len(shapes) == 3


# Which engine.


def test_interventions_train_on_the_eager_engine_and_auto_chooses_it():
    run = with_activations(intervention(CLAMP))
    assert select.chosen("auto", run, torch.device("cpu")) == "eager"
    assert why_not_native("cpu", run) == "trains without activation_interventions"
    assert why_not_native("cpu", TINY_RUN) == ""
    for engine, device in (("native", "cpu"), ("graph", "cuda")):
        problem = engine_problem(engine, device, run)
        assert problem == f"engine: {engine} trains without activation_interventions: choose auto or eager"
    with pytest.raises(StudyError, match="engine: native trains without activation_interventions"):
        trained(pack(run), BATCH, "native")


# Freezing.


# Of an image encoder: tests/test_encoder.py.
FREEZABLE = [*(name for name in COMPONENTS if name != "encoder"), "blocks.0.*", "label_embedding"]


@pytest.mark.parametrize("engine", ["eager", "native"])
@pytest.mark.parametrize("named", FREEZABLE)
def test_what_is_frozen_does_not_move_and_all_else_does(named, engine):
    changes = {
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.1,
        "optimizer.l2.strength": 0.01,
        "optimizer.clip": 0.5,
    }
    spec = pack(dataclasses.replace(tiny_run(**changes), freeze=freezing(named)))
    begun, state = initial_state(spec), trained(spec, 20 * BATCH, engine)
    for name, value in state.parameters.items():
        is_frozen = component(name) == named or name == named or (named == "blocks.0.*" and "blocks.0." in name)
        assert torch.equal(value, begun.parameters[name]) == is_frozen, name
        assert state.first_moments[name].any() != is_frozen, name


@pytest.mark.parametrize("form", ["squared", "unsquared"])
def test_l2_clipping_and_moments_are_those_of_training_what_moves_alone(form):
    """Against torch.optim on the parameters that move, and their L2."""
    frozen = freezing("blocks.0.*", "embedder")
    changes = {"optimizer.l2.strength": 0.05, "optimizer.l2.form": form, "optimizer.clip": 0.05}
    run = dataclasses.replace(tiny_run(numerics="float64", **changes), freeze=frozen)
    spec = pack(run)
    state = initial_state(spec)
    weights = {name: value.clone() for name, value in state.parameters.items()}
    for name, value in weights.items():
        value.requires_grad_(name not in frozen.parameters)
    moving = [value for value in weights.values() if value.requires_grad]
    adam = torch.optim.Adam(moving, run.optimizer.learning_rate)
    embeddings = torch.from_numpy(BANK).double()
    step = eager.EagerStep(spec, state, embeddings)
    geometry = transformer.Geometry(run.model, run.recipe.context, torch.float64)
    for batch in lanes.batches(spec, embeddings, 0, 10 * BATCH):
        exemplars = step.exemplars(batch)
        loss = eager.query_loss(weights, run.model, geometry, exemplars, batch.labels).sum()
        sizes = [value.square().sum() if form == "squared" else value.norm() for value in moving]
        adam.zero_grad()
        (loss + 0.05 * sum(sizes)).backward()
        torch.nn.utils.clip_grad_norm_(moving, 0.05)
        adam.step()
        step.train_step(exemplars, batch.labels, batch.start)
    for name, value in weights.items():
        assert torch.allclose(state.parameters[name], value, rtol=0, atol=1e-9), name


def test_freezing_holds_from_and_until_the_sequences_it_says():
    frozen = freezing("mlp", from_=30, until=62)
    run = dataclasses.replace(tiny_run(**{"snapshots.first": 4, "snapshots.every": 4}), freeze=frozen)
    at: dict[int, dict[str, torch.Tensor]] = {}
    trained(pack(run), 80, at=at)
    name = "blocks.0.mlp.in.weight"
    moved = [seen for seen in range(4, 84, 4) if not torch.equal(at[seen][name], at[seen - 4][name])]
    assert moved == [*range(4, 36, 4), *range(68, 84, 4)]
    assert run.changes(0, 80) == {32, 64}


def test_an_array_that_was_frozen_first_begins_with_the_first_step_of_adam():
    """Its bias correction counts its own steps: the first one moves every weight by the learning rate."""
    run = dataclasses.replace(tiny_run(numerics="float64"), freeze=freezing("unembedding", until=400))
    run = dataclasses.replace(run, snapshots=dataclasses.replace(run.snapshots, first=4, every=4))
    at: dict[int, dict[str, torch.Tensor]] = {}
    trained(pack(run), 404, at=at)
    step = (at[404]["unembedding.bias"] - at[400]["unembedding.bias"]).abs()
    assert torch.allclose(step, torch.full_like(step, run.optimizer.learning_rate), rtol=1e-4)


def test_the_graph_engine_freezes_what_is_frozen_throughout():
    spec = pack(dataclasses.replace(TINY_RUN, freeze=freezing("attention")))
    state = initial_state(spec)
    step = graph.GraphStep(spec, state, torch.from_numpy(BANK), capture=False)
    for _ in step.losses(0, 10 * BATCH):
        pass
    expected = trained(spec, 10 * BATCH)
    for name in NAMES:
        assert torch.equal(state.parameters[name], expected.parameters[name]), name
    assert engine_problem("graph", "cuda", spec.run) is None
    later = dataclasses.replace(TINY_RUN, freeze=freezing("attention", until=40))
    assert "freezes parameters throughout or not at all" in str(engine_problem("graph", "cuda", later))


def test_names_stand_for_components_parameters_and_stars():
    model = Model(depth=2, width=8, heads=2, mlp_ratio=1)
    assert parameters_named(["norm.scale"], model) == ("norm.scale",)
    assert parameters_named(["unembedding", "blocks.1.attention.*"], model) == (
        "blocks.1.attention.qkv",
        "blocks.1.attention.out",
        "unembedding.weight",
        "unembedding.bias",
    )
    with pytest.raises(StudyError, match=r"freeze.parameters` has 'atention', .*did you mean `attention`.*blocks.0"):
        parameters_named(["atention"], model, "freeze.parameters")
