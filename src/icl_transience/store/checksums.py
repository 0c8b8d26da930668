"""SHA-256 of files: of a folder's tables, in SHA256SUMS, and of source files, for identities."""

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from icl_transience.specs.errors import StudyError
from icl_transience.store import cache
from icl_transience.store.atomic import AGAIN, unusable, write

CHECKSUMS = "SHA256SUMS"


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write SHA256SUMS of these files of `folder`, in the form that `sha256sum -c` reads."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names]
    write(folder / CHECKSUMS, lambda temporary: temporary.write_text("".join(lines), encoding="utf-8"))


def check_checksums(folder: Path, names: Iterable[str], *, move: bool = True) -> None:
    """Raise StudyError where one of these files of `folder` is not what SHA256SUMS says, and move it aside.

    move: False leaves it, for readers that come while jobs may be writing.
    """
    sums = folder / CHECKSUMS
    try:
        found = {name: sha256(folder / name) for name in names}
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


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Beyond this size a file is not hashed again while path, size and time are what they were.
_REMEMBERED_BYTES = 1 << 26


@functools.cache
def file_digest(path: Path) -> str:
    """Return the SHA-256 of a source file, which enters identities in place of its path.

    That of a large file is kept in the user's cache folder, under path, size and time.
    """
    state = path.stat()
    if state.st_size < _REMEMBERED_BYTES:
        return sha256(path)
    note = cache.note("sha256", [str(path.resolve()), state.st_size, state.st_mtime_ns])
    if (digest := cache.read_note(note)) is None:
        digest = sha256(path)
        cache.write_note(note, digest)
    return digest


def source_digest(path: Path) -> str:
    """Return the SHA-256 by which a source file is known in identities; of a folder, that of the images in it."""
    if path.is_dir():
        from icl_transience.store import image_files

        return image_files.checked(path).digest
    return file_digest(path)
