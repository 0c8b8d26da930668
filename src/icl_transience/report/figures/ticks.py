"""Ticks of axes: three at least, however short an axis is, and no more than there is room for."""

import math
from collections.abc import Iterable

import numpy as np
from matplotlib.ticker import Locator, MaxNLocator

FEWEST = 3
# What is labelled in each power of ten, from the fewest on; even steps come first.
_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5), tuple(range(1, 10)))
_MOST = 12


class _Ticks(Locator):
    """Ticks within the view of its axis."""

    def __call__(self) -> np.ndarray:
        return self.tick_values(*self._axis().get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> np.ndarray:
        """Return the ticks of an axis from vmin to vmax."""
        lowest, highest = sorted((float(vmin), float(vmax)))
        return np.array(self._ticks(lowest, highest))

    def room(self) -> int:
        """Return how many labels fit side by side."""
        return max(FEWEST, self._axis().get_tick_space())

    def _axis(self):
        assert self.axis is not None, "matplotlib gives a locator its axis when it is set"
        return self.axis

    def _ticks(self, lowest: float, highest: float) -> list[float]:
        raise NotImplementedError


class LinearTicks(_Ticks):
    """Of a linear axis."""

    def _ticks(self, lowest: float, highest: float) -> list[float]:
        return _evenly(lowest, highest, self.room())


class LogTicks(_Ticks):
    """Of a logarithmic axis: at powers of ten, and between them where these are fewer than three."""

    def _ticks(self, lowest: float, highest: float) -> list[float]:
        if lowest <= 0:
            lowest = self._axis().get_minpos()
        powers = [10.0**power for power in range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)]
        for steps in _STEPS:
            ticks = _within((step * power for power in powers for step in steps), lowest, highest)
            if len(ticks) >= FEWEST:
                # Of powers of ten every second or third is enough, from the last one back, but three stay.
                every = min(-(-len(ticks) // self.room()), (len(ticks) - 1) // (FEWEST - 1)) if steps == (1,) else 1
                return ticks[::-1][::every][::-1]
        return _evenly(lowest, highest, FEWEST)


def _evenly(lowest: float, highest: float, room: int) -> list[float]:
    """Return round numbers at equal distances, about as many as there is room for."""
    for most in range(min(room, _MOST) - 1, 4 * _MOST):
        ticks = _within(MaxNLocator(nbins=max(1, most)).tick_values(lowest, highest), lowest, highest)
        if len(ticks) >= FEWEST:
            return ticks
    return [lowest, highest]  # An axis of no length.


def _within(ticks: Iterable[float], lowest: float, highest: float) -> list[float]:
    return [float(tick) for tick in ticks if lowest <= tick <= highest]
