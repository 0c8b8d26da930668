"""How far a job is: lines in its log, from which the terminal's board and `status` read; a bar where it has none."""

import math
import shutil
import sys
import time
from collections.abc import Iterable
from typing import SupportsFloat, TextIO

from icl_transience.system.formatting import format_minutes

BAR_SECONDS = 0.5
# A log is read while it grows: often at first, then seldom, so that a long job's log stays short.
FIRST_LINE_SECONDS, LAST_LINE_SECONDS = 2.0, 15.0
_BAR_WIDTH = 16


class Progress:
    """Progress of a job of `lanes` lanes from `start` to `end`, in sequences seen or another `unit`.

    Sequences per second are summed over lanes. With a log file, lines go there; without one a terminal gets a bar that
    redraws itself, and what is no terminal gets the lines.
    """

    def __init__(
        self, label: str, start: int, end: int, lanes: int, log: TextIO | None = None, unit: str = "sequences"
    ):
        self.label, self.start, self.end, self.lanes, self.unit = label, start, end, lanes, unit
        self.terminal = sys.stderr if log is None and sys.stderr.isatty() else None
        self.lines = log or sys.stderr
        self.begun = time.monotonic()
        self.shown_at = -math.inf
        self.pause = BAR_SECONDS if self.terminal else FIRST_LINE_SECONDS

    def __call__(self, sequences_seen: int, loss: Iterable[SupportsFloat] | None = None) -> None:
        """Say that so many have been seen, and the mean training loss of late of every lane, if it is time to."""
        now = time.monotonic()
        done = sequences_seen >= self.end
        if not done and now - self.shown_at < self.pause:
            return
        self.shown_at = now
        state = self._state(sequences_seen, now, loss)
        if self.terminal:
            self._draw(self.terminal, sequences_seen, state, done)
        else:
            self.pause = min(1.2 * self.pause, LAST_LINE_SECONDS)
            self.lines.write(f"{self.label}: {state}\n")
            self.lines.flush()

    def _draw(self, terminal: TextIO, sequences_seen: int, state: str, done: bool) -> None:
        """Draw the bar over what it was."""
        filled = round(_BAR_WIDTH * (sequences_seen - self.start) / (self.end - self.start))
        bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
        # A longer line would wrap, and a wrapped line cannot be drawn over.
        line = f"{self.label} {bar} {state}"[: shutil.get_terminal_size().columns - 1]
        terminal.write(f"\r\x1b[2K{line}" + "\n" * done)
        terminal.flush()

    def _state(self, sequences_seen: int, now: float, loss: Iterable[SupportsFloat] | None) -> str:
        """Say the loss, the time left, the rate, and how much is done."""
        elapsed = max(now - self.begun, 1e-9)
        rate = (sequences_seen - self.start) / elapsed
        left = (self.end - sequences_seen) / rate if rate else 0.0
        when = f"{format_minutes(left)} left" if sequences_seen < self.end else f"after {format_minutes(elapsed)}"
        return (
            f"{_mean_loss(loss)}{when}, {rate * self.lanes:,.0f} {self.unit}/s, {sequences_seen:,} of {self.end:,} seen"
        )


def _mean_loss(loss: Iterable[SupportsFloat] | None) -> str:
    """Return "loss 1.234, ", the mean over the lanes that have not diverged."""
    values = [float(value) for value in loss] if loss is not None else []
    finite = [value for value in values if math.isfinite(value)]
    if not values:
        return ""
    return f"loss {sum(finite) / len(finite):.3f}, " if finite else "loss nan, "
