"""What every figure has in common: its style, and how it is written."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from icl_transience.specs.figures import FORMATS
from icl_transience.store import atomic

# Matplotlib's own values come first, so that no user's settings are left.
STYLE: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"} | {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "icl-transience",
    "svg.fonttype": "path",
    # As outlines that journals take, not as Type 3.
    "pdf.fonttype": 42,
    # Dollars in a question are dollars.
    "text.parse_math": False,
}
RASTER_DPI = 200
# What would tell when, or with what, a figure was written.
_UNDATED: Any = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}


def draw_all(
    draw: Callable[[str], Figure], names: Iterable[str], folder: Path, formats: Sequence[str], known: Iterable[str]
) -> list[Path]:
    """Draw each figure of `names` into the folder, in each format, and return the files.

    Files of other `known` names and formats are removed: they would show what is no longer so.
    """
    drawn = []
    for name in names:
        paths = [folder / f"{name}.{kind}" for kind in formats]
        with matplotlib.rc_context(STYLE):
            save(draw(name), *paths)
        drawn += paths
    for path in (folder / f"{name}.{kind}" for name in known for kind in FORMATS):
        if path not in drawn:
            path.unlink(missing_ok=True)
    return drawn


def save(figure: Figure, *paths: Path) -> None:
    """Write the figure to each path in the format of its suffix; equal figures give equal files."""
    for path in paths:
        kind = path.suffix[1:]
        metadata = _UNDATED[kind]
        atomic.write(
            path,
            lambda temporary, kind=kind, metadata=metadata: figure.savefig(
                temporary, format=kind, dpi=RASTER_DPI, metadata=metadata
            ),
        )
