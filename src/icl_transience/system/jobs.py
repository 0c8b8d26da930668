"""What all subcommands share: arguments, log, signals, and the mark of a job at work."""

import argparse
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from icl_transience.store import locks


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"expected cpu, cuda or cuda:N, got {text!r}")
    return text


def _percent(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 100, got {text!r}")
    return int(text)


# Arguments that several subcommands take.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "spec": {"required": True, "help": "canonical JSON of what to make"},
    "bank": {"required": True, "type": Path, "help": "the bank's HDF5 file"},
    "files": {"default": "[]", "help": "paths of the source's files, if it has any: a JSON list"},
    "output": {"required": True, "type": Path, "help": "the file to write"},
    "device": {"default": "cpu", "type": _device, "help": "cpu, cuda:N, or cuda for a GPU that no other job holds"},
    "gpu-percent": {"type": _percent, "default": 100, "help": "share of a GPU that the job takes, of `cuda`"},
    "engine": {"default": "auto", "help": "auto, or one of engines/select.py"},
    "threads": {"type": int, "default": 1, "help": "CPU threads"},
    "log": {"type": Path, "help": "file for messages and progress, in place of the terminal"},
    "tensorboard": {"type": int, "default": 0, "help": "1: write event files of TensorBoard, too"},
    "study": {"help": "as in config.yaml, and instead of what stands there"},
    "results": {"help": "as in config.yaml, and instead of what stands there"},
}


class AddCommand(Protocol):
    """Add a subcommand; return the parser of its arguments."""

    def __call__(self, name: str, action: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        """Add the subcommand `name`, which runs `action`; help: what `--help` says."""
        ...


def add_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the shared arguments of these names to a subcommand."""
    for name in names:
        parser.add_argument(f"--{name}", **_ARGUMENTS[name])


@contextmanager
def announced(options: argparse.Namespace) -> Iterator[None]:
    """Mark the file that a job makes as being made, until the block ends; see locks.live_writers."""
    made = getattr(options, "output", None) or getattr(options, "vector", None)
    if made is None and hasattr(options, "experiment"):
        made = options.experiment.with_name(options.command)
    if made is None:
        yield
        return
    with locks.announced(made):
        yield


def say(options: argparse.Namespace, text: str) -> None:
    """Add a line to the job's log; print it where the job keeps none of its own, or its log cannot be written to.

    Not both: the terminal of a job with a log belongs to Snakemake, which shows the logs of failed jobs.
    """
    if getattr(options, "log", None):
        try:
            with options.log.open("a", encoding="utf-8") as log:
                log.write(text + "\n")
            return
        except OSError as error:
            text = f"{text}\n{options.log}: cannot be written ({error.strerror})"
    print(text, file=sys.stderr)


@contextmanager
def opened_log(options: argparse.Namespace) -> Iterator[TextIO | None]:
    """Open the job's log to add to; None where it keeps none."""
    if not options.log:
        yield None
        return
    with options.log.open("a", encoding="utf-8") as log:
        yield log


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Catch the first signal to end, and yield a function that says whether it has come; a second one ends the process.

    SIGTERM is what a queue sends that takes its machine back, SIGINT is Ctrl-C, SIGHUP a connection that is lost.
    """
    with _noted(once=True) as came:
        yield lambda: bool(came)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let signals to end come only after the block, which must not be done by half.

    A mask would hold them from this thread alone: one of NumPy's would take them, and Python act on them here.
    """
    came: list[int] = []
    try:
        with _noted(once=False) as came:
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _noted(*, once: bool) -> Iterator[list[int]]:
    """Yield a list of the signals to end that have come; once: a second one of a kind does what it did before."""
    came: list[int] = []
    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def note(number: int, frame: object) -> None:
        came.append(number)
        if once:
            signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def set_up_torch(options: argparse.Namespace) -> None:
    """Take the device, and as many threads as are given; flush denormal numbers to zero."""
    import torch

    from icl_transience.system import devices

    options.device = devices.acquire(options.device, getattr(options, "gpu_percent", 100))
    torch.set_num_threads(options.threads)
    # Moments of labels that are rarely seen decay to denormal numbers, and many CPUs compute very slowly with those.
    torch.set_flush_denormal(True)
