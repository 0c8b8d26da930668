"""TODO"""

from collections.abc import Collection, Sequence
from pathlib import Path


def count(sequences: float) -> str:
    """1,280,000 -> "1.28M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if sequences >= size:
            return f"{sequences / size:.3g}{unit}"
    return f"{sequences:.0f}"


def short(number: int) -> str:
    """1,600,000,000 -> "1.60G": three digits and a prefix of the SI."""
    if number < 1000:
        return str(number)
    digits, exponent = f"{number:.2e}".split("e")
    thousands, decimal = divmod(int(exponent), 3)
    return f"{float(digits) * 10**decimal:.{2 - decimal}f}{' kMGTPEZYRQ'[thousands]}"


def shown(path: Path) -> str:
    """A path on one line, whatever characters are in its name."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def human(size: int) -> str:
    """1,280,000 -> "1.3 MB"."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:,.1f} {unit}"
    return f"{size} B"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Return a line of text for each row, columns aligned.

    rows: equally many cells each. left: columns aligned to the left; the others are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
