"""Locks that die with their holder: who is writing which file, and which pack is training."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from icl_transience.specs.errors import StudyError
from icl_transience.store import faults, flock
from icl_transience.store.atomic import create, explained, share


@contextmanager
def announced(path: Path) -> Iterator[None]:
    """Mark `path` as being made, by a locked temporary file beside it, until the block ends; see `live_writers`."""
    with explained(path):
        marker, lock = create(path)
    with lock:
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)


def live_writers(folder: Path) -> list[Path]:
    """List what living processes are making under `folder` now: files, and folders of packs that are training.

    Raises StudyError where that cannot be known, because nothing is locked.
    """
    if not flock.are_wanted():
        raise StudyError(
            f"{flock.VARIABLE}=none: jobs at work lock nothing, so none can be seen from here: look for "
            "`icl_transience` among the processes (`ps`, `squeue`), and where there is none say `snakemake --unlock`"
        )
    files = {_target(path) for path in _temporaries(folder) if is_held(path)}
    return sorted(files | {lock.parent for lock in folder.glob("packs/*/.lock") if is_held(lock)})


def _temporaries(folder: Path) -> Iterator[Path]:
    """Yield the temporary files under `folder`. A folder that is a link is gone into, once however often it is met."""
    seen: set[tuple[int, int]] = set()
    for name, folders, names in os.walk(folder, followlinks=True):
        about = os.stat(name)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        yield from (Path(name, one) for one in names if one.startswith(".") and one.endswith(".tmp"))


def _target(temporary: Path) -> Path:
    """Return the file that a temporary file becomes; see atomic.create."""
    return temporary.with_name(temporary.name[1:].rsplit(".", 2)[0])


@contextmanager
def locked(path: Path, *, wait: bool = False, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock on `path`; it dies with the process.

    wait: wait for another process that holds it, after calling `on_wait` once.
    Raises StudyError where another process holds it and `wait` is False, and where nothing can be locked.
    """
    with contextlib.ExitStack() as stack:
        with explained(path):
            file = stack.enter_context(flock.opened(path, create=True))
            share(path)
            taken = flock.take(file, path)
        if not taken:
            if not wait:
                raise StudyError(f"{path.parent}: another process is writing here: wait for it, or stop it")
            on_wait()
            flock.take(file, path, wait=True)
        yield


def is_held(path: Path) -> bool:
    """Say whether a living process holds the lock on `path`, on any machine whose locks the file system shares.

    A file of another user that cannot be asked counts as held.
    """
    try:
        with flock.opened(path) as file:
            return not flock.take(file, path)
    except OSError as error:
        if error.errno in faults.FORBIDDEN:
            return True
        # Where nobody can write, nobody writes.
        if error.errno not in {errno.ENOENT} | faults.UNWRITABLE:
            raise
    return False
