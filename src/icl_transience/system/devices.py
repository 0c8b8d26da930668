"""Which GPU a job computes on: on a cluster the one it is given, elsewhere one that no other job holds."""

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path

from icl_transience.specs.errors import StudyError

# A GPU is held in quarters, by jobs that take the whole or a share of it.
QUARTERS = 4
# File descriptors of locked files. The locks end with the process; nothing may close these before.
_held: list[int] = []


def count() -> int:
    """Count the GPUs that jobs on this machine may use. Without PyTorch: Snakemake's profile asks."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(glob("/dev/nvidia[0-9]*"))
    # CUDA ignores all names from the first invalid one on.
    names = [name.strip() for name in visible.split(",")]
    return next((index for index, name in enumerate(names) if name in ("", "-1")), len(names))


def acquire(device: str, percent: int = 100) -> str:
    """Return the device to compute on. For plain "cuda", hold `percent` of the first GPU with so much left.

    It is held until this process ends. Where no GPU has so much, jobs share them all the same. Raises StudyError where
    PyTorch does not see the GPU.
    """
    if not device.startswith("cuda"):
        return device
    names = _names()
    _refuse_beyond(device, len(names))
    if device != "cuda":
        return device
    quarters = max(1, -(-QUARTERS * percent // 100))
    with _alone():
        free = next((index for index, name in enumerate(names) if _hold(name, quarters)), None)
    # Jobs that share have different process numbers, and so spread over the GPUs.
    return f"cuda:{os.getpid() % len(names) if free is None else free}"


def refuse_missing(device: str) -> None:
    """Raise StudyError where PyTorch does not see a device on this machine, asked in a process of its own."""
    if device.startswith("cuda"):
        command = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            raise StudyError(f"config: `device` is {device!r}, but PyTorch does not start here: {found.stderr[-300:]}")
        # The last word: Python may print others when it starts.
        said = found.stdout.split()[-1:]
        if not said or not said[0].isdecimal():
            raise StudyError(
                f"config: `device` is {device!r}, but Python counts {found.stdout[-300:]!r} GPUs: see what it prints"
            )
        _refuse_beyond(device, int(said[0]))


def _refuse_beyond(device: str, seen: int) -> None:
    if int(device.partition(":")[2] or 0) >= seen:
        raise StudyError(
            f"config: `device` is {device!r}, but PyTorch sees {seen} GPU(s) on {socket.gethostname()}: set it to cpu, "
            "install a PyTorch with CUDA, or ask the cluster for a GPU (profiles/slurm)"
        )


def _names() -> list[str]:
    """Return a name for each GPU that PyTorch sees, in its order; a GPU has the same name in every process."""
    import torch

    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def _lock_file(name: str) -> int:
    """Open a lock file; it belongs to one user, as /tmp requires. Raises OSError where there is no folder for it."""
    path = Path(tempfile.gettempdir(), f"icl-transience-{os.getuid()}-gpu-{name}.lock")
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)


@contextmanager
def _alone() -> Iterator[None]:
    """Look for a GPU while no other job does: two would each hold a part of what both want. Without locks, at once."""
    file = None
    try:
        with suppress(OSError):
            file = _lock_file("search")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        if file is not None:
            os.close(file)


def _hold(name: str, wanted: int) -> bool:
    """Try to hold so many quarters of the GPU; say whether this process now does.

    Where there is no folder for their files, or none with locks, none is held: jobs share GPUs as where all are held.
    """
    files: list[int] = []
    for quarter in range(QUARTERS):
        try:
            file = _lock_file(f"{name}-{quarter}")
        except OSError:
            break
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        files.append(file)
        if len(files) == wanted:
            _held.extend(files)
            return True
    for file in files:
        os.close(file)
    return False
