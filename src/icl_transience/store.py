"""HDF5 files that are whole or absent: written under a temporary name, renamed when complete, checked when read.

Every file carries, as attributes of its root: `kind` (bank, encoder, sequences, segment, metrics, export), `schema`
(the version of that kind's layout), `identity` (what its content is a function of), `checksum` (SHA-256 over names,
types, shapes, values and attributes). Attributes that begin with `made_` say when, by what and how fast a file was
made; they are not content, and two files of one content may differ in them.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np

from icl_transience.spec import StudyError

SCHEMA_VERSIONS = {"bank": 1, "encoder": 1, "sequences": 1, "segment": 1, "metrics": 1, "export": 1}
_HASH_BYTES = 1 << 26
# What h5py raises where bytes are not what they were.
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError)


class StoreError(StudyError):
    """A file is not what its name promises; the message says which and how to get it back."""


@contextmanager
def writing(path: Path, kind: str, identity: str) -> Iterator[h5py.File]:
    """An open HDF5 file that appears under `path` when the block ends without an exception, and never otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # From HDF5 1.10 on the format has checksums over its own structure too.
    with replacing(path) as temporary, h5py.File(temporary, "w", libver=("v110", "v110")) as file:
        file.attrs["kind"] = kind
        file.attrs["schema"] = SCHEMA_VERSIONS[kind]
        file.attrs["identity"] = identity
        yield file
        file.attrs["made_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        file.attrs["checksum"] = checksum(file)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` when the block ends without an exception."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def reading(path: Path, kind: str, identity: str | None = None) -> Iterator[h5py.File]:
    """The file `path`, open for reading, once kind, schema version, identity and checksum have been checked.

    Raises StoreError where any of them is wrong; the message names the file and the way to rebuild it.
    """
    with _opened(path) as file:
        expected = {"kind": kind, "schema": SCHEMA_VERSIONS[kind]}
        if identity is not None:
            expected["identity"] = identity
        try:
            found = {name: file.attrs.get(name) for name in (*expected, "checksum")}
            actual = checksum(file)
        except _DAMAGE as error:
            raise _unusable(path, f"it is damaged ({error})") from error
        for name, value in expected.items():
            if found[name] != value:
                raise _unusable(path, f"its {name} is {found[name]!r}, expected {value!r}")
        if actual != found["checksum"]:
            raise _unusable(path, "its content does not match its checksum")
        yield file


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _unusable(path, f"it cannot be opened ({error})") from error
    with file:
        yield file


def _unusable(path: Path, reason: str) -> StoreError:
    return StoreError(f"{path}: {reason}: delete this file and run the same snakemake command again to rebuild it")


def is_valid(path: Path, kind: str, identity: str) -> bool:
    """Whether `path` is a whole file of this kind and identity."""
    try:
        with reading(path, kind, identity):
            return True
    except StoreError:
        return False


def read_attribute(path: Path, name: str) -> str:
    """One attribute of the root, without reading the rest of the file."""
    with _opened(path) as file:
        try:
            return file.attrs[name]
        except _DAMAGE as error:
            raise _unusable(path, f"its attribute {name!r} cannot be read ({error})") from error


def checksum(file: h5py.File) -> str:
    """SHA-256 over everything in the file but the checksum itself and how it was made."""
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
                    digest.update(np.ascontiguousarray(part))

    names: list[str] = []
    file.visit(names.append)
    add("/", file)
    for name in sorted(names):
        add(name, file[name])
    return digest.hexdigest()


def _parts(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """The dataset in pieces of bounded size along its first axis."""
    if not dataset.shape or not dataset.size:
        yield dataset[()]
        return
    rows = max(1, _HASH_BYTES // max(1, dataset.nbytes // dataset.shape[0]))
    for first in range(0, dataset.shape[0], rows):
        yield dataset[first : first + rows]


def keep(path: Path) -> None:
    """Gives a finished file a second name that Snakemake does not know and so never deletes."""
    kept = kept_name(path)
    kept.parent.mkdir(exist_ok=True)
    with replacing(kept) as temporary:
        _link(path, temporary)


def restore(path: Path, kind: str, identity: str) -> bool:
    """Brings `path` back from its kept name if that is whole and of this identity; says whether it did."""
    kept = kept_name(path)
    if not kept.exists() or not is_valid(kept, kind, identity):
        return False
    with replacing(path) as temporary:
        _link(kept, temporary)
        # A link shares the old time; Snakemake must see a result newer than its inputs.
        os.utime(temporary)
    return True


def kept_name(path: Path) -> Path:
    return path.parent / ".kept" / path.name


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links: a copy costs space, not correctness
        shutil.copy2(source, target)


def clear_temporaries(path: Path) -> None:
    """Removes what killed writers of files like `path` left; only while a lock keeps other writers of these away.

    Like: in the same folder, the same name up to its first hyphen (all segments of a pack, none of its metrics).
    """
    for temporary in path.parent.glob(f".{path.name.split('-')[0]}-*.tmp"):
        temporary.unlink()


def write_table(path: Path, write: Callable[[Path], None]) -> None:
    """Runs `write` on a temporary name and renames the result to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        write(temporary)
