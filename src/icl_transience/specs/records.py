"""What tables, figures and verdicts are made from: an experiment and the claims of a study, as files keep them.

A workflow writes them down as canonical JSON when it starts (planning/records.py); jobs read them back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from icl_transience.specs.errors import StudyError
from icl_transience.specs.experiment import Claim, Statistics
from icl_transience.specs.figures import Figures
from icl_transience.specs.identity import canonical, from_values, identity_values
from icl_transience.specs.keys import neutral
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.theory import MinimalModelRecord


@dataclass(frozen=True, kw_only=True)
class LaneRecord:
    """A seed of a run, as tables name it, and the lane of a pack that trains it.

    place: the lane's index in it. circuits: ids of what is measured inside it.
    """

    seed: str
    pack: str
    place: int
    circuits: tuple[str, ...] = neutral(())

    @property
    def id(self) -> str:
        """What tables of a study in Python call the lane; experiments that share it call it the same."""
        return f"{self.pack}/{self.place}"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run of an experiment.

    axes: axis -> its level. set: the id of its evaluator set. labels: how many the model knows. caption: what the run
    was made with, in words; None where only tables are made.
    """

    name: str
    axes: Mapping[str, Any]
    set: str
    recipe: Recipe
    labels: int
    lanes: tuple[LaneRecord, ...]
    caption: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ExperimentRecord:
    """An experiment as its tables and figures need it.

    horizon: sequences seen at the end. packs: pack id -> sequences seen at which its segments meet, 0 first.
    question, figures: None where only tables are made. circuits_figures: names of figures of circuits.
    """

    study: str
    experiment: str
    axes: tuple[str, ...]
    horizon: int
    statistics: Statistics
    runs: tuple[RunRecord, ...]
    packs: Mapping[str, tuple[int, ...]]
    question: str | None = None
    figures: Figures | None = None
    circuits_figures: tuple[str, ...] = neutral(())

    @property
    def horizon_is_end(self) -> bool:
        """Whether a segment of all lanes ends at the horizon: else curves end at the last snapshot until there."""
        return all(self.horizon in boundaries for boundaries in self.packs.values())

    @property
    def has_circuits(self) -> bool:
        """Whether anything is measured inside the models."""
        return any(lane.circuits for run in self.runs for lane in run.lanes)

    def for_tables(self) -> "ExperimentRecord":
        """Return it without what figures alone say."""
        runs = tuple(replace(run, caption=None) for run in self.runs)
        return replace(self, question=None, figures=None, circuits_figures=(), runs=runs)


@dataclass(frozen=True, kw_only=True)
class ClaimRecord(Claim):
    """A claim with what its test needs to know.

    evidence: how it is decided, one of EVIDENCE. confidence: of intervals. alpha: the error level. left_out: the
    experiment's source is not at hand, so nothing is tested and the two numbers are not there.
    """

    experiment: str
    evidence: str = neutral("anytime")
    confidence: float = neutral(0.0)
    alpha: float = neutral(0.0)
    left_out: bool = neutral(False)


def text_of(record: ExperimentRecord | MinimalModelRecord | Sequence[ClaimRecord]) -> str:
    """Return canonical JSON in which no tag of HTML begins: Snakemake writes it into a script of its report."""
    values = identity_values(tuple(record) if isinstance(record, Sequence) else record)
    return canonical(values).replace("<", "\\u003c")


def experiment_from(values: Any) -> ExperimentRecord:
    """Return an experiment from its JSON values. Raises StudyError where they are not one."""
    try:
        runs = tuple(_run_from(run) for run in values["runs"])
        figures = values.get("figures")
        return ExperimentRecord(
            **values
            | {
                "axes": tuple(values["axes"]),
                "statistics": from_values(Statistics, values["statistics"]),
                "runs": runs,
                "circuits_figures": tuple(values.get("circuits_figures", ())),
                "figures": None if figures is None else from_values(Figures, figures),
                "packs": {pack: tuple(boundaries) for pack, boundaries in values["packs"].items()},
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unknown("an experiment", error) from error


def _run_from(values: dict[str, Any]) -> RunRecord:
    caption = values.get("caption")
    return RunRecord(
        **values
        | {
            "recipe": from_values(Recipe, values["recipe"]),
            "lanes": tuple(from_values(LaneRecord, lane) for lane in values["lanes"]),
            "caption": None if caption is None else tuple(caption),
        }
    )


def claims_from(values: Any) -> list[ClaimRecord]:
    """Return the claims of a study from their JSON values. Raises StudyError where they are none."""
    try:
        return [from_values(ClaimRecord, claim) for claim in values]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unknown("claims", error) from error


def minimal_model_from(values: Any) -> MinimalModelRecord:
    """Return the minimal model of a study from its JSON values. Raises StudyError where they are none."""
    try:
        return from_values(MinimalModelRecord, values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unknown("a minimal model", error) from error


def _unknown(what: str, error: Exception) -> StudyError:
    return StudyError(f"what snakemake wrote down is not {what} that this software knows ({error!r}): run it again")
