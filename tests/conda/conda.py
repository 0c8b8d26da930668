"""Stands in for conda where there is none: what Snakemake asks of it, and nothing more. `main`'s lines are its answers.

An environment is a venv in which the packages of the tests' own environment are found, but for this one, which is
installed there so that it can be edited. It notes what runs in it, in `used`. Nothing is downloaded: whether pip can
install what an environment's file lists is not tested.
"""

import json
import shutil
import site
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
# As conda does: an environment comes to the place of that which was active before, or to the front.
ACTIVATE = """
case ":$PATH:" in
    *":${CONDA_PREFIX:-nowhere}/bin:"*) PATH=${PATH/"$CONDA_PREFIX/bin"/"$1/bin"};;
    *) PATH=$1/bin:$PATH;;
esac
export PATH CONDA_PREFIX=$1
"""
NOTES = """
import os, sys
if "-m" in sys.orig_argv:
    with open(os.path.join(sys.prefix, "used"), "a") as used:
        used.write(" ".join(sys.orig_argv[1:4]) + "\\n")
"""


def install(folder: Path) -> Path:
    """Put `conda` into a folder's condabin, and its `activate` into bin; return condabin."""
    for name in ("bin", "condabin"):
        (folder / name).mkdir(parents=True)
    (folder / "bin/activate").write_text(ACTIVATE, encoding="utf-8")
    shutil.copy(__file__, folder / "condabin/conda.py")
    program = folder / "condabin/conda"
    program.write_text(f'#!/bin/sh\nexec \'{sys.executable}\' "$0.py" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return folder / "condabin"


def main(arguments: list[str]) -> None:
    """Answer a call; raises SystemExit for one that conda would not understand, or that is not foreseen."""
    match arguments:
        case ["info", "--json"]:
            print(json.dumps({"conda_prefix": str(HERE.parent), "platform": "linux-64"}))
        case ["--version"]:
            print("conda 25.1.0")
        case ["config", "--get", "channel_priority", "--json"]:
            print(json.dumps({"get": {"channel_priority": "strict"}}))
        case ["env", "create", "--quiet", "--no-default-packages", "--file", file, "--prefix", prefix]:
            create(Path(file), Path(prefix))
        case ["clean", "-y", "--tarballs"]:
            pass
        case _:
            raise SystemExit(f"conda: {arguments}: not foreseen")


def create(file: Path, prefix: Path) -> None:
    """Make an environment of a file. Raises SystemExit where what it asks for is not installed here in that version."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    (listed,) = (entry["pip"] for entry in document["dependencies"] if isinstance(entry, dict))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    (packages,) = prefix.glob("lib/python*/site-packages")
    (packages / "packages.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    (packages / "sitecustomize.py").write_text(NOTES, encoding="utf-8")
    (prefix / "listed").write_text("\n".join(listed), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
