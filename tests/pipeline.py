"""A checkout of the workflow in a folder of its own, and what Snakemake does or would do there."""

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icl_transience.store.locks import locked

ROOT = Path(__file__).parents[1]
WARM = Path(__file__).parent / "warm"
# In the environment of a call: it and its jobs use the plain interpreter.
PLAIN = {"WARM_SERVER": ""}

TINY = """
defaults:
  bank: {source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2, dim: 4}}
  model: {width: 16, heads: 2}
  snapshots: {first: 256, every: 512}
  evaluation: {sequences: 64}
  horizon: 2048
  seeds: [0, 1]
experiments:
  transience: {question: "does it come and go?"}
  l2: {axes: {optimizer.l2.strength: [0, 1.0e-3]}}
"""


@functools.cache
def server() -> str:
    """The address of the server of tests/warm, which ends with this process; none where the environment says PLAIN."""
    if os.environ.get("PLAIN"):
        return ""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address = folder / "socket"
    # Python's own path alone, without a folder of this library; a process with threads must not fork.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(WARM / "server.py"), str(address)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=alone, start_new_session=True)

    def end() -> None:
        process.stdin.close()
        process.wait()

    atexit.register(end)
    while not address.exists():
        assert process.poll() is None, "the server of tests/warm has ended"
        time.sleep(0.05)
    return str(address)


def environment() -> dict[str, str]:
    """In which rules find the environment that the tests run in: the interpreter's own folder comes first."""
    path = os.pathsep.join([str(WARM), str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "WARM_SERVER": server(), "WARM_PYTHON": sys.executable}


def python(module: str, *arguments: str) -> dict[str, list[str]]:
    """What subprocess takes to run a module, in `environment()`."""
    return {"args": [str(WARM / "python"), "-m", module, *arguments]}


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """A folder, and what `make` returned of it, as JSON has it; one of the processes that test calls it, for all.

    A test that changes files copies them first.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    record = shared / f"{name}.json"
    with locked(shared / f"{name}.lock", wait=True):
        if not record.exists():
            folder = factory.mktemp(name)
            record.write_text(json.dumps([str(folder), make(folder)]), encoding="utf-8")
    folder, value = json.loads(record.read_text(encoding="utf-8"))
    return Path(folder), value


class Clone:
    """A working copy with the study `tiny`, run through the real command line.

    settings: of config.yaml, the same on every machine; () are those that users have.
    """

    settings = ("lanes_per_pack=8", "segment_sequences=1024")

    def __init__(self, folder: Path):
        self.folder = folder
        self.study = folder / "workflow/studies/tiny.yaml"

    @classmethod
    def make(cls, folder: Path, study: str = TINY) -> "Clone":
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(ROOT / name, folder)
        for name in ("workflow", "profiles", "envs"):
            shutil.copytree(ROOT / name, folder / name)
        clone = cls(folder)
        clone.study.write_text(study, encoding="utf-8")
        return clone

    def copy(self, folder: Path) -> "Clone":
        """With results and Snakemake's records; times are kept, as `cp -a` keeps them."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Clone(folder)

    def change_library(self, module: str, old: str, new: str) -> dict[str, str]:
        """Edits a module in a copy of the library; the environment in which jobs and Snakemake use that copy."""
        library = self.folder / "src"
        if not library.exists():
            shutil.copytree(ROOT / "src", library, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        path = library / "icl_transience" / module
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        return {"PYTHONPATH": str(library)}

    def change(self, old: str, new: str) -> None:
        text = self.study.read_text(encoding="utf-8")
        assert old in text
        self.study.write_text(text.replace(old, new), encoding="utf-8")

    def snakemake(self, *arguments: str, config: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess:
        call = self.call(*arguments, config=config, **env)
        return subprocess.run(**call, capture_output=True, text=True, timeout=900)

    def call(self, *arguments: str, config: tuple[str, ...] = (), **env: str) -> dict:
        """What subprocess takes to call Snakemake here: args, cwd, env."""
        settings = ["--config", "study=tiny", *self.settings, *config]
        return python("snakemake", *arguments, *settings) | {"cwd": self.folder, "env": environment() | env}

    def library(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run `python -m icl_transience` here."""
        call = python("icl_transience", *arguments) | {"cwd": self.folder, "env": environment()}
        return subprocess.run(**call, capture_output=True, text=True, timeout=900)

    def build(self, *arguments: str, config: tuple[str, ...] = (), **env: str) -> str:
        done = self.snakemake(*arguments, config=config, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def would_run(self, *arguments: str, config: tuple[str, ...] = (), **env: str) -> dict[str, int]:
        """Rule -> number of jobs of a dry run, targets aside; figures: of all experiments."""
        output = self.build("-n", *arguments, config=config, **env)
        if "Nothing to be done" in output:
            return {}
        table = output[output.index("Job stats:") :].split("total")[0]
        counts = {name: int(number) for name, number in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
        for target in ("all", "transience", "l2"):
            counts.pop(target, None)
        if drawn := [name for name in counts if name.startswith("figures_")]:
            counts["figures"] = sum(counts.pop(name) for name in drawn)
        return counts

    def path(self, pattern: str) -> Path:
        """The one file under results that matches."""
        (found,) = self.folder.glob(f"results/{pattern}")
        return found
