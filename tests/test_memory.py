"""How much memory jobs may take together: the machine's, or what a container or a batch job has of it."""

import os
from pathlib import Path

import pytest

from icl_transience.system import memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
MB = 2**20
SLURM = "system.slice/slurmstepd.scope/job_7"
LIMITS = {
    "none": ({}, MACHINE),
    "a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{300 * MB}\n"}, 300),
    "no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, MACHINE),
    "a container that sees the machine's names": (
        {"proc/self/cgroup": "0::/docker/1f\n", "sys/fs/cgroup/memory.max": f"{300 * MB}\n"},
        300,
    ),
    "a batch job, whose step has no limit of its own": (
        {
            "proc/self/cgroup": f"0::/{SLURM}/step_0\n",
            f"sys/fs/cgroup/{SLURM}/step_0/memory.max": "max\n",
            f"sys/fs/cgroup/{SLURM}/memory.max": f"{200 * MB}\n",
        },
        200,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/a\n2:memory:/docker/1f\n",
            "sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes": f"{100 * MB}\n",
            # What version 1 says where there is no limit.
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
        100,
    ),
}


@pytest.mark.parametrize(("files", "expected"), LIMITS.values(), ids=LIMITS)
def test_jobs_share_what_the_innermost_limit_leaves(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.for_jobs(tmp_path) == expected


def test_of_this_machine_something_is_left():
    assert 100 < memory.for_jobs(Path("/")) <= MACHINE
