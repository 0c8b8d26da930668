"""A study file -> experiments, runs and lanes, checked whole before anything is built."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import MissingSourceError, StudyError, did_you_mean
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.experiment import Statistics
from icl_transience.specs.identity import from_values, round_up
from icl_transience.specs.model import Model
from icl_transience.specs.runs import Run, Seed
from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.study import bases, circuits, claims, figures, json_schema, minimal_model, schema, while_training
from icl_transience.study.axes import leaves, nested, plain, short_axis, value_at
from icl_transience.study.checks import (
    impossible,
    impossible_interventions,
    impossible_parts,
    refuse_other_axes,
    unequal_groups,
)
from icl_transience.study.claims import Claimant
from icl_transience.study.document import read_yaml
from icl_transience.study.experiments import Experiment, LeftOut, NamedRun, Study
from icl_transience.study.neutral import evaluators_of, periods_of, resolved_model, resolved_parts, strategy_of
from icl_transience.study.sources import resolve
from icl_transience.study.starts import Starts
from icl_transience.study.strategy import impossible_strategy

RUN_SECTIONS = (
    *("bank", "recipe", "model", "optimizer", "batch_size", "numerics", "snapshots"),
    *("forgetting", "interventions", "activation_interventions", "freeze", "start_from"),
)
# Experiments are targets of their own; these names are taken by the rules and by what stands beside them.
RESERVED_NAMES = (
    *("all", "download", "encoder", "bank", "card", "cards", "sequences", "train", "evaluate"),
    *("circuits", "grafts", "peaks", "circuits_tables", "acquisition", "forecast"),
    *(
        "declare",
        "tables",
        "figures",
        "verdicts",
        "evidence",
        "explore",
        "export",
        "report",
        "unlock",
        "status",
        "stale",
        "orphans",
        "archive",
        "cost",
        "results_page",
    ),
    *(MINIMAL_MODEL, "minimal_model_tables", "minimal_model_figure"),
)
# Rules that draw an experiment's figures are named by it.
RESERVED_PREFIXES = ("figures_", "circuits_figures_")

# More would keep Snakemake busy for minutes before the first job, and a curve has no use for them.
MOST_LANES = 10_000
MOST_SNAPSHOTS = 10_000
_NO_KIND = ": give the mixture a kind of that name first, say with `share: 0`, then sweep `recipe.mixture.{name}.share`"


def load(path: Path, folders: Mapping[str, Path | None], bases_folder: Path | None = None) -> Study:
    """Return the study in the YAML file `path`.

    folders: folder of the files of each source that reads any (resolve.WITH_FILES), or None where none is configured.
    bases_folder: of the bases that it can name; None is `bases` beside it.
    Raises StudyError that lists every problem found, each with its key path.
    """
    study_schema = json_schema.study_schema()
    document = read_yaml(path)
    schema.check(document, study_schema, str(path))
    defaults, extended = bases.defaults_of(document, path, bases_folder)
    resolver = _Resolver(study_schema, defaults, folders)
    _refuse_too_many_lanes(path, document["experiments"], resolver.base["seeds"])
    experiments, left_out, problems = {}, {}, []
    for name, section in document["experiments"].items():
        try:
            experiment, missing = resolver.experiment(name, section)
        except StudyError as error:
            problems += [f"{path}: {line}" for line in str(error).splitlines()]
            continue
        if not missing:
            experiments[name] = experiment
        elif section.get("optional"):
            left_out[name] = LeftOut(reason=missing[0], claims=experiment.claims)
        else:
            problems += [f"{path}: {line}" for line in missing]
    starts = Starts(dict(experiments), dict(left_out))
    for name, experiment in dict(experiments).items() if not problems else ():
        try:
            experiments[name] = starts.experiment(experiment)
            _refuse_twins(f"experiments.{name}", experiments[name].runs)
        except MissingSourceError as error:
            if not document["experiments"][name].get("optional"):
                problems.append(f"{path}: {error}")
                continue
            left_out[name] = LeftOut(reason=str(error), claims=experiments.pop(name).claims)
        except StudyError as error:
            problems.append(f"{path}: {error}")
    if not experiments:
        problems += [f"{path}: {one.reason}" for one in left_out.values()]
    if problems:
        raise StudyError("\n".join(dict.fromkeys(problems)))
    study = Study(
        name=path.stem,
        description=document.get("description", ""),
        experiments=experiments,
        left_out=left_out,
        bases=extended,
    )
    if MINIMAL_MODEL in document:
        given = schema.defaults(study_schema["properties"][MINIMAL_MODEL], study_schema)
        written = schema.merge(given, document[MINIMAL_MODEL])
        return replace(study, minimal_model=minimal_model.resolve(study, written, str(path)))
    return study


def _refuse_too_many_lanes(path: Path, experiments: Mapping[str, Mapping], seeds: list) -> None:
    """Raise StudyError where there are too many lanes.

    They are counted, not listed: a sweep of four axes can have more runs than any memory holds.
    """
    lanes = {
        name: math.prod(len(values) for values in section.get("axes", {}).values())
        * len(section.get("runs", [None]))
        * len(section.get("seeds", seeds))
        for name, section in experiments.items()
    }
    if sum(lanes.values()) > MOST_LANES:
        largest = max(lanes, key=lanes.__getitem__)
        raise StudyError(
            f"{path}: the study asks for {sum(lanes.values()):,} lanes (runs x seeds), `experiments.{largest}` alone "
            f"for {lanes[largest]:,}, expected at most {MOST_LANES:,}: sweep fewer values, or make several studies"
        )


class _Resolver:
    """From what is written to values: defaults filled in, runs checked, sources looked up."""

    def __init__(self, study_schema: Mapping, study_defaults: Mapping, folders: Mapping[str, Path | None]):
        definitions = study_schema["$defs"]
        self.run_schema = definitions["run"] | {"$defs": definitions}
        given = schema.defaults(definitions["settings"], study_schema)
        # A section that is not there asks for nothing, though its keys have defaults.
        self.circuits = given.pop("circuits")
        self.base = schema.merge(given, study_defaults)
        self.folders = folders
        self.missing: list[str] = []

    def experiment(self, name: str, section: Mapping[str, Any]) -> tuple[Experiment, list[str]]:
        """Return the experiment, and what its banks lack of their source's files: without those it is only checked."""
        self.missing = []
        where = f"experiments.{name}"
        if name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES):
            raise StudyError(f"`{where}`: {name!r} is a name of the workflow's own: rename the experiment")
        if "axes" in section and "runs" in section:
            raise StudyError(f"`{where}` has both `axes` and `runs`: an experiment is declared by one of them")
        of_experiment = ("axes", "runs", "question", "optional", "claims")
        own = {key: value for key, value in section.items() if key not in of_experiment}
        settings = schema.merge(self.base, own)
        variants = self._variants(where, section, settings)
        # Of verdicts alone: another level or kind of test makes no table again.
        of_curves = {
            key: value for key, value in settings["statistics"].items() if key not in ("claims_alpha", "evidence")
        }
        statistics = from_values(Statistics, of_curves)
        if statistics.smoothing % 2 == 0:
            raise StudyError(
                f"`{where}.statistics.smoothing` is {statistics.smoothing}, expected an odd number of snapshots"
            )
        if statistics.evaluator not in settings["evaluation"]["evaluators"]:
            raise StudyError(
                f"`{where}.statistics.evaluator` is {statistics.evaluator!r}, which is not among "
                f"`evaluation.evaluators` ({', '.join(settings['evaluation']['evaluators'])}): add it there"
            )
        axes = tuple(dict.fromkeys(axis for _, axes, _ in variants for axis in axes))
        runs = [self._run(where, run_name, axes, settings, override) for run_name, _, override in variants]
        _refuse_twins(where, runs)
        if statistics.acquisition:
            refuse_other_axes(f"{where}.statistics.acquisition", axes, [named.axes for named in runs])
        seeds = [seed if isinstance(seed, dict) else {"init": seed, "data": seed} for seed in settings["seeds"]]
        if len({(seed["init"], seed["data"]) for seed in seeds}) < len(seeds):
            raise StudyError(f"`{where}.seeds` names a seed twice: {settings['seeds']}")
        horizon = max(round_up(settings["horizon"], named.run.batch_size) for named in runs)
        for named in runs:
            for change in named.run.interventions:
                if round_up(change.at, named.run.batch_size) >= horizon:
                    raise StudyError(
                        f"`{where}.horizon` is {settings['horizon']}, but {named.name} has an intervention at "
                        f"{change.at} sequences seen: train longer, or leave it out"
                    )
            if named.run.freeze.parameters and named.run.freeze.bounds(named.run.batch_size)[0] >= horizon:
                raise StudyError(
                    f"`{where}.horizon` is {settings['horizon']}, but {named.name} freezes parameters from "
                    f"{named.run.freeze.from_} sequences seen on: train longer, or leave it out"
                )
            if horizon < (first := round_up(named.run.snapshots.first, named.run.batch_size)):
                raise StudyError(
                    f"`{where}.horizon` is {settings['horizon']}, but the first snapshot of {named.name} is at {first} "
                    "sequences seen: train longer, or lower `snapshots.first`"
                )
            if (snapshots := named.run.snapshots.at_most(named.run.batch_size, horizon)) > MOST_SNAPSHOTS:
                raise StudyError(
                    f"`{where}.snapshots` asks for up to {snapshots:,} snapshots of {named.name} until `horizon` "
                    f"{horizon}: expected at most {MOST_SNAPSHOTS:,}: raise `every` or lower `per_doubling`"
                )
        inside = None
        if "circuits" in settings:
            asked = schema.merge(self.circuits, settings["circuits"])
            inside = circuits.resolve(f"{where}.circuits", asked, runs, horizon)
        experiment = Experiment(
            name=name,
            question=section.get("question", ""),
            axes=axes,
            runs=tuple(runs),
            seeds=tuple(from_values(Seed, seed) for seed in seeds),
            horizon=horizon,
            statistics=statistics,
            figures=figures.resolve(f"{where}.figures", settings["figures"], runs[0].sequence_set.curves),
            circuits=inside,
            claims=claims.resolve(
                f"{where}.claims",
                section.get("claims", {}),
                Claimant(
                    axes,
                    {named.name: named.axes for named in runs},
                    (*runs[0].sequence_set.curves, *circuits.curves_of(inside)),
                ),
            ),
            claims_alpha=float(settings["statistics"]["claims_alpha"]),
            evidence=settings["statistics"]["evidence"],
        )
        return experiment, list(dict.fromkeys(self.missing))

    def _variants(
        self, where: str, section: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> list[tuple[str, list[str], dict]]:
        """Return (name, axes, overrides) of every run of an experiment."""
        if "axes" in section:
            variants = []
            for axis in section["axes"]:
                self._check_axis(f"{where}.axes", axis, settings)
            for values in itertools.product(*section["axes"].values()):
                axes = dict(zip(section["axes"], values, strict=True))
                name = ",".join(f"{short_axis(axis)}={plain(value)}" for axis, value in axes.items())
                override: dict[str, Any] = {}
                for axis, value in axes.items():
                    override = schema.merge(override, nested(axis, value))
                variants.append((name, list(axes), override))
            return variants
        if "runs" in section:
            return [(name, leaves(override), override) for name, override in section["runs"].items()]
        return [("baseline", [], {})]

    def _check_axis(self, where: str, axis: str, settings: Mapping[str, Any]) -> None:
        level: Any = {key: settings[key] for key in RUN_SECTIONS}
        for key in axis.split("."):
            if not isinstance(level, dict) or key not in level:
                # Without a default, or in a section by a name, which has none: so not among the settings.
                if schema.is_choice(self.run_schema, axis.split(".")) or axis in _strengths(settings):
                    return
                allowed = list(level) if isinstance(level, dict) else []
                raise StudyError(
                    f"`{where}`: unknown run key `{axis}`: no `{key}`{did_you_mean(key, allowed)}"
                    + (f" (allowed there: {', '.join(allowed)})" if allowed else "")
                    + (_NO_KIND if axis.startswith("recipe.mixture.") and not allowed else "")
                )
            level = level[key]
        if isinstance(level, dict):
            keys = f": name one of its keys ({', '.join(level)})" if level else _NO_KIND
            raise StudyError(f"`{where}`: `{axis}` is a section{keys}")

    def _run(
        self, where: str, name: str, axes: Iterable[str], settings: Mapping[str, Any], override: Mapping[str, Any]
    ) -> NamedRun:
        where = f"{where} (run {name})"
        values = schema.merge({key: settings[key] for key in RUN_SECTIONS}, override)
        schema.check(values, self.run_schema, where)
        if timeless := [name for name, change in values["interventions"].items() if "at" not in change]:
            raise StudyError("\n".join(f"{where}: `interventions.{name}` lacks `at`: add it" for name in timeless))
        periods = periods_of(values)
        model = resolved_model(values["model"])
        if unequal := list(unequal_groups(from_values(Model, model))):
            raise StudyError(f"{where}: {unequal[0]}")
        try:
            done = while_training.activation_interventions(values["activation_interventions"])
            frozen = while_training.freeze(values["freeze"], from_values(Model, model))
        except StudyError as error:
            raise StudyError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error
        run = from_values(
            Run,
            values
            | resolved_parts(values)
            | {
                "bank": self._bank(where, values["bank"]),
                "model": model,
                "forgetting": values["forgetting"] if values["forgetting"]["every"] else {},
                "interventions": [{"at": period["at"]} | resolved_parts(period) for period in periods.values()],
                "activation_interventions": list(done.values()),
                "freeze": frozen,
                "start_from": values["start_from"] if values["start_from"]["run"] else {},
            },
        )
        evaluation = settings["evaluation"]
        evaluators = evaluators_of(evaluation)
        problems = [
            *impossible_parts(values, run.bank, run.batch_size),
            *impossible_interventions(periods, run),
            *while_training.impossible_activations(done, run),
            *while_training.impossible_freeze(run),
            *impossible(run, evaluators, evaluation),
            *impossible_strategy(run, evaluation),
        ]
        if problems:
            raise StudyError("\n".join(f"{where}: {problem}" for problem in problems))
        sequence_set = SequenceSet(
            bank=run.bank,
            recipe=run.recipe,
            evaluators=evaluators,
            sequences=evaluation["sequences"],
            seed=evaluation["seed"],
            replacement=evaluation["replacement"],
            strategy=strategy_of(evaluation),
        )
        return NamedRun(
            name=name, axes={axis: value_at(run, values, axis) for axis in axes}, run=run, sequence_set=sequence_set
        )

    def _bank(self, where: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the bank's values: the section of its own source, and its source files by their SHA-256."""
        source = values["source"]
        bank = {key: values[key] for key in ("source", "seed", source)}
        if source in resolve.WITH_FILES:
            try:
                bank[source], paths = resolve.resolve(source, bank[source], self.folders.get(source))
            except MissingSourceError as error:
                self.missing.append(f"{where}: {error}")
                return bank
            except StudyError as error:
                raise StudyError(f"{where}: {error}") from error
            bank["files"] = [resolve.digest(path) for path in paths]
        return bank


def _strengths(settings: Mapping[str, Any]) -> list[str]:
    """Return the key of the strength of each activation intervention of an experiment."""
    return [f"activation_interventions.{name}.strength" for name in settings["activation_interventions"]]


def _refuse_twins(where: str, runs: Iterable[NamedRun]) -> None:
    """Raise StudyError where two runs are one configuration or bear one name."""
    names: dict[str, NamedRun] = {}
    configurations: dict[tuple[str, str], NamedRun] = {}
    for named in runs:
        key = (named.run.id, named.sequence_set.id)
        twin = configurations.setdefault(key, named)
        if twin is not named:
            raise StudyError(
                f"`{where}`: runs {twin.name} and {named.name} are the same configuration: what they set changes "
                "nothing (a section of another `bank.source`, perhaps): leave one of them out"
            )
        if names.setdefault(named.name, named) is not named:
            raise StudyError(f"`{where}`: two runs are named {named.name}: declare them under `runs` with names")
