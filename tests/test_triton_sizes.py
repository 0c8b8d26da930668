"""Engine `triton` by numbers: kernels a step, bytes and FLOP, what it refuses, where its parameters stand."""

import math
import sys
from pathlib import Path

import pytest
import torch
from builders import changed, pack, tiny_run
from interpreted import Poisoned, bank_of, needs_interpreter, small
from torch.utils._python_dispatch import TorchDispatchMode

from icl_transience.engines import select
from icl_transience.engines.state import initial_state
from icl_transience.engines.triton.engine import TritonStep
from icl_transience.engines.triton.layout import Layout
from icl_transience.specs.compute import TRITON_CONTEXTS, engine_problem, training_flop
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import Run
from icl_transience.specs.training import Intervention, Optimizer

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
# After `interpreted`, which says how triton is to be imported.
import ahead_of_time
import throughput

KERNELS = 40


def published(shape: str) -> Run:
    """A shape of docs/performance.md, (a) to (d)."""
    return throughput.pack_of(throughput.SHAPES[shape], 1, "tf32").run


class CountsLaunches(TorchDispatchMode):
    """Counts calls of PyTorch that would launch a kernel on a GPU; those that only look at a tensor launch none."""

    LOOKS = ("view", "select", "slice", "detach", "unflatten", "empty")

    def __init__(self):
        super().__init__()
        self.calls, self.counts = [], True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if self.counts and not name.startswith(self.LOOKS):
            self.calls.append(name)
        return function(*args, **(kwargs or {}))


@needs_interpreter
@pytest.mark.parametrize(
    "changes", [{}, {"optimizer.clip": 1.0}, {"numerics": "bfloat16"}], ids=["plain", "clip", "bfloat16"]
)
def test_every_launch_of_a_step_is_counted_pytorchs_too(changes, monkeypatch):
    run = small(**changes)
    step = Poisoned(pack(run, run), initial_state(pack(run, run)), bank_of(run))
    launched, counted = [], CountsLaunches()
    stores = "optimizer.clip" in changes
    for kernel in {launch[0] for launch in step.launches(stores)}:
        real = kernel.run

        def run_and_count(*args, kernel=kernel, real=real, **kwargs):
            launched.append(kernel.__name__)
            # What the interpreter does with tensors is one launch.
            counted.counts = False
            real(*args, **kwargs)
            counted.counts = True

        monkeypatch.setattr(kernel, "run", run_and_count)
    losses = step.losses(0, 8 * run.batch_size)
    next(losses)
    settled = set()
    for _ in range(7):
        launched.clear()
        counted.calls.clear()
        with counted:
            next(losses)
        settled.add(step.settled)
        # Where there is a snapshot, rows of the labels' table make up for what they missed.
        assert launched == [kernel.__name__ for kernel, *_ in step.launches(stores)] + ["replay"] * step.settled
        # The loss is handed out.
        assert counted.calls == ["clone"]
    assert settled == {False, True}


@pytest.mark.parametrize(("shape", "plain"), [("a", 15), ("b", 15), ("c", 35), ("d", 35)], ids=["a", "b", "c", "d"])
def test_a_step_is_at_most_40_kernels_at_any_number_of_lanes(shape, plain):
    for lanes in (1, 16, 64):
        step = ahead_of_time.step_of(published(shape), (9, 0), lanes)
        # And the one of PyTorch above.
        assert [len(step.launches(store)) + 1 for store in (False, True)] == [plain + 1, plain + 5]
        assert plain + 5 <= KERNELS


def test_parameters_bytes_and_flop_are_those_of_the_published_shapes():
    """Rounded as the notes on the engine have them: parameters, MB of Adam's traffic a lane-step, MFLOP a sequence."""
    found = {}
    for shape in "abcd":
        layout = Layout(published(shape))
        # No gradient goes to the exemplars.
        flop = training_flop(layout.run) - 2 * (layout.run.recipe.context + 1) * layout.run.bank.shape.width * 64
        found[shape] = layout.parameters, round(layout.adam_bytes / 1e6, 1), float(f"{flop / 1e6:.3g}")
        # All rows leave the last block, and backward computes again what it does not keep: under twice as much.
        assert 1.0 < layout.flop / flop < 2.1, (shape, layout.flop / flop)
    assert found == {
        "a": (287_056, 6.9, 3.58),
        "b": (1_688_512, 40.5, 5.77),
        "c": (836_096, 20.1, 59.3),
        "d": (2_280_896, 54.7, 63.6),
    }


def test_arrays_stand_where_kernels_look_for_them():
    for changes in ({}, {"model.mlp_ratio": 3}, {"model.positions.kind": "learned", "bank.gaussian.classes": 13}):
        layout = Layout(small(**{"model.depth": 3}, **changes))
        ends = [layout.offsets[name] + math.prod(layout.shapes[name]) for name in layout.names]
        for name, end, following in zip(layout.names, ends, [*layout.names[1:], None], strict=True):
            start = layout.lane_stride if following is None else layout.offsets[following]
            assert layout.offsets[name] % 16 == start % 16 == 0
            assert end <= start < end + 16
            # Within a block, and from a weight to its bias, nothing may lie between.
            if name.startswith("blocks.") or name.endswith(".weight"):
                assert start == end, name
        first = layout.offsets["blocks.0.norm1.scale"]
        assert layout.offsets["blocks.2.norm1.scale"] == first + 2 * layout.block_stride
        covered = [number for _, at, size in layout.chunks for number in (at, at + size)]
        assert sum(size for _, _, size in layout.chunks) == layout.parameters
        assert covered == sorted(covered)


@needs_interpreter
def test_a_step_moves_each_weight_and_moment_once_and_nothing_between_them():
    """Adam's traffic is what `adam_bytes` says: every number is written by one store of one program."""
    from triton.runtime.interpreter import interpreter_builder as builder

    run = small(**{"model.mlp_ratio": 2, "model.positions.kind": "learned"})
    spec = pack(run, run)
    step = Poisoned(spec, initial_state(spec), bank_of(run))
    parts = (step.parameters, step.firsts, step.seconds)
    written = [torch.zeros(part.shape, dtype=torch.int32) for part in parts]
    real = builder.create_masked_store

    def store(pointers, value, mask, *rest):
        addresses = torch.from_numpy(pointers.data[mask.data.astype(bool)].astype("int64"))
        for part, count in zip(parts, written, strict=True):
            place = (addresses - part.data_ptr()) // 4
            place = place[(place >= 0) & (place < part.numel())]
            count.view(-1).index_add_(0, place, torch.ones_like(place, dtype=torch.int32))
        return real(pointers, value, mask, *rest)

    builder.create_masked_store = store
    try:
        list(step.losses(0, run.batch_size))
    finally:
        del builder.create_masked_store
    layout = step.layout
    for count in written:
        expected = torch.zeros_like(count)
        for name, shape in layout.shapes.items():
            expected[:, layout.offsets[name] : layout.offsets[name] + math.prod(shape)] = 1
        assert torch.equal(count, expected)
    assert sum(int(count.sum()) for count in written) * 4 * 2 == layout.adam_bytes * len(spec.lanes)


@pytest.mark.parametrize("numerics", ["float32", "tf32", "bfloat16"])
def test_no_forward_pass_takes_tiles_of_64_rows_and_32_columns(numerics):
    """In bfloat16 such a kernel read out of range on an H200."""
    for width, most in TRITON_CONTEXTS.items():
        for context in range(2, most + 1):
            run = small(**{"model.width": width, "recipe.context": context, "numerics": numerics})
            assert engine_problem("triton", "cuda", run) is None
            for capability in ((8, 0), (9, 0)):
                tile = Layout(run, capability).forward
                assert (tile.rows, tile.columns) != (64, 32)
                assert tile.rows >= 2 * context + 1


REFUSED = {
    "does not compute in float64": {"numerics": "float64"},
    "draws no input noise": {"recipe.input_noise": 0.1},
    "has no dropout": {"model.dropout": 0.1},
    "knows no rotary positions": {"model.positions.kind": "rotary"},
    "has no sgd": {"optimizer.name": "sgd"},
    "has an epsilon of 1e-18 at least": {"optimizer.epsilon": 1e-20},
    "has widths 32, 64, 128, and not 48": {"model.width": 48},
    "has contexts of 15 pairs at most at width 32, and not 16": {"recipe.context": 16},
    "has contexts of 15 pairs at most at width 128, and not 16": {"model.width": 128, "recipe.context": 16},
    "has batches of 64 sequences at most, and not 65": {"batch_size": 65},
}


@pytest.mark.parametrize(("reason", "changes"), REFUSED.items(), ids=REFUSED)
def test_what_the_engine_cannot_do_is_refused_in_words(reason, changes):
    run = small(**changes)
    assert engine_problem("triton", "cuda", run) == f"engine: triton {reason}: choose auto or eager"
    with pytest.raises(StudyError, match=reason):
        select.chosen("triton", run, torch.device("cuda"))


def test_what_comes_later_is_refused_too():
    later = Intervention(at=8, recipe=small().recipe, optimizer=Optimizer(learning_rate=1e-3, name="sgd"))
    assert "has no sgd" in str(engine_problem("triton", "cuda", small(interventions=(later,))))


def test_the_engine_is_for_gpus_and_can_be_named():
    assert engine_problem("triton", "cuda:1", small()) is None
    assert "triton is for device cuda, got device 'cpu'" in str(engine_problem("triton", "cpu", small()))
    assert select.chosen("triton", small(), torch.device("cuda")) == "triton"
    spec = pack(small())
    assert isinstance(select.triton_step(spec, initial_state(spec), bank_of(spec.run)), TritonStep)


def test_training_on_a_cpu_does_without_triton_and_naming_it_there_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in [name for name in sys.modules if name.startswith("icl_transience.engines.triton")]:
        monkeypatch.delitem(sys.modules, name)
    spec = pack(tiny_run())
    assert select.step_for(spec, initial_state(spec), bank_of(spec.run), "eager")
    with pytest.raises(StudyError, match="engine: triton needs the package triton"):
        select.triton_step(spec, initial_state(spec), bank_of(changed(tiny_run(), {})))
