"""Where curves end: at the horizon where every lane of the experiment has a point there, else at a snapshot before it.

Training ends with a point of its own, wherever the schedule of snapshots is then. A lane that was trained further, for
another experiment, has none there unless the schedule has: were the others read at the horizon, lanes would be compared
at different points of training, and a number would depend on what was trained before.
"""

from collections.abc import Iterator, Mapping

from icl_transience.planning.packs import Pack, lane_places
from icl_transience.planning.resources import ends_without_snapshot
from icl_transience.study.experiments import Study


def at_horizon(study: Study, packs: Mapping[str, Pack]) -> dict[str, bool]:
    """Return of each experiment whether a segment of all its lanes ends at its horizon.

    From its ExperimentRecord `horizon_is_end` says the same.
    """
    lanes = {name: experiment.lanes() for name, experiment in study.experiments.items()}
    places = lane_places(packs, [lane for of_experiment in lanes.values() for lane in of_experiment])
    return {
        name: all(experiment.horizon in packs[places[lane][0]].boundaries for lane in lanes[name])
        for name, experiment in study.experiments.items()
    }


def in_words(study: Study, is_at_horizon: Mapping[str, bool]) -> Iterator[str]:
    """Yield a line for each experiment whose curves end before its horizon. is_at_horizon: see `at_horizon`."""
    for name, experiment in study.experiments.items():
        horizon, run = experiment.horizon, experiment.runs[0].run
        if is_at_horizon[name] or not any(ends_without_snapshot(named.run, [horizon]) for named in experiment.runs):
            continue
        points = run.snapshots.points(run.batch_size, 0, horizon + 2 * run.snapshots.every)
        before = max(point for point in points if point <= horizon)
        after = min((point for point in points if point > horizon), default=before)
        yield (
            f"experiment {name}: some of its lanes were trained beyond its horizon of {horizon:,}, where its schedule "
            f"has no snapshot: its curves end at the one before, at {before:,} sequences seen of run "
            f"{experiment.runs[0].name}, in all lanes. A horizon of {before:,} or {after:,} has one"
        )
