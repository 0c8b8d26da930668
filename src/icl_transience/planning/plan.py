"""Plan a study: from its configuration to banks, sets, packs, segments, tables and figures.

What the Snakefile asks while it is parsed; a pure function of config, study and the registered packs, so the
DAG is static. Writes nothing until `register`, which only a real run calls.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_transience.planning import limits, made_for, packs, registry
from icl_transience.planning.circuits import CircuitsPlan
from icl_transience.planning.jobs import Jobs, Pace
from icl_transience.planning.order import Order
from icl_transience.planning.packs import Pack
from icl_transience.planning.rates import Rates
from icl_transience.planning.records import Records
from icl_transience.planning.source_files import SourceFiles, source_folders
from icl_transience.planning.targets import Targets
from icl_transience.specs.banks import BankSpec
from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.store import atomic
from icl_transience.store.layout import Paths
from icl_transience.study import bases, document, json_schema, load, schema
from icl_transience.study.experiments import Study
from icl_transience.system import tensorboard
from icl_transience.system.cores import machine_cores


class Plan:
    """Everything a run of the workflow needs to know.

    study, packs, banks, sets: what there is to make, the latter three by id. skipped: folders of packs, of other
    studies, that cannot be read. paths, sources, circuits, jobs, order, records, targets: what rules ask about it.
    Raises StudyError where the configuration is not right, or a pack of the study would be trained in a folder that
    cannot be read.

    base: the folder of the Snakefile. cores: of the machine, for how many lanes a new pack has; None is this machine's.
    """

    def __init__(self, config: Mapping[str, Any], base: Path, cores: int | None = None):
        limits.refuse_braces(base)
        config_schema = json_schema.config_schema()
        config = _with_truth_values(config, config_schema)
        schema.check(config, config_schema, "config")
        self.config = schema.merge(schema.defaults(config_schema, config_schema), config)
        self.base, self.study_path = base, _study_path(self.config["study"], base).expanduser()
        folders = source_folders(self.config)
        self.study: Study = load.load(self.study_path, folders, bases_folder(base))
        self.paths = Paths(results_folder(self.config["results"]), self.study.name)
        limits.refuse_engine(self.config, self.study)
        tensorboard.refuse_missing(self.config["tensorboard"])
        self.rates = Rates(self.config, base)
        pace = Pace(self.config, self.study, self.rates, cores or machine_cores())
        registered = registry.read_registered(Path(self.paths.packs))
        self.skipped = registered.skipped
        self.packs: dict[str, Pack] = packs.plan(
            packs.order_lanes(
                (lane, experiment.horizon)
                for experiment in self.study.experiments.values()
                for lane in experiment.lanes()
            ),
            registered.packs,
            packing=self.config["packing"],
            lanes_per_pack=pace.lanes_per_pack,
            segment_end=pace.segment_end,
        )
        registered.refuse(self.packs)
        runs = [run for experiment in self.study.experiments.values() for run in experiment.runs]
        self.banks: dict[str, BankSpec] = {run.run.bank.id: run.run.bank for run in runs}
        for pack in self.packs.values():
            self.banks.setdefault(pack.spec.run.bank.id, pack.spec.run.bank)
        self.sets: dict[str, SequenceSet] = {run.sequence_set.id: run.sequence_set for run in runs}
        self.sources = SourceFiles(self.paths, self.banks, folders)
        self.circuits = CircuitsPlan(self.paths, self.study, self.packs)
        self.jobs = Jobs(pace, self.banks, self.sets, self.packs, self.sources, self.circuits)
        limits.refuse_memory(self.config, self.jobs)
        limits.refuse_long_commands(self.config, self.jobs)
        self.order = Order(self.study, self.packs)
        self.records = Records(self.study, self.packs, self.circuits)
        self.targets = Targets(
            self.paths, self.study, self.banks, self.packs, self.records, self.config["export_sequences"]
        )

    def images(self, pack: str) -> list[str]:
        """Return the bank's file where a pack's exemplars are images, which evaluation encodes, else nothing."""
        bank = self.packs[pack].spec.run.bank
        return [self.paths.bank(bank.id)] if bank.images else []

    def register(self) -> None:
        """Write down, before the first job, the packs and boundaries of this plan and what tables and figures read.

        Raises StudyError where that cannot be written, or another workflow has planned otherwise meanwhile.
        """
        registry.register(Path(self.paths.packs), self.packs)
        made_for.note(self.study_path, Path(self.paths.study_folder))
        for experiment in self.study.experiments:
            text = self.records.experiment_text(experiment, figures=True) + "\n"
            atomic.write_text(Path(self.paths.experiment(experiment)), text)
        if self.study.minimal_model:
            text = self.records.minimal_model_text(figures=True) + "\n"
            atomic.write_text(Path(self.paths.minimal_model), text)
        atomic.write_text(Path(self.paths.claims), self.records.claims_text() + "\n")


def _with_truth_values(config: Mapping[str, Any], config_schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with `true` and `false` for keys that are one of them.

    Snakemake's `--config key=true` gives a text; only True and False, with a capital, are values there.
    """
    words = {"true": True, "false": False}
    keys = {key for key, of in config_schema["properties"].items() if of.get("type") == "boolean"}
    return {
        key: words.get(value, value) if key in keys and isinstance(value, str) else value
        for key, value in config.items()
    }


def _study_path(name: str, base: Path) -> Path:
    """Return the file of a study. name: in workflow/studies, or a path that ends in .yaml."""
    if name.endswith((".yaml", ".yml")):
        stem = Path(name).stem
        if stem.startswith((".", "-")) or {"{", "}"} & set(stem):
            raise StudyError(
                f"config: `study` is {name!r}, but results stand in a folder of the file's name: rename the file, so "
                "that it has no braces and does not begin with a point or a hyphen"
            )
        return Path(name)
    folder = base / "workflow/studies"
    known = [path.stem for path in study_files(base)]
    if not folder.is_dir():
        raise StudyError(
            f"config: `study` is {name!r}, but there is no folder {folder}: a workflow that was fetched has no studies "
            "on this machine; name a file, such as `study: /path/mine.yaml`"
        )
    if name not in known:
        raise StudyError(
            f"config: `study` is {name!r}, which is not in {folder}{did_you_mean(name, known)} "
            f"(there are {', '.join(known)}; a path that ends in .yaml names a file elsewhere)"
        )
    return folder / f"{name}.yaml"


def study_files(base: Path) -> list[Path]:
    """Return the files of studies in workflow/studies, without what editors and file managers put beside them."""
    found = (base / "workflow/studies").glob("*.yaml")
    return sorted(path for path in found if not path.name.startswith((".", "#", "~")))


def bases_folder(base: Path) -> Path:
    """Return the folder of the bases that studies can name; base: the folder of the Snakefile."""
    return base / "workflow/studies" / bases.FOLDER


def config_here() -> dict[str, Any]:
    """Read config.yaml of the working folder, as Snakemake does."""
    return document.read_yaml(Path("config.yaml"))


def results_folder(written: str) -> str:
    """Return the folder that `results` of the configuration names: `~` is the home folder, as for sources."""
    return os.path.expanduser(written).rstrip("/")


def planned_here(study: str | None, results: str | None = None) -> Plan:
    """Plan the working folder's study, or `study` in its place; results: in place of the folder of config.yaml."""
    given = {"study": study, "results": results}
    return Plan(config_here() | {key: value for key, value in given.items() if value}, Path())
