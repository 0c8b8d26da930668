"""What a person sees of a training job."""

import io
import os
import shutil
import sys
import time

import pytest

from icl_transience.system.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_plain_lines_with_rate_over_all_lanes_and_time_left(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    log = io.StringIO()
    report = Progress("pack seeds 0 1", 0, 4000, 2, log)
    clock[0] = 20.0
    report(1000)
    assert log.getvalue() == "pack seeds 0 1: 0:01:00 left, 100 sequences/s, 1,000 of 4,000 seen\n"


def test_lines_come_seldom_but_the_last_always(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    log = io.StringIO()
    report = Progress("pack", 0, 4000, 1, log)
    for seen in range(100, 4001, 100):
        clock[0] += 1.0
        report(seen)
    lines = log.getvalue().splitlines()
    assert len(lines) == 3  # after 15 and 30 seconds, and at the end
    assert lines[-1].endswith("4,000 of 4,000 seen")


def test_a_terminal_gets_a_bar_that_redraws_itself_and_the_log_still_gets_lines(monkeypatch, clock):
    terminal, log = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    report = Progress("pack", 1000, 3000, 1, log)
    clock[0] = 20.0
    report(2000)
    assert terminal.getvalue().startswith("\r\x1b[2Kpack ████████░░░░░░░░ 0:00:20 left")
    assert not terminal.getvalue().endswith("\n")
    report(3000)
    assert terminal.getvalue().endswith("3,000 of 3,000 seen\n")
    assert "█" not in log.getvalue()


def test_a_bar_is_never_wider_than_its_terminal(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((40, 24)))
    report = Progress("pack with a rather long name", 0, 4000, 1)
    clock[0] = 20.0
    report(2000)
    assert len(terminal.getvalue().removeprefix("\r\x1b[2K")) == 39
