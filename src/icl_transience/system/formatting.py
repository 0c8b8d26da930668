"""Numbers, paths and tables as text, for people to read."""

from collections.abc import Collection, Sequence
from pathlib import Path


def format_count(number: float) -> str:
    """Format a count with at most three digits and a prefix of the SI: 1,280,000 -> "1.28M", 1,000 -> "1k"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def format_number_of(number: int, noun: str) -> str:
    """Format a number of things: (1, "seed") -> "1 seed", (1200, "core") -> "1,200 cores"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_large_count(number: int) -> str:
    """Format a count of any size with exactly three digits, for columns: 1,600,000,000 -> "1.60G"."""
    if number < 1000:
        return str(number)
    digits, exponent = f"{number:.2e}".split("e")
    thousands, decimal = divmod(int(exponent), 3)
    return f"{float(digits) * 10**decimal:.{2 - decimal}f}{' kMGTPEZYRQ'[thousands]}"


def format_scientific(number: float) -> str:
    """Format a count of any size as a number times a power of ten: 1,050,000,000,000,000,000 -> "1.05e18", 0 -> "0"."""
    if not number:
        return "0"
    digits, exponent = f"{number:.2e}".split("e")
    return f"{digits}e{int(exponent)}"


def format_bytes(size: int) -> str:
    """Format a size in bytes: 1,280,000 -> "1.3 MB"."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:,.1f} {unit}"
    return f"{size} B"


def format_duration(seconds: float) -> str:
    """Format a duration in its largest unit: 5400 -> "1.5 h", 90 -> "1.5 min"."""
    for unit, one in (("h", 3600), ("min", 60)):
        if seconds >= one:
            return f"{seconds / one:,.1f} {unit}"
    return f"{seconds:.1f} s"


def format_clock(seconds: float) -> str:
    """Format a duration as hours, minutes and seconds: 3725 -> "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def format_minutes(seconds: float) -> str:
    """Format a duration as minutes and seconds: 400 -> "6:40"."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def format_path(path: Path) -> str:
    """Format a path on one line, whatever characters are in its name."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def format_table(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Align rows of cells, a line each, two spaces between columns.

    rows: of equal length, the head first. left: numbers of the columns that align left; the others align right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
