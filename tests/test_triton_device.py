"""Engine `triton` on a CUDA device: captured steps against the eager engine, and against themselves bit for bit."""

import pytest
import torch
from builders import changed, pack, tiny_run
from interpreted import Poisoned, bank_of, fresh_parameters

from icl_transience.engines import verify
from icl_transience.engines.state import State, initial_state
from icl_transience.specs.model import Model
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import PackSpec, Run
from icl_transience.specs.training import Forgetting, Schedule, Snapshots

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

SHAPES = {
    "attention alone, 5 tokens": {
        "model": Model(depth=2, width=64, heads=8, mlp_ratio=0),
        "recipe": Recipe(context=2, burstiness=1),
    },
    "mlp, 17 tokens": {
        "model": Model(depth=3, width=64, heads=8, mlp_ratio=4),
        "recipe": Recipe(context=8, burstiness=3),
        "bank.gaussian.classes": 300,
    },
    "width 128, 31 tokens": {
        "model": Model(depth=1, width=128, heads=8, mlp_ratio=2),
        "recipe": Recipe(context=15, burstiness=4),
    },
    "width 64, 33 tokens": {
        "model": Model(depth=2, width=64, heads=8, mlp_ratio=1),
        "recipe": Recipe(context=16, burstiness=4),
        "bank.gaussian.classes": 300,
    },
    "width 32, all labels' arrays are forgotten": {
        "model": Model(depth=2, width=32, heads=4, mlp_ratio=1),
        "forgetting": Forgetting(every=160, unembedding=True),
    },
    "width 32, clipped": {"model": Model(depth=2, width=32, heads=4, mlp_ratio=0), "optimizer.clip": 0.05},
}


# Built here, so that where there is no device it is seen that they can be.
EACH_BATCH = Snapshots(first=1, per_doubling=1, every=1)
MAKING_UP = {"optimizer.l2.strength": 1e-3, "optimizer.schedule": Schedule(warmup=99), "snapshots": EACH_BATCH}
NO_BATCH = {"snapshots": Snapshots(first=10**9, per_doubling=1, every=10**9)}
MANY_BLOCKS = {
    width: {
        "model": Model(depth=12, width=width, heads=width // 8, mlp_ratio=4),
        "recipe": Recipe(context=8, burstiness=3),
        "bank.gaussian.classes": 1600,
    }
    for width in (32, 64)
}


@pytest.fixture(autouse=True)
def fresh_random_input():
    """Other numbers every time; pytest shows the seed of a test that fails."""
    print("torch.manual_seed", torch.seed())


def shaped(name: str, numerics: str) -> Run:
    return changed(tiny_run(batch_size=32, numerics=numerics), SHAPES[name])


def stepped(spec: PackSpec, bank: torch.Tensor, weights, parts: tuple[int, ...]) -> tuple[State, torch.Tensor]:
    state, losses, seen = initial_state(spec, "cuda"), [], 0
    for name, value in weights.items():
        state.parameters[name].copy_(value)
    for batches in parts:
        until = seen + batches * spec.run.batch_size
        losses += Poisoned(spec, state, bank).losses(seen, until)
        seen = until
    return state, torch.stack(losses)


@pytest.mark.parametrize("numerics", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_captured_steps_are_those_of_the_reference_but_for_rounding(shape, numerics):
    run = changed(shaped(shape, numerics), {"optimizer.clip": 0.0})
    spec, bank = pack(run), bank_of(run).cuda()
    for deviation in verify.check_step(spec, bank, 0, "triton"):
        assert deviation.excess < 1, deviation


@pytest.mark.parametrize("numerics", ["float32", "bfloat16"])
def test_rows_of_labels_make_up_for_many_batches_to_the_bits_of_doing_so_often(numerics):
    often = changed(shaped("mlp, 17 tokens", numerics), MAKING_UP)
    never = changed(often, NO_BATCH)
    bank, weights = bank_of(often).cuda(), fresh_parameters(often, 2)
    (state, losses), (again, same) = (stepped(pack(run, run), bank, weights, (600,)) for run in (often, never))
    assert torch.equal(losses, same)
    for part in ("parameters", "first_moments", "second_moments"):
        assert all(torch.equal(getattr(again, part)[name], value) for name, value in getattr(state, part).items())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has no second CUDA device")
def test_steps_on_another_device_than_the_current_one_are_the_same():
    run = shaped("mlp, 17 tokens", "float32")
    spec, found = pack(run), []
    bank, weights = bank_of(run), fresh_parameters(run, 1)
    for device in ("cuda:0", "cuda:1"):
        state = initial_state(spec, device)
        for name, value in weights.items():
            state.parameters[name].copy_(value)
        list(Poisoned(spec, state, bank.to(device)).losses(0, 20 * run.batch_size))
        found.append(state.parameters)
    assert all(torch.equal(value.cpu(), found[1][name].cpu()) for name, value in found[0].items())


@pytest.mark.parametrize("numerics", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_captured_steps_are_the_same_again_resumed_and_whatever_the_pack(shape, numerics):
    run = shaped(shape, numerics)
    spec, bank, weights = pack(run, run, run), bank_of(run).cuda(), fresh_parameters(run, 3)
    state, losses = stepped(spec, bank, weights, (20,))
    alone = PackSpec(lanes=spec.lanes[1:2]), bank, {name: value[1:2] for name, value in weights.items()}
    for (found, again), lane in (
        (stepped(spec, bank, weights, (20,)), slice(None)),
        (stepped(spec, bank, weights, (3, 17)), slice(None)),
        (stepped(*alone, (20,)), slice(1, 2)),
    ):
        assert torch.equal(again, losses[:, lane])
        for part in ("parameters", "first_moments", "second_moments"):
            for name, value in getattr(found, part).items():
                assert torch.equal(value, getattr(state, part)[name][lane]), (part, name)


@pytest.mark.parametrize("numerics", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("width", MANY_BLOCKS)
def test_64_lanes_of_many_blocks_are_the_same_again_and_one_of_them_alone(width, numerics):
    """What no small pack shows: all multiprocessors are busy, with several programs each."""
    run = changed(tiny_run(batch_size=32, numerics=numerics), MANY_BLOCKS[width])
    spec, bank, weights = pack(*[run] * 64), bank_of(run).cuda(), fresh_parameters(run, 64)
    state, losses = stepped(spec, bank, weights, (60,))
    alone = PackSpec(lanes=spec.lanes[63:]), bank, {name: value[63:] for name, value in weights.items()}
    for (found, again), lane in (
        (stepped(spec, bank, weights, (60,)), slice(None)),
        (stepped(*alone, (60,)), slice(63, 64)),
    ):
        assert torch.equal(again, losses[:, lane])
        for name, value in found.parameters.items():
            assert torch.equal(value, state.parameters[name][lane]), name
