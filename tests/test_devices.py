"""GPUs on one machine, shared out among jobs. The GPUs here are names alone."""

import os
import subprocess
import sys
import tempfile

import pytest
from builders import pack

from icl_transience.__main__ import main
from icl_transience.specs.errors import StudyError
from icl_transience.system import devices


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(devices, "_names", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(devices, "_held", [])
    yield
    for file in devices._held:
        os.close(file)


# A job of its own process, which ends when its input does.
JOB = """
import sys, tempfile
from icl_transience.system import devices
tempfile.tempdir, devices._names = sys.argv[1], lambda: ["GPU-a", "GPU-b"]
print(devices.acquire("cuda"), flush=True)
sys.stdin.read()
"""


def job(folder) -> subprocess.Popen:
    command = [sys.executable, "-c", JOB, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_jobs_side_by_side_take_different_gpus_and_free_them_when_they_end(two_gpus, tmp_path):
    with job(tmp_path) as first:
        assert first.stdout.readline().strip() == "cuda:0"
        with job(tmp_path) as second:
            assert second.stdout.readline().strip() == "cuda:1"
            second.kill()
        assert devices.acquire("cuda") == "cuda:1"
        first.stdin.close()
    # The other one's is free again.
    assert devices.acquire("cuda") == "cuda:0"


def test_a_job_that_finds_all_gpus_held_shares_one(two_gpus):
    assert [devices.acquire("cuda"), devices.acquire("cuda")] == ["cuda:0", "cuda:1"]
    assert devices.acquire("cuda") in ("cuda:0", "cuda:1")
    assert len(devices._held) == 2 * devices.QUARTERS


def test_jobs_that_take_a_share_of_a_gpu_fill_one_before_the_next(two_gpus):
    assert [devices.acquire("cuda", percent) for percent in (25, 50, 25)] == ["cuda:0"] * 3
    assert [devices.acquire("cuda", percent) for percent in (50, 50)] == ["cuda:1"] * 2
    assert len(devices._held) == 2 * devices.QUARTERS


def test_a_job_that_needs_a_whole_gpu_passes_one_by_that_is_shared(two_gpus):
    assert [devices.acquire("cuda", percent) for percent in (25, 100, 50)] == ["cuda:0", "cuda:1", "cuda:0"]


def test_a_device_that_is_named_is_taken_whoever_holds_it(two_gpus):
    assert devices.acquire("cuda") == "cuda:0"
    assert devices.acquire("cuda:0") == "cuda:0"
    assert devices.acquire("cpu") == "cpu"


def test_a_gpu_that_is_not_there_is_refused_with_what_to_do(two_gpus):
    with pytest.raises(StudyError, match=r"`device` is 'cuda:2', but PyTorch sees 2 GPU\(s\) on .*: set it to cpu"):
        devices.acquire("cuda:2")


def test_a_machine_without_the_gpu_is_told_before_any_job(monkeypatch, tmp_path):
    devices.refuse_missing("cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(StudyError, match=r"`device` is 'cuda', but PyTorch sees 0 GPU\(s\) on .*: set it to cpu"):
        devices.refuse_missing("cuda")
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "false")
        with pytest.raises(StudyError, match="`device` is 'cuda', but PyTorch does not start here"):
            devices.refuse_missing("cuda")
    # Python may print when it starts.
    said = tmp_path / "sitecustomize.py"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said.write_text("print('Welcome to node 7')")
    with pytest.raises(StudyError, match=r"`device` is 'cuda', but PyTorch sees 0 GPU\(s\)"):
        devices.refuse_missing("cuda")
    said.write_text("import atexit; atexit.register(print, 'Goodbye')")
    with pytest.raises(StudyError, match=r"`device` is 'cuda', but Python counts '0\\nGoodbye\\n' GPUs"):
        devices.refuse_missing("cuda")


@pytest.mark.parametrize("percent", ["-5", "101", "a", "0.5"])
def test_a_share_of_a_gpu_is_a_percentage(percent, capsys):
    with pytest.raises(SystemExit):
        main(
            [
                "train",
                "--spec",
                "{}",
                "--bank",
                "b",
                "--output",
                "o",
                "--from",
                "0",
                "--to",
                "4",
                "--gpu-percent",
                percent,
            ]
        )
    assert f"expected a whole number from 0 to 100, got '{percent}'" in capsys.readouterr().err


def test_a_job_told_cuda_on_a_machine_without_one_ends_without_a_traceback(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(devices, "_names", list)
    arguments = ["train", "--spec", pack().json, "--bank", "none", "--output", str(tmp_path / "segment")]
    assert main([*arguments, "--from", "0", "--to", "4", "--device", "cuda"]) == 1
    error = capsys.readouterr().err
    assert "`device` is 'cuda', but PyTorch sees 0 GPU(s)" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("visible", "number"), [("0,1,3", 3), ("", 0), ("-1", 0), ("0,-1,2", 1), ("GPU-1f0e, MIG-77", 2), (None, 3)]
)
def test_gpus_are_counted_as_cuda_counts_them(monkeypatch, visible, number):
    monkeypatch.setattr(devices, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2"])
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.count() == number
