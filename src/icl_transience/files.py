"""Files that are whole or absent, and locks that die with their holder."""

import errno
import fcntl
import glob
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from icl_transience.spec import StudyError

CHECKSUMS = "SHA256SUMS"
# What a file that is not what its name promises is called from then on.
DAMAGED = ".damaged"
AGAIN = "run the same snakemake command again to rebuild it"
# No room, over quota, read-only, too large for the file system: what a person has to mend, and can.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


@contextmanager
def replacing(path: Path, target: Callable[[], Path] | None = None) -> Iterator[Path]:
    """An empty file beside `path` to write to; renamed to `path` when the block ends without an exception.

    It is locked meanwhile, so that others can tell a file being written from one whose writer was killed; the latter
    are removed here. target: asked at the end for another name in place of `path`. Raises StudyError where there is no
    room or no right to write.
    """
    with _explained(path):
        temporary, lock = _create(path)
        with lock:
            try:
                yield temporary
                os.fsync(lock.fileno())
                name = target() if target else path
                name.parent.mkdir(exist_ok=True)
                temporary.rename(name)
            finally:
                temporary.unlink(missing_ok=True)


def _create(path: Path) -> tuple[Path, IO[bytes]]:
    """A new temporary file beside `path`, and the lock on it; those that killed writers left are removed."""
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
def _explained(path: Path) -> Iterator[None]:
    """Turns the errors of a disk that is full or not ours to write to into a StudyError that names the file."""
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
    """What keeps `path` from being written, where that is what `error` says; else None. HDF5 says it in its text."""
    named = str(getattr(error, "filename", None) or "")
    # A right that is missing elsewhere says nothing about this file.
    numbers = _UNWRITABLE | (_FORBIDDEN if named.startswith(str(path.parent)) else set())
    for number in numbers:
        if getattr(error, "errno", None) == number or f"errno = {number}," in str(error):
            return os.strerror(number)
    return None


def check_room(path: Path, needed: int) -> None:
    """Raises StudyError where the disk of `path` has not `needed` bytes left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(path.parent).free) < needed:
        raise StudyError(
            f"{path}: takes about {needed / 2**20:,.1f} MiB, but its disk has {free / 2**20:,.1f} MiB left: make room "
            "and run the same snakemake command again"
        )


def clear_temporaries(path: Path) -> None:
    """Removes what killed writers of `path` left; those of living ones are locked."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        # Another process may clear as well, or be writing.
        with suppress(FileNotFoundError, BlockingIOError), temporary.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


@contextmanager
def announced(path: Path) -> Iterator[None]:
    """Says, by a locked temporary file beside `path`, that a job is at work on it; see `live_writers`."""
    with _explained(path):
        marker, lock = _create(path)
    with lock:
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)


def live_writers(folder: Path) -> list[Path]:
    """What living processes are making under `folder` now: files, and the folders of packs that are training."""
    files = {_target(path) for path in folder.rglob(".*.tmp") if is_held(path)}
    return sorted(files | {lock.parent for lock in folder.glob("packs/*/.lock") if is_held(lock)})


def _target(temporary: Path) -> Path:
    return temporary.with_name(temporary.name[1:].rsplit(".", 2)[0])


def write(path: Path, make: Callable[[Path], object]) -> None:
    """Runs `make` on a temporary name and renames the result to `path`."""
    with replacing(path) as temporary:
        make(temporary)


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` as a whole, unless that is what stands there."""
    if not path.exists() or path.read_bytes() != text.encode():
        write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """SHA256SUMS of these files of `folder`, as `sha256sum -c` reads it."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names]
    write(folder / CHECKSUMS, lambda temporary: temporary.write_text("".join(lines), encoding="utf-8"))


def check_checksums(folder: Path, names: Iterable[str], *, move: bool = True) -> None:
    """Raises StudyError where one of these files of `folder` is not what SHA256SUMS says.

    It is moved aside then; not so with `move=False`, for readers that come while jobs may be writing.
    """
    sums = folder / CHECKSUMS
    try:
        found = {name: _sha256(folder / name) for name in names}
        lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise StudyError(f"{error.filename}: cannot be read ({error.strerror}): {AGAIN}") from error
    for name, digest in found.items():
        if f"{digest}  {name}" not in lines:
            damaged = folder / name if any(line.endswith(f"  {name}") for line in lines) else sums
            reason = f"{name} and {CHECKSUMS} contradict each other"
            if move:
                raise unusable(damaged, reason)
            raise StudyError(
                f"{damaged}: {reason}: unless a job is writing it now, delete it, and snakemake makes it again"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unusable(path: Path, reason: str, error: type[StudyError] = StudyError) -> StudyError:
    """Moves a file that is not what its name promises aside, so that Snakemake makes it again; the error to raise."""
    aside = path.with_name(path.name + DAMAGED)
    try:
        path.replace(aside)
    except OSError as refusal:
        return error(f"{path}: {reason}: move this file away ({refusal.strerror}, from here), and {AGAIN}")
    return error(f"{path}: {reason}: moved to {aside}: {AGAIN}")


def link(source: Path, target: Path, *, touch: bool = False) -> None:
    """Makes `target` a second name of the file `source`, in place of what had that name; touch: dated now."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.link")
    with _explained(target):
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


@contextmanager
def locked(path: Path, *, wait: bool = False, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds an exclusive flock on `path`; it dies with the process. Raises StudyError if held and not `wait`.

    on_wait is called once where another process holds it.
    """
    with _explained(path):
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
    """Whether a living process holds the lock on `path`; one on another machine too, where the file system says so."""
    try:
        # For writing, as network file systems want it of an exclusive lock.
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        # Where nobody can write, nobody writes.
        if error.errno not in {errno.ENOENT} | _UNWRITABLE | _FORBIDDEN:
            raise
    return False
