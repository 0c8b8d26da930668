"""Tables of experiments that nobody ran."""

import pandas as pd

from icl_transience.specs.evaluators import DEFAULT_METRIC, EVALUATORS
from icl_transience.specs.experiment import Statistics
from icl_transience.specs.figures import Figures, drawn_by_default
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.records import ExperimentRecord, LaneRecord, RunRecord

SEEN = [0, 1000, 2000, 4000, 8000, 16_000, 32_000]
RISES_AND_FALLS = [0.5, 0.6, 0.8, 0.9, 0.8, 0.7, 0.6]
STAYS = [0.5, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9]


def make_record(runs: dict[str, dict], seeds: int = 3) -> ExperimentRecord:
    """An experiment of these runs, each with its levels, as its tables and figures need it."""
    return ExperimentRecord(
        study="made_up",
        experiment="l2",
        question="does it stay?",
        figures=Figures(evaluators=drawn_by_default(EVALUATORS)),
        axes=tuple(dict.fromkeys(axis for axes in runs.values() for axis in axes)),
        horizon=SEEN[-1],
        statistics=Statistics(evaluator="icl", smoothing=1, min_effect=0.05, confidence=0.95),
        runs=tuple(
            RunRecord(
                name=name,
                axes=axes,
                set="set",
                recipe=Recipe(context=8, burstiness=3),
                labels=100,
                caption=("same for all", name),
                lanes=tuple(LaneRecord(seed=str(seed), pack=name, place=seed) for seed in range(seeds)),
            )
            for name, axes in runs.items()
        ),
        packs={},
    )


def make_curves(record: ExperimentRecord, icl: dict[str, list[float]]) -> pd.DataFrame:
    """Curves of every lane: ICL as given, a little apart by seed; other accuracies 0.3 throughout."""
    rows = []
    for run in record.runs:
        for lane in run.lanes:
            shift = 0.01 * (int(lane.seed) - 1)
            for number, seen in enumerate(SEEN):
                values = {name: (metric, 0.3) for name, metric in DEFAULT_METRIC.items()}
                values["icl"] = ("in_context_accuracy", icl[run.name][number] + shift)
                values["training"] = ("loss", 5 / (1 + number))
                rows += [
                    {
                        "run": run.name,
                        "seed": lane.seed,
                        **run.axes,
                        "sequences_seen": seen,
                        "evaluator": evaluator,
                        "metric": metric,
                        "value": value,
                        "standard_error": 0.001,
                    }
                    for evaluator, (metric, value) in values.items()
                    if evaluator != "training" or seen
                ]
    return pd.DataFrame(rows)


def at_other_contexts(curves: pd.DataFrame) -> pd.DataFrame:
    """With ICL at two other context lengths, at 0.1 and 0.2 less."""
    icl = curves[curves["evaluator"] == "icl"]
    others = [icl.assign(evaluator=name, value=icl["value"] - less) for name, less in (("icl@16", 0.1), ("icl@4", 0.2))]
    return pd.concat([curves, *others], ignore_index=True)
