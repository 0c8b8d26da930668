"""The Python that rules call, `python`: that of the environment in which Snakemake runs."""

import os
import shutil
import sys
from pathlib import Path


def put_on_path() -> None:
    """Let `python` be this interpreter, unless it is found on PATH already, as in an environment that is activated.

    So `.venv/bin/snakemake` works by itself. What a rule's own conda environment or container puts in front of PATH, it
    puts there later.
    """
    folder = str(Path(sys.executable).parent)
    there, found = os.environ.get("PATH", os.defpath), shutil.which("python")
    if found is None or str(Path(found).parent) != folder:
        os.environ["PATH"] = os.pathsep.join([folder, there])
