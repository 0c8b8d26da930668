"""What a study file becomes: experiments, their named runs, and what was left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icl_transience.specs.circuits import Circuits, names_of_circuits_figures
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.experiment import Claim, Statistics, levels
from icl_transience.specs.figures import Figures
from icl_transience.specs.runs import Lane, Run, Seed
from icl_transience.specs.theory import MinimalModelRecord
from icl_transience.study.bases import Base


@dataclass(frozen=True, kw_only=True)
class NamedRun:
    """A run under its name in an experiment, and where it stands on the experiment's axes."""

    name: str
    axes: Mapping[str, Any]
    run: Run
    sequence_set: SequenceSet


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One question: named runs that differ along axes, the seeds of each, and how far they train.

    horizon: sequences seen at the end, in whole batches of every run. evidence, claims_alpha: how its
    claims are decided, one of EVIDENCE, and at which error level. circuits: what is measured inside its models; None is
    nothing.
    """

    name: str
    question: str
    axes: tuple[str, ...]
    runs: tuple[NamedRun, ...]
    seeds: tuple[Seed, ...]
    horizon: int
    statistics: Statistics
    figures: Figures
    claims: tuple[Claim, ...]
    claims_alpha: float
    evidence: str
    circuits: Circuits | None = None

    @property
    def circuits_figures(self) -> tuple[str, ...]:
        """The names of the figures of its circuits."""
        return names_of_circuits_figures(self.circuits, max(named.run.model.depth for named in self.runs))

    def levels(self) -> dict[str, list[Any]]:
        """Return axis -> its levels, for the axes along which runs differ."""
        return levels(self.axes, [named.axes for named in self.runs])

    def lanes(self) -> list[Lane]:
        """Return every run with every seed."""
        return [Lane(run=named.run, seed=seed) for named in self.runs for seed in self.seeds]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An optional experiment whose source's files are not at hand, why, and its claims."""

    reason: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study: its experiments by name, those that were left out, and its minimal model if it has one.

    bases: the files whose defaults are beneath its own.
    """

    name: str
    description: str
    experiments: Mapping[str, Experiment]
    left_out: Mapping[str, LeftOut]
    minimal_model: MinimalModelRecord | None = None
    bases: tuple[Base, ...] = ()

    def left_out_in_words(self) -> list[str]:
        """Return a line for every reason for which experiments are left out; it tells that of the first of them."""
        alike: dict[str, list[str]] = {}
        for name, one in self.left_out.items():
            # Up to the comma it names the experiment and its file.
            alike.setdefault(one.reason.partition(", ")[2] or one.reason, []).append(name)
        return [
            f"experiment{'s' * (len(names) > 1)} {', '.join(names)} {'are' if len(names) > 1 else 'is'} left out: "
            f"{self.left_out[names[0]].reason}"
            for names in alike.values()
        ]
