"""Progress of a job: a bar that redraws itself on a terminal, plain lines elsewhere and in the log."""

import shutil
import sys
import time
from typing import TextIO

from icl_transience.system.formatting import format_clock

BAR_SECONDS = 0.5
LINE_SECONDS = 15.0
_WIDTH = 16


class Progress:
    """Progress of a job of `lanes` lanes from `start` to `end`, in sequences seen or another `unit`.

    Sequences per second are summed over lanes. With a log file, the terminal gets the bar and the log the lines.
    """

    def __init__(
        self, label: str, start: int, end: int, lanes: int, log: TextIO | None = None, unit: str = "sequences"
    ):
        self.label, self.start, self.end, self.lanes, self.unit = label, start, end, lanes, unit
        self.terminal = sys.stderr if sys.stderr.isatty() else None
        self.lines = log if log is not None else (None if self.terminal else sys.stderr)
        self.begun = time.monotonic()
        self.bar_at = self.line_at = 0.0

    def __call__(self, sequences_seen: int) -> None:
        """Show the progress at `sequences_seen`, unless it was shown a moment ago."""
        now = time.monotonic()
        done = sequences_seen >= self.end
        if self.terminal and (done or now - self.bar_at >= BAR_SECONDS):
            self.bar_at = now
            filled = round(_WIDTH * (sequences_seen - self.start) / (self.end - self.start))
            bar = "█" * filled + "░" * (_WIDTH - filled)
            # A longer line would wrap, and a wrapped line cannot be drawn over.
            line = f"{self.label} {bar} {self._state(sequences_seen, now)}"[: shutil.get_terminal_size().columns - 1]
            self.terminal.write(f"\r\x1b[2K{line}" + "\n" * done)
            self.terminal.flush()
        if self.lines and (done or now - self.line_at >= LINE_SECONDS):
            self.line_at = now
            self.lines.write(f"{self.label}: {self._state(sequences_seen, now)}\n")
            self.lines.flush()

    def _state(self, sequences_seen: int, now: float) -> str:
        """Say the time left, the rate, and how much is done."""
        elapsed = max(now - self.begun, 1e-9)
        rate = (sequences_seen - self.start) / elapsed
        left = (self.end - sequences_seen) / rate if rate else 0.0
        return (
            f"{format_clock(left)} left, {rate * self.lanes:,.0f} {self.unit}/s, "
            f"{sequences_seen:,} of {self.end:,} seen"
        )
