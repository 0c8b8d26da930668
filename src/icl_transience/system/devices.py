"""Which GPU a job computes on: on a cluster the one it is given, elsewhere one that no other job holds."""

import fcntl
import os
import socket
import tempfile
from glob import glob
from pathlib import Path

from icl_transience.specs.errors import StudyError

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


def acquire(device: str) -> str:
    """Return the device to compute on. For plain "cuda", hold the first GPU that no other job holds, until this ends.

    Where all GPUs are held, jobs share them. Raises StudyError where PyTorch does not see the GPU.
    """
    if not device.startswith("cuda"):
        return device
    names = _names()
    wanted = int(device.partition(":")[2] or 0)
    if wanted >= len(names):
        raise StudyError(
            f"config: `device` is {device!r}, but PyTorch sees {len(names)} GPU(s) on {socket.gethostname()}: set it "
            "to cpu, install a PyTorch with CUDA, or ask the cluster for a GPU (profiles/slurm)"
        )
    if device != "cuda":
        return device
    free = (index for index, name in enumerate(names) if _hold(name))
    # Jobs that share have different process numbers, and so spread over the GPUs.
    return f"cuda:{next(free, os.getpid() % len(names))}"


def _names() -> list[str]:
    """Return a name for each GPU that PyTorch sees, in its order; a GPU has the same name in every process."""
    import torch

    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def _hold(name: str) -> bool:
    """Try to hold the GPU; say whether this process now does. A lock file belongs to one user, as /tmp requires.

    Where there is no folder for it, or none with locks, none is held: jobs share GPUs as where all are held.
    """
    try:
        path = Path(tempfile.gettempdir(), f"icl-transience-{os.getuid()}-gpu-{name}.lock")
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return False
    _held.append(file)
    return True
