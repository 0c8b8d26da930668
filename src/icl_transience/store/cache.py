"""Where what can be made again at any time is kept between jobs: compiled kernels, checksums of large files."""

import hashlib
import json
import os
import pwd
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_NAME = "icl-transience"


def cache_folder() -> Path:
    """Return $ICL_CACHE, or icl-transience in the user's cache folder, or else one among temporary files.

    That of ICL_CACHE need not exist yet. Raises OSError where no folder can be written to.
    """
    if named := os.environ.get("ICL_CACHE"):
        return Path(named).expanduser().absolute()
    for folder in _folders_of_user():
        if _is_made(folder):
            return folder
    # A user without a home, as one without a name in a container.
    for temporary in (tempfile.gettempdir(), "/tmp"):
        # What TMPDIR says may be relative, or missing: never a file in the folder that somebody works in.
        if not Path(temporary).is_relative_to(Path.cwd()) and _is_private(folder := _private(temporary)):
            return folder
    raise OSError("no folder for a cache can be written to, neither in XDG_CACHE_HOME or HOME nor in TMPDIR")


def compiler_words() -> list[str]:
    """Return the words of CXX, which compiles kernels; `c++` where it is not set, empty or has an odd quote."""
    try:
        words = shlex.split(os.environ.get("CXX", ""))
    except ValueError:
        words = []
    return words if words and words[0] else ["c++"]


def _folders_of_user() -> Iterator[Path]:
    """Yield icl-transience in XDG_CACHE_HOME and in the home folder's .cache; a relative path is as one not set."""
    home = os.environ.get("HOME")
    if not home:
        with suppress(KeyError):
            home = pwd.getpwuid(os.getuid()).pw_dir
    for folder in (os.environ.get("XDG_CACHE_HOME"), f"{home}/.cache" if home else None):
        if folder and os.path.isabs(folder):
            yield Path(folder, _NAME)


def _is_made(folder: Path) -> bool:
    """Make a folder unless it is there; say whether it can be written to."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return os.access(folder, os.W_OK | os.X_OK)


def _private(temporary: str) -> Path:
    """Return this user's folder among temporary files, made for this user alone if it is not there."""
    folder = Path(temporary, f"{_NAME}-{os.getuid()}")
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    return folder


def _is_private(folder: Path) -> bool:
    """Say whether a folder is this user's to write to and nobody else's: what is kept there, jobs run."""
    try:
        about = folder.lstat()
    except OSError:
        return False
    others = stat.S_IWGRP | stat.S_IWOTH
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & others


def note(kind: str, known: Any) -> str:
    """Return the name of a note about something that would take long to find out again.

    known: what it is about, as values of JSON: path, size and time of a file, say. Others give another note.
    """
    return f"{hashlib.sha256(json.dumps(known).encode()).hexdigest()}.{kind}"


def read_note(name: str) -> str | None:
    """Return what a note says; None where there is none that can be read."""
    try:
        return (cache_folder() / name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def write_note(name: str, found: str) -> None:
    """Write a note. Where there is no folder for it, that costs time at the next call and nothing else."""
    with suppress(OSError):
        path = (folder := cache_folder()) / name
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{name}.{os.getpid()}.tmp")
        temporary.write_text(found, encoding="utf-8")
        temporary.rename(path)
