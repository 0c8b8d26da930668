"""What is pinned, and where."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "envs" / name).read_text().splitlines()
    matches = (re.match(r"(?: *- )?([\w.-]+)==(\S+)", line) for line in lines)
    return dict(match.groups() for match in matches if match)


def test_everything_the_package_needs_is_pinned_and_justified():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split("[>=<]", need)[0] for need in project["dependencies"]}
    assert names == set(pins("requirements.txt"))
    for extra in ("test", "gpu-test", "docs"):
        assert set(project["optional-dependencies"][extra]) == set(pins(f"requirements-{extra}.txt"))
    for name in (f"requirements{kind}.txt" for kind in ("", "-test", "-gpu-test", "-triton-3.6", "-docs")):
        lines = [line for line in (ROOT / "envs" / name).read_text().splitlines() if "==" in line]
        assert all(re.search(r"# \w", line) for line in lines)


def test_no_version_is_constrained_twice():
    constrained = {name.lower() for name in pins("constraints.txt")}
    required = pins("requirements.txt") | pins("requirements-test.txt") | pins("requirements-docs.txt")
    assert not constrained & {name.lower() for name in required}


def test_triton_is_constrained_to_the_version_whose_interpreter_and_compiler_the_tests_run():
    """PyTorch's builds for CUDA bring it along without being asked."""
    assert pins("requirements-gpu-test.txt").items() <= pins("constraints.txt").items()


def test_hooks_before_a_commit_are_programs_that_are_pinned_here():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    programs = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert programs == {"pyright", "ruff", "snakefmt", "typos"}
    # pyright is pinned with the types that it checks.
    assert programs - {"pyright"} <= pins("requirements-test.txt").keys()
