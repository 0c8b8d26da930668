"""Rules in conda environments of their own (`--sdm conda`), with a stand-in for conda: see conda/conda.py."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pipeline import ROOT, TINY, Clone
from test_environment import pins
from test_pipeline_module import call, fetched

from icl_transience.system import interpreter

sys.path.insert(0, str(Path(__file__).parent / "conda"))
import conda

ONE_SEED = TINY.replace("seeds: [0, 1]", "seeds: [0]")


def with_conda(folder: Path, **env: str) -> dict[str, str]:
    """The environment of a call that finds the stand-in, with an environment of conda that is active already."""
    place = conda.install(folder / "conda")
    base = folder / "base"
    (base / "bin").mkdir(parents=True)
    path = [env.pop("first", ""), str(base / "bin"), str(place), os.environ["PATH"]]
    return {"PATH": os.pathsep.join(filter(None, path)), "CONDA_PREFIX": str(base)} | env


def used(folder: Path) -> tuple[Path, list[str]]:
    """The one environment that rules ran in, and the commands that did."""
    (made,) = (one for one in folder.glob(".snakemake/conda/*_") if one.is_dir())
    return made, (made / "used").read_text().splitlines()


def pulled_in(names: set[str]) -> set[str]:
    """What packages need, by what is installed here."""
    found, to_see = set(), {(name, "") for name in names}
    while to_see:
        found.add(one := to_see.pop())
        for need in map(Requirement, importlib.metadata.requires(one[0]) or []):
            if need.marker is None or need.marker.evaluate({"extra": one[1]}):
                to_see |= {(canonicalize_name(need.name), extra) for extra in ("", *need.extras)} - found
    return {name for name, _ in found}


def test_the_environment_has_every_version_by_itself():
    """Snakemake copies the file, or fetches it alone: `-c` and `-r` would lead nowhere."""
    listed = {canonicalize_name(name): version for name, version in pins("environment.yaml").items()}
    required = {canonicalize_name(name): version for name, version in pins("requirements.txt").items()}
    constrained = {canonicalize_name(name): version for name, version in pins("constraints.txt").items()}
    assert required.items() <= listed.items()
    # PyTorch's builds with CUDA pin their triton, and the others have none.
    needed = pulled_in(set(required)) - required.keys() - {"triton"}
    assert listed == required | {name: constrained[name] for name in needed if name in constrained}
    # Versions are those of one Python.
    (version,) = re.findall(r"- python=([\d.]+)$", (ROOT / "envs/environment.yaml").read_text(), re.MULTILINE)
    assert f"Python {version}" in (ROOT / "envs/constraints.txt").read_text().splitlines()[0]
    assert not list((ROOT / "envs").glob("*.pin.txt")), (
        "Snakemake would install that file alone, without pip's packages"
    )


def test_a_clone_makes_a_study_in_the_environment_of_its_rules(tmp_path):
    clone = Clone.make(tmp_path / "a clone", ONE_SEED)
    # `python` of the tests stands before the environment that was active, as that of an activated venv does.
    first = str(Path(clone.call()["args"][0]).parent)
    output = clone.build("--sdm", "conda", "-c2", **with_conda(tmp_path, first=first))
    made, commands = used(clone.folder)
    assert f"Activating conda environment: {made.relative_to(clone.folder)}" in output
    for command in ("bank", "sequences", "train", "evaluate", "tables", "figures", "card"):
        assert f"-m icl_transience {command}" in commands, command
    # This package is not installed there, and Snakemake passes no PYTHONPATH on.
    alone = {"args": [made / "bin/python", "-c", "import torch, icl_transience"], "cwd": tmp_path}
    done = subprocess.run(**alone, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True, check=False)
    assert "No module named 'icl_transience'" in done.stderr
    # Neither way of deploying makes again what the other has made.
    assert clone.would_run() == {}


def test_a_workflow_that_was_fetched_makes_a_study_in_the_environment_of_its_rules(tmp_path):
    deployed = fetched(tmp_path)
    (deployed / "config/study.yaml").write_text(ONE_SEED, encoding="utf-8")
    done = call(deployed, "-c2", "transience", "--sdm", "conda", **with_conda(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (deployed / "results/studies/study/transience/curves.svg").is_file()
    assert "-m icl_transience train" in used(deployed)[1]


@pytest.mark.parametrize(
    ("before", "activated", "expected"),
    [("/base", "/rule", True), ("", "/rule", True), ("/base", "/base", False), ("", "", False)],
    ids=["from another", "from none", "not activated", "no conda"],
)
def test_what_a_command_begins_with_holds_in_the_environment_of_a_rule_alone(before, activated, expected, monkeypatch):
    monkeypatch.setenv("CONDA_PREFIX", before)
    prefix = interpreter.conda_prefix().replace("{{", "{").replace("}}", "}")
    words = "echo $PATH; echo ${PYTHONPATH-none}; echo ${PYTHONNOUSERSITE-none}"
    env = {"PATH": "/usr/bin"} | ({"CONDA_PREFIX": activated} if activated else {})
    call = {
        "args": ["/bin/bash", "-c", prefix + words],
        "env": env,
        "capture_output": True,
        "text": True,
        "check": True,
    }
    path, package, alone = subprocess.run(**call).stdout.splitlines()
    there = str(Path(interpreter.__file__).parents[2])
    assert (path, package, alone) == (("/rule/bin:/usr/bin", there, "1") if expected else ("/usr/bin", "none", "none"))


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_a_prefix_that_was_there_stays_and_any_shell_takes_what_is_added(shell):
    for before, said in (("A='{x}' ; export A; ", "{x}"), (None, "")):
        prefix = interpreter.conda_prefix(before).replace("{{", "{").replace("}}", "}")
        env = {"PATH": "/usr/bin:/bin", "CONDA_PREFIX": "/rule"}
        done = subprocess.run(
            [shell, "-c", prefix + "echo ${A-} $PATH"], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [*filter(None, [said]), "/rule/bin:/usr/bin:/bin"]


def test_of_a_folder_of_packages_this_one_alone_is_lent_to_an_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_CACHE", str(tmp_path / "cache"))
    installed = tmp_path / "venv's {own}/site-packages"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src/icl_transience", installed / "icl_transience", ignore=ignored)
    (installed / "torch.py").touch()
    monkeypatch.setattr(interpreter, "__file__", str(installed / "icl_transience/system/interpreter.py"))
    lent = interpreter._library()
    assert lent == interpreter._library()
    assert [one.name for one in lent.iterdir()] == ["icl_transience"]
    code = "from icl_transience.specs import code_digest; print(code_digest.__file__)"
    call = {"args": [sys.executable, "-S", "-c", code], "env": {"PYTHONPATH": str(lent)}, "cwd": tmp_path}
    done = subprocess.run(**call, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).samefile(installed / "icl_transience/specs/code_digest.py")
