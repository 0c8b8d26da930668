"""The lock on an open file, which dies with the process that holds it; or none, where a file system has no locks."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from icl_transience.specs.errors import StudyError
from icl_transience.store import faults

VARIABLE = "ICL_LOCKS"


def are_wanted() -> bool:
    """Say whether files are to be locked: unless the environment says ICL_LOCKS=none. Raises StudyError for others."""
    if (value := os.environ.get(VARIABLE, "")) not in ("", "flock", "none"):
        raise StudyError(f"{VARIABLE} is {value!r}, expected `flock`, `none` or nothing")
    return value != "none"


@contextmanager
def opened(path: Path, *, create: bool = False) -> Iterator[IO[bytes]]:
    """Open a file to lock it: to write, as network file systems want it, or, of another user's, to read.

    create: make it if it is not there.
    """
    try:
        number = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
    except PermissionError:
        if not path.exists():
            raise
        number = os.open(path, os.O_RDONLY)
    with os.fdopen(number, "rb") as file:
        yield file


def take(file: IO[bytes], path: Path, *, wait: bool = False) -> bool:
    """Lock the open file `path` for this process alone; say whether that was possible.

    wait: until another process lets it go. Raises StudyError where the file system has no locks, or locks no file that
    we may not write to.
    """
    if not are_wanted():
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in faults.WITHOUT_LOCKS:
            raise StudyError(
                f"{path}: cannot be locked (flock: {error.strerror}), so two jobs could write one file: mount the file "
                "system with locks (Lustre: `-o flock`; NFS: with its lock daemon), name a `results` folder on another "
                f"disk, or set {VARIABLE}=none and run one snakemake at a time"
            ) from error
        # A file that is open to read is not locked by NFS.
        if error.errno == errno.EBADF:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from error
        raise
    return True
