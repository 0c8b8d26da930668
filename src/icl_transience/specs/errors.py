"""Errors that a user can mend, and the hint at a word that was meant."""

import difflib


class StudyError(ValueError):
    """What the user asked for cannot be done; the message says which value, what was expected, what to do."""


class MissingSourceError(StudyError):
    """A bank's source files are not at hand: no folder is named for them, or the file is not in it."""


def did_you_mean(word: str, allowed: list) -> str:
    """Return a hint at the allowed word closest to `word`, or "" where none is close."""
    close = difflib.get_close_matches(word, [str(option) for option in allowed], n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""
