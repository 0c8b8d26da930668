"""What Snakemake prints while the workflow runs: a line a running job, below a line for every finished one.

A plugin for `snakemake --logger icl`, which profiles/default turns on. On a terminal the lines of running jobs are
drawn anew twice a second; elsewhere they are written once a minute. Warnings, errors and the logs of failed jobs are
printed as always. Dry runs, `--quiet`, `--verbose`, `--printshellcmds` and `--debug-dag` get Snakemake's own output;
the last lines of a dry run say which runs and seeds would be trained.
"""

import logging
import logging.handlers
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from icl_transience.store.layout import kept_name
from icl_transience.system.board import BOARD
from icl_transience.system.formatting import format_clock
from snakemake_logger_plugin_icl.screen import Screen

LIVE_SECONDS, LOG_SECONDS = 0.5, 60.0
# What Snakemake says of itself in every run; it stands in its log file.
_ROUTINE = re.compile(
    "Config file .* is extended|Assuming unrestricted shared|host: |Building DAG of jobs|Using shell|Group jobs: |"
    "Conda environments: |Singularity containers: |Select jobs to execute"
)
# Where the log file is: said at the end of a run that failed; of others it is said before the results.
_AT_THE_END = re.compile(r"Complete log\(s\): |Elapsed time: ")
_NOTHING_TO_DO = "Nothing to be done"
_TAIL_BYTES = 4096


@dataclass
class Job:
    """A running job. name, reach, latest: see Board. log: if it has one. begun: in seconds since the epoch."""

    name: str
    reach: str
    log: Path | None
    begun: float
    wildcards: Mapping[str, str]
    latest: str

    def line(self, width: int = 0) -> str:
        """Return the name, at least `width` wide, the latest result, the last line of the log, and how far it goes."""
        state = ", ".join(filter(None, (self.latest, self._last_line(), self.reach)))
        return f"{self.name.ljust(width)}  {state}".rstrip()

    def _last_line(self) -> str:
        """Return the last line that the job has logged, without the label before its first colon."""
        if self.log is None:
            return ""
        try:
            stat = self.log.stat()
            if stat.st_mtime < self.begun:  # of an earlier attempt
                return ""
            with self.log.open("rb") as file:
                file.seek(max(0, stat.st_size - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:  # not there yet; or, on a network file system, not any more
            return ""
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last.partition(": ")[2] or last


class LogHandler(LogHandlerBase):
    """Shows running jobs; runs in a thread of its own, as Snakemake calls it."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.is_silent = any(
            (settings.dryrun, settings.quiet, settings.verbose, settings.printshellcmds, settings.debug_dag)
        )
        self.screen = Screen(sys.stdout if settings.stdout else sys.stderr, colours=not settings.nocolor)
        # Of a dry run: what would be trained -> how far each of its jobs goes, in their order.
        self.to_train: dict[str, list[str]] = {}
        self.jobs: dict[int, Job] = {}
        self.finished: list[str] = []
        self.done = self.total = 0
        self.begun = time.monotonic()
        self.failed = False
        self.closed = threading.Event()
        if not self.is_silent:
            BOARD.close = self.close_board

    @property
    def writes_to_stream(self) -> bool:
        """Whether Snakemake leaves its own output out."""
        return not self.is_silent

    @property
    def writes_to_file(self) -> bool:
        """Whether it writes a log file of its own: Snakemake's is enough."""
        return False

    @property
    def has_filter(self) -> bool:
        """Whether it chooses among events by itself."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Snakemake's own formats warnings and errors."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """Whether Snakemake is to send the graph of rules."""
        return False

    def emit(self, record: logging.LogRecord) -> None:
        """Take one of Snakemake's events."""
        try:
            if not self.is_silent:
                self._take(record, vars(record))
            elif self.common_settings.dryrun:
                self._note(vars(record))
        except Exception:
            # An exception would end the thread that all records come through.
            self.handleError(record)

    def _take(self, record: logging.LogRecord, values: dict[str, Any]) -> None:
        event = values.get("event")
        if event == LogEvent.RUN_INFO:
            self.total = values["stats"]["total"]
            self.screen.say(f"{self._jobs()} to do")
            threading.Thread(target=self._keep_showing, daemon=True).start()
        elif event == LogEvent.JOB_INFO:
            self._begin(record, values)
        elif event == LogEvent.JOB_FINISHED:
            self._finish(values["job_id"])
        elif event == LogEvent.PROGRESS:
            self.done, self.total = values["done"], values["total"]
            for line in self.finished:
                self.screen.say(self._stamped(f"{self.done:{len(str(self.total))}} of {self.total}  {line}"), cut=True)
            self.finished.clear()
        elif record.levelno >= logging.WARNING or event in (None, LogEvent.ERROR):
            self._pass_on(record, values)
        if self.screen.is_live:
            self.show()

    def _note(self, values: dict[str, Any]) -> None:
        # Rules have another workflow's prefix where that one has this one as a module.
        is_job = values.get("event") == LogEvent.JOB_INFO
        is_training = is_job and values["rule_name"].rpartition("_")[2] == "train"
        # What is kept under a second name comes back from there.
        if is_training and not all(kept_name(Path(path)).exists() for path in values["output"]):
            name, reach = BOARD.name("train", values["wildcards"] or {})
            self.to_train.setdefault(name, []).append(reach)

    def _begin(self, record: logging.LogRecord, values: dict[str, Any]) -> None:
        wildcards = values["wildcards"] or {}
        # A job that makes no file is a name for others' files.
        name, reach = BOARD.name(values["rule_name"], wildcards)
        if name and values["output"]:
            log = Path(values["log"][0]) if values["log"] else None
            # Files have times of whole clock ticks, some milliseconds early.
            begun = record.created - 0.1
            self.jobs[values["jobid"]] = Job(name, reach, log, begun, wildcards, BOARD.latest(wildcards))

    def _finish(self, job_id: int) -> None:
        if (job := self.jobs.pop(job_id, None)) is None:
            return
        latest = BOARD.latest(job.wildcards)
        if latest != job.latest:
            for other in self.jobs.values():
                if other.wildcards.get("pack") == job.wildcards.get("pack"):
                    other.latest = latest
            job.latest = latest
        self.finished.append(job.line())

    def _pass_on(self, record: logging.LogRecord, values: dict[str, Any]) -> None:
        """Print what is not about running jobs as Snakemake formats it, unless it says nothing."""
        text = self.format(record)
        if values.get("event") in (LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR):
            for failed in [values] if "jobid" in values else values["job_error_info"]:
                if job := self.jobs.pop(failed["jobid"], None):
                    self.screen.say(self._stamped(f"failed  {job.name}"), record.levelname)
        self.failed |= record.levelno >= logging.ERROR
        routine = record.levelno < logging.WARNING and (
            _ROUTINE.match(text) or (_AT_THE_END.match(text) and not self.failed)
        )
        if text and text != "None" and not routine:
            self.screen.say(text, record.levelname)
        if text.startswith(_NOTHING_TO_DO):
            BOARD.print_results()

    def _keep_showing(self) -> None:
        while not self.closed.wait(LIVE_SECONDS if self.screen.is_live else LOG_SECONDS):
            self.acquire()
            try:
                self.show()
            finally:
                self.release()

    def show(self) -> None:
        """Show the running jobs as they are now."""
        if self.closed.is_set():
            return
        if not self.screen.is_live:
            for job in self.jobs.values():
                self.screen.say(self._stamped(f"running  {job.line()}"))
        elif self.total:
            width = max((len(job.name) for job in self.jobs.values()), default=0)
            self.screen.draw(
                [job.line(width) for job in self.jobs.values()],
                self._stamped(self._so_far()),
            )

    def _jobs(self) -> str:
        return f"{self.total} job{'s' * (self.total != 1)}"

    def _so_far(self) -> str:
        return f"{self.done} of {self._jobs()} done, {self.total - self.done} left"

    def _stamped(self, text: str) -> str:
        return f"[{format_clock(time.monotonic() - self.begun)}] {text}"

    def close_board(self, logs: list[str]) -> None:
        """Take in what Snakemake has said so far, erase the board, and say where its log is."""
        for handler in logging.getLogger("snakemake.logging").handlers:
            if isinstance(handler, logging.handlers.QueueHandler) and isinstance(handler.queue, queue.Queue):
                handler.queue.join()
        self.acquire()
        try:
            self.closed.set()
            self.screen.erase()
            if not self.failed:
                where = ", ".join(map(os.path.relpath, logs))
                # Whoever ends Snakemake early, by a signal, learns of it after this.
                said = self._so_far() if self.done < self.total else f"{self._jobs()} done"
                self.screen.say(self._stamped(f"{said}; Snakemake's log: {where}"))
        finally:
            self.release()

    def close(self) -> None:
        """End, at the latest with Snakemake."""
        self.closed.set()
        self.screen.erase()
        for name, reach in sorted(self.to_train.items()):
            self.screen.say(f"would {name}: {reach[-1]}" + (f", the last of {len(reach)}" if len(reach) > 1 else ""))
        self.to_train.clear()
        super().close()
