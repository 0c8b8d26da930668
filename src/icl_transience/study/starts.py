"""Runs that start from another run's snapshot: which run and which snapshot a study means.

A reference is resolved when all experiments are known, since the identity of a run that starts from another has the
other's in it.
"""

from collections.abc import Mapping
from dataclasses import replace

from icl_transience.specs.errors import MissingSourceError, StudyError, did_you_mean
from icl_transience.specs.runs import Run
from icl_transience.specs.training import StartFrom
from icl_transience.study.experiments import Experiment, LeftOut, NamedRun

_Name = tuple[str, str]


class Starts:
    """The references among the runs of a study. left_out: experiments without their source's files."""

    def __init__(self, experiments: Mapping[str, Experiment], left_out: Mapping[str, LeftOut]):
        self.experiments, self.left_out = experiments, left_out
        self.resolved: dict[_Name, NamedRun] = {}

    def experiment(self, experiment: Experiment) -> Experiment:
        """Return an experiment with the runs from which its runs start by their ids, and snapshots by their numbers.

        Raises MissingSourceError where such a run's experiment is left out, StudyError where there is none of that
        name, where runs start from each other, and where the snapshot or its weights are not what is needed.
        """
        if not any(named.run.start_from for named in experiment.runs):
            return experiment
        return replace(experiment, runs=tuple(self._run((experiment.name, named.name)) for named in experiment.runs))

    def _run(self, name: _Name, above: tuple[_Name, ...] = ()) -> NamedRun:
        if name in above:
            chain = " -> ".join("/".join(one) for one in [*above[above.index(name) :], name])
            raise StudyError(
                f"{_where(above[-1])}: runs start from each other, {chain}: let one of them begin by itself"
            )
        if name not in self.resolved:
            experiment, named = self.experiments[name[0]], _named(self.experiments[name[0]], name[1])
            if named.run.start_from:
                source_name = self._source_name(name, named.run.start_from)
                source = self._run(source_name, (*above, name))
                start = self._start(name, named.run, experiment, source, self.experiments[source_name[0]])
                named = replace(named, run=replace(named.run, start_from=start))
            self.resolved[name] = named
        return self.resolved[name]

    def _source_name(self, name: _Name, start: StartFrom) -> _Name:
        """Return experiment and run that a reference means."""
        of, _, run = start.run.rpartition("/")
        of = of or name[0]
        if of in self.left_out:
            raise MissingSourceError(
                f"{_where(name)}: `start_from.run` is {start.run!r}, but experiment {of} is left out: "
                f"{self.left_out[of].reason}"
            )
        if of not in self.experiments:
            raise StudyError(
                f"{_where(name)}: `start_from.run` is {start.run!r}, but there is no experiment "
                f"{of!r}{did_you_mean(of, list(self.experiments))}: there are {', '.join(self.experiments)}"
            )
        runs = [named.name for named in self.experiments[of].runs]
        if run not in runs:
            raise StudyError(
                f"{_where(name)}: `start_from.run` is {start.run!r}, but experiment {of} has no run "
                f"{run!r}{did_you_mean(run, runs)}: it has {', '.join(runs)}; EXPERIMENT/RUN is one of another"
            )
        return of, run

    def _start(self, name: _Name, run: Run, experiment: Experiment, source: NamedRun, of: Experiment) -> StartFrom:
        """Return the reference of a run by id and number. of: the experiment of `source`."""
        where, start, batch_size = _where(name), run.start_from, source.run.batch_size
        _refuse_other_shapes(where, run, source)
        if missing := [seed.label for seed in experiment.seeds if seed not in of.seeds]:
            raise StudyError(
                f"{where}: `start_from.run` is {start.run!r}, of the same seed's lane, but {of.name} has seeds "
                f"{' '.join(seed.label for seed in of.seeds)}, not {' '.join(missing)}: give both the same `seeds`"
            )
        points = source.run.snapshots.points(batch_size, 0, of.horizon)
        at = points[-1] if start.at == "end" else start.at
        if at not in points:
            near = sorted(points, key=lambda point: abs(point - at))[:3] if isinstance(at, int) else points[-3:]
            raise StudyError(
                f"{where}: `start_from.at` is {at!r}, expected a snapshot of {of.name}/{source.name} up to its horizon "
                f"{of.horizon:,}: {', '.join(map(str, sorted(near)))}, say, or end"
            )
        return StartFrom(run=source.run.id, at=at)


def _refuse_other_shapes(where: str, run: Run, source: NamedRun) -> None:
    own, others = run.parameter_shapes, source.run.parameter_shapes
    differing = [name for name in [*own, *others] if own.get(name) != others.get(name)]
    if differing:
        name = differing[0]
        raise StudyError(
            f"{where}: `start_from.run` is {run.start_from.run!r}, whose {name} is {_shape(others.get(name))}, "
            f"expected {_shape(own.get(name))} as here: give both the same `model`, number of labels and bank's width"
            + (" and `recipe.context`" if name == "positions" else "")
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return " x ".join(map(str, shape)) if shape else "not there"


def _named(experiment: Experiment, run: str) -> NamedRun:
    return next(named for named in experiment.runs if named.name == run)


def _where(name: _Name) -> str:
    return f"`experiments.{name[0]}` (run {name[1]})"
