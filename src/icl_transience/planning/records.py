"""What tables, figures and verdicts are made from, as canonical JSON: an experiment, and the claims of a study."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from icl_transience.planning import packs
from icl_transience.planning.describe import describe
from icl_transience.planning.packs import Pack
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.specs.runs import Lane
from icl_transience.study.experiments import Experiment, NamedRun, Study


@dataclass(frozen=True)
class Records:
    """The study's experiments and claims, as the jobs that read them need them."""

    study: Study
    packs: Mapping[str, Pack]

    def experiment(self, name: str, *, figures: bool) -> str:
        """Return an experiment as its tables need it (see analysis/curves.py); for figures, with what they say."""
        experiment = self.study.experiments[name]
        runs = [
            {
                "name": named.name,
                "axes": dict(named.axes),
                "set": named.sequence_set.id,
                "recipe": identity_values(named.run.recipe),
                "labels": named.run.n_labels,
                "lanes": self.lanes(experiment, named),
            }
            | ({"caption": describe(named)} if figures else {})
            for named in experiment.runs
        ]
        used = {lane["pack"] for run in runs for lane in run["lanes"]}
        return _for_pages(
            {
                "study": self.study.name,
                "experiment": name,
                "axes": experiment.axes,
                "horizon": experiment.horizon,
                "statistics": identity_values(experiment.statistics),
                "runs": runs,
                "packs": {pack_id: self._boundaries(pack_id, experiment.horizon) for pack_id in sorted(used)},
            }
            | ({"question": experiment.question} if figures else {})
        )

    def lanes(self, experiment: Experiment, named: NamedRun) -> list[dict[str, Any]]:
        """Return seed, pack and place in the pack of each lane of a run."""
        rows = []
        for seed in experiment.seeds:
            pack_id, place = self._places[Lane(run=named.run, seed=seed)]
            rows.append({"seed": seed.label, "pack": pack_id, "place": place})
        return rows

    def _boundaries(self, pack_id: str, horizon: int) -> list[int]:
        return [0, *(end for _, end in self.packs[pack_id].segments(horizon))]

    @cached_property
    def _places(self) -> dict[Lane, tuple[str, int]]:
        lanes = [lane for experiment in self.study.experiments.values() for lane in experiment.lanes()]
        return packs.lane_places(self.packs, lanes)

    def claims(self) -> str:
        """Return every claim of the study: a list of specs.experiment.Claim with what its test needs to know.

        Those of experiments that are left out stand last, and say so.
        """
        return _for_pages(
            [
                identity_values(claim)
                | {
                    "experiment": experiment.name,
                    "horizon": experiment.horizon,
                    "confidence": experiment.statistics.confidence,
                    "alpha": experiment.claims_alpha,
                }
                for experiment in self.study.experiments.values()
                for claim in experiment.claims
            ]
            + [
                # Why is said elsewhere: it names folders of this machine, and nothing here depends on them.
                identity_values(claim) | {"experiment": experiment, "left_out": True}
                for experiment, one in self.study.left_out.items()
                for claim in one.claims
            ]
        )


def _for_pages(values: Any) -> str:
    """Return canonical JSON in which no tag of HTML begins: Snakemake writes it into a script of its report."""
    return canonical(values).replace("<", "\\u003c")
