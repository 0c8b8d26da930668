"""How much memory this machine has for jobs, or the container or the batch job that this process runs in."""

import os
from pathlib import Path

# Under version 2 of Linux's control groups and under version 1: folder, and file with the limit in bytes.
_VERSION_2 = ("sys/fs/cgroup", "memory.max")
_VERSION_1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes")


def for_jobs(root: Path = Path("/")) -> int:
    """Return the MB that jobs on this machine may take together. root: of the file system, for tests."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *_limits(root)]) // 2**20


def _limits(root: Path) -> list[int]:
    """Return the limits, in bytes, of this process's control groups and of all groups above them."""
    limits = []
    for where, name, group in _groups(root):
        # A container may not see the group under the name that the machine has for it, but its own at the top.
        folder = where / group.lstrip("/")
        for one in (folder, *folder.parents):
            if one.is_relative_to(where):
                limits += _limit(one / name)
    return limits


def _groups(root: Path) -> list[tuple[Path, str, str]]:
    """Return folder of all groups, name of the file with a limit, and this process's group, of either version."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    groups = [(*_VERSION_2, "/"), (*_VERSION_1, "/")]
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0":
            groups.append((*_VERSION_2, group))
        elif "memory" in controllers.split(","):
            groups.append((*_VERSION_1, group))
    return [(root / folder, name, group) for folder, name, group in groups]


def _limit(file: Path) -> list[int]:
    """Return the limit in a file; none where there is no file, or no limit in it ("max")."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return []
    return [int(text)] if text.isdigit() and int(text) else []
