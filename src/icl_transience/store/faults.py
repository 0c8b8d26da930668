"""Errors of the operating system, told apart by their numbers: what a person can mend, and how."""

import errno
import grp
import os
import pwd
import re
import stat
from pathlib import Path

from icl_transience.specs.errors import StudyError

# No room, over quota, read-only, too large for the file system: a person has to mend these, and can.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM}
# A file system without locks, or one whose lock server does not answer.
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
_USED = {errno.EAGAIN, errno.EBUSY, errno.ETXTBSY}
_TOO_MANY = {errno.EMFILE, errno.ENFILE}
_FAILING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO, errno.EHOSTDOWN, errno.ENODEV}
# Libraries in C and Rust have the number in their texts.
_IN_TEXT = re.compile(r"errno = (\d+),|\(os error (\d+)\)")


def number_of(error: BaseException) -> int | None:
    """Return the operating system's number of an error; None where it has none, as one about a file's content."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number:
        return number
    found = _IN_TEXT.search(str(error))
    return int(found[1] or found[2]) if found else None


def unreadable(path: Path, error: BaseException) -> StudyError | None:
    """Return the StudyError to raise where the system did not let `path` be read; None where its content is wrong."""
    number = number_of(error)
    if number is None or (remedy := _remedy(path, number)) is None:
        return None
    return StudyError(f"{path}: cannot be read ({os.strerror(number)}): {remedy}")


def _remedy(path: Path, number: int) -> str | None:
    """Say what lets a file be read; None where the number says nothing about that."""
    if number in FORBIDDEN:
        return f"{forbidding(path)}: ask for the right to read it, or name a copy of your own"
    if number in _USED:
        return "another program has it open to write: close it there, or wait for it"
    if number in WITHOUT_LOCKS:
        return "its file system has no locks: set HDF5_USE_FILE_LOCKING=FALSE, or copy it to another disk"
    if number in _TOO_MANY:
        return "raise the limit of open files (`ulimit -n`), or run fewer jobs at a time"
    if number in _FAILING:
        return (
            "the disk or the file server fails: run the same command again, and tell who looks after it if it goes on"
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "it is not there (any more): put it there"
    return None


def said(error: OSError) -> str | None:
    """Say what an error is about and what to do, where a person can mend it; None where it is the software's fault."""
    number, path = error.errno, Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else None
    where = f"{path}: " if path else ""
    if number in UNWRITABLE:
        return f"{where}cannot be written ({error.strerror}): {room(number)}, and run the same snakemake command again"
    if path is None or number not in FORBIDDEN | _USED | WITHOUT_LOCKS | _TOO_MANY | _FAILING:
        return None
    if number in FORBIDDEN:
        return f"{path}: {error.strerror}: {forbidding(path)}: ask them for the right to use it"
    return f"{path}: {error.strerror}: {_remedy(path, number)}"


def room(number: int) -> str:
    """Say what lets a file be written, of a number in UNWRITABLE."""
    return "make the disk writable" if number == errno.EROFS else "make room"


def forbidding(path: Path) -> str:
    """Say whose a file is, or, where it is not there or cannot be seen, its folder, and which rights it gives."""
    for one in (path, *path.absolute().parents):
        try:
            about = one.stat()
        except OSError:
            continue
        what = "it" if one == path else str(one)
        return f"{what} belongs to {owner(about)} and has mode {stat.S_IMODE(about.st_mode):04o}"
    return "it cannot be seen from here"


def owner(about: os.stat_result) -> str:
    """Return the names of a file's owner and group, or their numbers where they have none."""
    try:
        user = pwd.getpwuid(about.st_uid).pw_name
    except KeyError:
        user = f"user {about.st_uid}"
    try:
        return f"{user} (group {grp.getgrgid(about.st_gid).gr_name})"
    except KeyError:
        return f"{user} (group {about.st_gid})"
