"""The server of tests/warm: what it runs says, does and ends as under a plain interpreter."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from pipeline import PLAIN, environment, python, server
from slurm.cluster import until


@pytest.fixture(autouse=True)
def needs_the_server() -> None:
    if not server():
        pytest.skip("PLAIN is set, so that no server of tests/warm is started")


@pytest.mark.parametrize("arguments", [["--help"], ["nothing"], ["status", "--study", "none"]], ids=" ".join)
def test_a_fork_says_and_ends_as_a_plain_interpreter_does(arguments, tmp_path):
    call = python("icl_transience", *arguments) | {"cwd": tmp_path, "capture_output": True, "text": True}
    fork, plain = (subprocess.run(**call, env=environment() | more) for more in ({}, PLAIN))
    assert (fork.returncode, fork.stdout, fork.stderr) == (plain.returncode, plain.stdout, plain.stderr)


@pytest.fixture
def asleep(tmp_path) -> subprocess.Popen:
    """A call whose fork sleeps as soon as it has written its process number in the file `pid`."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, time\n"
        "pathlib.Path('pid.new').write_text(str(os.getpid()))\n"
        "pathlib.Path('pid.new').rename('pid')\n"
        "time.sleep(120)\n"
    )
    call = python("icl_transience", "--help") | {"cwd": tmp_path, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(**call, env=environment() | {"PYTHONPATH": str(tmp_path)})
    until((tmp_path / "pid").exists, "the fork sleeps")
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_fork_and_its_call(number, asleep, tmp_path):
    fork = int((tmp_path / "pid").read_text())
    assert fork != asleep.pid
    os.kill(asleep.pid, number)
    assert asleep.wait(60) == -number
    until(lambda: not Path(f"/proc/{fork}").exists(), "the fork has ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_call_ends_as_its_fork_does(number, asleep, tmp_path):
    os.kill(int((tmp_path / "pid").read_text()), number)
    assert asleep.wait(60) == -number
