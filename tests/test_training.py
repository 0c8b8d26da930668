"""Training against torch.optim, a lane against its pack-mates, a resumed segment against an uninterrupted one.

Where two float64 trainings should agree, they differ by how Adam divides by the root of the second moment: a gradient
entry near 0 is off by its rounding, some 1e-16, which moves a weight by up to learning rate * 1e-16 / epsilon, here
1e-11, a step. Over 100 steps that is the 1e-9 of ACCUMULATED; a wrong step moves weights by the learning rate, 1e-3.
"""

import functools
import itertools
import math
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders import TINY_BANK, TINY_RUN, lane, pack, tiny_run
from torch.nn import functional

from icl_transience.__main__ import main
from icl_transience.banks import bank as banks_bank
from icl_transience.engines import eager, lanes, optimizers, select
from icl_transience.engines.interface import DTYPES
from icl_transience.engines.state import NOT_DIVERGED, State, initial_state
from icl_transience.model import initial, transformer
from icl_transience.sequences import draw
from icl_transience.specs.recipes import Component
from icl_transience.specs.runs import Lane, PackSpec, Run
from icl_transience.specs.training import L2, Forgetting, Intervention, Optimizer, Schedule
from icl_transience.store import hdf5, layout, locks, segment_file
from icl_transience.store.bank_file import load
from icl_transience.training import checkpoint, loop, segments

ACCUMULATED = 1e-9
STRETCH = loop.LOSS_BATCHES * TINY_RUN.batch_size
BANK = banks_bank.build(TINY_BANK).embeddings


def double_run(**changes) -> Run:
    return tiny_run(numerics="float64", **changes)


def embeddings_for(spec: PackSpec) -> torch.Tensor:
    return torch.from_numpy(BANK).to(DTYPES[spec.run.numerics])


def trained(spec: PackSpec, until: int, on_snapshot=lambda state: None) -> tuple[State, loop.Losses]:
    state = initial_state(spec)
    return state, loop.train(spec, state, embeddings_for(spec), until, on_snapshot)


def batches(spec: PackSpec, start: int, until: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    step = eager.EagerStep(spec, initial_state(spec), embeddings_for(spec))
    found = lanes.batches(spec, embeddings_for(spec), start, until)
    return [(step.exemplars(batch), batch.labels) for batch in found]


def drawn_weights(lane: Lane, redrawn: int = 0) -> dict[str, torch.Tensor]:
    run, shape = lane.run, lane.run.bank.shape
    sizes = shape.width, shape.n_train_classes
    drawn = initial.initial_parameters(run.model, *sizes, lane.seed.init, run.recipe.context, redrawn)
    return {name: value[None].double() for name, value in drawn.items()}


def torch_optimizer(weights, optimizer: Optimizer) -> torch.optim.Optimizer:
    rate, loops = optimizer.learning_rate, {"foreach": False, "fused": False}
    if optimizer.name == "sgd":
        return torch.optim.SGD(weights, lr=rate, momentum=optimizer.momentum, **loops)
    betas, epsilon = (optimizer.beta1, optimizer.beta2), optimizer.epsilon
    if optimizer.name == "adamw":
        return torch.optim.AdamW(weights, rate, betas, epsilon, optimizer.weight_decay, **loops)
    return torch.optim.Adam(weights, rate, betas, epsilon, **loops)


def share_of_rate(schedule: Schedule, batch_size: int, step: int) -> float:
    """For LambdaLR, which counts steps from 0."""
    warmup, length = (-(-part // batch_size) for part in (schedule.warmup, schedule.length))
    if step + 1 < warmup:
        return (step + 1) / warmup
    if schedule.kind == "inverse_sqrt":
        return (warmup / (step + 1)) ** 0.5
    if schedule.kind == "cosine":
        angle = math.pi * min(step + 1 - warmup, length - warmup) / (length - warmup)
        return schedule.final + (1 - schedule.final) * math.cos(angle / 2) ** 2
    return 1.0


def trained_by_torch(lane: Lane, steps: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights, and every batch's cross-entropy, by torch.optim on the loss with its L2 term written out.

    LambdaLR sets the rate, clip_grad_norm_ clips; at an intervention the same optimizer gets other numbers.
    """
    run, shape = lane.run, lane.run.bank.shape
    weights = {name: value.requires_grad_() for name, value in drawn_weights(lane).items()}
    geometry = transformer.Geometry(run.model, run.recipe.context, torch.float64)
    recipe, ours, losses = run.recipe, run.optimizer, []
    optimizer = torch_optimizer(weights.values(), ours)
    for step in range(steps):
        seen = step * run.batch_size
        for change in run.interventions:
            if seen - run.batch_size < change.at <= seen:
                recipe, ours = change.recipe, change.optimizer
                new = torch_optimizer(weights.values(), ours).param_groups[0]
                optimizer.param_groups[0].update({key: value for key, value in new.items() if key != "params"})
        every, until = (-(-part // run.batch_size) for part in (run.forgetting.every, run.forgetting.until))
        if step and every and step % every == 0 and (not until or step <= until):
            more = ("unembedding.weight", "unembedding.bias") if run.forgetting.unembedding else ()
            for name in ("label_embedding", *more):
                weights[name].data = drawn_weights(lane, step // every)[name]
                optimizer.state.pop(weights[name], None)
        optimizer.param_groups[0].pop("initial_lr", None)
        optimizer.param_groups[0]["lr"] = ours.learning_rate
        # A new one sets the rate to that of its first step, which is this one.
        here = functools.partial(share_of_rate, ours.schedule, run.batch_size)
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _, here=here, step=step: here(step))
        batch = draw.draw(recipe, shape, lane.seed.data, "training", torch.arange(seen, seen + run.batch_size))
        exemplars = torch.from_numpy(BANK).double()[batch.classes, batch.exemplars]
        logits = transformer.query_logits(weights, run.model, geometry, exemplars[None], batch.labels[None, :, :-1])
        loss = functional.cross_entropy(logits[0], batch.labels[:, -1])
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss + penalty(weights, ours.l2)).backward()
        if ours.clip:
            torch.nn.utils.clip_grad_norm_(weights.values(), ours.clip)
        optimizer.step()
    return weights, losses


def penalty(weights: dict[str, torch.Tensor], l2: L2) -> torch.Tensor:
    def strength(name: str) -> float:
        for part in ("norm", "attention", "mlp", "unembedding"):
            if name.split(".")[0] == part or f".{part}" in name:
                own = getattr(l2, part)
                break
        else:
            own = l2.embedder
        return l2.strength if own is None else own

    if l2.form == "squared":
        return sum(strength(name) * (weight**2).sum() for name, weight in weights.items())
    # torch defines the gradient of a norm at 0 as 0, and so does the study.
    return sum(strength(name) * torch.linalg.vector_norm(weight) for name, weight in weights.items())


def later(at: int, **changes) -> Intervention:
    """An intervention in TINY_RUN by dotted paths; see builders.changed."""
    run = tiny_run(**changes)
    return Intervention(at=at, recipe=run.recipe, optimizer=run.optimizer)


# Every way in which training can be more than Adam at a constant rate.
RELABELLED = {"recipe.burstiness": 2, "recipe.labels": "relabelled"}
MORE = {
    "adamw": {"optimizer.name": "adamw", "optimizer.weight_decay": 0.1},
    "sgd": {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1},
    "momentum": {"optimizer.name": "sgd", "optimizer.learning_rate": 0.02, "optimizer.momentum": 0.9},
    "clip": {"optimizer.clip": 0.5},
    "warm-up": {"optimizer.schedule": Schedule(warmup=99)},
    "inverse_sqrt": {"optimizer.schedule": Schedule(kind="inverse_sqrt", warmup=40)},
    "cosine": {"optimizer.schedule": Schedule(kind="cosine", warmup=50, length=301, final=0.1)},
    "l2 by component": {"optimizer.l2": L2(strength=0.01, mlp=0.0, attention=0.03, norm=0.02, embedder=0.005)},
    "unsquared l2 by component": {"optimizer.l2": L2(form="unsquared", unembedding=0.02, attention=0.01)},
    "all at once": {
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.1,
        "optimizer.clip": 0.5,
        "optimizer.l2": L2(strength=0.01, mlp=0.03),
        "optimizer.schedule": Schedule(kind="cosine", warmup=50, length=301),
    },
    "sgd with all": {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.05,
        "optimizer.momentum": 0.5,
        "optimizer.clip": 0.7,
        "optimizer.l2.mlp": 0.01,
    },
    "interventions": {
        "interventions": (
            later(90, **{"optimizer.l2.strength": 0.01, "optimizer.beta1": 0.5, "optimizer.learning_rate": 2e-3}),
            later(200, **{"optimizer.clip": 0.5, "recipe.input_noise": 0.0} | RELABELLED),
        )
    },
    "forgetting": {"forgetting": Forgetting(every=50), "optimizer.l2.strength": 0.01},
    "forgetting for a time": {"forgetting": Forgetting(every=48, until=150)},
    "forgetting the unembedding, too": {
        "forgetting": Forgetting(every=48, unembedding=True),
        "model.init.distribution": "pytorch",
    },
    "learned positions": {"model.positions.kind": "learned", "optimizer.l2.embedder": 0.02},
}
of_more = pytest.mark.parametrize("changes", MORE.values(), ids=MORE)


# Against torch.optim.


@of_more
def test_more_of_training_is_what_torch_optim_makes_of_it(changes):
    only = lane(double_run(**changes))
    state, _ = trained(PackSpec(lanes=(only,)), 100 * only.run.batch_size)
    expected, _ = trained_by_torch(only, 100)
    for name, weight in expected.items():
        assert (state.parameters[name] - weight).abs().max() < ACCUMULATED, name
        # And each of them makes a difference far above the tolerance.
        if name != "positions":
            assert (plainly_trained()[name] - weight).abs().max() > 1e4 * ACCUMULATED, name


@functools.cache
def plainly_trained() -> transformer.Parameters:
    """What a hundred steps of a run without any of it lead to."""
    return trained(pack(double_run()), 100 * TINY_RUN.batch_size)[0].parameters


@pytest.mark.parametrize("steps", [1, 100])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.mlp_ratio": 0, "optimizer.beta1": 0.8, "optimizer.beta2": 0.99, "optimizer.epsilon": 1e-6},
        {"optimizer.l2.strength": 0.01},
        {"optimizer.l2.strength": 0.01, "optimizer.l2.form": "unsquared"},
        # Biases are 0 at first: the penalty has no gradient there, and a finite one from the next step on.
        {"optimizer.l2.strength": 0.01, "optimizer.l2.form": "unsquared", "model.init.distribution": "lecun_normal"},
    ],
    ids=lambda changes: ",".join(f"{path.split('.')[-1]}={value}" for path, value in changes.items()) or "default",
)
def test_training_is_adam_on_the_cross_entropy_plus_l2(changes, steps, monkeypatch):
    monkeypatch.setattr(loop, "LOSS_BATCHES", 1)
    only = lane(double_run(**changes))
    state, losses = trained(PackSpec(lanes=(only,)), steps * only.run.batch_size)
    expected, expected_losses = trained_by_torch(only, steps)
    for name, weight in expected.items():
        assert (state.parameters[name] - weight).abs().max() < ACCUMULATED, name
    # What is recorded is the cross-entropy alone, before the step.
    assert torch.cat(losses.values).tolist() == pytest.approx(expected_losses, abs=ACCUMULATED)


@pytest.mark.parametrize("form", ["squared", "unsquared"])
def test_l2_makes_the_weights_smaller(form):
    free, penalised = (
        trained(pack(tiny_run(**{"optimizer.l2.strength": strength, "optimizer.l2.form": form})), 2 * STRETCH)[0]
        for strength in (0.0, 0.05)
    )

    def size(state):
        return sum(weight.square().sum() for weight in state.parameters.values())

    assert size(penalised) < 0.99 * size(free)


def test_the_gradient_of_the_unsquared_norm_is_a_unit_vector_and_zero_at_zero():
    weights = {"weight": torch.tensor([3.0, -4.0]), "zero": torch.zeros(2)}
    gradients = {name: torch.tensor([1.0, 1.0]) for name in weights}
    optimizers.add_unsquared_l2(weights, gradients, dict.fromkeys(weights, 0.5))
    assert gradients["weight"].tolist() == pytest.approx([1 + 0.5 * 3 / 5, 1 - 0.5 * 4 / 5], rel=1e-6)
    assert gradients["zero"].tolist() == [1.0, 1.0]


def test_a_strong_unsquared_l2_leaves_a_zero_array_alone_too():
    gradients = {"bias": torch.ones(2)}
    optimizers.add_unsquared_l2({"bias": torch.zeros(2)}, gradients, {"bias": 8.0})
    assert gradients["bias"].tolist() == [1.0, 1.0]


def test_the_training_loss_of_a_tiny_task_falls():
    _, losses = trained(pack(tiny_run(**{"optimizer.learning_rate": 1e-2})), 16 * STRETCH)
    values = torch.cat(losses.values)
    assert values[-4:].mean() < 0.8 * values[:4].mean()


# A lane and its pack-mates.


def test_a_lane_learns_in_a_pack_what_it_learns_alone():
    runs = [
        double_run(),
        double_run(**{"optimizer.learning_rate": 3e-3}),
        double_run(**{"optimizer.l2.strength": 0.01, "recipe.burstiness": 2}),
        double_run(**{"optimizer.l2.strength": 0.02, "optimizer.l2.form": "unsquared", "model.init.scale": 0.5}),
        double_run(**{"recipe.input_noise": 0.5, "recipe.pool": 30, "recipe.zipf.alpha": 1.0}),
        double_run(**{"recipe.mixture": (Component(share=0.5, burstiness=0, support="none"),)}),
        *(run for changes in MORE.values() if (run := double_run(**changes)).tensor_shape == double_run().tensor_shape),
    ]
    assert len(runs) == 16
    together = pack(*runs)
    until = 100 * TINY_RUN.batch_size
    packed, packed_losses = trained(together, until)
    for number, one in enumerate(together.lanes):
        alone, losses = trained(PackSpec(lanes=(one,)), until)
        for name, weight in alone.parameters.items():
            assert (packed.parameters[name][number] - weight[0]).abs().max() < ACCUMULATED, (number, name)
        assert packed_losses.sequences_seen == losses.sequences_seen
        assert torch.stack(packed_losses.values)[:, number].tolist() == pytest.approx(
            torch.cat(losses.values).tolist(), abs=ACCUMULATED
        )


def test_each_lane_steps_by_its_own_learning_rate():
    # The gradient's size cancels in Adam's first step, so its length is the learning rate.
    runs = [double_run(**{"optimizer.learning_rate": rate}) for rate in (1e-3, 5e-3)]
    spec = pack(*runs)
    before = initial_state(spec).parameters["unembedding.weight"]
    after = trained(spec, TINY_RUN.batch_size)[0].parameters["unembedding.weight"]
    # Epsilon takes some off where a gradient is small.
    assert (after - before).abs().amax(dim=(1, 2)).tolist() == pytest.approx([1e-3, 5e-3], rel=1e-3)


def test_a_lane_that_diverges_is_recorded_and_leaves_the_others_untouched():
    calm = pack(*(tiny_run(**{"optimizer.learning_rate": rate}) for rate in (1e-3, 2e-3, 3e-3)))
    stormy = pack(*(tiny_run(**{"optimizer.learning_rate": rate}) for rate in (1e-3, 1e30, 3e-3)))
    expected, expected_losses = trained(calm, 3 * STRETCH)
    state, losses = trained(stormy, 3 * STRETCH)
    assert expected.diverged_at.tolist() == [NOT_DIVERGED] * 3
    assert state.diverged_at.tolist() == [NOT_DIVERGED, STRETCH, NOT_DIVERGED]
    for number in (0, 2):
        assert all(torch.equal(state.parameters[n][number], w[number]) for n, w in expected.parameters.items())
        assert torch.equal(torch.stack(losses.values)[:, number], torch.stack(expected_losses.values)[:, number])
    assert not torch.stack(losses.values)[:, 1].isfinite().any()


# Batches.


def test_a_batch_is_what_the_recipe_draws_at_its_sequence_numbers():
    spec = pack(TINY_RUN, tiny_run(**{"recipe.burstiness": 2}))
    for number, (exemplars, labels) in enumerate(batches(spec, 40, 60)):
        for place, one in enumerate(spec.lanes):
            positions = torch.arange(40 + 4 * number, 44 + 4 * number)
            drawn = draw.draw(one.run.recipe, TINY_BANK.shape, one.seed.data, "training", positions)
            assert torch.equal(labels[place], drawn.labels)
            for row in range(4):
                expected = BANK[drawn.classes[row].numpy(), drawn.exemplars[row].numpy()]
                assert np.array_equal(exemplars[place, row].numpy(), expected)


def test_input_noise_is_on_the_exemplars_of_its_own_lane_and_sequences():
    spec = pack(TINY_RUN, tiny_run(**{"recipe.input_noise": 0.5}), tiny_run(**{"recipe.input_noise": 2.0}))
    plain = batches(pack(TINY_RUN, TINY_RUN, TINY_RUN), 40, 60)
    for number, ((exemplars, labels), (clean, clean_labels)) in enumerate(
        zip(batches(spec, 40, 60), plain, strict=True)
    ):
        assert torch.equal(labels, clean_labels)
        assert torch.equal(exemplars[0], clean[0])
        positions = torch.arange(40 + 4 * number, 44 + 4 * number)
        for place, one in enumerate(spec.lanes[1:], start=1):
            noise = draw.input_noise(one.run.recipe, 6, one.seed.data, "training", positions)
            assert torch.equal(exemplars[place], clean[place] + noise.float())


def test_input_noise_does_not_depend_on_where_batches_begin():
    noisy = tiny_run(**{"recipe.input_noise": 0.5})
    whole = torch.cat([batch for batch, _ in batches(pack(noisy), 0, 48)], dim=1)
    other = tiny_run(**{"recipe.input_noise": 0.5, "batch_size": 6})
    assert torch.equal(torch.cat([batch for batch, _ in batches(pack(other), 12, 48)], dim=1), whole[:, 12:])


@pytest.mark.parametrize("draw_batches", [1, 3, 1000])
def test_drawing_many_batches_at_once_changes_none_of_them(draw_batches, monkeypatch):
    spec = pack(TINY_RUN, TINY_RUN)
    expected = batches(spec, 8, 60)
    monkeypatch.setattr(lanes, "DRAW_BATCHES", draw_batches)
    found = batches(spec, 8, 60)
    assert len(found) == len(expected) == 13
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_is_a_pure_function_of_data_seed_and_sequence_number():
    exemplars = torch.cat([batch for batch, _ in batches(pack(), 0, 48)], dim=1)[0]
    # In another place of a pack, with another start, batch size, initialisation and optimizer.
    changes = {"batch_size": 6, "optimizer.learning_rate": 0.1, "model.init.scale": 2.0}
    other = PackSpec(lanes=(lane(tiny_run(**changes), seed=5), lane(tiny_run(**changes), seed=7, data=0)))
    elsewhere = torch.cat([batch for batch, _ in batches(other, 12, 48)], dim=1)
    assert torch.equal(elsewhere[1], exemplars[12:])
    assert not torch.equal(elsewhere[0], exemplars[12:])


def test_init_and_data_seeds_act_separately():
    base, other_init, other_data = lane(), lane(seed=1, data=0), lane(seed=0, data=1)
    spec = PackSpec(lanes=(base, other_init, other_data))
    weights = initial_state(spec).parameters
    drawn = [name for name, value in weights.items() if not torch.equal(value[0], value[1])]
    # All but the norms, which start at 1 and 0.
    assert drawn == [name for name in weights if "norm" not in name]
    assert all(torch.equal(value[0], value[2]) for value in weights.values())
    exemplars, labels = batches(spec, 0, 40)[0]
    assert torch.equal(exemplars[0], exemplars[1])
    assert torch.equal(labels[0], labels[1])
    assert not torch.equal(exemplars[0], exemplars[2])


# Snapshots and recorded losses.


@pytest.mark.parametrize("start", [0, 64, 100])
def test_snapshots_are_taken_at_every_point_of_the_schedule_and_nowhere_else(start):
    spec, seen = pack(), []
    state, _ = trained(spec, start) if start else (initial_state(spec), None)
    loop.train(spec, state, embeddings_for(spec), 260, lambda state: seen.append(state.sequences_seen))
    assert seen == [point for point in (0, 8, 16, 32, 64, 128, 192, 256) if point > start or start == 0]


def test_a_snapshot_holds_the_weights_after_exactly_its_sequences():
    spec, taken = pack(), {}

    def take(state):
        taken[state.sequences_seen] = {name: value.clone() for name, value in state.parameters.items()}

    trained(spec, 64, take)
    assert sorted(taken) == [0, 8, 16, 32, 64]
    for seen, weights in taken.items():
        state = trained(spec, seen)[0] if seen else initial_state(spec)
        assert all(torch.equal(weights[name], value) for name, value in state.parameters.items())


@pytest.mark.parametrize(("start", "until", "ends"), [(0, 48, [16, 32, 48]), (0, 40, [16, 32]), (24, 72, [32, 48, 64])])
def test_recorded_losses_are_means_over_stretches_that_end_at_their_multiples(start, until, ends, monkeypatch):
    spec = pack(double_run(), double_run())
    monkeypatch.setattr(loop, "LOSS_BATCHES", 1)
    every_batch = torch.stack(trained(spec, until)[1].values)
    monkeypatch.setattr(loop, "LOSS_BATCHES", 4)
    state = trained(spec, start)[0] if start else initial_state(spec)
    losses = loop.train(spec, state, embeddings_for(spec), until, lambda state: None)
    assert losses.sequences_seen == ends
    for end, value in zip(ends, losses.values, strict=True):
        # A mean of four float64 numbers near 2. The batches before `start` count: the state carries their sum.
        assert torch.allclose(value, every_batch[end // 4 - 4 : end // 4].mean(dim=0), rtol=0, atol=1e-14)


# Segments: resumed equals uninterrupted.


def trained_in_segments(folder: Path, spec: PackSpec, boundaries: Sequence[int]) -> list[Path]:
    paths: list[Path] = []
    for start, end in itertools.pairwise(boundaries):
        path = folder / layout.segment_name(start, end)
        segments.run_segment(segments.SegmentJob(path, spec, BANK, paths[-1] if paths else None, start, end))
        paths.append(path)
    return paths


def read(spec: PackSpec, paths: list[Path]) -> tuple[dict[int, dict[str, torch.Tensor]], dict[int, list[float]]]:
    """Snapshots and losses of a chain of segments, by sequences seen."""
    snapshots, losses = {}, {}
    for path in paths:
        with segment_file.opened(path, spec) as segment:
            snapshots |= {int(seen): segment.parameters(row) for row, seen in enumerate(segment.sequences_seen)}
            ends = segment.loss_sequences_seen.tolist()
            losses |= dict(zip(ends, segment.loss.tolist(), strict=True))
    return snapshots, losses


TWO_RATES = pack(TINY_RUN, tiny_run(**{"optimizer.learning_rate": 1e-2, "optimizer.l2.strength": 1e-3}))
HORIZON = 4 * STRETCH + 8  # so that its end leaves a stretch under way


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    (path,) = trained_in_segments(tmp_path_factory.mktemp("uninterrupted"), TWO_RATES, [0, HORIZON])
    return path


@pytest.mark.parametrize(
    "cuts", [[STRETCH], [4], [STRETCH + 12], [HORIZON - 4], [64, 2 * STRETCH], [100, 104, 300]], ids=str
)
def test_resumed_equals_uninterrupted_bit_for_bit(cuts, uninterrupted, tmp_path):
    paths = trained_in_segments(tmp_path, TWO_RATES, [0, *cuts, HORIZON])
    resumed = checkpoint.load_checkpoint(paths[-1], TWO_RATES, HORIZON)
    whole = checkpoint.load_checkpoint(uninterrupted, TWO_RATES, HORIZON)
    for part in ("parameters", "first_moments", "second_moments"):
        for name, value in getattr(whole, part).items():
            assert torch.equal(getattr(resumed, part)[name], value), (part, name)
    for part in ("loss_sum", "diverged_at"):
        assert torch.equal(getattr(resumed, part), getattr(whole, part))

    (snapshots, losses), (expected, expected_losses) = read(TWO_RATES, paths), read(TWO_RATES, [uninterrupted])
    assert snapshots.keys() == expected.keys()
    for seen, weights in expected.items():
        assert all(torch.equal(snapshots[seen][name], value) for name, value in weights.items()), seen
    assert losses == expected_losses


# Warm-up ends, what holds changes and labels are forgotten at sequence numbers that cuts meet, miss by a batch, or not.
EVENTFUL = [
    {
        "optimizer.clip": 0.5,
        "optimizer.l2.mlp": 0.01,
        "optimizer.schedule": Schedule(kind="cosine", warmup=50, length=301),
        "interventions": (
            later(90, **{"optimizer.l2.strength": 0.01, "optimizer.schedule": Schedule(warmup=150)}),
            later(200, **{"optimizer.clip": 0.5, "recipe.input_noise": 0.5} | RELABELLED),
        ),
    },
    {"forgetting": Forgetting(every=47, until=250), "optimizer.l2.strength": 0.01, "optimizer.l2.form": "unsquared"},
    {"forgetting": Forgetting(every=47, until=250, unembedding=True)},
    {},
]
KINDS = {
    "native": {},
    "native adamw, learned positions": {
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.1,
        "model.positions.kind": "learned",
    },
    "native sgd": {"optimizer.name": "sgd", "optimizer.momentum": 0.9},
    "eager with dropout, rotary positions": {"model.dropout": 0.3, "model.positions.kind": "rotary"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_in_training_resumed_equals_uninterrupted_bit_for_bit(kind, tmp_path):
    spec, end = pack(*(tiny_run(**KINDS[kind] | changes) for changes in EVENTFUL)), 320
    engine = select.chosen("auto", spec.run, torch.device("cpu"))
    assert engine == kind.split()[0]
    (whole,) = trained_in_segments(tmp_path / "whole", spec, [0, end])
    expected = checkpoint.load_checkpoint(whole, spec, end)
    snapshots, losses = read(spec, [whole])
    # Forgotten at 48, 96 … 240; changed at 92 and 200.
    for cuts in ([48, 92], [88, 96, 204], [44, 100, 200, 252]):
        paths = trained_in_segments(tmp_path / str(cuts), spec, [0, *cuts, end])
        resumed = checkpoint.load_checkpoint(paths[-1], spec, end)
        for part in ("parameters", "first_moments", "second_moments"):
            for name, value in getattr(expected, part).items():
                assert torch.equal(getattr(resumed, part)[name], value), (cuts, part, name)
        found, found_losses = read(spec, paths)
        assert found_losses == losses
        assert found.keys() == snapshots.keys()
        for seen, weights in snapshots.items():
            assert all(torch.equal(found[seen][name], value) for name, value in weights.items()), (cuts, seen)


def test_until_an_intervention_training_is_as_without_it_and_its_batch_is_the_first_with_it(monkeypatch):
    monkeypatch.setattr(loop, "LOSS_BATCHES", 1)
    change = later(90, **RELABELLED)
    with_it, without, relabelled = (
        pack(run) for run in (tiny_run(interventions=(change,)), TINY_RUN, tiny_run(**RELABELLED))
    )
    before, after = 88, 92
    states = [trained(spec, after)[0] for spec in (with_it, without)]
    assert all(torch.equal(states[0].parameters[name], value) for name, value in states[1].parameters.items())
    own, others = (batches(spec, before, after + 8) for spec in (with_it, relabelled))
    plain = batches(without, before, after + 8)
    same = [[torch.equal(a[1], b[1]) for a, b in zip(own, other, strict=True)] for other in (plain, others)]
    assert same == [[True, False, False], [False, True, True]]


def test_a_snapshot_is_taken_before_labels_are_forgotten():
    spec, taken = pack(tiny_run(forgetting=Forgetting(every=64))), {}

    def take(state):
        taken[state.sequences_seen] = state.parameters["label_embedding"].clone()

    state, _ = trained(spec, 64, take)
    assert torch.equal(taken[64], trained(pack(), 64)[0].parameters["label_embedding"])
    # Nor are they at the end of training: a longer horizon begins with it.
    assert torch.equal(state.parameters["label_embedding"], taken[64])


@pytest.mark.parametrize("more", [(), ("unembedding.weight", "unembedding.bias")])
def test_labels_are_forgotten_and_nothing_else_is_and_another_time_gives_others(more):
    pytorch = {"model.init.distribution": "pytorch"}  # elsewhere biases are 0 whenever they are drawn
    forgetting = tiny_run(forgetting=Forgetting(every=8, unembedding=bool(more)), **pytorch)
    spec, forgotten = pack(forgetting, tiny_run(**pytorch)), ("label_embedding", *more)
    state = trained(spec, 24)[0]
    before = {name: value.clone() for name, value in state.parameters.items()}
    drawn = []
    for seen in (8, 16):
        lanes.reset_label_embeddings(spec, state, seen)
        drawn.append([state.parameters[name][0].clone() for name in forgotten])
        for part in (state.first_moments, state.second_moments):
            assert not any(part[name][0].any() for name in forgotten)
    lanes.reset_label_embeddings(spec, state, 20)
    assert all(torch.equal(state.parameters[name][0], last) for name, last in zip(forgotten, drawn[1], strict=True))
    assert not any(torch.equal(*pair) for pair in zip(*drawn, strict=True))
    for name, value in before.items():
        assert torch.equal(state.parameters[name][1], value[1])
        assert torch.equal(state.parameters[name][0], value[0]) == (name not in forgotten)
    assert all(state.first_moments[name][1].any() for name in forgotten)


def test_dropout_changes_training_and_no_evaluation():
    plain, dropped = tiny_run(), tiny_run(**{"model.dropout": 0.5})
    assert not torch.equal(*(trained(pack(run), 40)[0].parameters["embedder.weight"] for run in (plain, dropped)))
    exemplars, labels = torch.randn(4, 5, 6), torch.randint(10, (4, 5))
    found = []
    for run in (plain, dropped):
        forward = select.forward_for(run, torch.device("cpu"), 4, "eager")
        forward.load(initial_state(pack(run)).parameters)
        found += [forward(exemplars, labels).context_logits for _ in range(2)]
    assert all(torch.equal(answers, found[0]) for answers in found)


def test_what_a_step_drops_depends_on_its_sequence_numbers():
    spec = pack(tiny_run(**{"model.dropout": 0.5}))
    (batch,) = batches(spec, 0, 4)
    losses = [
        eager.EagerStep(spec, initial_state(spec), embeddings_for(spec)).train_step(*batch, start).item()
        for start in (0, 0, 4)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_lane_with_dropout_learns_in_a_pack_what_it_learns_alone():
    spec, until = pack(*(double_run(**{"model.dropout": 0.3}) for _ in range(2))), 200
    packed, _ = trained(spec, until)
    for number, one in enumerate(spec.lanes):
        alone, _ = trained(PackSpec(lanes=(one,)), until)
        for name, weight in alone.parameters.items():
            assert (packed.parameters[name][number] - weight[0]).abs().max() < ACCUMULATED, (number, name)


def interrupted(path: Path, batches: int) -> None:
    """Trains the segment in `path` from 0 to HORIZON for so many batches, then is told to stop."""
    asked = itertools.count()  # once before the first batch
    with pytest.raises(segments.InterruptedTrainingError, match="they are kept: run the same snakemake command again"):
        segments.run_segment(
            segments.SegmentJob(path, TWO_RATES, BANK, None, 0, HORIZON), stop=lambda: next(asked) >= batches
        )


@pytest.mark.parametrize("stops", [[1], [7], [31, 1, 1], [32, 64], [HORIZON // TINY_RUN.batch_size - 1]], ids=str)
def test_a_segment_that_is_stopped_goes_on_where_it_was_bit_for_bit(stops, uninterrupted, tmp_path):
    path = tmp_path / uninterrupted.name
    for number, batches in enumerate(stops, start=1):
        interrupted(path, batches)
        assert not path.exists()
        done = sum(stops[:number]) * TINY_RUN.batch_size
        assert hdf5.read_attribute(layout.unfinished_name(path), "sequences_seen") == done
    segments.run_segment(segments.SegmentJob(path, TWO_RATES, BANK, None, 0, HORIZON))
    with hdf5.reading(path, "segment"), hdf5.reading(uninterrupted, "segment"):
        assert hdf5.read_attribute(path, "checksum") == hdf5.read_attribute(uninterrupted, "checksum")
    assert not layout.unfinished_name(path).exists()


def test_a_stop_on_the_last_batch_is_too_late(uninterrupted, tmp_path):
    path = tmp_path / uninterrupted.name
    asked = itertools.count()  # once before the first batch
    last = HORIZON // TINY_RUN.batch_size
    segments.run_segment(segments.SegmentJob(path, TWO_RATES, BANK, None, 0, HORIZON), stop=lambda: next(asked) == last)
    assert hdf5.read_attribute(path, "checksum") == hdf5.read_attribute(uninterrupted, "checksum")


def test_going_on_takes_no_more_memory_than_beginning(tmp_path):
    """A job's memory is asked for without its snapshots: they are brought over one at a time."""
    run = tiny_run(**{"snapshots.every": TINY_RUN.batch_size, "model.width": 64})
    spec, bank = pack(run), BANK
    path, horizon = tmp_path / layout.segment_name(0, 4000), 4000
    asked = itertools.count()
    with pytest.raises(segments.InterruptedTrainingError):
        segments.run_segment(segments.SegmentJob(path, spec, bank, None, 0, horizon), stop=lambda: next(asked) >= 900)
    largest = []
    copy = checkpoint.copy_snapshots

    def watched(beginning: Path, file: h5py.File) -> None:
        tracemalloc.start()
        copy(beginning, file)
        largest.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "copy_snapshots", watched)
        segments.run_segment(segments.SegmentJob(path, spec, bank, None, 0, horizon))
    size = path.stat().st_size
    # Some snapshots' worth of the hundreds there are.
    assert largest[0] < size / 50


@pytest.mark.parametrize("what", ["damaged", "of another segment"])
def test_a_beginning_that_is_no_good_is_left_aside(what, uninterrupted, tmp_path):
    path = tmp_path / uninterrupted.name
    interrupted(path, 9)
    beginning = layout.unfinished_name(path)
    if what == "damaged":
        beginning.write_bytes(beginning.read_bytes()[:-1000])
    else:
        with h5py.File(beginning, "r+") as file:
            file.attrs["identity"] = "another"
            file.attrs["checksum"] = hdf5.checksum(file)
    segments.run_segment(segments.SegmentJob(path, TWO_RATES, BANK, None, 0, HORIZON))
    assert hdf5.read_attribute(path, "checksum") == hdf5.read_attribute(uninterrupted, "checksum")


def test_a_segment_of_one_pack_is_no_beginning_for_another(uninterrupted, tmp_path):
    with pytest.raises(hdf5.StoreError, match="belongs to pack"):
        segments.run_segment(
            segments.SegmentJob(tmp_path / "next.h5", pack(), BANK, uninterrupted, HORIZON, HORIZON + 4)
        )
    with pytest.raises(hdf5.StoreError, match=f"ends at {HORIZON} sequences seen, expected {HORIZON + 4}"):
        segments.run_segment(
            segments.SegmentJob(tmp_path / "next.h5", TWO_RATES, BANK, uninterrupted, HORIZON + 4, HORIZON + 8)
        )
    assert list(tmp_path.iterdir()) == []


STORMY = pack(TINY_RUN, tiny_run(**{"optimizer.learning_rate": 1e30}))


def test_a_diverged_lane_stays_diverged_in_the_segments_after(tmp_path):
    paths = trained_in_segments(tmp_path, STORMY, [0, STRETCH, 2 * STRETCH])
    for path in paths:
        with segment_file.opened(path, STORMY) as segment:
            assert segment.diverged_at.tolist() == [NOT_DIVERGED, STRETCH]


def test_when_a_lane_diverged_does_not_depend_on_where_segments_meet(tmp_path):
    whole = trained_in_segments(tmp_path / "whole", STORMY, [0, 2 * STRETCH])
    parts = trained_in_segments(tmp_path / "parts", STORMY, [0, STRETCH // 2, 2 * STRETCH])
    found = [checkpoint.load_checkpoint(paths[-1], STORMY, 2 * STRETCH).diverged_at for paths in (whole, parts)]
    assert found[0].tolist() == found[1].tolist()


# The training job: killed, repeated, doubled.

JOB = pack(TINY_RUN, TINY_RUN)
JOB_END = 800 * TINY_RUN.batch_size


@pytest.fixture(scope="module")
def bank_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("banks") / "bank.h5"
    banks_bank.save(banks_bank.build(TINY_BANK), path, TINY_BANK)
    return path


def arguments(bank_file: Path, output: Path, end: int = STRETCH) -> list[str]:
    spans = ["--from", "0", "--to", str(end), "--previous"]
    return ["train", "--spec", JOB.json, "--bank", str(bank_file), *spans, "--output", str(output)]


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / layout.segment_name(0, STRETCH)


@pytest.fixture
def finished(bank_file, output) -> Path:
    """A segment that a job has finished."""
    assert main(arguments(bank_file, output)) == 0
    return output


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(segments, "run_segment", refuse)


def test_a_job_killed_in_mid_segment_leaves_nothing_that_looks_whole_and_can_be_repeated(bank_file, tmp_path):
    killed, undisturbed = (tmp_path / name / layout.segment_name(0, JOB_END) for name in ("killed", "undisturbed"))
    command = [sys.executable, "-m", "icl_transience", *arguments(bank_file, killed, JOB_END)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (begun := list(killed.parent.glob(".segment-*.tmp"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert begun[0].exists()
    assert not killed.exists()
    assert not layout.kept_name(killed).exists()

    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert not begun[0].exists()
    assert main(arguments(bank_file, undisturbed, JOB_END)) == 0
    with hdf5.reading(killed, "segment"), hdf5.reading(undisturbed, "segment"):
        assert hdf5.read_attribute(killed, "checksum") == hdf5.read_attribute(undisturbed, "checksum")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_job_told_to_stop_keeps_what_it_has_and_the_next_one_goes_on_from_there(number, bank_file, tmp_path):
    """SIGTERM is what a queue sends before SIGKILL, SIGINT what Ctrl-C does, SIGHUP a lost connection."""
    # Longer than the test will wait: only the signal ends it.
    endless = 10_000_000 * TINY_RUN.batch_size
    long = tmp_path / layout.segment_name(0, endless)
    log = tmp_path / "log"
    command = [sys.executable, "-m", "icl_transience"]
    process = subprocess.Popen(
        [*command, *arguments(bank_file, long, endless), "--log", str(log)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (log.exists() and "left" in log.read_text()):  # its first line of progress
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=30)[1] + log.read_text()
    assert process.returncode == 1
    assert "run the same snakemake command again to go on from there" in said
    assert "Traceback" not in said
    assert list(tmp_path.glob(".*.tmp")) == []
    seen = hdf5.read_attribute(layout.unfinished_name(long), "sequences_seen")
    assert 0 < seen < endless


def test_what_a_stopped_job_kept_is_where_the_next_job_begins(bank_file, output, monkeypatch, capsys):
    began = []
    train = loop.train

    def watched(pack, state, *rest, **more):
        began.append(state.sequences_seen)
        if len(began) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return train(pack, state, *rest, **more)

    monkeypatch.setattr(loop, "train", watched)
    assert main(arguments(bank_file, output)) == 1
    assert not output.exists()
    assert main(arguments(bank_file, output)) == 0
    # The first job had done the one batch that was under way.
    assert began == [0, TINY_RUN.batch_size]
    other = output.parent / "undisturbed" / output.name
    assert main(arguments(bank_file, other)) == 0
    assert hdf5.read_attribute(output, "checksum") == hdf5.read_attribute(other, "checksum")


def test_a_finished_segment_that_was_deleted_comes_back_without_training(finished, bank_file, capsys, no_training):
    content = finished.read_bytes()
    finished.unlink()
    os.utime(layout.kept_name(finished), (0, 0))
    begun = time.time()
    assert main(arguments(bank_file, finished)) == 0
    assert finished.read_bytes() == content
    # Newer than the job's inputs, or Snakemake would make it again. File times may be a clock tick behind.
    assert finished.stat().st_mtime > begun - 1
    assert "finished before" in capsys.readouterr().err


def test_a_damaged_kept_segment_is_trained_again(finished, bank_file, capsys):
    checksum = hdf5.read_attribute(finished, "checksum")
    kept = layout.kept_name(finished)
    content = bytearray(kept.read_bytes())
    content[-200] ^= 1
    kept.unlink()
    kept.write_bytes(content)
    finished.unlink()
    assert main(arguments(bank_file, finished)) == 0
    assert "finished before" not in capsys.readouterr().err
    for path in (finished, kept):
        with hdf5.reading(path, "segment", layout.segment_identity(JOB.id, 0, STRETCH)):
            assert hdf5.read_attribute(path, "checksum") == checksum


def test_a_kept_segment_of_another_pack_is_not_taken(finished, bank_file):
    finished.unlink()
    other = arguments(bank_file, finished)
    other[2] = pack(TINY_RUN).json
    assert main(other) == 0
    with hdf5.reading(finished, "segment", layout.segment_identity(pack(TINY_RUN).id, 0, STRETCH)):
        pass


def test_a_second_trainer_of_a_pack_waits_for_the_first_and_takes_what_it_made(bank_file, output, capsys):
    """Both are told to make the same segment; it is trained once."""
    with locks.locked(output.parent / ".lock"):
        second = subprocess.Popen(
            [sys.executable, "-m", "icl_transience", *arguments(bank_file, output)], stderr=subprocess.PIPE, text=True
        )
        assert "another process trains this pack: waiting for it" in second.stderr.readline()
        spec = JOB, load(bank_file, TINY_BANK), None
        segments.run_segment(segments.SegmentJob(output, *spec, 0, STRETCH))
        assert second.poll() is None
    said = second.communicate(timeout=60)[1]
    assert second.returncode == 0
    assert "finished before" in said


def test_a_second_trainer_that_waits_can_be_told_to_end(bank_file, output):
    with locks.locked(output.parent / ".lock"):
        second = subprocess.Popen(
            [sys.executable, "-m", "icl_transience", *arguments(bank_file, output)], stderr=subprocess.PIPE, text=True
        )
        assert "waiting for it" in second.stderr.readline()
        second.terminate()
        second.communicate(timeout=60)
    assert second.returncode == 128 + signal.SIGTERM
    assert not output.exists()


def test_a_job_that_starts_leaves_the_unfinished_files_of_a_running_evaluation(bank_file, output):
    being_written = output.parent / ".metrics-set-000000000000-000000000004.h5.123.tmp"
    being_written.touch()
    assert main(arguments(bank_file, output)) == 0
    assert being_written.exists()


def test_every_batch_says_what_holds_for_it_whatever_part_of_training_it_is_asked_for():
    noisy = later(30, **{"recipe.input_noise": 0.5})
    run = tiny_run(interventions=(noisy,), forgetting=Forgetting(every=20, until=40))
    spec = pack(run, TINY_RUN)
    whole = list(lanes.batches(spec, embeddings_for(spec), 0, 64))
    assert [batch.start for batch in whole] == list(range(0, 64, 4))
    # Forgetting at 20 and 40; the intervention in whole batches, at 32.
    assert [batch.start for batch in whole if batch.begins] == [0, 20, 32, 40]
    assert [batch.lanes[0].run.recipe.input_noise for batch in whole] == [0.0] * 8 + [0.5] * 8
    assert {batch.lanes[1].run.recipe.input_noise for batch in whole} == {0.0}
    part = list(lanes.batches(spec, embeddings_for(spec), 24, 64))
    assert [batch.start for batch in part if batch.begins] == [24, 32, 40]
    for one, other in zip(whole[6:], part, strict=True):
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.labels, other.labels)
