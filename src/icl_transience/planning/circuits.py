"""What is measured inside the models of a study: specs by id, and the files that their jobs read and make."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from icl_transience.planning import ends, packs
from icl_transience.planning.packs import Pack
from icl_transience.specs.circuits import CircuitsSpec, specs_of
from icl_transience.specs.runs import Lane
from icl_transience.store.layout import Paths
from icl_transience.study.experiments import Experiment, NamedRun, Study


def specs_where(experiment: Experiment, named: NamedRun, *, horizon_is_end: bool) -> tuple[CircuitsSpec, ...]:
    """Return what is measured inside the lanes of a run. horizon_is_end: see `ends.at_horizon`.

    Then curves end at the horizon; else they end at the last snapshot until there.
    """
    if experiment.circuits is None:
        return ()
    run, horizon = named.run, experiment.horizon
    last = horizon if horizon_is_end else max(run.snapshots.points(run.batch_size, 0, horizon))
    return specs_of(experiment.circuits, named.sequence_set.id, last, experiment.statistics)


@dataclass(frozen=True)
class CircuitsPlan:
    """Files below the results folder, as texts for rules."""

    paths: Paths
    study: Study
    packs: Mapping[str, Pack]

    @cached_property
    def specs(self) -> dict[str, CircuitsSpec]:
        """Spec by id, of the whole study."""
        return {spec.id: spec for experiment in self.study.experiments.values() for *_, spec in self._asked(experiment)}

    @cached_property
    def at_horizon(self) -> dict[str, bool]:
        """Whether curves of an experiment end at its horizon, by its name."""
        return ends.at_horizon(self.study, self.packs)

    def ids(self, *, grafts: bool) -> list[str]:
        """Return the ids of the specs that need other snapshots, or of those that do not."""
        return [name for name, spec in self.specs.items() if bool(spec.others) == grafts]

    def of_run(self, experiment: Experiment, named: NamedRun) -> tuple[CircuitsSpec, ...]:
        """Return what is measured inside the lanes of a run."""
        return specs_where(experiment, named, horizon_is_end=self.at_horizon[experiment.name])

    def files(self, experiment: str) -> list[str]:
        """Return every file of what is measured inside an experiment's models."""
        found = {}
        for pack_id, horizon, spec in self._asked(self.study.experiments[experiment]):
            for start, end in self.packs[pack_id].segments(horizon):
                found[self.paths.circuits(pack_id, spec.id, start, end)] = None
        return list(found)

    def of_segment(self, pack_id: str, start: int) -> list[CircuitsSpec]:
        """Return what is measured inside a segment that begins at `start`."""
        return [spec for spec, horizon in self._horizons.get(pack_id, {}).items() if start < horizon]

    def _asked(self, experiment: Experiment) -> Iterator[tuple[str, int, CircuitsSpec]]:
        """Yield (pack, horizon, spec) of an experiment."""
        if experiment.circuits is None:
            return
        for named in experiment.runs:
            for seed in experiment.seeds:
                pack_id, _ = self._places[Lane(run=named.run, seed=seed)]
                for spec in self.of_run(experiment, named):
                    yield pack_id, experiment.horizon, spec

    @cached_property
    def _horizons(self) -> dict[str, dict[CircuitsSpec, int]]:
        """Pack -> spec -> up to where, in sequences seen."""
        found: dict[str, dict[CircuitsSpec, int]] = {}
        for experiment in self.study.experiments.values():
            for pack_id, horizon, spec in self._asked(experiment):
                of_pack = found.setdefault(pack_id, {})
                of_pack[spec] = max(horizon, of_pack.get(spec, 0))
        return found

    @cached_property
    def _places(self) -> dict[Lane, tuple[str, int]]:
        lanes = [lane for experiment in self.study.experiments.values() for lane in experiment.lanes()]
        return packs.lane_places(self.packs, lanes)

    # What jobs read.

    def other_segments(self, pack_id: str, circuits_id: str) -> list[str]:
        """Return the segments from which grafts come: of a peak, which only metrics know, all up to the horizon."""
        spec, pack = self.specs[circuits_id], self.packs[pack_id]
        found = []
        for start, end in pack.segments(spec.horizon or pack.boundaries[-1]):
            at = (other.at for other in spec.others)
            if spec.of_peak or any(point is not None and (start < point <= end or start == point == 0) for point in at):
                found.append(self.paths.segment(pack_id, start, end))
        return found

    def peaks(self, pack_id: str, circuits_id: str) -> list[str]:
        """Return the file of the lanes' peaks, if a spec needs it."""
        return [self.paths.peaks(pack_id, circuits_id)] if self.specs[circuits_id].of_peak else []

    def metrics_before_peak(self, pack_id: str, circuits_id: str) -> list[str]:
        """Return the metrics in which the peaks are looked for."""
        spec = self.specs[circuits_id]
        segments = self.packs[pack_id].segments(self.horizon_of(spec))
        return [self.paths.metrics(pack_id, spec.set, start, end) for start, end in segments]

    def boundaries(self, pack_id: str, circuits_id: str) -> list[int]:
        """Return the sequences seen at which the segments up to a spec's horizon meet, 0 first."""
        segments = self.packs[pack_id].segments(self.horizon_of(self.specs[circuits_id]))
        return [0, *(end for _, end in segments)]

    @staticmethod
    def horizon_of(spec: CircuitsSpec) -> int:
        """Return the horizon up to which a peak is looked for."""
        assert spec.horizon, "asked for only where a graft comes from the peak"
        return spec.horizon
