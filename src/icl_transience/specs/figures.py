"""What the figures of an experiment show, and which figures it has."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from icl_transience.specs.evaluators import EVALUATORS, METRICS, STRATEGY, evaluator_parts
from icl_transience.specs.experiment import axis_of_numbers
from icl_transience.specs.keys import Key

# See report/figures/experiment.py.
FIGURES = ("curves", "comparison", "summary", "plane", "grid", "map", "survival", "strategy")
# Levels of each axis under which a map says no more than the panels of a grid.
_FEWEST_OF_MAP = 3
# In the order in which a report prefers them.
FORMATS = ("svg", "png", "pdf")
# Each evaluator's own: see evaluators.DEFAULT_METRIC.
OWN_METRIC = "default"
# They are drawn first, in this order; then all others but `train`, which the training loss tells of.
_FIRST = ("icl", "ciwl", "iwl", "flip")
_ON_REQUEST = ("train",)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What figures show, and how. Part of no identity and of no table: a change draws again, and makes nothing else."""

    evaluators: Annotated[
        tuple[str, ...] | None,
        Key(
            "evaluators that are drawn, in this order, such as icl or icl@16; null: all that are evaluated but `train`",
            fewest=1,
            unique=True,
        ),
    ] = None
    metric: Annotated[
        str,
        Key(
            "what is drawn of them; default: of each what the tables summarise, in-context accuracy or, of iwl and "
            "train, accuracy",
            choices=(OWN_METRIC, *METRICS),
        ),
    ] = OWN_METRIC
    x: Annotated[str, Key("the axis of sequences seen", choices=("log", "linear"))] = "log"
    title: Annotated[bool, Key("whether the experiment's name and question stand above its figures")] = True
    formats: Annotated[
        tuple[Annotated[str, Key(choices=FORMATS)], ...],
        Key("a file each; the report shows SVG or, without it, the first of the others", fewest=1, unique=True),
    ] = ("svg", "png")

    @property
    def drawn(self) -> tuple[str, ...]:
        """The evaluators that are drawn, once a study has been loaded."""
        assert self.evaluators is not None, "study/load.py fills them in"
        return self.evaluators


def drawn_by_default(evaluators: Collection[str]) -> tuple[str, ...]:
    """Return which of an experiment's evaluators are drawn where a study names none, in order."""
    names = (*_FIRST, *(name for name in EVALUATORS if name not in (*_FIRST, *_ON_REQUEST)), STRATEGY)
    return tuple(one for name in names for one in evaluators if evaluator_parts(one)[0] == name) or tuple(evaluators)


def names_of_figures(
    levels: Mapping[str, Sequence[Any]], runs: int, drawn: Collection[str], *, acquisition: bool = False
) -> list[str]:
    """Return the names of an experiment's figures.

    levels: axis -> its levels, of the axes along which runs differ. runs: how many. drawn: evaluators. acquisition:
    whether it is told in how many lanes in-context learning emerges, and when.
    """
    of_axes = {axis: list(of_axis) for axis, of_axis in levels.items()}
    every_combination = math.prod(map(len, of_axes.values())) == runs > 1
    wanted = {
        "curves": True,
        "comparison": runs > 1,
        "summary": every_combination and axis_of_numbers(of_axes) is not None,
        "plane": "icl" in drawn and not {"ciwl", "iwl"}.isdisjoint(drawn),
        "grid": every_combination and len(of_axes) == 2,
        "map": every_combination
        and len(of_axes) == 2
        and all(len(of_axis) >= _FEWEST_OF_MAP for of_axis in of_axes.values()),
        "survival": acquisition,
        "strategy": STRATEGY in drawn,
    }
    return [name for name in FIGURES if wanted[name]]
