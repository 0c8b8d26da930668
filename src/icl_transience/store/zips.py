"""Zips: what keeps one from being read, found before it is read, and where in it Omniglot's drawings are."""

import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from icl_transience.specs.errors import StudyError
from icl_transience.store import faults

# What zipfile raises on archives that are damaged, encrypted or of a kind it does not know.
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, RuntimeError, ValueError, EOFError)
_READ_HERE = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "xz", 96: "JPEG", 97: "WavPack", 98: "PPMd", 99: "AES encryption"}
_ENCRYPTED = 1

# A character: its alphabet and its number there. Alphabets may stand at any depth: who packs a folder again packs it
# with or without the folders above.
Character = tuple[str, int]
N_DRAWINGS = 20
_DRAWING = re.compile(r"(?:.*/)?([^/]+)/character(\d{1,4})/\d+_(\d{1,4})\.png", re.ASCII | re.IGNORECASE)
EXPECTED = "images_background/Greek/character01/0394_01.png"


@contextmanager
def opened(path: Path, kind: str, get_again: str) -> Iterator[zipfile.ZipFile]:
    """Open a zip to read. kind, get_again: what it should be and what to do, for messages.

    Raises StudyError where it, or within the block a member of it, cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except StudyError:
        raise
    except ZIP_DAMAGE as error:
        raise (faults.unreadable(path, error) or StudyError(f"{path}: not {kind} ({error}): {get_again}")) from error


def refuse_unpackable(path: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    """Raise StudyError where a member of the zip is encrypted, or compressed in a way that is not read here."""
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise StudyError(f"{path}: {member.filename} is encrypted: write the zip again without a password")
        if member.compress_type not in _READ_HERE:
            method = _METHODS.get(member.compress_type, "no known name")
            raise StudyError(
                f"{path}: {member.filename} is compressed by method {member.compress_type} ({method}), which Python's "
                "zipfile does not have: write the zip again with Deflate, as `zip` and `python -m zipfile` do"
            )


def drawings(archive: zipfile.ZipFile, path: Path) -> dict[str, tuple[Character, int]]:
    """Return name in the zip -> (character, number of the drawing) of Omniglot's drawings, in the zip's order.

    The zip may be packed again: with other folders above the alphabets, or none, with names that begin with `./`, have
    backslashes or end in .PNG. What macOS puts beside files is none. Raises StudyError where there is no drawing, or
    one cannot be unpacked.
    """
    found = {}
    for member in archive.infolist():
        parts = [part for part in member.filename.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or parts[-1].startswith("._") or "__MACOSX" in parts:
            continue
        if match := _DRAWING.fullmatch("/".join(parts)):
            found[member.filename] = (match[1], int(match[2])), int(match[3])
    if not found:
        there = [member.filename for member in archive.infolist() if not member.is_dir()]
        listed = f"{len(there):,} files, such as {', '.join(there[:3])}" if there else "no file"
        raise StudyError(
            f"{path}: no Omniglot drawings in it: it holds {listed}; expected names that end as in {EXPECTED} "
            "(alphabet, character and drawing): get the zip again from "
            "https://github.com/brendenlake/omniglot/tree/master/python, or pack it again with these folders"
        )
    refuse_unpackable(path, map(archive.getinfo, found))
    return found


def refuse_incomplete(characters: Mapping[Character, Collection[int]]) -> None:
    """Raise StudyError where a character has not all of its drawings. characters: -> numbers of its drawings."""
    for (alphabet, number), there in characters.items():
        if sorted(there) != list(range(1, N_DRAWINGS + 1)):
            raise StudyError(
                f"Omniglot character {alphabet}/character{number:02d} has drawings {sorted(there)}, "
                f"expected 1 to {N_DRAWINGS}: a zip is incomplete, download it again"
            )
