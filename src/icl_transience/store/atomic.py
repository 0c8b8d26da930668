"""Files that are whole or absent: written under a temporary name, renamed when complete."""

import glob
import itertools
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from icl_transience.specs.errors import StudyError
from icl_transience.store import faults, flock

# Suffix of a file that is not what its name promises.
DAMAGED = ".damaged"
AGAIN = "run the same snakemake command again to rebuild it"

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
                make_folder(name.parent)
                temporary.rename(name)
            finally:
                temporary.unlink(missing_ok=True)


def create(path: Path) -> tuple[Path, IO[bytes]]:
    """Create a temporary file beside `path`; return it and its open, locked file. Remove those of killed writers."""
    make_folder(path.parent)
    clear_temporaries(path)
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        lock = temporary.open("xb")
        try:
            flock.take(lock, temporary, wait=True)
        except StudyError:
            temporary.unlink()
            lock.close()
            raise
        # Between these two lines another process may have taken it for an abandoned one.
        if temporary.exists():
            share(temporary)
            return temporary, lock
        lock.close()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless they are there; see `share`."""
    missing = list(itertools.takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    for one in reversed(missing):
        # Another process may make it at the same time.
        one.mkdir(exist_ok=True)
        share(one)


def share(path: Path) -> None:
    """Give a group the owner's rights to a new file, where the folder is meant for a group, whatever the umask is.

    Such a folder has the setgid bit, by which a new file is of its group, and the group may write to it.
    """
    wanted = stat.S_ISGID | stat.S_IWGRP
    if path.parent.stat().st_mode & wanted == wanted:
        # Where it is not ours, another process made it and shares it.
        with suppress(PermissionError, FileNotFoundError):
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (mode & stat.S_IRWXU) >> 3)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the errors of a disk that is full or not ours to write to into a StudyError that names the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if (problem := _unwritable(error, path)) is None:
            raise
        raise StudyError(f"{path}: cannot be written {problem}, and run the same snakemake command again") from error


def _unwritable(error: Exception, path: Path) -> str | None:
    """Say what keeps `path` from being written, and what to do, if `error` is about that."""
    number, named = faults.number_of(error), str(getattr(error, "filename", None) or "")
    if number is None:
        return None
    if number in faults.UNWRITABLE:
        return f"({os.strerror(number)}): {faults.room(number)}"
    # A right that is missing elsewhere says nothing about this file.
    if number in faults.FORBIDDEN and named and Path(named).is_relative_to(path.parent):
        what = Path(named) if Path(named).exists() else path.parent
        return f"({os.strerror(number)}): {what}: {faults.forbidding(what)}: ask them to make it writable (`chmod g+w`)"
    return None


def check_room(path: Path, needed: int) -> None:
    """Raise StudyError where the disk of `path` has not `needed` bytes left."""
    make_folder(path.parent)
    if (free := shutil.disk_usage(path.parent).free) < needed:
        raise StudyError(
            f"{path}: takes about {needed / 2**20:,.1f} MiB, but its disk has {free / 2**20:,.1f} MiB left: make room "
            "and run the same snakemake command again"
        )


def clear_temporaries(path: Path) -> None:
    """Remove the temporary files of killed writers of `path`; those of living ones are locked.

    Those of other users that we may not remove are in nobody's way.
    """
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        # Another process may clear as well.
        with suppress(FileNotFoundError, PermissionError), flock.opened(temporary) as file:
            if flock.take(file, temporary):
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
        make_folder(target.parent)
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


def read_planned(path: Path) -> Any:
    """Read an experiment.json or claims.json, which snakemake writes when it starts.

    Raises StudyError where the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{path}: cannot be read ({error}): run snakemake, which writes it when it starts (a "
            "workflow that has this one as its module M does so by `onstart: M.onstart()`)"
        ) from error
