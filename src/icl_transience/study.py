"""A study file -> experiments, runs and lanes, checked whole before anything is built."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_transience import claims, schema, sources, spec
from icl_transience.claims import Claim, Claimant
from icl_transience.spec import BankSpec, Component, Lane, MissingSourceError, Run, Seed, SequenceSet, StudyError

RUN_SECTIONS = (
    *("bank", "recipe", "model", "optimizer", "batch_size", "numerics", "snapshots"),
    *("forgetting", "interventions"),
)
# Experiments are targets of their own; these names are taken by the rules and by what stands beside them.
RESERVED_NAMES = (
    *("all", "download", "encoder", "bank", "card", "cards", "sequences", "train", "evaluate"),
    *("declare", "tables", "figures", "verdicts", "export", "report", "unlock", "status", "orphans", "archive", "cost"),
)

# More would keep Snakemake busy for minutes before the first job, and a curve has no use for them.
MOST_LANES = 10_000
MOST_SNAPSHOTS = 10_000
_NO_KIND = ": give the mixture a kind of that name first, say with `share: 0`, then sweep `recipe.mixture.{name}.share`"


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """How curves are summarised; see transience.py for what each means."""

    evaluator: str
    smoothing: int
    min_effect: float
    confidence: float


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

    horizon: sequences seen at the end, in whole batches of every run. claims_alpha: the error level of its claims.
    """

    name: str
    question: str
    axes: tuple[str, ...]
    runs: tuple[NamedRun, ...]
    seeds: tuple[Seed, ...]
    horizon: int
    statistics: Statistics
    claims: tuple[Claim, ...]
    claims_alpha: float

    def levels(self) -> dict[str, list[Any]]:
        """Axis -> its levels, for the axes along which runs differ."""
        return levels(self.axes, [named.axes for named in self.runs])

    def lanes(self) -> list[Lane]:
        return [Lane(run=named.run, seed=seed) for named in self.runs for seed in self.seeds]


def levels(axes: Iterable[str], places: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Axis -> its levels, for those of which there are several: numbers in order of size, others as they come."""
    found = {axis: list(dict.fromkeys(place[axis] for place in places)) for axis in axes}
    return {
        axis: sorted(levels) if all(map(claims.is_number, levels)) else levels
        for axis, levels in found.items()
        if len(levels) > 1
    }


def axis_of_numbers(levels: Mapping[str, list[Any]]) -> str | None:
    """The axis, of those whose levels are numbers, that has most of them."""
    numeric = [axis for axis, of_axis in levels.items() if all(map(claims.is_number, of_axis))]
    return max(numeric, key=lambda axis: len(levels[axis]), default=None)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An optional experiment whose source's files are not at hand, why, and its claims."""

    reason: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    name: str
    description: str
    experiments: Mapping[str, Experiment]
    left_out: Mapping[str, LeftOut]


def load(path: Path, schema_path: Path, folders: Mapping[str, Path | None]) -> Study:
    """The study in the YAML file `path`.

    folders: folder of the files of each source that reads any (sources.WITH_FILES), or None where none is configured.
    Raises StudyError that lists every problem found, each with its key path.
    """
    study_schema = schema.read_yaml(schema_path)
    document = schema.read_yaml(path)
    schema.check(document, study_schema, str(path))
    resolver = _Resolver(study_schema, document.get("defaults", {}), folders)
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
    if not experiments:
        problems += [f"{path}: {one.reason}" for one in left_out.values()]
    if problems:
        raise StudyError("\n".join(dict.fromkeys(problems)))
    return Study(
        name=path.stem, description=document.get("description", ""), experiments=experiments, left_out=left_out
    )


def _refuse_too_many_lanes(path: Path, experiments: Mapping[str, Mapping], seeds: list) -> None:
    """Counted, not listed: a sweep of four axes can have more runs than any memory holds."""
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
    def __init__(self, study_schema: Mapping, study_defaults: Mapping, folders: Mapping[str, Path | None]):
        definitions = study_schema["$defs"]
        self.run_schema = definitions["run"] | {"$defs": definitions}
        self.base = schema.merge(schema.defaults(definitions["settings"], study_schema), study_defaults)
        self.folders = folders
        self.missing: list[str] = []

    def experiment(self, name: str, section: Mapping[str, Any]) -> tuple[Experiment, list[str]]:
        """The experiment, and what its banks lack of their source's files: without those it is only checked."""
        self.missing = []
        where = f"experiments.{name}"
        if name in RESERVED_NAMES:
            raise StudyError(f"`{where}`: {name!r} is a name of the workflow's own: rename the experiment")
        if "axes" in section and "runs" in section:
            raise StudyError(f"`{where}` has both `axes` and `runs`: an experiment is declared by one of them")
        of_experiment = ("axes", "runs", "question", "optional", "claims")
        own = {key: value for key, value in section.items() if key not in of_experiment}
        settings = schema.merge(self.base, own)
        variants = self._variants(where, section, settings)
        # Of verdicts alone: another level makes no table again.
        of_curves = {key: value for key, value in settings["statistics"].items() if key != "claims_alpha"}
        statistics = spec.from_values(Statistics, of_curves)
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
        seeds = [seed if isinstance(seed, dict) else {"init": seed, "data": seed} for seed in settings["seeds"]]
        if len({(seed["init"], seed["data"]) for seed in seeds}) < len(seeds):
            raise StudyError(f"`{where}.seeds` names a seed twice: {settings['seeds']}")
        horizon = max(spec.round_up(settings["horizon"], named.run.batch_size) for named in runs)
        for named in runs:
            for change in named.run.interventions:
                if spec.round_up(change.at, named.run.batch_size) >= horizon:
                    raise StudyError(
                        f"`{where}.horizon` is {settings['horizon']}, but {named.name} has an intervention at "
                        f"{change.at} sequences seen: train longer, or leave it out"
                    )
            if horizon < (first := spec.round_up(named.run.snapshots.first, named.run.batch_size)):
                raise StudyError(
                    f"`{where}.horizon` is {settings['horizon']}, but the first snapshot of {named.name} is at {first} "
                    "sequences seen: train longer, or lower `snapshots.first`"
                )
            if (snapshots := named.run.snapshots.at_most(named.run.batch_size, horizon)) > MOST_SNAPSHOTS:
                raise StudyError(
                    f"`{where}.snapshots` asks for up to {snapshots:,} snapshots of {named.name} until `horizon` "
                    f"{horizon}: expected at most {MOST_SNAPSHOTS:,}: raise `every` or lower `per_doubling`"
                )
        experiment = Experiment(
            name=name,
            question=section.get("question", ""),
            axes=axes,
            runs=tuple(runs),
            seeds=tuple(spec.from_values(Seed, seed) for seed in seeds),
            horizon=horizon,
            statistics=statistics,
            claims=claims.resolve(
                f"{where}.claims",
                section.get("claims", {}),
                Claimant(axes, {named.name: named.axes for named in runs}, runs[0].sequence_set.evaluators),
            ),
            claims_alpha=float(settings["statistics"]["claims_alpha"]),
        )
        return experiment, list(dict.fromkeys(self.missing))

    def _variants(
        self, where: str, section: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> list[tuple[str, list[str], dict]]:
        """(name, axes, overrides) of every run of an experiment."""
        if "axes" in section:
            variants = []
            for axis in section["axes"]:
                self._check_axis(f"{where}.axes", axis, settings)
            for values in itertools.product(*section["axes"].values()):
                axes = dict(zip(section["axes"], values, strict=True))
                name = ",".join(f"{_short(axis)}={_plain(value)}" for axis, value in axes.items())
                override: dict[str, Any] = {}
                for axis, value in axes.items():
                    override = schema.merge(override, _nested(axis, value))
                variants.append((name, list(axes), override))
            return variants
        if "runs" in section:
            return [(name, _leaves(override), override) for name, override in section["runs"].items()]
        return [("baseline", [], {})]

    def _check_axis(self, where: str, axis: str, settings: Mapping[str, Any]) -> None:
        level: Any = {key: settings[key] for key in RUN_SECTIONS}
        for key in axis.split("."):
            if not isinstance(level, dict) or key not in level:
                allowed = list(level) if isinstance(level, dict) else []
                raise StudyError(
                    f"`{where}`: unknown run key `{axis}`: no `{key}`{schema.did_you_mean(key, allowed)}"
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
        periods = _periods(values)
        run = spec.from_values(
            Run,
            values
            | _resolved_parts(values)
            | {
                "bank": self._bank(where, values["bank"]),
                "model": _resolved_model(values["model"]),
                "forgetting": values["forgetting"] if values["forgetting"]["every"] else {},
                "interventions": [{"at": period["at"]} | _resolved_parts(period) for period in periods.values()],
            },
        )
        evaluation = settings["evaluation"]
        evaluators = _evaluators(evaluation)
        problems = [
            *_impossible_parts(values, run.bank, run.batch_size),
            *_impossible_interventions(periods, run),
            *_impossible(run, evaluators, evaluation),
        ]
        if problems:
            raise StudyError("\n".join(f"{where}: {problem}" for problem in problems))
        sequence_set = SequenceSet(
            bank=run.bank,
            recipe=run.recipe,
            evaluators=evaluators,
            sequences=evaluation["sequences"],
            seed=evaluation["seed"],
        )
        return NamedRun(
            name=name, axes={axis: _at(run, values, axis) for axis in axes}, run=run, sequence_set=sequence_set
        )

    def _bank(self, where: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The bank's values: the section of its own source, and its source files by their SHA-256."""
        source = values["source"]
        bank = {key: values[key] for key in ("source", "seed", source)}
        if source in sources.WITH_FILES:
            try:
                bank[source], paths = sources.resolve(source, bank[source], self.folders.get(source))
            except MissingSourceError as error:
                self.missing.append(f"{where}: {error}")
                return bank
            except StudyError as error:
                raise StudyError(f"{where}: {error}") from error
            bank["files"] = [sources.digest(path) for path in paths]
        return bank


def _refuse_twins(where: str, runs: Iterable[NamedRun]) -> None:
    """Raises StudyError where two runs are one configuration or bear one name."""
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


def _kinds(recipe: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Key path -> (share and) composition of every kind of sequence of a recipe, as written; none without a share."""
    own = {key: recipe[key] for key in spec.COMPOSITION}
    mixed = {f"recipe.mixture.{name}": own | part for name, part in recipe["mixture"].items() if part["share"]}
    return {"recipe": own} | mixed


def _resolved_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a spec.Recipe: what changes no sequence at its neutral value, so that it enters no identity."""
    own, *parts = (_composition(kind) for kind in _kinds(recipe).values())
    mixed = [spec.identity_values(spec.from_values(Component, part)) for part in parts]
    zipf, labelling = recipe["zipf"], recipe["labelling"]
    if zipf["ranks"] == "identity":
        zipf = zipf | {"seed": 0}
    return recipe | {
        **own,
        "zipf": zipf if zipf["alpha"] else {},
        "labelling": labelling if labelling["labels"] else {},
        # Neither names nor the order in which they stand say anything.
        "mixture": sorted(mixed, key=spec.canonical),
    }


def _resolved_optimizer(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a spec.Optimizer: what its update rule and schedule do not read at its default."""
    schedule, l2 = optimizer["schedule"], dict(optimizer["l2"])
    if schedule["kind"] != "cosine":
        schedule = {key: schedule[key] for key in ("kind", "warmup")}
    for component in spec.COMPONENTS:
        if l2[component] == l2["strength"]:
            l2[component] = None
    unread = ("beta1", "beta2", "epsilon") if optimizer["name"] == "sgd" else ()
    read = {key: value for key, value in optimizer.items() if key not in unread}
    return read | {"schedule": schedule, "l2": l2}


def _resolved_model(model: Mapping[str, Any]) -> dict[str, Any]:
    positions = model["positions"]
    return model | {"positions": {"kind": positions["kind"]} if positions["kind"] in ("learned", "none") else positions}


def _resolved_parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """What an intervention can change."""
    return {"recipe": _resolved_recipe(values["recipe"]), "optimizer": _resolved_optimizer(values["optimizer"])}


def _periods(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Intervention's name -> `at`, `recipe` and `optimizer` as written with it and those before it, in their order.

    Without those that change nothing.
    """
    periods, now = {}, {key: values[key] for key in ("recipe", "optimizer")}
    for name, change in sorted(values["interventions"].items(), key=lambda item: item[1]["at"]):
        before, now = now, schema.merge(now, change)
        if _resolved_parts(now) != _resolved_parts(before):
            periods[name] = now
    return periods


def _composition(kind: Mapping[str, Any]) -> dict[str, Any]:
    resolved = dict(kind)
    if kind["support"] == "none":
        resolved |= {"burstiness": 0, "replacement": True}
    if not resolved["burstiness"]:
        resolved |= {"distractor": True, "match": 0}
    return resolved


def _evaluators(evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the evaluators, each followed by itself at other context lengths."""
    names = evaluation["evaluators"]
    others = [spec.evaluator_at(name, at) for name in names for at in evaluation["contexts"].get(name, [])]
    return tuple(spec.in_order([*names, *others]))


def _impossible_recipe(recipe: Mapping[str, Any], bank: BankSpec) -> Iterable[str]:
    """Each way in which the values of a recipe contradict each other or the bank."""
    context, n_classes, n_exemplars = recipe["context"], bank.shape.n_train_classes, bank.shape.n_train_exemplars
    n_labels = recipe["labelling"]["labels"] or n_classes
    if n_labels > n_classes or n_labels < 2:
        yield (
            f"`recipe.labelling.labels` is {n_labels}: expected 0, a label for every class, or from 2 to as many as "
            f"there are classes to train on, {n_classes}"
        )
    shares = {name: part["share"] for name, part in recipe["mixture"].items()}
    if math.fsum(shares.values()) >= 1:
        yield (
            f"`recipe.mixture`: the shares of {', '.join(shares)} sum to {math.fsum(shares.values()):g}, which leaves "
            "nothing for the recipe itself: make them smaller, or make one of them the recipe"
        )
    for path, kind in _kinds(recipe).items():
        yield from _impossible_kind(path, kind, context, n_labels, n_exemplars)


def _impossible_kind(
    path: str, kind: Mapping[str, Any], context: int, n_labels: int, n_exemplars: int
) -> Iterable[str]:
    burstiness, labels = kind["burstiness"], kind["labels"]
    bursty = kind["support"] == "bursty"
    if bursty and kind["distractor"] and 2 * burstiness > context:
        yield (
            f"`{path}.burstiness` is {burstiness}: {burstiness} items of the query's class and as many of the "
            f"distractor do not fit `recipe.context` {context}: at most {context // 2}"
        )
    if bursty and not kind["distractor"] and burstiness > context:
        yield f"`{path}.burstiness` is {burstiness}: that many items do not fit `recipe.context` {context}"
    if not bursty and n_labels <= context:
        yield (
            f"`{path}.support` is none, which needs {context + 1} different labels, but there are {n_labels}: "
            "ask for more classes or labels, or for a shorter `recipe.context`"
        )
    if labels in ("relabelled", "swapped") and not (bursty and kind["distractor"] and 2 * burstiness == context):
        yield (
            f"`{path}.labels` is {labels}, which needs a context of two classes alone: make `burstiness` half of "
            f"`recipe.context`, {context}, with `support: bursty` and `distractor: true`"
        )
    if bursty and not kind["replacement"]:
        # Free items may all coincide with the query's class.
        most = 1 + context - (burstiness if kind["distractor"] else 0)
        if most > n_exemplars:
            yield (
                f"`{path}.replacement` is false: up to {most} items of a sequence can be of one class, but the bank "
                f"has {n_exemplars} exemplars to train on: ask for more exemplars or a shorter `recipe.context`"
            )
        if kind["match"]:
            yield (
                f"`{path}.match` is {kind['match']:g}, so items repeat an exemplar, and `{path}.replacement` is false, "
                "so none does: leave one of them out"
            )


def _impossible_parts(values: Mapping[str, Any], bank: BankSpec, batch_size: int) -> Iterable[str]:
    yield from _impossible_recipe(values["recipe"], bank)
    yield from _impossible_optimizer(values["optimizer"], batch_size)


def _impossible_optimizer(optimizer: Mapping[str, Any], batch_size: int) -> Iterable[str]:
    """Each way in which the values of an optimizer contradict each other."""
    name, schedule = optimizer["name"], optimizer["schedule"]
    if optimizer["momentum"] and name != "sgd":
        yield (
            f"`optimizer.momentum` is {optimizer['momentum']:g}, which is sgd's, but `optimizer.name` is {name}: "
            "say `beta1`, or leave it out"
        )
    if optimizer["weight_decay"] and name != "adamw":
        yield (
            f"`optimizer.weight_decay` is {optimizer['weight_decay']:g}, which is adamw's, but `optimizer.name` is "
            f"{name}: say `name: adamw`, or `optimizer.l2.strength` for a penalty in the loss"
        )
    warmup, length = (spec.round_up(schedule[key], batch_size) for key in ("warmup", "length"))
    if schedule["kind"] == "inverse_sqrt" and not warmup:
        yield (
            "`optimizer.schedule.kind` is inverse_sqrt, which is sqrt(warmup / sequences seen), but "
            "`optimizer.schedule.warmup` is 0: give it one"
        )
    if schedule["kind"] == "cosine" and length <= warmup:
        yield (
            f"`optimizer.schedule.length` is {schedule['length']}, in which a cosine is to end, but "
            f"`optimizer.schedule.warmup` is {schedule['warmup']}: make it longer than the warm-up by a batch at least"
        )


def _impossible_interventions(periods: Mapping[str, Mapping[str, Any]], run: Run) -> Iterable[str]:
    """Each way in which the values with an intervention contradict each other, or those before it."""
    names: dict[int, str] = {}
    before = run.optimizer.name
    for name, period in periods.items():
        path, recipe = f"interventions.{name}", period["recipe"]
        twin = names.setdefault(spec.round_up(period["at"], run.batch_size), name)
        if twin != name:
            yield f"`{path}.at` is {period['at']}, and {twin} comes before the same batch: make them one"
        for key, now, first in (
            ("context", recipe["context"], run.recipe.context),
            ("labelling.labels", recipe["labelling"]["labels"], run.recipe.labelling.labels),
        ):
            if now != first:
                yield (
                    f"`{path}.recipe.{key}` is {now}, but the model was made for {first}: "
                    "what shapes its tensors cannot change in mid-training"
                )
        if "sgd" in {before, period["optimizer"]["name"]} and before != period["optimizer"]["name"]:
            yield (
                f"`{path}.optimizer.name` is {period['optimizer']['name']} after {before}, which keeps other moments: "
                "adam and adamw can follow each other, sgd only itself"
            )
        before = period["optimizer"]["name"]
        yield from (f"with `{path}`: {problem}" for problem in _impossible_parts(period, run.bank, run.batch_size))


def _impossible(run: Run, evaluators: Iterable[str], evaluation: Mapping[str, Any]) -> Iterable[str]:
    """Each way in which model, evaluators and bank of a run contradict each other."""
    bank = run.bank
    section = f"bank.{bank.source}"
    if run.model.width % run.model.heads:
        yield f"`model.heads` is {run.model.heads}, which does not divide `model.width` {run.model.width}"
    if run.model.positions.kind == "rotary" and run.model.width // run.model.heads % 2:
        yield (
            f"`model.positions.kind` is rotary, which turns pairs of coordinates, but a head has {run.model.width} / "
            f"{run.model.heads}: make `model.width` / `model.heads` even"
        )
    for name, contexts in evaluation["contexts"].items():
        longest = max(contexts, default=0)
        if run.model.positions.kind == "learned" and longest > run.recipe.context:
            yield (
                f"`evaluation.contexts.{name}` has {longest}, but `model.positions.kind: learned` knows the places of "
                f"`recipe.context` {run.recipe.context} and no more: leave longer ones out, or choose other positions"
            )
        if contexts and name not in evaluation["evaluators"]:
            yield f"`evaluation.contexts.{name}` is given, but `evaluation.evaluators` lacks `{name}`: add it there"
        if run.recipe.context in contexts:
            yield (
                f"`evaluation.contexts.{name}` has {run.recipe.context}, which is `recipe.context` and evaluated "
                "anyway: leave it out"
            )
    for evaluator in evaluators:
        name, other_context = spec.evaluator_parts(evaluator)
        context = other_context or run.recipe.context
        where = "recipe.context" if other_context is None else f"evaluation.contexts.{name}"
        if (name.startswith("icl") or name == "flip") and context % 2:
            yield (
                f"`evaluation.evaluators` has `{name}`, half of whose context is the query's class, but "
                f"`{where}` is {context}: make it even or leave `{name}` out"
            )
        if name in ("iwl", "ciwl") and run.n_labels <= context:
            many = f"`{section}` has {bank.shape.n_train_classes}: ask for more classes"
            if run.recipe.labelling.labels:
                many = f"`recipe.labelling.labels` is {run.n_labels}: ask for more labels"
            yield f"`evaluation.evaluators` has `{evaluator}`, which needs {context + 1} different classes, but {many}"
        if name == "icl_holdout" and bank.shape.class_range("holdout")[1] < 2:
            key = "holdout_characters" if bank.source == "omniglot" else "holdout_classes"
            yield f"`evaluation.evaluators` has `icl_holdout`, but `{section}.{key}` leaves fewer than 2 classes"
        if name == "icl_new_exemplar" and bank.shape.exemplar_range("holdout")[1] < 1:
            key = "a one-hot class has one exemplar" if bank.onehot else f"`{section}.holdout_exemplars` is 0"
            yield f"`evaluation.evaluators` has `icl_new_exemplar`, but {key}"
    if getattr(bank.parameters, "encoder", None) == "pca" and bank.parameters.scale == "raw":
        yield f"`{section}.scale` is 'raw', but `{section}.encoder: pca` sets its own scale: leave `scale` out"
    if bank.omniglot:
        drawings = bank.omniglot.exemplars + bank.omniglot.holdout_exemplars
        if drawings > 20:
            yield f"`{section}.exemplars` + `holdout_exemplars` is {drawings}: a character has 20 drawings"
        if bank.omniglot.layout == "released" and bank.omniglot.variants == 1:
            yield f"`{section}.variants` is 1, but `{section}.layout: released` mixes all 8 up: leave one of them out"
        side, dim, encoder = bank.omniglot.side, bank.omniglot.dim, bank.omniglot.encoder
        if encoder == "pca" and dim > side**2:
            yield f"`{section}.dim` is {dim}: {side} x {side} pixels have at most {side**2} components"
        if encoder == "pixels" and dim != side**2:
            yield f"`{section}.dim` is {dim}, but `encoder: pixels` gives {side} x {side}: say {side**2}"
        if encoder == "resnet18" and dim != 512:
            yield f"`{section}.dim` is {dim}, but `encoder: resnet18` gives 512: say so"


def _nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in values.items():
        paths += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [prefix + key]
    return paths


def _at(run: Run, values: Mapping[str, Any], path: str) -> Any:
    """What a run has at a dotted key, as it stands in a table's cell; None in another source's section.

    values: the run's sections as written, for the names in a mixture, which a run does not keep.
    """
    if path.startswith("recipe.mixture."):
        _, _, name, key = path.split(".")
        value = values["recipe"]["mixture"].get(name, {"share": 0}).get(key)
        return float(value) if key in ("share", "match") and value is not None else value
    if path.startswith("interventions."):
        return _at_intervention(run, values, path)
    if path.removeprefix("optimizer.l2.") in spec.COMPONENTS:
        return run.optimizer.l2.of(path.removeprefix("optimizer.l2."))
    value: Any = run
    for key in path.split("."):
        value = getattr(value, key, None)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


def _at_intervention(run: Run, values: Mapping[str, Any], path: str) -> Any:
    """As `_at`: what an intervention sets; None in a run without it, or where it leaves the key alone."""
    _, name, *keys = path.split(".")
    value: Any = values["interventions"].get(name)
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    before = _at(run, values, ".".join(keys)) if keys != ["at"] else None
    return float(value) if isinstance(before, float) and value is not None else value


def _short(axis: str) -> str:
    """The last two words of a dotted key: enough to tell axes apart in a run's name."""
    return ".".join(axis.split(".")[-2:])


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    # Names stand in file names.
    return re.sub(r"[^\w.,=+-]", "_", text)
