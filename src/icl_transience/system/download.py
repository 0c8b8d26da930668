"""Downloads of public files, which go on from where they were cut off and are checked by SHA-256."""

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import TextIO

from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic, checksums
from icl_transience.system.progress import Progress

_CHUNK = 1 << 16
_TIMEOUT_SECONDS = 60


def download(url: str, sha256: str, path: Path, log: TextIO | None = None) -> None:
    """Download the file at `url` to `path`, from where an earlier attempt ended.

    Raises StudyError where it cannot be reached, where the connection ends early (the next attempt goes on from
    there), and where its SHA-256 is not `sha256` (nothing is kept then).
    """
    part = path.with_name(f".{path.name}.part")
    try:
        # What the disk says is told apart from what the network says.
        with atomic.explained(part):
            atomic.make_folder(path.parent)
            _give_way(part)
            _fetch(url, part, Progress(path.name, 0, 1, 1, log, unit="bytes"))
    except StudyError:
        raise
    except urllib.error.HTTPError as error:
        raise StudyError(f"{path}: {url} answers {error.code} {error.reason}: {_BY_HAND}") from error
    except (OSError, http.client.HTTPException) as error:
        there = part.stat().st_size if part.exists() else 0
        raise StudyError(
            f"{path}: {url} cannot be reached, or was cut off after {there:,} bytes ({error}): run the same command "
            f"again to go on from there, or {_BY_HAND}"
        ) from error
    found = checksums.sha256(part)
    if found != sha256:
        part.unlink()
        raise StudyError(
            f"{path}: its SHA-256 is {found}, expected {sha256}: {url} holds another file, or it was damaged on the "
            "way; run the same command again"
        )
    part.rename(path)


def _give_way(part: Path) -> None:
    """Remove what another user's cut download has left, which we may not go on with, if it is in the way."""
    if part.exists() and not os.access(part, os.W_OK):
        part.unlink()


_BY_HAND = "put the file into a folder by hand and name that in config.yaml"


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Append the missing bytes of `url` to `part`. Raises OSError where the connection ends early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; if that is another file's size, the checksum says so
        raise
    with answer:
        goes_on = answer.status == http.client.PARTIAL_CONTENT
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        progress.end = have + int(length) if length else 1
        with part.open("ab" if goes_on else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if length:
                    progress(have)
        if length and have < progress.end:
            raise OSError(f"{have:,} of {progress.end:,} bytes")
