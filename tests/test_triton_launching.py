"""Engine `triton` in several streams: what runs at the same time shares nothing that one of them writes.

Without a GPU: of all pairs of launches that no stream and no event puts in order, what they read and write is
compared, address by address. And a step is taken with what runs beside the main stream as late as may be: streams are
stood in for by queues, which hold it back until the main one waits. One launch after the other is the earliest.
"""

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pytest
import torch
from builders import pack
from interpreted import Poisoned, bank_of, needs_interpreter, small, trained

from icl_transience.engines import select, verify
from icl_transience.engines.state import initial_state
from icl_transience.engines.triton import launching

NOTHING = np.array([], dtype=np.uint64)
DEEP = {"model.depth": 4, "model.mlp_ratio": 1}


class Mark(NamedTuple):
    """Where a queue stood."""

    queue: "Queue"
    length: int


class Queue:
    """A stream: what it was given and has not done. The main one does all at once."""

    def __init__(self, device=None):
        self.waiting, self.done = [], 0

    def mark(self) -> Mark:
        return Mark(self, self.done + len(self.waiting))

    def run_until(self, length: int) -> None:
        while self.done < length:
            self.done += 1
            self.waiting.pop(0)()

    def wait_event(self, event) -> None:
        event.at.queue.run_until(event.at.length)

    def wait_stream(self, other) -> None:
        other.run_until(other.mark().length)


class Event:
    def record(self, stream: Queue) -> None:
        self.at = stream.mark()


def stand_in_for_streams(monkeypatch, main, event) -> list:
    """Put streams of main's kind in place of a GPU's, and events; return those entered, the current one last."""
    current = [main]

    @contextmanager
    def stream(one):
        current.append(one)
        yield
        current.pop()

    stand_ins = {"Stream": type(main), "Event": event, "stream": stream, "current_stream": lambda device: main}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(launching.torch.cuda, name, stand_in)
    return current


@pytest.fixture
def late(monkeypatch):
    """Return a step whose launches beside the main stream run as late as they may; `order` is that of the kernels."""
    main, order = Queue(), []
    current = stand_in_for_streams(monkeypatch, main, Event)
    real = launching.Launch.__call__

    def launch(self, lanes):
        def run():
            order.append(self.kernel.__name__)
            real(self, lanes)

        if current[-1] is main:
            run()
        else:
            current[-1].waiting.append(run)

    class Late(Poisoned):
        def _work(self, store):
            return launching.in_streams(self.launches(store), len(self.pack.lanes), torch.device("cpu"))

    monkeypatch.setattr(launching.Launch, "__call__", launch)
    Late.order = order
    return Late


@needs_interpreter
@pytest.mark.parametrize(
    "changes", [{}, {"optimizer.clip": 0.05}, {"model.depth": 1}], ids=["four blocks", "clipped", "one block"]
)
def test_launches_beside_the_main_stream_give_the_same_bits_early_and_late(late, changes):
    run = small(**DEEP | changes)
    spec, bank = pack(run, run), bank_of(run)
    state, losses = trained(spec, bank, 3)
    again, same = trained(spec, bank, 3, late)
    assert torch.equal(losses, same)
    for part in ("parameters", "first_moments", "second_moments"):
        assert all(torch.equal(getattr(again, part)[name], value) for name, value in getattr(state, part).items())


@needs_interpreter
def test_the_head_steps_at_the_end_and_two_blocks_late_where_they_may(late):
    """So the test above runs what it says; and it fails where a launch does not wait for what it needs."""
    run = small(**DEEP)
    spec, bank = pack(run), bank_of(run)
    trained(spec, bank, 1, late)
    of_step = late.order[: late.order.index("vectors_step") + 1]
    assert of_step[-2:] == ["head_step", "vectors_step"]
    in_turn = [name.removeprefix("block_") for name in of_step if name.startswith("block_")]
    assert in_turn == ["backward", "backward", "step", "backward", "step", "backward"]
    assert late.order.count("block_step") == 4


@needs_interpreter
@pytest.mark.parametrize(("kernel", "clip"), [("block_backward", 0.0), ("vectors_step", 0.0), ("weigh", 0.05)])
def test_a_launch_that_does_not_wait_is_found(late, kernel, clip, monkeypatch):
    run = small(**DEEP, **{"optimizer.clip": clip})
    spec, bank = pack(run), bank_of(run)
    state, _ = trained(spec, bank, 2)
    real = late.launches

    def launches(self, store):
        return [one._replace(after=()) if one.kernel.__name__ == kernel else one for one in real(self, store)]

    monkeypatch.setattr(late, "launches", launches)
    others, _ = trained(spec, bank, 2, late)
    assert any(not torch.equal(others.parameters[name], value) for name, value in state.parameters.items())


class Clock:
    """A stream, or an event: the launches that are over for whoever waits for it."""

    def __init__(self, device=None):
        self.over = set()

    def record(self, stream):
        self.over = set(stream.over)

    def wait_event(self, other):
        self.over |= other.over

    wait_stream = wait_event


@needs_interpreter
@pytest.mark.parametrize(
    "clips", [(0.0, 0.0), (0.05, 0.05), (0.0, 0.05)], ids=["no lane clips", "all lanes clip", "one lane clips"]
)
def test_launches_that_may_run_at_the_same_time_touch_nothing_that_one_of_them_writes(clips, monkeypatch):
    """Every address that every launch reads and writes, of all pairs that no stream and no event puts in order."""
    from triton.runtime import interpreter

    main = Clock()
    read, written = [], []
    before, reads, writes, names = [], [], [], []
    builder, real = interpreter.InterpreterBuilder, launching.Launch.__call__
    load, store = builder.create_masked_load, builder.create_masked_store

    def addresses(pointers, mask):
        return np.unique(pointers.data[np.broadcast_to(mask.data.astype(bool), pointers.data.shape)])

    def masked_load(self, pointers, mask, *given):
        read.append(addresses(pointers, mask))
        return load(self, pointers, mask, *given)

    def masked_store(self, pointers, value, mask, *given):
        written.append(addresses(pointers, mask))
        return store(self, pointers, value, mask, *given)

    def launch(self, lanes):
        read.clear()
        written.clear()
        real(self, lanes)
        names.append(self.kernel.__name__)
        before.append(set(current[-1].over))
        current[-1].over.add(len(before) - 1)
        reads.append(np.unique(np.concatenate([NOTHING, *read])))
        writes.append(np.unique(np.concatenate([NOTHING, *written])))

    run, other = (small(**DEEP, **{"optimizer.clip": clip}) for clip in clips)
    spec = pack(run, other)
    step = Poisoned(spec, initial_state(spec), bank_of(run))
    list(step.losses(0, run.batch_size))
    step.following.zero_()
    step.last.zero_()
    current = stand_in_for_streams(monkeypatch, main, Clock)
    monkeypatch.setattr(builder, "create_masked_load", masked_load)
    monkeypatch.setattr(builder, "create_masked_store", masked_store)
    monkeypatch.setattr(launching.Launch, "__call__", launch)
    launching.in_streams(step.launches(any(clips)), 2, torch.device("cpu"))()

    pairs = [(i, j) for j in range(len(names)) for i in range(j) if i not in before[j]]
    assert ("head_step", "block_backward") in {(names[i], names[j]) for i, j in pairs}
    assert ("block_step", "block_backward") in {(names[i], names[j]) for i, j in pairs}
    for i, j in pairs:
        for mine, others in ((writes[i], writes[j]), (writes[i], reads[j]), (reads[i], writes[j])):
            assert not np.intersect1d(mine, others).size, (names[i], names[j])
    # The main stream waits for all, so a step ends before the next one begins.
    assert main.over == set(range(len(names)))


def test_where_a_kernel_does_not_compile_the_next_ones_do():
    """Of kernels that compile together one may fail: it says so, and the next ones compile all the same."""
    triton = launching.triton
    compiled = []

    class Kernel:
        def __init__(self, name):
            self.name = name

        def warmup(self, grid, **given):
            mode = triton.runtime._async_compile.active_mode.get()
            return mode.submit(self.name, self.compile, lambda kernel: None)

        def compile(self):
            compiled.append(self.name)
            if self.name == "bad":
                raise ValueError("PTX that nobody takes")

    def of(*names):
        kernels = {name: Kernel(name) for name in names}
        return [launching.Launch(kernels[name], 1, {}, {}, {}) for name in names]

    with pytest.raises(ValueError, match="PTX that nobody takes"):
        launching.compile_all(of("good", "bad"), 2)
    launching.compile_all(of("better", "better", "best"), 2)
    assert sorted(compiled) == ["bad", "best", "better", "good"]


@needs_interpreter
def test_a_check_takes_the_kernels_that_train(monkeypatch):
    """Kernels are made for a batch's size: of another one they would be compiled for the check alone."""
    run, sizes = small(), set()
    real = select.STEPS["triton"]

    def step(pack, *given):
        sizes.add(pack.run.batch_size)
        return real(pack, *given)

    monkeypatch.setattr(verify, "_MOST", 2)
    monkeypatch.setitem(select.STEPS, "triton", step)
    assert verify.check_step(pack(run), bank_of(run), 0, "triton")
    assert sizes == {run.batch_size}


def signature(launch: launching.Launch) -> tuple:
    """Return what Triton makes a kernel of its own for: kinds of arguments, 1 and multiples of 16 apart, constants."""
    kinds = {
        name: (value.dtype, value.data_ptr() % 16) if torch.is_tensor(value) else (type(value), value == 1, value % 16)
        for name, value in launch.arguments.items()
    }
    return launch.kernel.fn.__name__, repr(kinds), repr(launch.constants), repr(launch.options)


@needs_interpreter
def test_kernels_of_a_check_compile_side_by_side(monkeypatch):
    """Those of float32 and of the run's numerics are compiled at once, and steps launch no others."""
    run, compiled, launched = small(numerics="bfloat16"), [], []
    real = launching.one_after_the_other

    def work(launches, lanes):
        launched.append({signature(launch) for launch in launches})
        return real(launches, lanes)

    def compile_together(steps, device):
        assert not launched
        compiled.extend({signature(launch) for launch in step.launches(store=False)} for step in steps)

    monkeypatch.setattr(launching, "one_after_the_other", work)
    monkeypatch.setattr(verify, "_compile_together", compile_together)
    # The interpreter gets bfloat16 wrong.
    monkeypatch.setattr(verify, "judge", lambda *given: None)
    verify.check_step(pack(run), bank_of(run), 0, "triton")
    assert compiled == launched
    assert len(compiled) == 2
    assert compiled[0] != compiled[1]
