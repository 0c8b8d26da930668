"""What an experiment's curves are summarised by, what it claims, and the levels of its axes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from icl_transience.specs.keys import Key, neutral

# How claims are decided: by evidence that may be read after every seed, or by a test of seeds fixed beforehand.
EVIDENCE = ("anytime", "fixed")
# A claim that holds where all of its parts do.
CONJUNCTION = "all_of"
# The first direction of each kind is the positive one.
DIRECTIONS = {"trend": ("rises", "falls"), "difference": ("greater", "less"), "threshold": ("above", "below")}
# Columns of transience.csv besides those of each evaluator and of the training loss, at the peak and at the end.
QUANTITIES = ("emergence", "peak", "peak_at", "half_life", "final", "index")
# Those that are times, in sequences seen: of these a lane may know no more than a bound. The others are levels.
TIMES = ("emergence", "peak_at", "half_life")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is tested, and the runs it is about.

    runs: of a trend one a level, in ascending order of `levels`; of a difference the one and the other; of a
    threshold those that are to keep it. minus: a second column, which is taken from `of` in each lane.
    """

    kind: str
    of: str
    direction: str
    runs: tuple[str, ...]
    minus: str = neutral("")
    axis: str = ""
    levels: tuple[float, ...] = ()
    value: float = 0.0

    @property
    def claimed(self) -> int:
        """Return 1 where the direction is the positive one of its kind, else -1."""
        return 1 if self.direction == DIRECTIONS[self.kind][0] else -1


@dataclass(frozen=True, kw_only=True)
class Claim(Part):
    """A claim, which is tested itself or holds where all of its parts do.

    all_of: the parts; then the kind is CONJUNCTION, and `runs` are those of any part.
    """

    name: str
    text: str
    source: str
    all_of: tuple[Part, ...] = neutral(())

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return what is tested: its parts, or itself."""
        return self.all_of or (self,)


def is_number(level: Any) -> bool:
    """Return whether a level is a number; true and false are none."""
    return isinstance(level, int | float) and not isinstance(level, bool)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """How curves are summarised; see analysis/transience.py for what each means."""

    evaluator: Annotated[
        str,
        Key(
            "whose in-context accuracy is summarised",
            default="icl",
            choices=("icl", "icl_holdout", "icl_new_exemplar", "icl_holdout_pairs", "ciwl", "flip"),
        ),
    ]
    smoothing: Annotated[int, Key("snapshots in the running mean (odd)", default=3, unit="snapshots", minimum=1)]
    min_effect: Annotated[float, Key("smallest rise or fall that is called one", default=0.05, minimum=0)]
    confidence: Annotated[float, Key("of intervals over seeds", default=0.95, above=0.5, below=1)]
    acquisition: Annotated[
        bool,
        Key(
            "whether to tell in how many lanes in-context learning emerges along the axis, and when: survival.csv, "
            "threshold.csv and the figure survival; the experiment needs one axis, of numbers"
        ),
    ] = neutral(False)


def levels(axes: Iterable[str], places: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return axis -> its levels, for those of which there are several: numbers by size, others as they come."""
    found = {axis: list(dict.fromkeys(place[axis] for place in places)) for axis in axes}
    return {
        axis: sorted(levels) if all(map(is_number, levels)) else levels
        for axis, levels in found.items()
        if len(levels) > 1
    }


def axis_of_numbers(levels: Mapping[str, list[Any]]) -> str | None:
    """Return the axis, of those whose levels are numbers, that has most of them."""
    numeric = [axis for axis, of_axis in levels.items() if all(map(is_number, of_axis))]
    return max(numeric, key=lambda axis: len(levels[axis]), default=None)
