"""Where words in a panel stand: where they cover least of what is drawn, and none covers another.

Sizes are known once a figure has been laid out, so words are placed last. What moves then is no part of the layout.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

# Points of a line on the screen lie so many pixels apart when it is looked at whether words cover it.
_APART = 3
# What covering other words, or leaving the panel, counts, in points of lines.
_WORDS, _BEYOND = 10_000, 100


@dataclass(frozen=True)
class Place:
    """Where words may stand: in `points` from the place that they are of, which is `at` if they are of several."""

    points: tuple[float, float]
    ha: str
    va: str
    at: tuple[float, float] | None = None


def around(*distances: float) -> list[Place]:
    """Return places around a point, at each of these distances in points: the nearest first, above before below."""
    sides = ((0, 1), (1, 1), (-1, 1), (1, 0), (-1, 0), (1, -1), (-1, -1), (0, -1))
    ha, va = {-1: "right", 0: "center", 1: "left"}, {-1: "top", 0: "center", 1: "bottom"}
    return [Place((x * far, y * far), ha[x], va[y]) for far in distances for x, y in sides]


def along(level: float, points: float) -> list[Place]:
    """Return places below and above a level across the whole panel: at its left, in its middle, at its right."""
    return [
        Place((0, side * points), ha, "top" if side < 0 else "bottom", (across, level))
        for ha, across in (("left", 0.01), ("center", 0.5), ("right", 0.99))
        for side in (-1, 1)
    ]


@dataclass
class Words:
    """What a figure has yet to place: words, with the best of their places first, and names at the ends of curves."""

    loose: list[tuple[Axes, Annotation, Sequence[Place]]]
    ends: list[tuple[Axes, list[Annotation]]]

    @classmethod
    def none(cls) -> "Words":
        """Return nothing."""
        return cls([], [])

    def add(self, axes: Axes, text: str, at: tuple[Any, Any], places: Sequence[Place], **how: Any) -> None:
        """Write words of the point `at`, below all lines."""
        words = axes.annotate(
            text, at, xytext=(0, 0), textcoords="offset points", annotation_clip=False, zorder=1.5, **how
        )
        words.set_in_layout(False)
        self.loose.append((axes, words, places))

    def settle(self, figure: Figure) -> None:
        """Place all words. Nothing is drawn in the figure after this."""
        FigureCanvasAgg(figure)  # It knows how wide letters are.
        engine = figure.get_layout_engine()
        assert engine is not None, "every figure here has one"
        engine.execute(figure)
        # What is written is what was looked at; and laying out takes as long as drawing.
        figure.set_layout_engine("none")
        for axes, labels in self.ends:
            _spread(axes, labels)
        taken: dict[Axes, list[Bbox]] = {}
        lines: dict[Axes, np.ndarray] = {}
        for axes, words, places in self.loose:
            if axes not in lines:
                lines[axes] = _points_of_lines(axes)
            costs = [_cost(axes, words, place, lines[axes], taken.get(axes, [])) for place in places]
            _move(words, places[int(np.argmin(costs))])
            taken.setdefault(axes, []).append(box_of(words))


def _cost(axes: Axes, words: Annotation, place: Place, lines: np.ndarray, taken: Iterable[Bbox]) -> float:
    """Return how much would be covered by words at a place. lines: points of lines. taken: where other words stand."""
    _move(words, place)
    box, panel = box_of(words), axes.bbox
    covered = np.all((lines >= box.min) & (lines <= box.max), axis=1).sum()
    beyond = np.any(box.min < panel.min) or np.any(box.max > panel.max)
    return float(covered + _WORDS * sum(box.overlaps(other) for other in taken) + _BEYOND * bool(beyond))


def box_of(words: Annotation) -> Bbox:
    """Return where words stand, in pixels, without the line that leads to them."""
    figure = words.get_figure(root=True)
    canvas = None if figure is None else figure.canvas
    assert isinstance(canvas, FigureCanvasAgg), "`settle` gives the figure one"
    words.update_positions(canvas.get_renderer())
    return Text.get_window_extent(words, canvas.get_renderer())


def _move(words: Annotation, place: Place) -> None:
    if place.at is not None:
        words.xy = place.at
    words.set_position(place.points)
    words.set(ha=place.ha, va=place.va)


def _points_of_lines(axes: Axes) -> np.ndarray:
    """Return points [n, 2] along all lines of a panel, in pixels."""
    found = [np.empty((0, 2))]
    for line in axes.lines:
        corners = line.get_transform().transform(line.get_path().vertices)
        corners = corners[np.isfinite(corners).all(axis=1)]
        found += list(_between(corners)) if line.get_linestyle() != "None" else [corners]
    return np.concatenate(found)


def _between(corners: np.ndarray) -> Iterator[np.ndarray]:
    for start, end in pairwise(corners):
        share = np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / _APART))
        yield start + share[:, None] * (end - start)


def _spread(axes: Axes, labels: Sequence[Annotation]) -> None:
    """Move the names at the ends of a panel's curves apart, up and down, as little as can be."""
    if not labels:
        return
    boxes = [box_of(label) for label in labels]
    gap = max(box.height for box in boxes) / axes.bbox.height
    at = [(box.y0 + box.height / 2 - axes.bbox.y0) / axes.bbox.height for box in boxes]
    order = sorted(range(len(labels)), key=at.__getitem__)
    for number, place in zip(order, apart([at[number] for number in order], gap), strict=True):
        labels[number].xy = (1, place)
        labels[number].xycoords = axes.transAxes


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Return ascending values at least `gap` apart, those that are too near moved evenly around their mean."""
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while len(groups) > 1 and _first(groups[-1], gap) - _last(groups[-2], gap) < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_first(group, gap) + number * gap for group in groups for number in range(len(group))]


def _first(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _last(group: Sequence[float], gap: float) -> float:
    return _first(group, gap) + gap * (len(group) - 1)
