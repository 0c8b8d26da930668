"""Compile a step's kernels, and launch them: one after the other, or in several streams on a GPU.

Kernels that step on matrices move memory, and those that go backward through blocks compute. Some share nothing but
what one hands to the other. These run at the same time, the main stream's first where several wait for room.
"""

import contextvars
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import triton  # pyright: ignore[reportMissingImports]  # comes with PyTorch for GPUs


class Launch(NamedTuple):
    """A kernel's launch.

    programs: along the first axis of the grid; lanes are the second. options: of the compiler. beside: None in the
    main stream, or the name of another; then it waits for what the main stream was given before. after: numbers of
    launches of other streams that it waits for.
    """

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    constants: dict[str, Any]
    options: dict[str, int]
    beside: str | None = None
    after: tuple[int, ...] = ()

    def __call__(self, lanes: int) -> None:
        """Launch the kernel for so many lanes, in the current stream of the current device."""
        self.kernel[self.programs, lanes](**self.arguments, **self.constants, **self.options)

    def compile(self, lanes: int) -> None:
        """Have the kernel compiled, and launch nothing."""
        grid = self.programs, lanes
        self.kernel.warmup(**self.arguments, **self.constants, **self.options, grid=grid)


def compile_all(launches: Sequence[Launch], lanes: int) -> None:
    """Compile kernels for the current device, as many at a time as there are cores for this process."""

    def compile_together() -> None:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads, triton.AsyncCompileMode(threads):
            for launch in launches:
                launch.compile(lanes)

    # In a context of its own: where a kernel does not compile, the mode would stay on (triton 3.7.1).
    contextvars.copy_context().run(compile_together)


def one_after_the_other(launches: Sequence[Launch], lanes: int) -> Callable[[], None]:
    """Return what launches all of them in the current stream."""

    def work() -> None:
        for launch in launches:
            launch(lanes)

    return work


def in_streams(launches: Sequence[Launch], lanes: int, device: torch.device) -> Callable[[], None]:
    """Return what launches all of them, each in its stream, and has the current one, the main stream, wait for all."""
    streams = {launch.beside: torch.cuda.Stream(device) for launch in launches if launch.beside}

    def work() -> None:
        main, done = torch.cuda.current_stream(device), dict[int, torch.cuda.Event]()
        for number, launch in enumerate(launches):
            stream = streams[launch.beside] if launch.beside else main
            if launch.beside:
                stream.wait_stream(main)
            for other in launch.after:
                stream.wait_event(done[other])
            with torch.cuda.stream(stream):
                launch(lanes)
            if launch.beside:
                done[number] = torch.cuda.Event()
                done[number].record(stream)
        for stream in streams.values():
            main.wait_stream(stream)

    return work
