"""This workflow as a module of another one, which lies in another folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pipeline import ROOT, TINY, environment, python

# As docs/other-workflows.md has it; the study and the results are named as from the outer workflow's folder.
OUTER = """
configfile: "{root}/config.yaml"
config |= {{"study": "{study}", "results": "made/by another"}}

module icl:
    snakefile: "{root}/Snakefile"
    config: config

use rule * from icl as icl_*

onstart:
    icl.onstart()

onsuccess:
    icl.onsuccess()
"""


# What snakedeploy 0.17 writes, with a source that needs no network, and the lines that config/README.md asks for.
DEPLOYED = """
from snakemake.utils import min_version
min_version("6.10.0")
configfile: "config/config.yaml"
module icl:
    snakefile:
        "git+file:{repository}/workflow/Snakefile@v1"
    config:
        config
use rule * from icl

onstart:
    icl.onstart()
onsuccess:
    icl.onsuccess()
"""
# A Python in which this package is not installed.
WITHOUT = """
import os, sys
sys.path[:] = [path for path in sys.path if not os.path.isdir(os.path.join(path, "icl_transience"))]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
"""


def call(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    command = python("snakemake", *arguments) | {"cwd": folder, "env": environment() | env}
    return subprocess.run(**command, capture_output=True, text=True, timeout=900)


def outer(folder: Path, study: str) -> Path:
    (folder / "Snakefile").write_text(OUTER.format(root=ROOT, study=study), encoding="utf-8")
    return folder


def test_studies_are_looked_for_beside_this_workflow_and_not_beside_the_outer_one(tmp_path):
    done = call(outer(tmp_path, "synthetic"), "-n", "icl_all")
    assert done.returncode == 0, done.stderr
    assert "icl_train" in done.stdout + done.stderr
    done = call(outer(tmp_path, "nowhere"), "-n", "icl_all")
    assert f"`study` is 'nowhere', which is not in {ROOT / 'workflow/studies'}" in done.stdout + done.stderr


def test_a_study_is_made_from_another_workflow(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY.replace("seeds: [0, 1]", "seeds: [0]"), encoding="utf-8")
    done = call(outer(tmp_path, "tiny.yaml"), "-c2", "icl_transience")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made/by another/studies/tiny/transience/curves.svg").is_file()
    again = call(tmp_path, "-n", "icl_transience")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_the_workflow_catalog_can_read_how_to_deploy_it():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert "pip install -c envs/constraints.txt -r envs/requirements.txt" in usage["mandatory-flags"]["desc"]


def fetched(tmp_path: Path) -> Path:
    """A folder like those that snakedeploy makes, whose workflow is fetched from a repository of git."""
    repository, deployed = tmp_path / "repository", tmp_path / "my project"
    for name in ("workflow", "config", "envs", "profiles"):
        shutil.copytree(ROOT / name, repository / name)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init"], ["add", "."], ["commit", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *command], cwd=repository, check=True, capture_output=True)
    shutil.copytree(repository / "config", deployed / "config")
    shutil.copytree(repository / "profiles", deployed / "profiles")
    (deployed / "workflow").mkdir()
    (deployed / "workflow/Snakefile").write_text(DEPLOYED.format(repository=repository), encoding="utf-8")
    return deployed


def test_what_snakedeploy_deploys_makes_its_study(tmp_path):
    deployed = fetched(tmp_path)
    # The study that is deployed, as it is, and a smaller one in its place.
    planned = call(deployed, "-n")
    assert planned.returncode == 0, planned.stderr
    assert "figures_transience" in planned.stdout
    (deployed / "config/study.yaml").write_text(TINY.replace("seeds: [0, 1]", "seeds: [0]"), encoding="utf-8")
    done = call(deployed, "-c2", "transience")
    assert done.returncode == 0, done.stderr
    assert (deployed / "results/studies/study/transience/curves.svg").is_file()
    named = call(deployed, "-n", "--config", "study=laptop")
    assert "a workflow that was fetched has no studies on this machine; name a file" in named.stdout + named.stderr


@pytest.mark.parametrize("place", ["a checkout", "a module"])
def test_without_the_package_one_sentence_says_what_to_install(place, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(WITHOUT, encoding="utf-8")
    if place == "a module":
        folder = outer(tmp_path, "synthetic")
    else:
        folder = tmp_path / "checkout"
        for name in ("workflow", "profiles"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(ROOT / name, folder)
    plain = {"PYTHONPATH": str(blocked), "WARM_SERVER": ""}
    command = {"args": [sys.executable, "-m", "snakemake", "-n"], "cwd": folder, "env": os.environ | plain}
    done = subprocess.run(**command, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    (line,) = (line for line in said.splitlines() if "icl_transience" in line)
    assert line.startswith(
        f"{sys.executable}, which runs this snakemake, has no Python package icl_transience: install "
    )
    assert "pip install -c envs/constraints.txt -r envs/requirements.txt && pip install --no-deps ." in line
    assert "Traceback" not in said


def test_a_study_and_its_results_stand_anywhere_and_results_move(tmp_path):
    """Study, working folder and results outside the checkout, with spaces and umlauts, behind a link, and moved."""
    study = tmp_path / "meine Studien/größer.yaml"
    study.parent.mkdir()
    study.write_text(TINY.replace("seeds: [0, 1]", "seeds: [0]"), encoding="utf-8")
    work, results = tmp_path / "Läufe hier", tmp_path / "große Platte/meine Ergebnisse"
    checkout = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(work)]

    def snakemake(*arguments: str, results: Path = results) -> str:
        done = call(tmp_path, *checkout, *arguments, "--config", f"study={study}", f"results={results}")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    work.mkdir()
    snakemake("-c2", "transience")
    assert (results / "studies/größer/transience/curves.svg").is_file()
    assert not (ROOT / "results/studies/größer").exists()
    assert "Nothing to be done" in snakemake("-n", "transience")
    # On another disk, with a link where they were; then under another name, without one.
    disk = tmp_path / "disk"
    results.rename(disk)
    results.symlink_to(disk)
    assert "Nothing to be done" in snakemake("-n", "transience")
    assert "Nothing to be done" in snakemake("-n", "transience", results=disk)
    # What reports prints a command that works from anywhere.
    (disk / "studies/größer/gone").mkdir()
    (line,) = (line for line in snakemake("orphans", results=disk).splitlines() if "delete" in line)
    subprocess.run(["bash", "-c", f"{line} --yes"], cwd="/", env=environment(), check=True, capture_output=True)
    assert not (disk / "studies/größer/gone").exists()
    assert (disk / "studies/größer/transience/curves.svg").is_file()
