"""Experiments and claims of a study, as the jobs that read them need them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from icl_transience.planning import packs
from icl_transience.planning.circuits import CircuitsPlan
from icl_transience.planning.describe import describe
from icl_transience.planning.packs import Pack
from icl_transience.specs.records import ClaimRecord, ExperimentRecord, LaneRecord, RunRecord, text_of
from icl_transience.specs.runs import Lane
from icl_transience.study.experiments import Experiment, NamedRun, Study


@dataclass(frozen=True)
class Records:
    """The study's experiments and claims; `..._text` is what rules and files hold of them."""

    study: Study
    packs: Mapping[str, Pack]
    circuits: CircuitsPlan

    def experiment(self, name: str, *, figures: bool) -> ExperimentRecord:
        """Return an experiment as its tables need it; for figures, with what they say."""
        experiment = self.study.experiments[name]
        runs = tuple(
            RunRecord(
                name=named.name,
                axes=dict(named.axes),
                set=named.sequence_set.id,
                recipe=named.run.recipe,
                labels=named.run.n_labels,
                lanes=self.lanes(experiment, named),
                caption=tuple(describe(named)) if figures else None,
            )
            for named in experiment.runs
        )
        used = {lane.pack for run in runs for lane in run.lanes}
        return ExperimentRecord(
            study=self.study.name,
            experiment=name,
            axes=experiment.axes,
            horizon=experiment.horizon,
            statistics=experiment.statistics,
            runs=runs,
            packs={pack_id: self._boundaries(pack_id, experiment.horizon) for pack_id in sorted(used)},
            question=experiment.question if figures else None,
            figures=experiment.figures if figures else None,
            circuits_figures=experiment.circuits_figures if figures else (),
        )

    def experiment_text(self, name: str, *, figures: bool) -> str:
        """Return `experiment` as canonical JSON."""
        return text_of(self.experiment(name, figures=figures))

    def minimal_model_text(self, *, figures: bool) -> str:
        """Return the study's minimal model as canonical JSON; for figures, with the runs drawn beside it."""
        record = self.study.minimal_model
        assert record is not None, "its rules are there only in a study that has one"
        return text_of(record if figures else record.for_tables())

    def lanes(self, experiment: Experiment, named: NamedRun) -> tuple[LaneRecord, ...]:
        """Return seed, pack and place in the pack of each lane of a run."""
        homes = ((seed, *self._places[Lane(run=named.run, seed=seed)]) for seed in experiment.seeds)
        return tuple(
            LaneRecord(
                seed=seed.label,
                pack=pack_id,
                place=place,
                circuits=tuple(spec.id for spec in self.circuits.of_run(experiment, named)),
            )
            for seed, pack_id, place in homes
        )

    def _boundaries(self, pack_id: str, horizon: int) -> tuple[int, ...]:
        return (0, *(end for _, end in self.packs[pack_id].segments(horizon)))

    @cached_property
    def _places(self) -> dict[Lane, tuple[str, int]]:
        lanes = [lane for experiment in self.study.experiments.values() for lane in experiment.lanes()]
        return packs.lane_places(self.packs, lanes)

    def claims(self) -> list[ClaimRecord]:
        """Return every claim of the study; those of experiments that are left out stand last."""
        tested = [
            ClaimRecord(
                **vars(claim),
                experiment=experiment.name,
                evidence=experiment.evidence,
                confidence=experiment.statistics.confidence,
                alpha=experiment.claims_alpha,
            )
            for experiment in self.study.experiments.values()
            for claim in experiment.claims
        ]
        # Why is said elsewhere: it names folders of this machine, and nothing here depends on them.
        left_out = [
            ClaimRecord(**vars(claim), experiment=experiment, left_out=True)
            for experiment, one in self.study.left_out.items()
            for claim in one.claims
        ]
        return tested + left_out

    def claims_text(self) -> str:
        """Return `claims` as canonical JSON."""
        return text_of(self.claims())
