"""The section `figures` of an experiment: which of its evaluators are drawn, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.specs.figures import Figures, drawn_by_default
from icl_transience.specs.identity import from_values
from icl_transience.study.checks import not_evaluated


def resolve(where: str, section: Mapping[str, Any], evaluators: Sequence[str]) -> Figures:
    """Return what an experiment's figures show, with evaluators by name.

    where: the key path of the section. evaluators: what the experiment evaluates. Raises StudyError where an evaluator
    is to be drawn that is not evaluated.
    """
    figures = from_values(Figures, dict(section))
    if figures.evaluators is None:
        return replace(figures, evaluators=drawn_by_default(evaluators))
    if problems := not_evaluated(where, figures.evaluators, evaluators):
        raise StudyError("\n".join(problems))
    return figures
