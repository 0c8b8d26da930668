"""Which GPU a job computes on: on a cluster the one it is given, on one machine one that no other job holds."""

import fcntl
import os
import socket
import tempfile
from glob import glob
from pathlib import Path

from icl_transience.specs.errors import StudyError

# Open files with a lock on each, which end with the process; nothing may close them before.
_held: list[int] = []


def count() -> int:
    """GPUs that jobs on this machine may use; for Snakemake's profile, without loading PyTorch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(glob("/dev/nvidia[0-9]*"))
    # As CUDA reads it: nothing counts from the first name on that is none.
    names = [name.strip() for name in visible.split(",")]
    return next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))


def taken(device: str) -> str:
    """`device`; where it is plain "cuda", the first GPU that no job holds, which this process then holds to its end.

    Where all are held they are shared. Raises StudyError where PyTorch sees none.
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
    free = (place for place, name in enumerate(names) if _hold(name))
    # Sharing jobs have different process numbers, and so spread.
    return f"cuda:{next(free, os.getpid() % len(names))}"


def _names() -> list[str]:
    """A name for each GPU that PyTorch sees, in its order; the same name in every process, whatever each may see."""
    import torch

    return [str(torch.cuda.get_device_properties(place).uuid) for place in range(torch.cuda.device_count())]


def _hold(name: str) -> bool:
    """Whether this process is now the one that holds the GPU. A lock is its user's: /tmp lets no other write there."""
    path = Path(tempfile.gettempdir(), f"icl-transience-{os.getuid()}-gpu-{name}.lock")
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _held.append(file)
    return True
