"""HDF5 files that are whole or absent: written under a temporary name, renamed when complete, checked when read.

Every file carries, as attributes of its root: `kind` (bank, encoder, sequences, segment, …), `schema`
(the version of that kind's layout), `identity` (its content is a function of this), `checksum` (SHA-256 over names,
types, shapes, values and attributes). Attributes that begin with `made_` say when, by what and how fast a file was
made; they are not content, and two files of equal content may differ in them.
"""

import errno
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic, faults
from icl_transience.store.layout import kept_name

SCHEMA_VERSIONS = {
    "bank": 1,
    "encoder": 1,
    "sequences": 1,
    "segment": 1,
    "unfinished": 1,
    "metrics": 1,
    "circuits": 1,
    "export": 1,
}
_HASH_BYTES = 1 << 26
# What h5py raises where bytes are not what they were.
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError)


class StoreError(StudyError):
    """A file is not what its name promises; the message says which one and how to get it back."""


class _Disk(io.FileIO):
    """A file on disk whose writes never fail: HDF5 crashes where it cannot write and then closes a file.

    `failure` is the first error. Data written after it is kept in memory, where HDF5 can read it back.
    """

    def __init__(self, path: Path):
        super().__init__(path, "r+")
        self.failure: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []

    def write(self, data: memoryview) -> int:
        begin, rest = self.tell(), memoryview(data)
        try:
            while rest and not self.failure:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
        if rest:
            self._kept.append((begin, bytes(data)))
            self.seek(begin + len(data))
        return len(data)

    def readinto(self, buffer: memoryview) -> int:
        view, begin = memoryview(buffer), self.tell()
        read = super().readinto(view)
        if self.failure:
            view[read:] = bytes(len(view) - read)
            for at, data in self._kept:
                first, last = max(at, begin), min(at + len(data), begin + len(view))
                if first < last:
                    view[first - begin : last - begin] = data[first - at : last - at]
            read = len(view)
            self.seek(begin + read)
        return read

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = super().seek(offset, whence)
        if whence == io.SEEK_END and self._kept:
            position = super().seek(max(position, *(at + len(data) for at, data in self._kept)))
        return position

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


class Written(h5py.File):
    """A file being written. A failed write raises nothing: call `check_disk` after writing much."""

    def __init__(self, disk: _Disk, path: Path):
        # From HDF5 1.10 on the format has checksums over its own structure too.
        super().__init__(disk, "w", libver=("v110", "v110"))
        self._disk = disk
        self.target = path

    def becomes(self, path: Path, kind: str) -> None:
        """Change kind and name of the file being written."""
        self.attrs["kind"], self.attrs["schema"] = kind, SCHEMA_VERSIONS[kind]
        self.target = path

    def check_disk(self) -> None:
        """Raise OSError where something could not be written."""
        if self._disk.failure:
            raise self._disk.failure


@contextmanager
def writing(path: Path, kind: str, identity: str, *, kept: bool = False) -> Iterator[Written]:
    """Open an HDF5 file to write, which appears under `path` if the block ends without an exception.

    kept: it appears under its kept name first, so that a finished file cannot get lost at any moment.
    """
    with atomic.replacing(path, lambda: file.target) as temporary, _Disk(temporary) as disk:
        with Written(disk, path) as file:
            file.attrs["kind"] = kind
            file.attrs["schema"] = SCHEMA_VERSIONS[kind]
            file.attrs["identity"] = identity
            yield file
            file.flush()
            file.check_disk()
            file.attrs["made_at"] = datetime.now(UTC).isoformat(timespec="seconds")
            file.attrs["checksum"] = checksum(file)
        if disk.failure:
            raise disk.failure
        if kept and file.target == path:
            atomic.link(temporary, kept_name(path))


@contextmanager
def reading(
    path: Path, kind: str, identity: str | None = None, *, aside: bool = True, whole: bool = False
) -> Iterator[h5py.File]:
    """Open the file `path` to read, after checking kind, schema version, identity and checksum.

    Raises StoreError where any of them is wrong; the message names the file and the way to rebuild it. A file that is
    damaged or of an older schema is moved aside, so that Snakemake finds it missing and makes it again.

    aside: False leaves it, for readers that come while jobs may be writing. whole: the caller has found the checksum
    right before, and the file is still that one; hashing a large file takes longer than reading a little of it.
    """
    with _opened(path, aside) as file:
        expected = {"kind": kind} | ({} if identity is None else {"identity": identity})
        try:
            found: dict[str, Any] = {name: file.attrs.get(name) for name in (*expected, "schema", "checksum")}
            actual = found["checksum"] if whole else checksum(file)
        except _DAMAGE as error:
            raise _unreadable(path, error, aside) from error
        if actual != found["checksum"]:
            raise _refused(path, "its content does not match its checksum", aside)
        for name, value in expected.items():
            if found[name] != value:
                raise StoreError(
                    f"{path}: its {name} is {found[name]!r}, expected {value!r}: another file has got this name: move "
                    f"it away, and {atomic.AGAIN}"
                )
        schema, known = int(found["schema"]), SCHEMA_VERSIONS[kind]
        if schema > known:
            raise StoreError(
                f"{path}: its schema version is {schema}, this software knows {known}: use the software that made it, "
                "or another results folder"
            )
        if schema < known:
            raise _refused(path, f"its schema version is {schema}, expected {known}", aside)
        yield file


def array(group: h5py.Group, name: str) -> np.ndarray:
    """Read a dataset of a file, or of a group in it, as a whole. Raises TypeError where `name` is no dataset."""
    return np.asarray(dataset(group, name)[()])


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of a file, or of a group in it, to read in parts. Raises TypeError where it is no dataset."""
    item = group[name]
    if not isinstance(item, h5py.Dataset):
        raise TypeError(f"{group.file.filename}: {name} is a {type(item).__name__}, expected a dataset")
    return item


@contextmanager
def _opened(path: Path, aside: bool) -> Iterator[h5py.File]:
    try:
        file = open_made(path)
    except OSError as error:
        raise _unreadable(path, error, aside) from error
    with file:
        yield file


def open_made(path: Path) -> h5py.File:
    """Open a file that was written here to read. It was whole when it got its name, so HDF5 need not lock it.

    (Where a file system has no locks HDF5 fails to.)
    """
    return h5py.File(path, "r", locking=False)


def _unreadable(path: Path, error: Exception, aside: bool = True) -> StoreError:
    # The operating system's own errors say nothing about the content: a file that is missing, busy, not ours to read.
    number = faults.number_of(error)
    if number == errno.ENOENT:
        return StoreError(f"{path}: cannot be read ({error}): {atomic.AGAIN}")
    if refusal := faults.unreadable(path, error):
        return StoreError(str(refusal))
    if number:
        return StoreError(f"{path}: cannot be read ({error}): {atomic.AGAIN}")
    return _refused(path, f"it is damaged ({error})", aside)


def _refused(path: Path, reason: str, aside: bool) -> StoreError:
    """Return the StoreError to raise of a file that is not what it should be; move it aside if that is wanted."""
    if aside:
        return unusable(path, reason)
    return StoreError(f"{path}: {reason}: unless a job is writing it now, move it away, and {atomic.AGAIN}")


def unusable(path: Path, reason: str) -> StoreError:
    """Move a damaged file aside; return the StoreError to raise. See atomic.unusable."""
    return atomic.unusable(path, reason, StoreError)


def read_attribute(path: Path, name: str, *, aside: bool = True) -> Any:
    """Read one attribute of the root and nothing else. aside: move the file aside if it is damaged."""
    try:
        with open_made(path) as file:
            return file.attrs[name]
    except _DAMAGE as error:
        if aside:
            raise _unreadable(path, error) from error
        raise StoreError(
            f"{path}: its attribute {name!r} cannot be read ({error}): move this file away, and {atomic.AGAIN}"
        ) from error


def checksum(file: h5py.File) -> str:
    """Return the SHA-256 of everything in the file except the checksum and the attributes `made_…`."""
    digest = hashlib.sha256()

    def add_text(text: str) -> None:
        # The length in front keeps neighbouring texts apart.
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)

    def add(name: str, item: h5py.HLObject) -> None:
        add_text(name)
        for key in sorted(item.attrs):
            if key != "checksum" and not key.startswith("made_"):
                add_text(f"{key}={np.asarray(item.attrs[key]).tolist()!r}")
        if isinstance(item, h5py.Dataset):
            add_text(f"{item.dtype}{item.shape}")
            for part in _parts(item):
                if part.dtype == object:
                    for value in part.ravel():
                        add_text(repr(value))
                else:
                    digest.update(np.ascontiguousarray(part).data)

    names: list[str] = []
    file.visit(names.append)
    add("/", file)
    for name in sorted(names):
        add(name, file[name])
    return digest.hexdigest()


def _parts(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """Yield the dataset in pieces of bounded size along its first axis."""
    if not dataset.shape or not dataset.size:
        yield dataset[()]
        return
    rows = max(1, _HASH_BYTES // max(1, dataset.nbytes // dataset.shape[0]))
    for first in range(0, dataset.shape[0], rows):
        yield dataset[first : first + rows]


def restore(path: Path, kind: str, identity: str, made_of: str = "") -> bool:
    """Bring `path` back from its kept name if that file is whole and of this identity and `made_of`; say whether."""
    kept = kept_name(path)
    if not kept.exists():
        return False
    try:
        with reading(kept, kind, identity) as file:
            if file.attrs.get("made_of", "") != made_of:
                return False
    except StoreError:
        return False
    # A link shares the old time; Snakemake must see a result newer than its inputs.
    atomic.link(kept, path, touch=True)
    return True
