"""Files that are whole or absent: written under a temporary name, renamed when complete."""

import errno
import fcntl
import glob
import json
import os
import secrets
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from icl_transience.specs.errors import StudyError

# Suffix of a file that is not what its name promises.
DAMAGED = ".damaged"
AGAIN = "run the same snakemake command again to rebuild it"
# No room, over quota, read-only, too large for the file system: a person has to mend these, and can.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM}


Refusal = TypeVar("Refusal", bound=StudyError)


@contextmanager
def replacing(path: Path, target: Callable[[], Path] | None = None) -> Iterator[Path]:
    """Open an empty file beside `path` to write to; rename it to `path` when the block ends without an exception.

    It is locked meanwhile: so others can tell a file being written from one whose writer was killed. The latter are
    removed here. target: returns, at the end, another name in place of `path`.
    Raises StudyError where there is no room or no right to write.
    """
    with explained(path):
        temporary, lock = create(path)
        with lock:
            try:
                yield temporary
                os.fsync(lock.fileno())
                name = target() if target else path
                name.parent.mkdir(exist_ok=True)
                temporary.rename(name)
            finally:
                temporary.unlink(missing_ok=True)


def create(path: Path) -> tuple[Path, IO[bytes]]:
    """Create a temporary file beside `path`; return it and its open, locked file. Remove those of killed writers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_temporaries(path)
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        lock = temporary.open("xb")
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Between these two lines another process may have taken it for an abandoned one.
        if temporary.exists():
            return temporary, lock
        lock.close()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the errors of a disk that is full or not ours to write to into a StudyError that names the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if (problem := _unwritable(error, path)) is None:
            raise
        raise StudyError(
            f"{path}: cannot be written ({problem}): make room, or the folder writable, and run the same snakemake "
            "command again"
        ) from error


def _unwritable(error: Exception, path: Path) -> str | None:
    """Say what keeps `path` from being written, if `error` is about that; HDF5 has the number in its text."""
    named = str(getattr(error, "filename", None) or "")
    # A right that is missing elsewhere says nothing about this file.
    numbers = UNWRITABLE | (FORBIDDEN if named.startswith(str(path.parent)) else set())
    for number in numbers:
        if getattr(error, "errno", None) == number or f"errno = {number}," in str(error):
            return os.strerror(number)
    return None


def check_room(path: Path, needed: int) -> None:
    """Raise StudyError where the disk of `path` has not `needed` bytes left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(path.parent).free) < needed:
        raise StudyError(
            f"{path}: takes about {needed / 2**20:,.1f} MiB, but its disk has {free / 2**20:,.1f} MiB left: make room "
            "and run the same snakemake command again"
        )


def clear_temporaries(path: Path) -> None:
    """Remove the temporary files of killed writers of `path`; those of living ones are locked."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        # Another process may clear as well, or be writing.
        with suppress(FileNotFoundError, BlockingIOError), temporary.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


def write(path: Path, make: Callable[[Path], object]) -> None:
    """Run `make` on a temporary name and rename the result to `path`."""
    with replacing(path) as temporary:
        make(temporary)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as a whole, unless the file has that text already."""
    if not path.exists() or path.read_bytes() != text.encode():
        write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def unusable(path: Path, reason: str, error: type[Refusal] = StudyError) -> Refusal:
    """Move a damaged file aside, so that Snakemake makes it again; return the error to raise."""
    aside = path.with_name(path.name + DAMAGED)
    try:
        path.replace(aside)
    except OSError as refusal:
        return error(f"{path}: {reason}: move this file away ({refusal.strerror}, from here), and {AGAIN}")
    return error(f"{path}: {reason}: moved to {aside}: {AGAIN}")


def link(source: Path, target: Path, *, touch: bool = False) -> None:
    """Make `target` a second name of the file `source`, replacing any file of that name; touch: set its time to now."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.link")
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                os.link(source, temporary)
            except OSError:  # a file system without hard links: a copy costs space, not correctness
                shutil.copy2(source, temporary)
            if touch:
                os.utime(temporary)
            # Renaming a link onto another name of the same file does nothing, and leaves the link.
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)


# What zipfile raises on archives that are damaged, encrypted or of a kind it does not know.
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, RuntimeError, ValueError, EOFError)


def read_planned(path: Path) -> Any:
    """Read an experiment.json or claims.json, which snakemake writes when it starts.

    Raises StudyError where the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({error}): run snakemake, which writes it when it starts") from error
