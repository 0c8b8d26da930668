"""What only a GPU can show. `benchmarks/gpu.sh` runs this file by itself, with torch, numpy and h5py alone."""

import pytest
import torch
from builders import lane, pack, tiny_run

from icl_transience.engines import graph, optimizers, selfcheck
from icl_transience.engines.graph import GraphStep
from icl_transience.engines.state import initial_state
from icl_transience.sequences import draw
from icl_transience.specs.model import Model
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import PackSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

PAPER = {
    "model": Model(depth=3, width=64, heads=8, mlp_ratio=4),
    "recipe": Recipe(context=8, burstiness=3),
    "batch_size": 32,
}
NUMERICS = ("float32", "tf32", "bfloat16")


def bank() -> torch.Tensor:
    shape = tiny_run().bank.shape
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape.n_classes, shape.n_exemplars, shape.width, generator=generator).cuda()


@pytest.mark.parametrize("numerics", NUMERICS)
def test_a_replayed_graph_is_what_it_recorded(numerics):
    """Call by call and captured: the same kernels on the same numbers; what they compute is in test_graph.py."""
    runs = [tiny_run(numerics=numerics, **PAPER, **{"optimizer.learning_rate": rate}) for rate in (1e-3, 3e-3)]
    spec, batch = pack(*runs), runs[0].batch_size
    states = {capture: initial_state(spec, "cuda") for capture in (False, True)}
    for start, until in ((0, 7 * batch), (7 * batch, 50 * batch)):  # the second as a segment resumes
        found = {}
        for capture, state in states.items():
            before = {name: value.clone() for name, value in state.parameters.items()}
            state.sequences_seen = start
            step = GraphStep(spec, state, bank(), capture=capture)
            # Capture leaves no trace.
            assert all(torch.equal(state.parameters[name], value) for name, value in before.items())
            assert {float(count) for count in step.optimizer.counts} == {start / batch}
            found[capture] = torch.stack(list(step.losses(start, until)))
        assert torch.equal(found[False], found[True])
    called, captured = (state.parameters for state in states.values())
    assert all(torch.equal(called[name], captured[name]) for name in called)


@pytest.mark.parametrize("engine", selfcheck.engines_tried(torch.device("cuda")))
@pytest.mark.parametrize("numerics", NUMERICS)
def test_every_engine_passes_its_self_check(engine, numerics):
    spec = pack(tiny_run(numerics=numerics, **PAPER), tiny_run(numerics=numerics, **PAPER, **{"optimizer.clip": 0.5}))
    report = selfcheck.check(spec, bank(), 0, engine, remembered=False)
    assert report.problem == ""


@pytest.mark.parametrize("lanes", [1, 12, 13, 64])
def test_label_gradients_are_the_same_again_and_those_of_a_lane_alone_but_for_rounding(lanes):
    """PyTorch's library of products takes another one where there are more lanes: so bits are a pack's own."""
    rows, labels = torch.randn(lanes, 256, 64, device="cuda"), torch.randint(1936, (lanes, 256), device="cuda")
    found = graph.label_gradient(rows, labels, 1936)
    assert torch.equal(graph.label_gradient(rows, labels, 1936), found)
    alone = graph.label_gradient(rows[:1], labels[:1], 1936)
    # Each sum is of 256 products at most, nearly all with 0.
    torch.testing.assert_close(found[:1], alone, rtol=2**-20, atol=2**-20)


@pytest.mark.parametrize("numerics", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [3, 4096, 4097, 70_000, 200_001])
def test_the_norm_of_a_lane_is_the_same_to_the_last_bit_however_many_there_are(size, numerics):
    values = torch.randn(64, size, device="cuda", dtype=numerics)
    alone, *others = (optimizers.lane_norms([values[:lanes], values[:lanes, :3].contiguous()]) for lanes in (1, 13, 64))
    assert all(torch.equal(found[:, :1], alone) for found in others)
    torch.testing.assert_close(others[1][0], values.norm(dim=1))


def test_training_waits_for_the_device_at_no_batch():
    spec = PackSpec(lanes=tuple(lane(tiny_run(**PAPER), seed) for seed in range(3)))
    state = initial_state(spec, "cuda")
    step = GraphStep(spec, state, bank())
    for _ in step.losses(0, 32):
        pass
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in step.losses(32, 600 * 32):
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_gpu_draws_the_sequences_of_a_cpu():
    run = tiny_run(**PAPER)
    given = run.recipe, run.bank.shape, (3, 2**32 - 1), "training", 100, 9000
    expected, found = (draw.draw_lanes(*given, torch.device(device)) for device in ("cpu", "cuda"))
    for part in ("classes", "exemplars", "labels"):
        assert torch.equal(getattr(expected, part), getattr(found, part).cpu())
