"""What a job says where its log cannot be written to."""

import argparse
import errno
import os
from pathlib import Path

import pytest

from icl_transience import __main__
from icl_transience.system import jobs

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/logs/x.log")


def test_a_log_gets_what_the_job_says_and_the_terminal_does_not(tmp_path, capsys):
    jobs.say(argparse.Namespace(log=tmp_path / "x.log"), "stopped")
    assert (tmp_path / "x.log").read_text() == "stopped\n"
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="This machine has no /dev/full.")
def test_what_cannot_be_written_to_the_log_stands_on_the_terminal(capsys):
    jobs.say(argparse.Namespace(log=Path("/dev/full")), "stopped")
    said = capsys.readouterr().err
    assert said == "stopped\n/dev/full: cannot be written (No space left on device)\n"


def test_a_full_disk_is_said_without_a_traceback_and_another_error_with_one(monkeypatch, capsys):
    def raise_(error: OSError):
        def action(options: argparse.Namespace) -> None:
            raise error

        return action

    for error, expected in ((FULL, "results/logs/x.log: cannot be written"), (OSError(errno.EIO, "bad"), "Traceback")):
        monkeypatch.setattr("icl_transience.results.command._writers", raise_(error))
        assert __main__.main(["writers"]) == 1
        said = capsys.readouterr().err
        assert expected in said
        assert ("Traceback" in said) == (error is not FULL)
