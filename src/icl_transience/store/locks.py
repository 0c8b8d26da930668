"""Locks that die with their holder: who is writing which file, and which pack is training."""

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from icl_transience.specs.errors import StudyError
from icl_transience.store.atomic import FORBIDDEN, UNWRITABLE, create, explained


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
    """List what living processes are making under `folder` now: files, and folders of packs that are training."""
    files = {_target(path) for path in folder.rglob(".*.tmp") if is_held(path)}
    return sorted(files | {lock.parent for lock in folder.glob("packs/*/.lock") if is_held(lock)})


def _target(temporary: Path) -> Path:
    """Return the file that a temporary file becomes; see atomic.create."""
    return temporary.with_name(temporary.name[1:].rsplit(".", 2)[0])


@contextmanager
def locked(path: Path, *, wait: bool = False, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive flock on `path`; it dies with the process.

    wait: wait for another process that holds it, after calling `on_wait` once.
    Raises StudyError where another process holds it and `wait` is False.
    """
    with explained(path):
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise StudyError(f"{path.parent}: another process is writing here: wait for it, or stop it") from None
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_held(path: Path) -> bool:
    """Say whether a living process holds the lock on `path`, on any machine whose locks the file system shares."""
    try:
        # For writing, as network file systems want it of an exclusive lock.
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        # Where nobody can write, nobody writes.
        if error.errno not in {errno.ENOENT} | UNWRITABLE | FORBIDDEN:
            raise
    return False
