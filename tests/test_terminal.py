"""What a person sees while Snakemake runs: on a terminal, in a log, and at the end."""

import io
import logging
import os
import re
import shutil
import sys
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yte
from pipeline import ROOT, TINY, Clone
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import MockOutputSettings, TestLogHandlerBase

import snakemake_logger_plugin_icl as plugin
from icl_transience.planning.plan import Plan
from icl_transience.results.running import RunningJobs
from icl_transience.specs.evaluators import METRICS
from icl_transience.study.document import read_yaml
from icl_transience.system.board import BOARD, Board

EVENTS_OF_JOB = {"rule_name": "train", "wildcards": {"pack": "P"}, "output": ["segment.h5"]}


class Terminal(io.TextIOWrapper):
    """A stream of bytes that says whether it is a terminal; `text` is what was written."""

    def __init__(self, encoding: str = "utf-8", is_terminal: bool = True):
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    @property
    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)

    def screen(self) -> list[str]:
        """The lines that a person sees, once all that was drawn over is gone."""
        lines: list[str] = []
        for part in re.split(r"(\x1b\[\d+A\r\x1b\[J)", self.text):
            if up := re.match(r"\x1b\[(\d+)A", part):
                del lines[len(lines) - int(up[1]) :]
            else:
                lines += part.split("\n")[:-1]
        return lines


@pytest.fixture
def board(monkeypatch) -> Board:
    """The names that a Snakefile gives, for one pack."""
    for key, value in vars(Board()).items():
        monkeypatch.setattr(BOARD, key, value)
    latest = {"P": "icl –"}
    BOARD.name = lambda rule, wildcards: (f"{rule} l2 strength=0, seeds 0 1", "segment to 1k of 2k")
    BOARD.latest = lambda wildcards: latest.get(wildcards.get("pack", ""), "")
    BOARD.known = latest  # type: ignore[attr-defined]
    return BOARD


class Run:
    """A handler that takes Snakemake's events as they come."""

    def __init__(self, stream: Terminal, monkeypatch, **settings):
        monkeypatch.setattr(sys, "stdout" if settings.get("stdout") else "stderr", stream)
        monkeypatch.setattr(plugin.threading, "Thread", lambda **options: SimpleNamespace(start=lambda: None))
        shared = MockOutputSettings()
        shared.printshellcmds = False  # as Snakemake's default is
        vars(shared).update(settings)
        self.stream, self.handler = stream, plugin.LogHandler(shared, None)
        self.handler.setFormatter(logging.Formatter("%(message)s"))

    def event(self, event: LogEvent | None, text: str = "", level: int = logging.INFO, **values) -> None:
        record = logging.LogRecord("snakemake", level, "", 0, text, (), None)
        vars(record).update(values, event=event)
        self.handler.handle(record)

    def begin(self, job_id: int = 1, log: tuple[str, ...] = (), **values) -> None:
        self.event(LogEvent.RUN_INFO, stats={"total": 3})
        self.event(LogEvent.JOB_INFO, jobid=job_id, log=list(log), **(EVENTS_OF_JOB | values))

    def finish(self, job_id: int = 1, done: int = 1) -> None:
        self.event(LogEvent.JOB_FINISHED, job_id=job_id)
        self.event(LogEvent.PROGRESS, done=done, total=3)


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "segment.log"
    path.write_text(
        "abc seeds 0 1: loss 3.2, 0:50 left\nabc seeds 0 1: loss 1.234, 0:45 left, 9,999 sequences/s, 1 of 2 seen\n"
    )
    return path


def test_a_terminal_shows_a_line_a_running_job_and_how_many_are_left(board, log, monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *given, **more: os.terminal_size((80, 24)))
    run = Run(Terminal(), monkeypatch)
    run.begin(log=(str(log),))
    assert run.stream.screen() == [
        "3 jobs to do",
        "train l2 strength=0, seeds 0 1  icl –, loss 1.234, 0:45 left, 9,999 sequences/s",
        "\x1b[1m[0:00:00] 0 of 3 jobs done, 3 left\x1b[0m",
    ]


def test_the_line_of_a_job_is_drawn_over_and_a_finished_one_stays(board, log, monkeypatch):
    run = Run(Terminal(), monkeypatch)
    run.begin(log=(str(log),))
    log.write_text("abc: loss 0.5, 0:01 left\n")
    run.handler.show()
    assert sum("loss" in line for line in run.stream.screen()) == 1
    assert "loss 0.500" not in run.stream.screen()[1]
    assert "loss 0.5, 0:01 left" in run.stream.screen()[1]
    run.finish()
    stays, total = run.stream.screen()[1:]
    assert stays.startswith("[0:00:00] 1 of 3  train l2 strength=0, seeds 0 1")
    assert "1 of 3 jobs done, 2 left" in total


@pytest.mark.parametrize(("columns", "rows"), [(20, 24), (40, 5), (1, 1), (200, 50)])
def test_nothing_drawn_is_wider_or_higher_than_the_terminal(columns, rows, board, monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *given, **more: os.terminal_size((columns, rows)))
    run = Run(Terminal(), monkeypatch, nocolor=True)
    for job_id in range(30):
        run.begin(job_id)
    drawn = run.stream.text.split("\x1b[J")[-1].split("\n")
    assert len(drawn) <= max(rows, 3)
    assert all(len(line) < max(columns, 2) for line in drawn[1:])
    if rows == 50:
        assert len(drawn) == 32


def test_a_log_gets_no_escapes_and_a_line_a_running_job_when_it_is_time(board, log, monkeypatch):
    run = Run(Terminal(is_terminal=False), monkeypatch)
    run.begin(log=(str(log),))
    assert run.stream.text == "3 jobs to do\n"
    run.handler.show()
    run.finish()
    told = "train l2 strength=0, seeds 0 1  icl –, loss 1.234, 0:45 left, 9,999 sequences/s, 1 of 2 seen"
    assert run.stream.text.splitlines()[1:] == [
        f"[0:00:00] running  {told}, segment to 1k of 2k",
        f"[0:00:00] 1 of 3  {told}, segment to 1k of 2k",
    ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_lines_come_by_themselves_every_minute_in_a_log_and_twice_a_second_on_a_terminal(is_terminal, board):
    seconds = []
    handler = plugin.LogHandler(MockOutputSettings(), None)
    handler.screen.is_live = is_terminal
    handler.closed = SimpleNamespace(wait=lambda pause: seconds.append(pause) or len(seconds) > 2, is_set=lambda: True)
    handler._keep_showing()
    assert seconds == [0.5 if is_terminal else 60.0] * 3


def test_what_an_earlier_attempt_logged_is_not_shown(board, log, monkeypatch):
    os.utime(log, (1e9, 1e9))
    run = Run(Terminal(is_terminal=False), monkeypatch)
    run.begin(log=(str(log),))
    run.handler.show()
    assert (
        run.stream.text.splitlines()[1]
        == "[0:00:00] running  train l2 strength=0, seeds 0 1  icl –, segment to 1k of 2k"
    )


def test_a_message_of_a_job_stands_in_its_line(board, log, monkeypatch):
    log.write_text("results/packs/P/segment.h5: another process trains this pack: waiting for it\n")
    run = Run(Terminal(is_terminal=False), monkeypatch)
    run.begin(log=(str(log),))
    run.handler.show()
    assert "icl –, another process trains this pack: waiting for it" in run.stream.text


def test_once_a_segment_is_evaluated_its_packs_jobs_show_the_result(board, monkeypatch):
    run = Run(Terminal(is_terminal=False), monkeypatch)
    run.begin(1)
    run.begin(2, rule_name="evaluate")
    board.known["P"] = "icl 0.93"
    run.finish(2)
    run.handler.show()
    evaluated, training = run.stream.text.splitlines()[2:]
    assert evaluated.startswith("[0:00:00] 1 of 3  evaluate l2 strength=0, seeds 0 1  icl 0.93")
    assert training.startswith("[0:00:00] running  train l2 strength=0, seeds 0 1  icl 0.93")


def test_jobs_without_a_name_or_without_files_are_counted_but_not_shown(board, monkeypatch):
    run = Run(Terminal(is_terminal=False), monkeypatch)
    run.begin(1, output=[])
    board.name = lambda rule, wildcards: ("", "")
    run.begin(2)
    run.finish(1)
    run.finish(2, done=2)
    assert set(run.stream.text.splitlines()) == {"3 jobs to do"}
    assert run.handler.done == 2


def test_errors_and_warnings_are_printed_and_snakemakes_routine_is_not(board, monkeypatch):
    run = Run(Terminal(is_terminal=False), monkeypatch)
    run.begin()
    run.event(None, "Building DAG of jobs...")
    run.event(LogEvent.SHELLCMD, "python -m icl_transience train")
    run.event(None, "something that nobody foresaw")
    run.event(None, "experiment tokens is left out", logging.WARNING)
    run.event(LogEvent.JOB_ERROR, "Error in rule train:\nLogfile x:\nwhy", logging.ERROR, jobid=1)
    run.event(None, "Complete log(s): x.log")
    run.handler.show()
    assert run.stream.text.splitlines()[1:] == [
        "something that nobody foresaw",
        "experiment tokens is left out",
        "[0:00:00] failed  train l2 strength=0, seeds 0 1",
        "Error in rule train:",
        "Logfile x:",
        "why",
        "Complete log(s): x.log",
    ]


def test_a_failed_group_job_takes_all_its_jobs_off_the_board(board, monkeypatch):
    run = Run(Terminal(is_terminal=False), monkeypatch)
    run.begin(1)
    run.begin(2)
    run.event(LogEvent.GROUP_ERROR, "Error in group", logging.ERROR, job_error_info=[{"jobid": 1}, {"jobid": 2}])
    assert not run.handler.jobs


@pytest.mark.parametrize(
    ("variable", "value", "settings"), [("NO_COLOR", "1", {}), ("TERM", "xterm", {"nocolor": True})]
)
def test_colours_can_be_refused(variable, value, settings, board, monkeypatch):
    monkeypatch.setenv(variable, value)
    run = Run(Terminal(), monkeypatch, **settings)
    run.begin()
    run.event(None, "no", logging.ERROR)
    assert not re.search(r"\x1b\[\d*m", run.stream.text)
    assert "\x1b[J" in run.stream.text  # still drawn over


def test_a_terminal_that_cannot_draw_over_is_a_log(board, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    run = Run(Terminal(), monkeypatch)
    run.begin()
    assert "\x1b" not in run.stream.text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_letter_ends_a_run(encoding, board, monkeypatch):
    run = Run(Terminal(encoding), monkeypatch)
    run.begin()
    run.event(None, "größer als λ ≤ 1 –", logging.WARNING)
    dash = "–" if encoding == "utf-8" else "-"
    assert f"icl {dash}" in run.stream.text
    assert {"ascii": r"gr\xf6\xdfer", "latin-1": r"größer als \u03bb", "utf-8": "λ ≤ 1 –"}[encoding] in run.stream.text


def test_an_event_that_is_not_as_expected_is_told_and_does_not_end_the_thread(board, monkeypatch):
    run = Run(Terminal(is_terminal=False), monkeypatch)
    run.event(LogEvent.PROGRESS)
    run.begin()
    assert "KeyError: 'done'" in run.stream.text
    assert run.handler.jobs


@pytest.mark.parametrize("setting", ["dryrun", "quiet", "verbose", "printshellcmds", "debug_dag"])
def test_other_output_that_was_asked_for_stays_snakemakes_own(setting, board, monkeypatch):
    run = Run(Terminal(), monkeypatch, **{setting: {"rules"} if setting == "quiet" else True})
    assert not run.handler.writes_to_stream  # so Snakemake adds its own handler
    run.begin(rule_name="evaluate")
    run.handler.close()
    assert run.stream.text == ""


def test_a_dry_run_says_at_its_end_what_would_be_trained(board, monkeypatch):
    """Where Snakemake's own output goes, a line for all segments of a pack."""
    run = Run(Terminal(is_terminal=False), monkeypatch, dryrun=True, stdout=True)
    board.name = lambda rule, of: (f"{rule} l2, seed {of['pack']}", f"segment to {of['end']} of 2k")
    for pack, end in (("1", "1k"), ("0", "1k"), ("1", "2k")):
        run.begin(rule_name="train", wildcards={"pack": pack, "end": end})
    assert run.stream.text == ""
    run.handler.close()
    assert run.stream.text.splitlines() == [
        "would train l2, seed 0: segment to 1k of 2k",
        "would train l2, seed 1: segment to 2k of 2k, the last of 2",
    ]


def test_at_the_end_the_board_is_gone_and_snakemakes_log_is_named(board, monkeypatch):
    run = Run(Terminal(), monkeypatch)
    run.begin()
    run.finish(done=3)
    board.close([str(Path.cwd() / ".snakemake/log/x.log")])
    run.event(None, "Complete log(s): x.log")
    run.event(None, "Elapsed time: 1")
    run.handler.show()
    run.handler.close()
    assert run.stream.screen()[2:] == ["[0:00:00] 3 jobs done; Snakemake's log: .snakemake/log/x.log"]


def test_a_run_that_is_ended_early_does_not_say_that_all_jobs_are_done(board, monkeypatch):
    run = Run(Terminal(), monkeypatch)
    run.begin()
    run.finish(done=1)
    board.close(["x.log"])
    run.handler.close()
    assert run.stream.screen()[-1] == "[0:00:00] 1 of 3 jobs done, 2 left; Snakemake's log: x.log"


def test_where_there_is_nothing_to_do_earlier_results_are_printed(board, monkeypatch):
    printed = []
    board.print_results = lambda: printed.append(1)
    run = Run(Terminal(), monkeypatch)
    run.event(None, "Nothing to be done (all requested files are present and up to date).")
    assert printed
    assert "Nothing to be done" in run.stream.text


class TestAsSnakemakesInterfaceAsks(TestLogHandlerBase):
    __test__ = True

    def get_log_handler_cls(self):
        return plugin.LogHandler

    def get_log_handler_settings(self):
        return None


# Names.


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> RunningJobs:
    clone = Clone.make(tmp_path / "clone", TINY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    monkeypatch.chdir(clone.folder)
    config = {"study": "tiny", "lanes_per_pack": 8, "segment_sequences": 1024}
    return RunningJobs(Plan(read_yaml(Path("config.yaml")) | config, Path()))


def test_jobs_are_named_by_experiment_run_and_seeds(jobs):
    shared, other = jobs.plan.packs
    (bank,), (set_id,) = jobs.plan.banks, jobs.plan.sets
    ends = {"start": "000000000000", "end": "000000001024"}
    assert [
        jobs.name("train", {"pack": shared, **ends}),
        jobs.name("evaluate", {"pack": other, "set": set_id, **ends}),
        jobs.name("card", {"bank": bank}),
        jobs.name("sequences", {"set": set_id}),
        jobs.name("figures_l2", {"experiment": "l2"}),
        jobs.name("declare", {"experiment": "l2", "digest": "0" * 12}),
    ] == [
        ("train transience baseline (+1 more), seeds 0-2", "segment to 1.02k of 2.05k"),
        ("evaluate l2 l2.strength=0.001, seeds 0-2", "segment to 1.02k of 2.05k"),
        ("card gaussian-40x3", ""),
        ("sequences on gaussian-40x3", ""),
        ("figures l2", ""),
        ("", ""),
    ]


def test_the_latest_result_is_that_of_the_last_evaluated_snapshot_over_lanes(jobs):
    pack_id = next(iter(jobs.plan.packs))
    (set_id,) = jobs.plan.sets
    assert jobs.latest({"bank": "x"}) == ""
    assert jobs.latest({"pack": pack_id}) == "icl –"
    for end, last in ((1024, [0.5, 0.7, np.nan]), (2048, [0.9, 1.0, np.nan])):
        path = Path(jobs.plan.paths.metrics(pack_id, set_id, end - 1024, end))
        path.parent.mkdir(parents=True, exist_ok=True)
        means = np.zeros((2, 3, len(METRICS)))
        means[-1, :, METRICS.index("in_context_accuracy")] = last
        with h5py.File(path, "w") as file:
            file.attrs["metrics"] = list(METRICS)
            file["icl/mean"] = means
        assert jobs.latest({"pack": pack_id}) == f"icl {np.nanmean(last):.2f}"
    path.write_bytes(b"damaged")
    assert jobs.latest({"pack": pack_id}) == "icl –"
    assert path.read_bytes() == b"damaged"  # looked at, and left alone


# Snakemake itself.


@pytest.mark.parametrize("installed", [True, False])
def test_the_default_profile_names_the_logger_only_where_it_is_installed(installed, monkeypatch):
    if not installed:
        monkeypatch.setattr(util, "find_spec", lambda name: None)
    profile = yte.process_yaml((ROOT / "profiles/default/config.yaml").read_text(), require_use_yte=True)
    assert profile.get("logger") == (["icl"] if installed else None)


def test_a_run_in_a_log_names_every_job_once_and_ends_with_the_results(tmp_path):
    study = TINY.replace("seeds: [0, 1]", "seeds: [0]").replace("horizon: 2048", "horizon: 1024")
    clone = Clone.make(tmp_path / "clone", study.split("  l2:")[0])
    done = clone.snakemake()
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()[1:]  # which profile
    total = re.fullmatch(r"(\d+) jobs to do", said[0])[1]
    finished = [re.sub(rf"^\[0:\d\d:\d\d\] +\d+ of {total}  ", "", line) for line in said[1:-1]]
    names = [line.split("  ")[0] for line in finished]
    assert sorted(names) == [
        "bank gaussian-40x3",
        "card gaussian-40x3",
        "evaluate transience baseline, seed 0",
        "figures transience",
        "sequences on gaussian-40x3",
        "tables transience",
        "train transience baseline, seed 0",
    ]
    assert len(set(names)) == len(names)
    (train,) = (line for line in finished if line.startswith("train"))
    assert re.search(
        r"  icl –, loss \d\.\d{3}, after 0:\d\d, [\d,]+ sequences/s, 1,024 of 1,024 seen, segment to 1.02k", train
    )
    (evaluate,) = (line for line in finished if line.startswith("evaluate"))
    assert re.search(r"  icl 0\.\d\d, segment to 1.02k of 1.02k", evaluate)
    log = re.fullmatch(rf"\[0:\d\d:\d\d\] {total} jobs done; Snakemake's log: (\.snakemake/log/.*\.log)", said[-1])[1]
    assert "localrule card:" in (clone.folder / log).read_text()
    (result,) = done.stdout.splitlines()
    assert result.startswith("transience, baseline: icl ")
    assert result.endswith("figure: results/studies/tiny/transience/curves.svg")
    assert "Job stats:" in clone.build("-n", "--forceall")
    again = clone.snakemake()
    assert "Nothing to be done" in again.stderr
    assert again.stdout == done.stdout
