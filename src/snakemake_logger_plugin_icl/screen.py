"""A stream with lines that stay, and below them, where it is a terminal, a few that are drawn anew."""

import os
import shutil
from typing import TextIO

from icl_transience.system.terminal import LEGIBLE

_BOLD, _RED, _YELLOW, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
COLOURS = {"title": _BOLD, "ERROR": _RED, "CRITICAL": _RED, "WARNING": _YELLOW}


class Screen:
    """Writes to `stream`, in colours where they are wanted and shown.

    is_live: whether lines can be drawn anew.
    """

    def __init__(self, stream: TextIO, *, colours: bool):
        self.stream = stream
        self.is_live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colours = colours and self.is_live and not os.environ.get("NO_COLOR")
        self._drawn = 0

    def say(self, text: str, colour: str = "", *, cut: bool = False) -> None:
        """Write lines that stay; cut: one line, as much of it as fits a terminal."""
        if cut and self.is_live:
            text = text[: self._size()[0] - 1]
        self._write(self._erased() + self._coloured(text, colour) + "\n")

    def draw(self, lines: list[str], last: str) -> None:
        """Draw lines in place of those drawn before: as many as there is room for, and `last` below them."""
        columns, rows = self._size()
        if len(lines) > (room := max(rows - 3, 0)):
            lines = [*lines[:room], f"and {len(lines) - room} more"]
        # A longer line would wrap, and a wrapped line cannot be drawn over.
        cut = [line[: columns - 1] for line in (*lines, last)]
        erased = self._erased()
        self._drawn = len(cut)
        self._write(erased + "\n".join([*cut[:-1], self._coloured(cut[-1], "title")]) + "\n")

    def erase(self) -> None:
        """Take away what was drawn."""
        self._write(self._erased())

    def _erased(self) -> str:
        drawn, self._drawn = self._drawn, 0
        return f"\x1b[{drawn}A\r\x1b[J" if drawn else ""

    def _coloured(self, text: str, colour: str) -> str:
        begin = COLOURS.get(colour, "") if self.colours else ""
        return f"{begin}{text}{_PLAIN}" if begin else text

    def _write(self, text: str) -> None:
        # No letter is worth an error.
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(text.encode(encoding, LEGIBLE).decode(encoding))
        self.stream.flush()

    def _size(self) -> tuple[int, int]:
        """Return columns and rows; the stream's own, since standard output may be a pipe."""
        try:
            columns, rows = os.get_terminal_size(self.stream.fileno())
        except OSError:
            columns, rows = 0, 0
        usual = shutil.get_terminal_size()
        return columns or usual.columns, rows or usual.lines
