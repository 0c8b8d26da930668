"""Terminals and pipes that cannot show every letter: what they cannot is written in letters that they can."""

import codecs
import io
import sys
from contextlib import suppress

# The name of the rule, for `errors` of `str.encode` and of streams.
LEGIBLE = "icl_transience.legible"
_PLAIN = {"–": "-", "—": "-", "−": "-", "…": "...", "≥": ">=", "≤": "<=", "×": "x", "·": ".", "½": "1/2", "’": "'"}


def _legible(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what cannot be encoded: a dash by a hyphen, and so on; other letters by their codes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(letter, letter) for letter in text)
    return plain.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(LEGIBLE, _legible)


def never_fail() -> None:
    """Let standard output and standard error write whatever they are given, whichever encoding they have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Of a stream whose file was a seekable one when it was opened, and is a pipe now, Python asks the position
            # last, in vain.
            with suppress(OSError):
                stream.reconfigure(errors=LEGIBLE)
