"""The Makefile: whatever its folder's name and whatever it is told, it touches that folder's environment alone."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from pipeline import ROOT, Clone
from snakemake.cli import parse_config

# Parts of a path that a shell, make, pip or Snakemake reads as something else.
PLACES = [
    "lab projects/app",
    "it's/app",
    'a "quoted" one/app',
    "$HOME $PWD $(touch was-here) `touch was-here`/app",
    "a #1/app",
    "100% $$ %s/app",
    "Größe/äpp",
    "a;b & c|d/app",
    "back\\slash \\n/app",
    "-rf/-rf",
    "~/*",
    "[a]? (b)/app",
]
NO_PLACES = ["a:b/app", "a {b}/app", "two\nlines/app"]


def make(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    # Of a make that runs these tests, and of a shell that calls them, nothing is passed on.
    of_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEFILES", "STUDY", "PYTHON", "TORCH_INDEX", "PWD")
    outside = {key: value for key, value in os.environ.items() if key not in of_make}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=outside | env, capture_output=True, text=True, timeout=300)


def checkout(folder: Path) -> Path:
    """A folder with the Makefile, what it installs from, and an environment."""
    (folder / ".venv/bin").mkdir(parents=True)
    shutil.copytree(ROOT / "envs", folder / "envs")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def neighbours(tmp_path: Path, place: str) -> None:
    """Folders that a path cut at its spaces or a pattern in it would name, each with a file."""
    words = {word for part in (place, f"{place}/.venv") for word in part.split()}
    for folder in {tmp_path / word for word in words} | {tmp_path / place / word for word in words}:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "precious").touch()
    (tmp_path / "precious").touch()


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def python(path: Path, record: Path) -> Path:
    """A Python that notes how it is called, and makes environments with one like it."""
    path.write_text(
        "#!/bin/bash\n"
        f'{{ printf \'%s\\0\' "$(command -v python)" "$PWD" "$@"; printf \'\\n\'; }} >> {shlex.quote(str(record))}\n'
        'if [[ "$1 $2" == "-m venv" ]]; then mkdir -p -- "$3/bin"; cp -- "$0" "$3/bin/python"; fi\n'
    )
    path.chmod(0o755)
    return path


def calls(record: Path) -> list[list[str]]:
    """The `python` that the shell would find, the working folder and the arguments of every call."""
    return [line.removesuffix("\0").split("\0") for line in record.read_text().split("\n")[:-1]]


@pytest.mark.parametrize("place", [*PLACES, *NO_PLACES])
def test_clean_removes_the_environment_of_its_own_folder_and_nothing_else(tmp_path, place):
    folder = checkout(tmp_path / place)
    neighbours(tmp_path, place)
    # A neighbour's environment may bear that name too; ours is the one that goes.
    expected = {path for path in tree(tmp_path) if folder / ".venv" not in (path, *path.parents)}
    done = make(folder, "clean")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == expected


@pytest.mark.parametrize("name", ["VENV", "CURDIR", "INSTALLED", "PWD", "PYTHON", "STUDY"])
def test_no_setting_leads_clean_elsewhere(tmp_path, name):
    (tmp_path / "home/.venv").mkdir(parents=True)
    home = str(tmp_path / "home")
    for arguments, env in (((f"{name}={home}",), {}), ((), {name: home}), (("-e",), {name: home})):
        folder = checkout(tmp_path / f"lab projects/app {len(arguments)}{len(env)}")
        done = make(folder, "clean", *arguments, **env)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "home/.venv").is_dir()
        assert not (folder / ".venv").exists()


@pytest.mark.parametrize("place", ["app", "lab projects/app"])
@pytest.mark.parametrize("target", ["clean", "study"])
def test_in_another_folder_than_its_own_the_makefile_does_nothing(tmp_path, place, target):
    folder = checkout(tmp_path / place)
    (tmp_path / ".venv").mkdir()
    before = tree(tmp_path)
    done = make(tmp_path, "-f", str(folder / "Makefile"), target)
    assert done.returncode != 0
    assert "run make in the folder of this Makefile" in done.stderr
    assert tree(tmp_path) == before


@pytest.mark.parametrize("copy", ["copy of Makefile", "x Makefile"])
def test_a_copy_whose_name_ends_in_makefile_does_nothing_in_another_folder(tmp_path, copy):
    folder, other = checkout(tmp_path / "app"), checkout(tmp_path / "other")
    (folder / "Makefile").rename(folder / copy)
    (other / "Makefile").unlink()
    before = tree(tmp_path)
    done = make(other, "-f", f"../app/{copy}", "clean")
    assert done.returncode != 0
    assert "run make in the folder of this Makefile" in done.stderr
    assert tree(tmp_path) == before


@pytest.mark.parametrize("given", ["in the environment", "on the command line"])
@pytest.mark.parametrize("name", ["BASH_ENV", "ENV", "BASH_FUNC_rm%%", "SHELL"])
def test_nothing_that_a_shell_runs_first_leads_clean_elsewhere(tmp_path, name, given):
    folder = checkout(tmp_path / "app")
    (tmp_path / "home/.venv").mkdir(parents=True)
    script = tmp_path / "rc"
    script.write_text(f'#!/bin/bash\ncd {tmp_path}/home\n[[ $1 == -* ]] && exec /bin/bash "$@"\n')
    script.chmod(0o755)
    value = f'() {{ cd {tmp_path}/home; command rm "$@"; }}' if name.startswith("BASH_FUNC") else str(script)
    done = (
        make(folder, "clean", **{name: value})
        if given == "in the environment"
        else make(folder, "clean", f"{name.replace('%', '_')}={value}")
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home/.venv").is_dir()
    assert not (folder / ".venv").exists()


def test_an_environment_that_is_a_link_is_unlinked_and_not_emptied(tmp_path):
    folder = checkout(tmp_path / "app")
    (tmp_path / "shared/bin").mkdir(parents=True)
    shutil.rmtree(folder / ".venv")
    (folder / ".venv").symlink_to(tmp_path / "shared")
    assert make(folder, "clean").returncode == 0
    assert (tmp_path / "shared/bin").is_dir()
    assert not (folder / ".venv").is_symlink()


@pytest.mark.parametrize("place", PLACES)
def test_the_environment_is_made_in_the_folder_itself_and_used_from_there(tmp_path, place):
    folder = checkout(tmp_path / place)
    neighbours(tmp_path, place)
    shutil.rmtree(folder / ".venv")
    before = tree(tmp_path)
    record = tmp_path / "called"
    fake = python(tmp_path / "my $python's", record)
    done = make(folder, f"PYTHON={fake}", "TORCH_INDEX=https://x.org/a b$c")
    assert done.returncode == 0, done.stderr
    made = tree(tmp_path) - before - {record, fake}
    assert made == {folder / ".venv", *(folder / ".venv" / name for name in ("bin", "bin/python", ".installed"))}
    asked, venv, index, install, editable, study = calls(record)
    assert asked[2] == "-c"
    assert venv[2:] == ["-m", "venv", ".venv"]
    assert index[2:6] == ["-m", "pip", "index", "versions"]
    assert index[-2:] == ["--index-url", "https://x.org/a b$c"]
    assert install[2:9] == ["-m", "pip", "install", "--no-user", "--quiet", "--extra-index-url", "https://x.org/a b$c"]
    assert editable[-3:] == ["--no-deps", "-e", "."]
    assert {call[1] for call in calls(record)} == {str(folder)}
    # Jobs say `python` and get this one.
    assert study[0] == str(folder / ".venv/bin/python")
    assert study[2:] == ["-m", "snakemake"]


def test_an_index_that_does_not_answer_is_said_to_before_anything_is_installed(tmp_path):
    """By pip itself, which knows of proxies and certificates. Nobody listens on port 9."""
    folder = checkout(tmp_path / "app")
    shutil.rmtree(folder / ".venv")
    began = time.monotonic()
    done = make(folder, f"PYTHON={sys.executable}", "TORCH_INDEX=http://127.0.0.1:9/whl/cpu")
    assert done.returncode != 0
    assert "TORCH_INDEX: http://127.0.0.1:9/whl/cpu does not answer, or has no torch for this Python" in done.stderr
    assert time.monotonic() - began < 120, "asked once, not for every package"
    assert not list((folder / ".venv/lib").glob("python*/site-packages/numpy"))


ELSEWHERE = {"PIP_USER": "1", "PIP_TARGET": "{tmp}/target", "PIP_PREFIX": "{tmp}/prefix", "PIP_ROOT": "{tmp}/root"}
ELSEWHERE["PIP_CONFIG_FILE"] = "{tmp}/pip.conf"


def test_packages_go_into_the_environment_whatever_pip_is_told_elsewhere(tmp_path):
    """By the real pip; what there is to install is a package of this test's own."""
    folder = checkout(tmp_path / "app")
    shutil.rmtree(folder / ".venv")
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    (package / "backend.py").write_text(BACKEND)
    for name in ("requirements.txt", "requirements-test.txt", "constraints.txt"):
        (folder / "envs" / name).write_text(f"tiny @ {package.as_uri()}\n" if name == "requirements.txt" else "")
    for name in ("pyproject.toml", "backend.py"):
        shutil.copy(package / name, folder)
    (tmp_path / "pip.conf").write_text("[install]\nuser = true\n")
    settings = {name: value.format(tmp=tmp_path) for name, value in ELSEWHERE.items()}
    done = make(folder, ".venv/.installed", f"PYTHON={sys.executable}", HOME=str(tmp_path / "home"), **settings)
    assert done.returncode == 0, done.stderr
    assert list((folder / ".venv/lib").glob("python*/site-packages/tiny.py"))
    assert not list(tmp_path.glob("target")) + list(tmp_path.glob("prefix")) + list(tmp_path.glob("root"))


# Makes the wheel of one module, without a package for it: the tests need no network.
BACKEND = """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(folder + "/tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    return "tiny-1-py3-none-any.whl"
build_editable = build_wheel
"""

STUDIES = [
    "omniglot",
    "2024",
    "yes",
    "my study.yaml",
    'it\'s "mine" $HOME $$ ${x} #1 100% \\n.yaml',
    "$(shell touch was-here) $(touch was-here) `touch was-here`; touch was-here.yaml",
    "größe: [1, 2].yaml",
    "- {a: b}, &c *d.yaml",
]


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("given", ["on the command line", "in the environment"])
def test_a_study_reaches_snakemake_as_it_was_given(tmp_path, study, given):
    folder = checkout(tmp_path / "lab projects/app")
    record = tmp_path / "called"
    python(folder / ".venv/bin/python", record)
    (folder / ".venv/.installed").touch()
    done = make(folder, f"STUDY={study}") if given == "on the command line" else make(folder, STUDY=study)
    assert done.returncode == 0, done.stderr
    (snakemake,) = (call[2:] for call in calls(record))
    assert snakemake[:3] == ["-m", "snakemake", "--config"]
    assert parse_config(snakemake[3:]) == {"study": study}
    assert not list(tmp_path.rglob("was-here"))


@pytest.mark.parametrize("target", ["study", "test", "test-quick", "test-all", "lint", "docs", "unlock"])
@pytest.mark.parametrize("place", NO_PLACES)
def test_a_folder_that_path_or_snakemake_cannot_name_is_refused_before_anything_is_touched(tmp_path, place, target):
    folder = checkout(tmp_path / place)
    shutil.rmtree(folder / ".venv")
    fake = python(tmp_path / "python", tmp_path / "called")
    before = tree(tmp_path)
    done = make(folder, target, f"PYTHON={fake}")
    assert done.returncode != 0
    assert "a colon, a brace or a line break in its path: move this one" in done.stderr
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["a:b", "two\nlines", "line\n"])
def test_a_link_does_not_hide_a_path_that_cannot_be_named(tmp_path, name):
    folder = checkout(tmp_path / name / "app" if name != "line\n" else tmp_path / name)
    (tmp_path / "link").symlink_to(folder)
    shutil.rmtree(folder / ".venv")
    before = tree(tmp_path)
    # As a shell that has gone through the link says it.
    done = make(tmp_path / "link", "study", PWD=str(tmp_path / "link"))
    assert done.returncode != 0
    assert "a colon, a brace or a line break in its path: move this one" in done.stderr
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["file", "link"])
def test_an_environment_that_is_no_folder_is_refused_in_words(tmp_path, kind):
    folder = checkout(tmp_path / "app")
    shutil.rmtree(folder / ".venv")
    (folder / ".venv").touch() if kind == "file" else (folder / ".venv").symlink_to(tmp_path / "nowhere")
    done = make(folder, "study")
    assert done.returncode != 0
    assert ".venv is no folder but a file, or a link to nothing: move it away" in done.stderr
    assert make(folder, "clean").returncode == 0
    assert not (folder / ".venv").is_symlink()
    assert not (folder / ".venv").exists()


TINY = """
description: made by `make`
defaults:
  bank: {source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2, dim: 4}}
  model: {width: 16, heads: 2}
  snapshots: {first: 256, every: 512}
  evaluation: {sequences: 64}
  horizon: 512
  seeds: [0]
experiments: {transience: {question: "does it come and go?"}}
"""


def test_make_runs_a_study_in_a_folder_of_any_name(tmp_path):
    clone = Clone.make(tmp_path / "lab projects" / 'ä pp\'s "x" $HOME #1 100% `touch was-here` \\n ;& [a]*')
    study = 'my study\'s "$HOME" #1 100%'
    (clone.folder / "own studies").mkdir()
    (clone.folder / "own studies" / f"{study}.yaml").write_text(TINY)
    settings = yaml.safe_load((clone.folder / "config.yaml").read_text())
    results = 'my "res\'ults" $HOME #1 ä'
    (clone.folder / "config.yaml").write_text(yaml.safe_dump(settings | {"results": results}))
    shutil.copy(ROOT / "Makefile", clone.folder)
    shutil.copy(ROOT / "pyproject.toml", clone.folder)
    (clone.folder / ".venv/bin").mkdir(parents=True)
    interpreter = clone.folder / ".venv/bin/python"
    interpreter.write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n')
    interpreter.chmod(0o755)
    (clone.folder / ".venv/.installed").touch()
    done = make(clone.folder, f"STUDY=own studies/{study}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = clone.folder / results / "studies" / study / "transience"
    assert (folder / "curves.svg").is_file()
    # Once, and last: what was found and where the figure is.
    assert (done.stdout + done.stderr).count("transience, baseline: ") == 1
    assert done.stdout.splitlines()[-1].endswith("transience/curves.svg")
    again = make(clone.folder, f"STUDY=own studies/{study}.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    in_yaml = f"own studies/{study}.yaml".replace("'", "''")
    for target, said in (("report", "report: "), ("orphans", "nothing that no study refers to"), ("status", "done")):
        care = clone.snakemake(target, config=(f"study= '{in_yaml}' ",))
        assert care.returncode == 0, care.stdout + care.stderr
        assert said in care.stdout
    assert not list(tmp_path.rglob("was-here"))
