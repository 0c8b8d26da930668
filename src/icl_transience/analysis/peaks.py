"""Where lanes of a pack have their peaks: from metrics, for interventions that take a lane's own peak."""

import json
from collections.abc import Sequence
from pathlib import Path

from icl_transience.analysis import transience
from icl_transience.analysis.curves import JoinedMetrics
from icl_transience.specs import evaluators
from icl_transience.specs.circuits import CircuitsSpec
from icl_transience.specs.runs import PackSpec
from icl_transience.store import atomic
from icl_transience.store.tables_file import default_curves


def write_peaks(path: Path, pack: PackSpec, spec: CircuitsSpec, boundaries: Sequence[int]) -> None:
    """Write a JSON list: of each lane the sequences seen at its peak, `peak_at` of transience.csv, or null without one.

    path: in the pack's folder. boundaries: sequences seen at which the segments up to the horizon meet, 0 first.
    """
    statistics, horizon = spec.statistics, spec.horizon
    if not statistics or not horizon:
        raise ValueError(f"{spec.id} grafts nothing from a peak")
    # The spec's horizon is where curves end.
    joined = JoinedMetrics(path.parent, (pack.id, spec.set), boundaries, horizon, horizon_is_end=True)
    peaks: list[int | None] = []
    for place, lane in enumerate(pack.lanes):
        chance = evaluators.chance(statistics.evaluator, lane.run.recipe, lane.run.n_labels)
        assert chance is not None, f"{statistics.evaluator}: specs.experiment.Statistics takes none without a chance"
        curve = default_curves(joined.lane(place), statistics.evaluator)
        seen, value, error = (curve[name].to_numpy() for name in ("sequences_seen", "value", "standard_error"))
        found = transience.summarise(seen, value, error, chance, statistics, joined.diverged(place)).peak_at
        peaks.append(None if found is None else int(found))
    atomic.write_text(path, json.dumps(peaks) + "\n")
