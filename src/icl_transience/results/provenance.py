"""Record how results were made: {results}/provenance.json, an entry a study, written after every real run.

studies/{study}:
    date                 of the first run after which the rest of the entry read as it does
    file                 the study file's text
    bases                of the files that it extends, name -> text
    experiments          question, axes, statistics, horizon, seeds; runs by name: axes, id, evaluator set
    minimal_model        where the study has one: its values, and the runs beside it
    runs                 id -> the resolved run as plain values
    banks                id -> source, SHA-256 of its source files; the whole specification stands in its runs
    packs                id -> lanes, what its segments took (see `_pack`), and the snapshots from which lanes start
    config               config.yaml with what the command line changed
    versions, code, git, machine   of the call that wrote the entry; each segment says what trained it
Everything is read from names and attributes. Segments that have not changed since the entry's date are not opened.
"""

import csv
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from icl_transience.planning.packs import Pack
from icl_transience.planning.plan import Plan
from icl_transience.specs.code_digest import STAGES, digest
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import identity_values
from icl_transience.store import atomic, hdf5, layout, locks

FILE = "provenance.json"
SCHEMA_VERSION = 1
_PACKAGES = ("icl-transience", "snakemake", "torch", "numpy", "h5py", "pandas", "scipy", "matplotlib", "faiss-cpu")
# A file system's clock may be behind ours.
_SKEW_SECONDS = 60

Entry = dict[str, Any]


def record(plan: Plan) -> Entry:
    """Bring the entry of the plan's study up to date and return it; other studies' entries stay as they are.

    A file that cannot be read is moved aside as provenance.json.damaged.
    """
    path = Path(plan.paths.root, FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locks.locked(path.with_name(f".{FILE}.lock"), wait=True):
        studies = _read(path)
        before = studies.get(plan.study.name, {})
        try:
            entry = describe(plan, before)
        except (KeyError, ValueError, TypeError, AttributeError):
            # The entry of before is not one; nothing is lost that segments do not say.
            before = {}
            entry = describe(plan, before)
        if _without_date(entry) == _without_date(before):
            return before
        document = {"schema": SCHEMA_VERSION, "studies": studies | {plan.study.name: entry}}
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        atomic.write_text(path, text)
    return entry


def last(plan: Plan) -> Entry:
    """Return the entry of the run that made the study's results; write it if there is none of this study file.

    Unlike `record`, it does not take the software that is installed today for the one that made results.
    """
    entry = known(plan)
    return entry if entry and all(entry.get(key) == text for key, text in _asked(plan).items()) else record(plan)


def _asked(plan: Plan) -> Entry:
    """Return the texts of the study file and of its bases; without any, nothing of them."""
    texts = {base.name: base.text for base in plan.study.bases}
    return {"file": plan.study_path.read_text(encoding="utf-8")} | ({"bases": texts} if texts else {})


def known(plan: Plan) -> Entry:
    """Return the entry of the plan's study as it stands; {} if there is none."""
    return _read(Path(plan.paths.root, FILE)).get(plan.study.name, {})


def _without_date(entry: Entry) -> Entry:
    return {key: value for key, value in entry.items() if key != "date"}


def _read(path: Path) -> dict[str, Entry]:
    """Return study -> entry; empty where there is no file, or one that had to be moved aside.

    Raises StudyError where newer software wrote it.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version, studies = document["schema"], document["studies"]
        if not all(isinstance(entry, dict) for entry in studies.values()):
            raise TypeError("an entry is not a mapping")
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # Not fatal: it is made again, with what is known of this study.
        print(atomic.unusable(path, f"not a record of provenance ({error!r})"), file=sys.stderr)
        return {}
    if version != SCHEMA_VERSION:
        raise StudyError(f"{path}: schema version {version}, expected {SCHEMA_VERSION}: use the software that made it")
    return studies


def describe(plan: Plan, before: Entry) -> Entry:
    """Return the entry of the plan's study. before: the last one, {} if there is none."""
    runs = {named.run.id: named.run for experiment in plan.study.experiments.values() for named in experiment.runs}
    # Through JSON and back, so that it equals what will be read.
    return json.loads(
        json.dumps(
            {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                **_asked(plan),
                "experiments": {name: _experiment(plan, name) for name in plan.study.experiments},
                **({"minimal_model": identity_values(model)} if (model := plan.study.minimal_model) else {}),
                "runs": {run_id: identity_values(run) for run_id, run in runs.items()},
                "banks": {
                    bank_id: {"source": bank.source, "files_sha256": bank.files} for bank_id, bank in plan.banks.items()
                },
                "packs": _packs(plan, before),
                "config": plan.config,
                "versions": versions(),
                "code": {stage: digest(stage) for stage in STAGES},
                "git": git(plan.base),
                "machine": machine(),
            }
        )
    )


def _experiment(plan: Plan, name: str) -> dict[str, Any]:
    """Return what an entry says of an experiment."""
    experiment = plan.study.experiments[name]
    return {
        "question": experiment.question,
        "axes": experiment.axes,
        "horizon": experiment.horizon,
        "seeds": [identity_values(seed) for seed in experiment.seeds],
        "statistics": identity_values(experiment.statistics),
        **({"circuits": identity_values(experiment.circuits)} if experiment.circuits else {}),
        "runs": {
            named.name: {"axes": dict(named.axes), "run": named.run.id, "set": named.sequence_set.id}
            for named in experiment.runs
        },
    }


# What packs took.


def _packs(plan: Plan, before: Entry) -> dict[str, Any]:
    """Return pack id -> what an entry says of it. before: the last entry."""
    known = before.get("packs", {})
    unchanged_until = 0.0
    if known:
        unchanged_until = datetime.fromisoformat(before["date"]).timestamp() - _SKEW_SECONDS
    return {
        pack_id: _pack(plan.paths.root, pack_id, pack, known.get(pack_id, {}), unchanged_until)
        | _sources(plan, pack_id)
        for pack_id, pack in plan.packs.items()
    }


def _sources(plan: Plan, pack_id: str) -> dict[str, Any]:
    """Return what an entry says of the snapshots from which a pack's lanes start; {} where none does.

    sources: [{init, data, run, at, pack, segment}], the seed's two numbers first.
    """
    found = [
        identity_values(source.lane.seed)
        | {"run": source.lane.run.start_from.run, "at": source.at, "pack": source.pack}
        | {"segment": layout.segment_name(*source.segment)}
        for source in plan.targets.sources(pack_id)
    ]
    return {"sources": found} if found else {}


def _pack(results: str, pack_id: str, pack: Pack, before: Entry, unchanged_until: float) -> dict[str, Any]:
    """Return what an entry says of a pack.

    lanes: [{run, init, data}]. segments: {file name: see `_segment`}. seconds: wall time of training, and of these
    gpu_seconds. evaluation_seconds, circuits_seconds: wall time. before: the pack in the last
    entry; what is older than `unchanged_until` (a time stamp) is taken from there.
    """
    folder, known = Path(results, "packs", pack_id), before.get("segments", {})
    segments = {}
    for start, end in pack.segments(pack.boundaries[-1]):
        name = layout.segment_name(start, end)
        with suppress(FileNotFoundError):  # not trained yet
            old = (folder / name).stat().st_mtime < unchanged_until
            segments[name] = known[name] if old and name in known else _segment(folder / name)
    seconds = [segment["seconds"] for segment in segments.values()]
    on_gpu = [segment["seconds"] for segment in segments.values() if segment["device"].startswith("cuda")]
    return {
        "lanes": [{"run": lane.run.id, "init": lane.seed.init, "data": lane.seed.data} for lane in pack.spec.lanes],
        "segments": segments,
        "seconds": round(sum(seconds), 3),
        "gpu_seconds": round(sum(on_gpu), 3),
        "evaluation_seconds": _job_seconds(Path(results, "benchmarks/packs", pack_id), "metrics"),
        "circuits_seconds": _job_seconds(Path(results, "benchmarks/packs", pack_id), "circuits"),
    }


def _segment(path: Path) -> dict[str, Any]:
    """Return how a segment was made, as its attributes say; of an unreadable one, that it is."""
    try:
        with hdf5.open_made(path) as file:
            made: dict[str, Any] = {
                key.removeprefix("made_"): file.attrs[key] for key in file.attrs if key.startswith("made_")
            }
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        return {"problem": f"cannot be read: {error}", "seconds": 0.0, "device": ""}
    with_what = made.get("with", "")
    return {
        "at": made.get("at", ""),
        "on": made.get("on", ""),
        "with": with_what,
        # Earlier files say it in `made_with` alone: torch 2.13, 1 thread(s), cpu, native engine.
        "device": made.get("device")
        or next((part for part in with_what.split(", ") if part.startswith("cuda")), "cpu"),
        "seconds": round(float(made.get("in_seconds", 0.0)), 3),
        "sequences_per_second": round(float(made.get("sequences_per_second", 0.0)), 1),
    }


def _job_seconds(folder: Path, kind: str) -> float:
    """Return the wall time of the jobs whose benchmarks are there, the last one a file. kind: metrics or circuits."""
    total = 0.0
    for path in sorted(folder.glob(f"{kind}-*.tsv")):
        with path.open(newline="", encoding="utf-8") as file:
            total += sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
    return round(total, 3)


# Where and with what.


def versions() -> dict[str, str | None]:
    """Return versions of Python and of the packages that shape results; None where one is not installed."""

    def version(package: str) -> str | None:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
        return None

    return {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES}


def git(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the workflow in `folder`, and whether anything differs from it; None without git."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, errors="replace", check=False
            )
        except FileNotFoundError:  # no git
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A folder below somebody else's repository is not in it.
    if ask("ls-files", "--error-unmatch", "Snakefile") is None:
        return None
    return {"commit": ask("rev-parse", "HEAD"), "dirty": ask("status", "--porcelain", "--", ".") != ""}


def machine() -> dict[str, Any]:
    """Return platform, CPU, cores, memory in MB, names of NVIDIA GPUs; nothing is imported or started to find out."""
    return {
        "platform": platform.platform(),
        "cpu": _line_of(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "gpus": [_line_of(path, "Model") for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))],
    }


def _line_of(path: Path, key: str) -> str:
    """Return what follows "key :" in a text file of the kernel's; empty where there is no such line."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""
