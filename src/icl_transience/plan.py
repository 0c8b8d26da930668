"""From configuration to files: which banks, sets, packs, segments, tables and figures a study takes.

What the Snakefile asks while it is parsed; a pure function of config, study and the registered packs, so the
DAG is static. Writes nothing until `register`, which only a real run calls.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from icl_transience import code, files, packs, resources, schema, sources, spec, study
from icl_transience.packs import Pack, PackSpec
from icl_transience.resources import Job
from icl_transience.spec import L2, BankSpec, Export, Lane, Model, Optimizer, Recipe, Run, SequenceSet, StudyError
from icl_transience.study import Experiment, NamedRun, Study, axis_of_numbers

# Of a checkpoint: a word a line, a tokenizer of Hugging Face's, or its words alone.
VOCABULARIES = ("vocab.txt", "tokenizer.json", "vocab.json")
TABLES = ("curves.csv", "transience.csv", "runs.csv", files.CHECKSUMS)
VERDICTS = "verdicts.csv"

# Linux takes no longer word than 131,072 bytes in a command line, and the whole line is one word to Snakemake's shell.
MOST_CHARACTERS = 100_000


class Plan:
    """Everything a run of the workflow needs to know. Raises StudyError where the configuration is not right."""

    def __init__(self, config: Mapping[str, Any], base: Path):
        if {"{", "}"} & set(str(base)):
            raise StudyError(f"{base}: has braces in its path, which Snakemake fills in: move it, or rename it")
        config_schema = schema.read_yaml(base / "workflow/schemas/config.schema.yaml")
        schema.check(config, config_schema, "config")
        self.config = schema.merge(schema.defaults(config_schema, config_schema), config)
        self.results = self.config["results"].rstrip("/")
        self.base, self.study_path = base, _study_path(self.config["study"], base)
        self.study: Study = study.load(
            self.study_path,
            base / "workflow/schemas/study.schema.yaml",
            {source: self.source_folder(source) for source in sources.WITH_FILES},
        )
        self._check_engine()
        self.packs: dict[str, Pack] = packs.plan(
            packs.order_lanes(
                (lane, experiment.horizon)
                for experiment in self.study.experiments.values()
                for lane in experiment.lanes()
            ),
            packs.read_registered(self._packs_folder),
            packing=self.config["packing"],
            lanes_per_pack=self.config["lanes_per_pack"],
            segment_end=self._segment_end,
        )
        runs = [run for experiment in self.study.experiments.values() for run in experiment.runs]
        self.banks: dict[str, BankSpec] = {run.run.bank.id: run.run.bank for run in runs}
        self.sets: dict[str, SequenceSet] = {run.sequence_set.id: run.sequence_set for run in runs}
        self._specs: dict[int, tuple[object, str]] = {}
        self._refuse_what_does_not_fit()
        self._refuse_long_commands()

    def _refuse_what_does_not_fit(self) -> None:
        """Raises StudyError where a bank, sequences on it or training on it take more memory than a job may."""
        limit = self.config["memory"] or _machine_memory()
        fewer = "fewer classes or exemplars"
        of_bank = ("making it takes", fewer)
        of_sets = ("evaluators' sequences on it take", f"fewer `evaluation.sequences`, {fewer}")
        of_packs = ("training on it takes", f"{fewer}, a smaller model or batch, a lower `lanes_per_pack`")
        needed = {(bank_id, of_bank): self.bank_job(bank_id).megabytes for bank_id in self.banks}
        for named in self.sets.values():
            job = (named.bank.id, of_sets)
            needed[job] = max(needed.get(job, 0), resources.sequences(named).megabytes)
        for pack in self.packs.values():
            job = (pack.spec.run.bank.id, of_packs)
            needed[job] = max(needed.get(job, 0), resources.training_megabytes(pack.spec))
        problems = [
            f"bank {bank_id}: {shape.n_classes:,} classes x {shape.n_exemplars} exemplars x {shape.width:,} "
            f"coordinates: {what} about {megabytes:,} MB, but a job may take {limit:,} MB (this machine's memory, or "
            f"`memory` in config.yaml): ask for {remedy}, or use a larger machine"
            for ((bank_id, (what, remedy)), megabytes) in needed.items()
            if megabytes > limit and (shape := self.banks[bank_id].shape)
        ]
        if problems:
            raise StudyError("\n".join(problems))

    def _refuse_long_commands(self) -> None:
        """Raises StudyError where a pack has more lanes than can be said in the command that trains it."""
        for pack in self.packs.values():
            if len(pack.spec.lanes) > 16 and (length := len(self.spec_of(pack.spec))) > MOST_CHARACTERS:
                raise StudyError(
                    f"config: `lanes_per_pack` is {self.config['lanes_per_pack']}: the {len(pack.spec.lanes)} lanes of "
                    f"a pack take {length:,} characters to say, expected at most {MOST_CHARACTERS:,}: lower it"
                )

    def _check_engine(self) -> None:
        for experiment in self.study.experiments.values():
            for named in experiment.runs:
                if problem := spec.engine_problem(self.config["engine"], self.config["device"], named.run):
                    raise StudyError(f"config: {problem} ({experiment.name}: {named.name})")

    @property
    def _packs_folder(self) -> Path:
        return Path(self.results) / "packs"

    @cached_property
    def _places(self) -> dict[Lane, tuple[str, int]]:
        lanes = [lane for experiment in self.study.experiments.values() for lane in experiment.lanes()]
        return packs.lane_places(self.packs, lanes)

    def register(self) -> None:
        """Writes down, before the first job, the packs and boundaries of this plan and what tables and figures read.

        Raises StudyError where that cannot be written, or another workflow has planned otherwise meanwhile.
        """
        packs.register(self._packs_folder, self.packs)
        for experiment in self.study.experiments:
            text = self.report(experiment, figures=True) + "\n"
            files.write_text(Path(self.experiment_path(experiment)), text)
        files.write_text(Path(self.claims_path), self.claims() + "\n")

    def refuse_cluster(self, interpreter: str) -> None:
        """Raises StudyError where a path would not reach a cluster's jobs as it is.

        Their command lines name the interpreter without quotes, and stand in double quotes when they are submitted.
        """
        words = {key: value for key, value in self.config.items() if isinstance(value, str)}
        checked = [("the Python that runs Snakemake", interpreter, r"[^\w/.,+=@%:-]")]
        checked += [("this folder", str(self.base.absolute()), r"[$`\\]")]
        checked += [(f"`{key}`", value, r"[$`\\]") for key, value in words.items()]
        for what, text, special in checked:
            if found := re.search(special, text):
                raise StudyError(
                    f"{what} is {text}: a shell on the way to a cluster's jobs reads the {found[0]!r} in it as "
                    "something else: rename or move it (for the environment's Python: this folder)"
                )

    def source_folder(self, source: str) -> Path | None:
        """Where a source's files are: its key in config.yaml, or the environment variable ICL_{SOURCE}."""
        folder = self.config[source] or os.environ.get(f"ICL_{source.upper()}")
        return Path(folder).expanduser().absolute() if folder else None

    # Banks and sequences.

    def bank_files(self, bank_id: str) -> list[str]:
        """Paths of a bank's source files, in the order of their SHA-256 in its spec."""
        bank = self.banks[bank_id]
        if not bank.files:
            return []
        _, paths = sources.resolve(bank.source, spec.identity_values(bank.parameters), self.source_folder(bank.source))
        return [str(path if path.parent != Path() else Path(self.results, "sources", path)) for path in paths]

    def downloads(self, bank_id: str) -> list[str]:
        """Those of a bank's source files that are to be downloaded."""
        folder = str(Path(self.results, "sources"))
        return [path for path in self.bank_files(bank_id) if str(Path(path).parent) == folder]

    def encoder_path(self, bank_id: str) -> list[str]:
        """The file of the encoder trained for a bank, in a list; empty where it has none."""
        omniglot = self.banks[bank_id].omniglot
        return [f"{self.results}/encoders/{bank_id}.h5"] if omniglot and omniglot.trained else []

    def bank_path(self, bank_id: str) -> str:
        return f"{self.results}/banks/{bank_id}.h5"

    def vocabulary(self, bank_id: str) -> list[str]:
        """The file that says which word a row of a table of tokens is, in a list; empty where none lies beside it.

        Empty too where braces are in its path, in which no input of a rule can be named: cards then show rows.
        """
        bank = self.banks[bank_id]
        if not bank.tokens:
            return []
        (file,) = self.bank_files(bank_id)
        found = [str(path) for path in (Path(file).with_name(name) for name in VOCABULARIES) if path.is_file()]
        return [path for path in found[:1] if not {"{", "}"} & set(path)]

    def cards(self) -> list[str]:
        """The quality cards of all banks."""
        return [f"{self.results}/banks/{bank_id}.{kind}" for bank_id in self.banks for kind in ("svg", "png")]

    def spec_of(self, thing: BankSpec | SequenceSet | PackSpec | Export) -> str:
        """The one line of canonical JSON that a job gets."""
        # Asked for by every segment of a pack; made once. By identity: hashing takes as long as making it.
        if id(thing) not in self._specs:
            line = thing.to_json() if isinstance(thing, PackSpec) else spec.canonical(spec.identity_values(thing))
            self._specs[id(thing)] = thing, line
        return self._specs[id(thing)][1]

    # Packs and metrics.

    def previous_segment(self, pack_id: str, start: int) -> list[str]:
        """Path of the segment of a pack that ends at `start`, in a list; empty at 0."""
        boundaries = self.packs[pack_id].boundaries
        if start == 0:
            return []
        before = boundaries[boundaries.index(start) - 1]
        return [f"{self.results}/packs/{pack_id}/{packs.segment_name(before, start)}"]

    def metrics_paths(self, name: str) -> list[str]:
        """Every metrics file that the tables of an experiment read."""
        experiment, paths = self.study.experiments[name], {}
        for named in experiment.runs:
            for lane in self._lanes(experiment, named):
                for start, end in self.packs[lane["pack"]].segments(experiment.horizon):
                    file = packs.metrics_name(named.sequence_set.id, start, end)
                    paths[f"{self.results}/packs/{lane['pack']}/{file}"] = None
        return list(paths)

    # What jobs take.

    def bank_job(self, bank_id: str) -> Job:
        bank, table = self.banks[bank_id], 0
        if bank.tokens:
            (file,) = self.bank_files(bank_id)
            rows, width = sources.stored_tensors(Path(file))[bank.tokens.tensor].shape
            table = rows * width
        return self._limited(resources.bank(bank, table))

    def encoder_job(self, bank_id: str) -> Job:
        return self._limited(resources.encoder(self.banks[bank_id]))

    def sequences_job(self, set_id: str) -> Job:
        return self._limited(resources.sequences(self.sets[set_id]))

    def train_job(self, pack: str, start: str | int, end: str | int) -> Job:
        """start, end: sequences seen, also as a file's name has them. The names are those of the rule's wildcards."""
        train, evaluations = self._segment_jobs(pack, int(start), int(end))
        return self._limited(train, *evaluations.values())

    def evaluate_job(self, pack: str, set: str, start: str | int, end: str | int) -> Job:
        """As train_job."""
        train, evaluations = self._segment_jobs(pack, int(start), int(end))
        own = evaluations.pop(set)
        return self._limited(own, train, *evaluations.values())

    def _segment_jobs(self, pack_id: str, start: int, end: int) -> tuple[Job, dict[str, Job]]:
        """(training, set -> evaluation) of a segment, which a cluster runs as one job."""
        pack, sets = self.packs[pack_id].spec, self._sets_of(self.packs[pack_id].spec)
        evaluations = {one.id: resources.evaluate(pack, one, start, end, *self._pace) for one in sets}
        return resources.train(pack, start, end, *self._pace), evaluations

    def _limited(self, job: Job, *others: Job) -> Job:
        """With the limits of config.yaml, of which that of time also holds for the `others` in its cluster job."""
        return replace(
            job,
            memory=self.config["memory"],
            time_limit=self.config["time_limit"],
            others=sum(other.minutes for other in others),
        )

    @property
    def _pace(self) -> tuple[str, float | None]:
        return self.config["device"], self.config["gflops"]

    def _segment_end(self, pack: PackSpec, start: int) -> int:
        """Where a new segment from `start` ends, if the horizon is not nearer."""
        minutes = self.config["segment_minutes"]
        if minutes is None:
            return start + self.config["segment_sequences"]
        return resources.segment_end(pack, self._sets_of(pack), start, minutes, *self._pace)

    def _sets_of(self, pack: PackSpec) -> list[SequenceSet]:
        """The sets that lanes of the pack answer in this study."""
        return list(dict.fromkeys(one for lane in pack.lanes for one in self._sets_of_lanes.get(lane, ())))

    @cached_property
    def _sets_of_lanes(self) -> dict[Lane, list[SequenceSet]]:
        """The sets that each lane of the study answers."""
        found: dict[Lane, list[SequenceSet]] = {}
        for experiment in self.study.experiments.values():
            for named in experiment.runs:
                for seed in experiment.seeds:
                    found.setdefault(Lane(run=named.run, seed=seed), []).append(named.sequence_set)
        return found

    # Experiments.

    @property
    def study_folder(self) -> str:
        return f"{self.results}/studies/{self.study.name}"

    def folder(self, experiment: str) -> str:
        return f"{self.study_folder}/{experiment}"

    def experiment_path(self, experiment: str) -> str:
        """The file from which an experiment's tables and figures can be made, given its metrics; see `report`."""
        return f"{self.folder(experiment)}/experiment.json"

    def declared_path(self, experiment: str) -> str:
        """A file whose name says what the experiment's tables are made from; missing where they are not."""
        declared = code.declaration(json.loads(self.report(experiment, figures=False)))
        return f"{self.folder(experiment)}/.declared-{declared}"

    def figures(self, experiment: str) -> list[str]:
        """Names of an experiment's figures; see figures.py."""
        declared = self.study.experiments[experiment]
        levels, evaluators = declared.levels(), set(declared.runs[0].sequence_set.evaluators)
        every_combination = math.prod(map(len, levels.values())) == len(declared.runs) > 1
        wanted = {
            "curves": True,
            "comparison": len(declared.runs) > 1,
            "summary": every_combination and axis_of_numbers(levels) is not None,
            "plane": "icl" in evaluators and not evaluators.isdisjoint({"ciwl", "iwl"}),
            "grid": every_combination and len(levels) == 2,
        }
        return [name for name, is_drawn in wanted.items() if is_drawn]

    @cached_property
    def exports(self) -> dict[str, Export]:
        """Exports by name: {experiment}-{run}, and {run} alone where the study has but one run of that name."""
        exports: dict[str, Export] = {}
        by_run_name: dict[str, set[Export]] = {}
        for experiment in self.study.experiments.values():
            for named in experiment.runs:
                export = Export(
                    run=named.run,
                    sequence_set=named.sequence_set,
                    seed=experiment.seeds[0],
                    training_sequences=self.config["export_sequences"],
                )
                exports[f"{experiment.name}-{named.name}"] = export
                by_run_name.setdefault(named.name, set()).add(export)
        return {name: found.pop() for name, found in by_run_name.items() if len(found) == 1} | exports

    def experiment_files(self, experiment: str) -> list[str]:
        folder = self.folder(experiment)
        drawn = [f"{folder}/{name}.{kind}" for name in self.figures(experiment) for kind in ("svg", "png")]
        return [self.declared_path(experiment), *(f"{folder}/{name}" for name in TABLES), *drawn]

    def targets(self) -> list[str]:
        files = [path for experiment in self.study.experiments for path in self.experiment_files(experiment)]
        return files + self.verdict_files() + self.cards()

    def refusal(self, experiment: str) -> Callable[[Any], list[str]]:
        """The input function of an experiment that is left out: it raises StudyError, which says why."""

        def refuse(wildcards: Any) -> list[str]:
            raise StudyError(self.study.left_out[experiment].reason)

        return refuse

    def finished_folders(self) -> list[str]:
        """Folders of the experiments that have been built."""
        folders = map(self.folder, self.study.experiments)
        return [folder for folder in folders if all(Path(folder, name).exists() for name in (*TABLES, "curves.svg"))]

    def report(self, name: str, *, figures: bool) -> str:
        """An experiment as its tables need it, as canonical JSON (see tables.py); for figures, with what they say."""
        experiment = self.study.experiments[name]
        runs = [
            {
                "name": named.name,
                "axes": dict(named.axes),
                "set": named.sequence_set.id,
                "recipe": spec.identity_values(named.run.recipe),
                "labels": named.run.n_labels,
                "lanes": self._lanes(experiment, named),
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
                "statistics": spec.identity_values(experiment.statistics),
                "runs": runs,
                "packs": {pack_id: self._boundaries(pack_id, experiment.horizon) for pack_id in sorted(used)},
            }
            | ({"question": experiment.question} if figures else {})
        )

    def _boundaries(self, pack_id: str, horizon: int) -> list[int]:
        return [0, *(end for _, end in self.packs[pack_id].segments(horizon))]

    def _lanes(self, experiment: Experiment, named: NamedRun) -> list[dict[str, Any]]:
        rows = []
        for seed in experiment.seeds:
            pack_id, place = self._places[Lane(run=named.run, seed=seed)]
            rows.append({"seed": seed.label, "pack": pack_id, "place": place})
        return rows

    # Claims.

    @property
    def claims_path(self) -> str:
        """The file of what `claims` says."""
        return f"{self.study_folder}/claims.json"

    def claims(self) -> str:
        """Every claim of the study, as canonical JSON: a list of claims.Claim with what its test needs to know.

        Those of experiments that are left out stand last, and say so.
        """
        return _for_pages(
            [
                spec.identity_values(claim)
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
                spec.identity_values(claim) | {"experiment": experiment, "left_out": True}
                for experiment, one in self.study.left_out.items()
                for claim in one.claims
            ]
        )

    def judged_tables(self) -> list[str]:
        """The tables from which the claims are judged."""
        claiming = [name for name, experiment in self.study.experiments.items() if experiment.claims]
        names = ("transience.csv", files.CHECKSUMS)
        return [f"{self.folder(experiment)}/{name}" for experiment in claiming for name in names]

    def verdict_files(self) -> list[str]:
        """The table of verdicts and its checksum; none in a study that claims nothing."""
        claims = any(one.claims for one in (*self.study.experiments.values(), *self.study.left_out.values()))
        return [f"{self.study_folder}/{name}" for name in (VERDICTS, files.CHECKSUMS)] if claims else []

    def judged_folder(self) -> list[str]:
        """The study's folder, in a list; empty where its claims have not been judged."""
        written = self.verdict_files()
        return [self.study_folder] if written and all(Path(path).exists() for path in written) else []


def _for_pages(values: Any) -> str:
    """Canonical JSON in which no tag of HTML begins: Snakemake writes what jobs get into a script of its report."""
    return spec.canonical(values).replace("<", "\\u003c")


def _machine_memory() -> int:
    """MB of this machine, or of the container it is."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total // 2**20


def _study_path(name: str, base: Path) -> Path:
    if name.endswith((".yaml", ".yml")):
        stem = Path(name).stem
        if stem.startswith((".", "-")) or {"{", "}"} & set(stem):
            raise StudyError(
                f"config: `study` is {name!r}, but results stand in a folder of the file's name: rename the file, so "
                "that it has no braces and does not begin with a point or a hyphen"
            )
        return Path(name)
    folder = base / "workflow/studies"
    known = sorted(found.stem for found in folder.glob("*.yaml"))
    if name not in known:
        raise StudyError(
            f"config: `study` is {name!r}, which is not in {folder}{schema.did_you_mean(name, known)} "
            f"(there are {', '.join(known)}; a path that ends in .yaml names a file elsewhere)"
        )
    return folder / f"{name}.yaml"


def describe(named: NamedRun) -> list[str]:
    """What a run was made with, for the foot of a figure: bank, sequences, model, initial weights, optimizer, L2."""
    run, shape = named.run, named.run.bank.shape
    model, optimizer = run.model, run.optimizer
    mlp = f"MLP {model.mlp_ratio}x" if model.mlp_ratio else "attention only"
    weights = {
        "pytorch": "uniform ±1/√fan-in (PyTorch's default)",
        "lecun_normal": "LeCun normal",
    }[model.init.distribution]
    return [
        f"{run.bank.source}, {shape.n_train_classes:,} classes × {shape.n_train_exemplars} exemplars, {shape.width}-d",
        *_describe_recipe(run.recipe),
        f"{model.depth} layers, width {model.width}, {mlp}" + _describe_rest(model),
        f"initial weights {weights} × {model.init.scale:g}",
        f"{_describe_optimizer(optimizer)}, batch {run.batch_size}",
        _describe_l2(optimizer.l2),
        *_describe_events(run),
    ]


def _describe_rest(model: Model) -> str:
    """What few models have."""
    positions = "" if model.positions.kind == "sinusoid" else f", positions {model.positions.kind}"
    return positions + (f", dropout {model.dropout:g}" if model.dropout else "")


def _describe_optimizer(optimizer: Optimizer) -> str:
    names = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
    words, schedule = [f"{names[optimizer.name]} {optimizer.learning_rate:g}"], optimizer.schedule
    if optimizer.momentum:
        words.append(f"momentum {optimizer.momentum:g}")
    if optimizer.weight_decay:
        words.append(f"weight decay {optimizer.weight_decay:g}")
    if schedule.warmup:
        words.append(f"warm-up {schedule.warmup:,}")
    if schedule.kind == "inverse_sqrt":
        words.append("then √(warm-up/n)")
    if schedule.kind == "cosine":
        words.append(f"cosine to × {schedule.final:g} at {schedule.length:,}")
    if optimizer.clip:
        words.append(f"gradients clipped at {optimizer.clip:g}")
    return ", ".join(words)


def _describe_l2(l2: L2) -> str:
    penalty = {"squared": "λ·Σθ² (squared)", "unsquared": "λ·Σ‖θ‖ (unsquared)"}[l2.form]
    strengths = {part: l2.of(part) for part in spec.COMPONENTS}
    if not any(strengths.values()):
        return "no L2"
    if len(set(strengths.values())) == 1:
        return f"L2 {penalty}, λ = {l2.of('mlp'):g}"
    return f"L2 {penalty}, λ = " + ", ".join(f"{value:g} ({part})" for part, value in strengths.items() if value)


def _describe_events(run: Run) -> Iterator[str]:
    """What happens in mid-training."""
    if run.forgetting.every:
        until = f" until {run.forgetting.until:,}" if run.forgetting.until else ""
        yield f"label embeddings drawn anew every {run.forgetting.every:,} sequences{until}"
    recipe, optimizer = run.recipe, run.optimizer
    for change in run.interventions:
        now = [*_describe_recipe(change.recipe)] if change.recipe != recipe else []
        if change.optimizer != optimizer:
            now += [_describe_optimizer(change.optimizer), _describe_l2(change.optimizer.l2)]
        yield f"from {change.at:,} sequences on: {', '.join(now)}"
        recipe, optimizer = change.recipe, change.optimizer


def _describe_recipe(recipe: Recipe) -> Iterator[str]:
    """What sequences are like, beyond the plain bursty recipe only where they are."""
    (share, own), *others = recipe.kinds()
    kinds = [(f"{share:.3g} of: " if others else "") + _describe_kind(own)]
    kinds += [f"{share:.3g} of: {_describe_kind(kind)}" for share, kind in others]
    yield f"context {recipe.context}, {'; '.join(kinds)}"
    if recipe.zipf.alpha:
        yield f"Zipf α = {recipe.zipf.alpha:g} ({recipe.zipf.ranks} ranks)"
    if recipe.labelling.labels:
        yield f"{recipe.labelling.labels:,} labels"
    if recipe.label_noise:
        yield f"label noise {recipe.label_noise:g}"
    if recipe.input_noise:
        yield f"input noise σ = {recipe.input_noise:g}"
    if recipe.pool:
        yield f"a pool of {recipe.pool:,} sequences"


def _describe_kind(recipe: Recipe) -> str:
    words = [f"burstiness {recipe.burstiness}" if recipe.support == "bursty" else "no support"]
    if not recipe.distractor:
        words.append("no distractor")
    if recipe.labels != "classes":
        words.append(f"labels {recipe.labels}")
    if recipe.match:
        words.append(f"exemplars match with p = {recipe.match:g}")
    if not recipe.replacement:
        words.append("different exemplars")
    return ", ".join(words)
