"""Running jobs as a person calls them: by experiment, run and seeds, with the latest in-context learning."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from icl_transience.planning.plan import Plan
from icl_transience.specs.evaluators import default_metric
from icl_transience.specs.runs import Lane
from icl_transience.study.experiments import Experiment, NamedRun
from icl_transience.system.formatting import format_count


class RunningJobs:
    """Names and results of a plan's jobs, from the wildcards of the workflow's rules."""

    def __init__(self, plan: Plan):
        self.plan = plan

    def name(self, rule: str, wildcards: Mapping[str, str]) -> tuple[str, str]:
        """Return ("train l2 strength=0, seeds 0-2", "segment to 640k of 1.28M"), and so on; see system/board.py."""
        if rule == "declare":
            return "", ""
        if pack := wildcards.get("pack"):
            horizon = max(experiment.horizon for experiment, _ in self._runs_of[pack])
            end = wildcards.get("end")
            segment = f"segment to {format_count(int(end))} of {format_count(horizon)}" if end else ""
            return f"{rule} {self._lanes(pack)}", segment
        if bank := wildcards.get("bank"):
            return f"{rule} {self.plan.banks[bank].slug}", ""
        if set_id := wildcards.get("set"):
            return f"{rule} on {self.plan.sets[set_id].bank.slug}", ""
        # The rules that draw are named by their experiment.
        return " ".join(dict.fromkeys([rule.removesuffix(f"_{wildcards.get('experiment')}"), *wildcards.values()])), ""

    def latest(self, wildcards: Mapping[str, str]) -> str:
        """Return "icl 0.93": a pack's last evaluated snapshot, mean over lanes; a dash before the first one.

        The evaluator is the one that the experiment's statistics are about. "" for a job without a pack.
        """
        # Parsing need not wait for HDF5.
        from icl_transience.store import metrics_file

        if not (pack_id := wildcards.get("pack")):
            return ""
        experiment, named = self._runs_of[pack_id][0]
        evaluator = experiment.statistics.evaluator
        for start, end in reversed(self.plan.packs[pack_id].segments(experiment.horizon)):
            path = Path(self.plan.paths.metrics(pack_id, named.sequence_set.id, start, end))
            if path.exists():
                try:
                    return f"{evaluator} {metrics_file.last_mean(path, evaluator, default_metric(evaluator)):.2f}"
                except metrics_file.UNREADABLE:
                    break  # The tables, which need it, say what is wrong with it.
        return f"{evaluator} –"

    @cached_property
    def _runs_of(self) -> dict[str, list[tuple[Experiment, NamedRun]]]:
        """Pack id -> the runs of the study whose lanes it trains, in the study's order."""
        runs: dict[Lane, list[tuple[Experiment, NamedRun]]] = {}
        for experiment in self.plan.study.experiments.values():
            for named in experiment.runs:
                for seed in experiment.seeds:
                    runs.setdefault(Lane(run=named.run, seed=seed), []).append((experiment, named))
        found = {}
        for pack_id, pack in self.plan.packs.items():
            named_runs = [one for lane in pack.spec.lanes for one in runs.get(lane, [])]
            found[pack_id] = list({(one.name, named.name): (one, named) for one, named in named_runs}.values())
        return found

    def _lanes(self, pack_id: str) -> str:
        (experiment, named), *others = self._runs_of[pack_id]
        more = f" (+{len(others)} more)" if others else ""
        seeds = list(dict.fromkeys(lane.seed.label for lane in self.plan.packs[pack_id].spec.lanes))
        numbers = [int(seed) for seed in seeds if seed.isdigit()]
        if len(seeds) > 2 and len(numbers) == len(seeds) and numbers == list(range(numbers[0], numbers[-1] + 1)):
            return f"{experiment.name} {named.name}{more}, seeds {numbers[0]}-{numbers[-1]}"
        return f"{experiment.name} {named.name}{more}, seed{'s' * (len(seeds) > 1)} {' '.join(seeds)}"
