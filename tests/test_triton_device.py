"""Engine `triton` on a CUDA device: captured steps against the eager engine, and against themselves bit for bit."""

import pytest
import torch
from builders import changed, pack, tiny_run
from interpreted import bank_of, fresh_parameters, poisoned

from icl_transience.engines import verify
from icl_transience.engines.state import State, initial_state
from icl_transience.specs.model import Model
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import PackSpec, Run

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
    "width 32, clipped": {"model": Model(depth=2, width=32, heads=4, mlp_ratio=0), "optimizer.clip": 0.05},
}


def shaped(name: str, numerics: str) -> Run:
    return changed(tiny_run(batch_size=32, numerics=numerics), SHAPES[name])


def stepped(spec: PackSpec, bank: torch.Tensor, weights, parts: tuple[int, ...]) -> tuple[State, torch.Tensor]:
    state, losses, seen = initial_state(spec, "cuda"), [], 0
    for name, value in weights.items():
        state.parameters[name].copy_(value)
    for batches in parts:
        until = seen + batches * spec.run.batch_size
        losses += poisoned(spec, state, bank).losses(seen, until)
        seen = until
    return state, torch.stack(losses)


@pytest.mark.parametrize("numerics", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_captured_steps_are_those_of_the_reference_but_for_rounding(shape, numerics):
    run = changed(shaped(shape, numerics), {"optimizer.clip": 0.0})
    spec, bank = pack(run), bank_of(run).cuda()
    for deviation in verify.check_step(spec, bank, 0, "triton"):
        assert deviation.excess < 1, deviation


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
