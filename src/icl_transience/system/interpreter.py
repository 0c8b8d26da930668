"""The Python that rules call, `python`: that of the environment in which Snakemake runs."""

import hashlib
import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from icl_transience.store.cache import cache_folder


def put_on_path() -> None:
    """Let `python` be this interpreter, unless it is found on PATH already, as in an environment that is activated.

    So `.venv/bin/snakemake` works by itself.
    """
    folder = str(Path(sys.executable).parent)
    there, found = os.environ.get("PATH", os.defpath), shutil.which("python")
    if found is None or str(Path(found).parent) != folder:
        os.environ["PATH"] = os.pathsep.join([folder, there])


def conda_prefix(before: str | None = None) -> str:
    """Return what commands begin with where rules run in conda environments of their own, for `shell.prefix`.

    There a rule's environment has been activated, another than the one of this process, if that is in one. Its programs
    come first: conda puts them in the place of those of the environment before, which may stand behind this Python's
    own. This package, which environments lack, is found by PYTHONPATH: Snakemake takes the variable out of what such a
    command inherits, so that the command has to set it. Packages of the user's own would come before what is pinned.
    Braces are doubled, since `shell.prefix` fills in what stands in single ones.

    before: what commands began with, which stays; None: what Snakemake has them begin with, in bash alone. Raises
    OSError where no folder can be written to.
    """
    active, package = shlex.quote(os.environ.get("CONDA_PREFIX", "")), shlex.quote(str(_library()))
    words = (
        f'[ -z "${{CONDA_PREFIX:-}}" ] || [ "$CONDA_PREFIX" = {active} ] || '
        f'export PATH="$CONDA_PREFIX/bin:$PATH" PYTHONPATH={package} PYTHONNOUSERSITE=1; '
    )
    first = '[ -z "${BASH_VERSION:-}" ] || set -euo pipefail; ' if before is None else before
    return (first + words).replace("{", "{{").replace("}", "}}")


def _library() -> Path:
    """Return a folder from which Python imports this package, and none of the packages installed beside it."""
    package = Path(__file__).parents[1]
    if package.parent.name not in ("site-packages", "dist-packages"):
        return package.parent
    folder = cache_folder() / "library" / hashlib.sha256(str(package).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / package.name).symlink_to(package)
    return folder
