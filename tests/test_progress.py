"""What a training job says of itself: lines in its log, or a bar on a terminal that is its own."""

import io
import itertools
import math
import os
import re
import shutil
import sys
import time

import pytest
import torch

from icl_transience.system.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_plain_lines_with_loss_rate_over_all_lanes_and_time_left(clock):
    log = io.StringIO()
    report = Progress("pack seeds 0 1", 0, 4000, 2, log)
    clock[0] = 20.0
    report(1000, torch.tensor([1.0, 1.5]))
    assert log.getvalue() == "pack seeds 0 1: loss 1.250, 1:00 left, 100 sequences/s, 1,000 of 4,000 seen\n"


@pytest.mark.parametrize(
    ("loss", "said"), [(None, ""), ([], ""), ([2.0, math.nan], "loss 2.000, "), ([math.nan, math.inf], "loss nan, ")]
)
def test_lanes_that_diverged_are_not_in_the_loss(loss, said, clock):
    log = io.StringIO()
    report = Progress("pack", 0, 4000, 1, log)
    clock[0] = 10.0
    report(1000, loss)
    assert log.getvalue() == f"pack: {said}0:30 left, 100 sequences/s, 1,000 of 4,000 seen\n"


def test_lines_come_often_at_first_then_seldom_but_the_last_always(clock):
    log = io.StringIO()
    report = Progress("pack", 0, 400_000, 1, log)
    for seen in range(100, 400_001, 100):
        clock[0] += 0.1
        report(seen)
    lines = log.getvalue().splitlines()
    at = [int(re.search(r"([\d,]+) of", line)[1].replace(",", "")) / 1000 for line in lines]
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert len([second for second in at if second < 10]) >= 4
    assert max(pauses) == pytest.approx(15, abs=0.2)
    assert len(lines) < 45  # of 400 seconds
    assert lines[-1].endswith("after 6:40, 1,000 sequences/s, 400,000 of 400,000 seen")


def test_a_terminal_gets_a_bar_that_redraws_itself(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    report = Progress("pack", 1000, 3000, 1)
    clock[0] = 20.0
    report(2000)
    assert terminal.getvalue().startswith("\r\x1b[2Kpack ########-------- 0:20 left")
    assert not terminal.getvalue().endswith("\n")
    report(3000)
    assert terminal.getvalue().endswith("3,000 of 3,000 seen\n")


def test_the_terminal_of_a_job_with_a_log_is_left_alone(monkeypatch, clock):
    """Jobs side by side would draw over each other, and over the lines that Snakemake shows of them."""
    terminal, log = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    Progress("pack", 0, 4000, 1, log)(4000)
    assert terminal.getvalue() == ""
    assert "4,000 of 4,000 seen" in log.getvalue()


def test_a_bar_is_never_wider_than_its_terminal(monkeypatch, clock):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *given, **more: os.terminal_size((40, 24)))
    report = Progress("pack with a rather long name", 0, 4000, 1)
    clock[0] = 20.0
    report(2000)
    assert len(terminal.getvalue().removeprefix("\r\x1b[2K")) == 39
