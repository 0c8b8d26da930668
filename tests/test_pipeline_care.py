"""Status, cost, orphans, provenance and the archive, asked of the real Snakemake."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import pandas as pd
import pytest
from pipeline import ROOT, Clone, environment, made_once
from pipeline import python as python_call

from icl_transience import load
from icl_transience.planning import registry
from icl_transience.planning.plan import Plan
from icl_transience.store.locks import locked

ONE = """
defaults:
  bank: {source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2, dim: 4}}
  model: {width: 16, heads: 2}
  snapshots: {first: 256, every: 512}
  evaluation: {sequences: 64}
  horizon: 1024
  seeds: [0]
experiments:
  l2:
    axes: {optimizer.l2.strength: [0, 1.0e-3]}
    claims: {high: {text: it is high, kind: threshold, of: final, direction: above, value: 0.5}}
"""


def locks(clone: Clone) -> list[str]:
    """Snakemake's own: what other calls may not touch."""
    return sorted(path.name for path in clone.folder.glob(".snakemake/locks/*"))


def wait_for(said: str, process: subprocess.Popen) -> None:
    while said not in (line := process.stdout.readline()):
        assert line, "Snakemake ended"


@dataclass
class Asked:
    """What `snakemake status` said while a study was built, its exit status and Snakemake's locks before and after."""

    said: str
    status: int
    before: list[str]
    after: list[str]


@pytest.fixture(scope="module")
def asked_meanwhile(tmp_path_factory) -> tuple[Clone, Asked]:
    folder, values = made_once(tmp_path_factory, "care", ask_meanwhile)
    return Clone(folder / "clone"), Asked(*values)


def ask_meanwhile(folder: Path) -> tuple:
    """The fields of an Asked.

    The lock of the study's one pack is held until status has answered, so its training runs whatever the speed of the
    machine.
    """
    clone = Clone.make(folder / "clone", ONE)
    settings = {"study": str(clone.study), "lanes_per_pack": 8, "segment_sequences": 1024, "packing": "shape"}
    (pack_id,) = Plan(settings, clone.folder).packs
    lock = clone.folder / "results/packs" / pack_id / ".lock"
    lock.parent.mkdir(parents=True)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with locked(lock):
        # Shell commands are asked for so that Snakemake prints its own output, which says at once that a job begins.
        other = subprocess.Popen(**clone.call("--printshellcmds", config=("packing=shape",)), **streams)
        wait_for("rule train:", other)
        before = locks(clone)
        done = clone.snakemake("status")
        after = locks(clone)
    output, _ = other.communicate(timeout=300)
    assert other.returncode == 0, output
    return done.stdout, done.returncode, before, after


@pytest.fixture
def clone(asked_meanwhile, tmp_path) -> Clone:
    return asked_meanwhile[0].copy(tmp_path / "clone")


def test_status_answers_beside_another_snakemake_and_leaves_its_locks(asked_meanwhile):
    _, asked = asked_meanwhile
    assert asked.status == 0
    assert asked.said.count(" running ") == 2
    assert "l2: 2 lanes, 2 running; 0 of 2,048 sequences (0%)" in asked.said
    assert asked.after == asked.before
    assert asked.before


def results(clone: Clone) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in clone.folder.glob("results/**/*")}


def test_status_and_orphans_register_nothing_and_write_nothing(clone):
    clone.change("seeds: [0]", "seeds: [0, 1]")
    (clone.folder / "results/provenance.json").unlink()
    (clone.folder / "results/studies/tiny/gone").mkdir()
    before = results(clone)
    said = clone.snakemake("status", "orphans")
    assert said.returncode == 0, said.stderr
    assert "l2: 4 lanes, 2 done, 2 missing" in said.stdout
    assert " results/studies/tiny/gone\n" in said.stdout
    assert "python -m icl_transience delete --orphans --study tiny" in said.stdout
    # What a run found is not their business.
    assert "figure:" not in said.stdout
    assert results(clone) == before
    # The same words without Snakemake.
    status = python(clone.folder, "status", "--study", "tiny").stdout
    assert status.splitlines()[-1] == next(line for line in said.stdout.splitlines() if line.startswith("l2: "))


def python(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    call = python_call("icl_transience", *arguments) | {"cwd": folder, "env": environment() | env}
    return subprocess.run(**call, capture_output=True, text=True, check=True)


def test_cost_is_told_before_anything_is_made(tmp_path):
    clone = Clone.make(tmp_path / "clone", ONE)
    clone.settings = ()  # what config.yaml says, as the library's own command reads it
    said = clone.snakemake("cost", config=("device=cuda",))
    assert said.returncode == 0, said.stderr
    (row,) = (line for line in said.stdout.splitlines() if line.startswith("l2 "))
    assert row.split()[1:4] == ["2", "2", "2.05k"]
    # Nobody has measured this GPU: hours are those of the model, and said to be.
    assert not row.endswith("not measured")
    assert "GPU-hours, modelled" in said.stdout
    # On this machine, as if the benchmark had been recorded there.
    shutil.copytree(ROOT / "benchmarks", clone.folder / "benchmarks")
    said = clone.snakemake("cost")
    assert "core-hours: " in said.stdout
    assert "not measured" not in said.stdout
    # Both say the same, but for the wall time on the workers of the call.
    alone = python(clone.folder, "cost", "--study", "tiny").stdout.splitlines()
    assert set(alone[:2]) <= set(said.stdout.splitlines())
    assert set(alone[-1:]) <= set(said.stdout.splitlines())
    assert not (clone.folder / "results").exists()


def test_a_run_writes_provenance_and_a_dry_run_does_not(clone):
    record = clone.folder / "results/provenance.json"
    entry = json.loads(record.read_text())["studies"]["tiny"]
    assert len(entry["packs"]) == 1
    assert all(pack["seconds"] > 0 and pack["evaluation_seconds"] > 0 for pack in entry["packs"].values())
    with h5py.File(clone.path("packs/*/segment-*.h5")) as segment:
        assert segment.attrs["made_device"] == "cpu"
    record.unlink()
    clone.path("studies/tiny/l2/curves.svg").unlink()
    clone.build("-n")
    assert not record.exists()
    # A run that fails says how its results were made, too.
    clone.path("studies/tiny/l2/SHA256SUMS").write_text("")
    # Asked for alone: the first job moves the damaged file aside, and others would only find it missing.
    done = clone.snakemake("results/studies/tiny/l2/curves.svg", "--rerun-triggers", "input")
    assert done.returncode != 0
    assert set(json.loads(record.read_text())["studies"]) == {"tiny"}


def test_an_unfinished_study_is_not_archived(clone):
    clone.change("seeds: [0]", "seeds: [0, 1]")
    done = clone.snakemake("archive")
    assert done.returncode != 0
    jobs = "1 declare, 2 train, 2 evaluate, 1 tables, 1 figures_l2, 1 verdicts, 1 evidence"
    assert f"study tiny is not finished ({jobs})" in done.stdout + done.stderr
    assert "`snakemake all archive` finishes and archives it" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(clone.folder.glob("results/archives/*"))
    assert len(registry.read_registered(clone.folder / "results/packs").packs) == 1


@pytest.mark.parametrize("what", ["an experiment", "its runs"])
def test_what_delete_says_is_made_again_is_what_snakemake_makes_again(clone, what):
    for name in ("packing", "lanes_per_pack", "segment_sequences"):
        value = {"packing": "shape", "lanes_per_pack": 8, "segment_sequences": 1024}[name]
        config = clone.folder / "config.yaml"
        config.write_text(re.sub(rf"(?m)^{name}: \S+", f"{name}: {value}", config.read_text()))
    shape = ("packing=shape",)
    assert clone.would_run(config=shape) == {}

    plan = Plan({"study": str(clone.study), "results": str(clone.folder / "results")}, clone.folder)
    runs = [f"l2/{named.name}" for named in plan.study.experiments["l2"].runs]
    names = ["l2"] if what == "an experiment" else runs
    said = python(clone.folder, "delete", *names, "--study", "tiny", "--yes").stdout
    made = "1 bank, 1 evaluator set, 1 segment, 1 metrics file, tables and figures of l2, cards and verdicts"
    assert f"the next snakemake makes {made} again" in said
    assert clone.would_run(config=shape) == {
        **dict.fromkeys(("bank", "sequences", "train", "evaluate", "tables", "declare", "figures", "card"), 1),
        **dict.fromkeys(("verdicts", "evidence"), 1),
    }


@pytest.mark.parametrize("index", ['{"schema": 2}', "an unknown key"])
def test_a_leftover_pack_that_cannot_be_read_is_said_once_and_blocks_nothing(tmp_path, index):
    clone = Clone.make(tmp_path / "clone", ONE)
    leftover = clone.folder / "results/packs/gaussian-40x3-2x16-000000000000"
    registry.register(leftover.parent, Plan({"study": str(clone.study), "lanes_per_pack": 8}, clone.folder).packs)
    (first, *_) = sorted(leftover.parent.glob("*/pack.json"))
    if index == "an unknown key":
        document = json.loads(first.read_text())
        for run in document["spec"]["runs"].values():
            run["model"]["temperature"] = 2.0
        document["checksum"] = registry.checksum(document)
        index = json.dumps(document)
    shutil.rmtree(leftover.parent)
    leftover.mkdir(parents=True)
    (leftover / "pack.json").write_text(index)
    said = "pack 'results/packs/gaussian-40x3-2x16-000000000000' is skipped: "
    done = clone.snakemake("-n")
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert output.count(said) == 1
    assert clone.build("orphans", "status").count(said) == 3
    assert (leftover / "pack.json").read_text() == index


def test_every_figure_is_drawn_again_from_the_archive_alone(clone, tmp_path):
    """The figure that is missing is made before the archive is; and the same results give the same archive."""
    clone.path("studies/tiny/l2/curves.svg").unlink()
    clone.build("all", "archive")
    path = clone.path("archives/tiny.tar.gz")
    first = path.read_bytes()
    for made in clone.folder.glob("results/studies/**/*.csv"):
        # Neither times nor owners of what is archived show.
        os.utime(made, (time.time() - 1e6,) * 2)
    path.unlink()
    clone.build("archive")
    assert path.read_bytes() == first
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        assert all(member.isreg() and member.name.startswith("tiny/") for member in members)
        assert not any(".." in Path(member.name).parts for member in members)
        assert [member.name for member in members] == sorted(member.name for member in members)
        # The first Pythons 3.11 have no filters; what the members are has just been seen.
        tar.extractall(tmp_path / "out", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    folder = tmp_path / "out/tiny"
    checked = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    assert checked.stdout == b""
    assert {
        "explorer.html",
        "report.html",
        "provenance.json",
        "study.yaml",
        "config.json",
        "verdicts.csv",
        "evidence.csv",
        "evidence.svg",
    } <= {file.name for file in folder.iterdir()}
    # In Python it has the tables of the results, extracted or not.
    results = load("tiny", results=clone.folder / "results")
    for archived in (load(path), load(folder)):
        for table in ("curves", "transience", "runs", "verdicts", "evidence"):
            pd.testing.assert_frame_equal(getattr(archived, table), getattr(results, table))
    # The command that stands in the archive's README, in a Python that knows the library from there alone.
    (line,) = (line for line in (folder / "README.md").read_text().splitlines() if line.startswith("PYTHONPATH="))
    setting, _, command = line.partition(" python -m icl_transience ")
    source = folder / setting.removeprefix("PYTHONPATH=")
    where = [sys.executable, "-c", "import icl_transience; print(icl_transience.__file__)"]
    found = subprocess.run(where, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(source)
    python(folder, *command.split(), PYTHONPATH=str(source))
    figures = sorted(file.relative_to(folder) for kind in ("svg", "png") for file in folder.glob(f"**/*.{kind}"))
    redrawn = [figure for figure in figures if figure.parts[0] == "redrawn"]
    # Curves, comparison, summary, plane, the bank's card and the evidence.
    assert len(redrawn) == 12
    assert [Path(*figure.parts[1:]) for figure in redrawn] == [fig for fig in figures if fig.parts[0] != "redrawn"]
    for figure in redrawn:
        original = folder / Path(*figure.parts[1:])
        assert (folder / figure).read_bytes() == original.read_bytes()
        assert original.read_bytes() in {file.read_bytes() for file in clone.folder.glob(f"results/**/{original.name}")}
