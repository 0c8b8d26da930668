"""Images in a folder for each class, or in a zip of one: which there are, whether they can be read, their pixels.

The layout is the one that most data sets of images have: class/anything.png, with .jpg and .jpeg too, in folders above
that have nothing else in them, or in none. Other files, hidden ones and what macOS puts beside files do not count.
"""

import functools
import hashlib
import io
import json
import os
import stat
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_transience.specs.errors import StudyError
from icl_transience.store import cache, faults, zips

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
# A folder is looked into so deep, so that one with links to itself comes to an end.
_DEPTH = 6
_LARGEST_FILE = 1 << 26
# 7,000 x 7,000: a few kilobytes can say that they are a picture of gigabytes.
_MOST_PIXELS = 50_000_000
_MODES = ("1", "L", "P", "RGB")
# Where in a PNG its bits for each channel stand.
_PNG_DEPTH = 24
# What Pillow raises on files that are no images or damaged ones.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error)
_ADVICE = "write it again as PNG or JPEG with 8 bits a channel, or take it away"
# To be raised where more is refused, or files are counted otherwise: images that were checked are then checked again.
_CHECKS = 1
# So many images are said to be checked: it takes a while.
_MANY = 5000
# Of sizes, so many are told of.
_FEW = 8


@dataclass(frozen=True)
class ImageFiles:
    """The images of each class and what they hold.

    classes: name -> the images' names below `path`, both in the order of their bytes. digest: SHA-256 of the classes
    and of what their files hold, wherever the folder lies; of a zip, of the zip. sizes: width and height -> an image
    that has them; of many sizes some.
    """

    path: Path
    classes: dict[str, tuple[str, ...]]
    digest: str
    sizes: dict[tuple[int, int], str]


@contextmanager
def opened(path: Path) -> Iterator["_Folder | _Zip"]:
    """Open a folder of images, or a zip of one, whose files `read` returns by their names."""
    if path.is_dir():
        yield _Folder(path)
    else:
        with zips.opened(path, "a readable zip", "write it again") as archive:
            yield _Zip(path, archive)


class _Folder:
    def __init__(self, path: Path):
        self.path = path

    def names(self) -> dict[str, tuple[int, int]]:
        """Return name -> size and time of every file that counts."""
        return dict(_walk(str(self.path), "", _DEPTH))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        path = self.path / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise faults.unreadable(path, error) or StudyError(f"{path}: cannot be read ({error})") from error


def _walk(folder: str, below: str, depth: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the name, size and time of the images in a folder and the folders in it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if not _counts(name):
                continue
            try:
                folder_inside = bool(depth) and entry.is_dir()
                state = entry.stat() if folder_inside or _is_image(name) else None
            except OSError as error:
                raise StudyError(
                    f"{entry.path}: a link to a file that is not there ({error.strerror}): put it there, or take the "
                    "link away"
                ) from error
            if folder_inside:
                yield from _walk(entry.path, f"{name}/", depth - 1)
            elif state and stat.S_ISREG(state.st_mode):
                yield name, (state.st_size, state.st_mtime_ns)


class _Zip:
    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self.path, self._archive = path, archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            if member.is_dir():
                continue
            written = member.filename.replace("\\", "/")
            parts = [part for part in written.split("/") if part not in ("", ".")]
            if written.startswith("/") or ".." in parts or ":" in parts[0] or stat.S_ISLNK(member.external_attr >> 16):
                raise StudyError(
                    f"{path}: {member.filename!r} leads out of the zip (a path from the root, through `..`, or a "
                    "link): write the zip again from the folder itself"
                )
            name = "/".join(parts)
            if not (_counts(name) and _is_image(name)):
                continue
            if name in self._members:
                raise StudyError(f"{path}: has two files {name}: write the zip again with each file once")
            self._members[name] = member
        zips.refuse_unpackable(path, self._members.values())

    def names(self) -> dict[str, tuple[int, int]]:
        """Return name -> size and checksum of every file that counts."""
        return {name: (member.file_size, member.CRC) for name, member in self._members.items()}

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        member = self._members[name]
        if member.file_size > _LARGEST_FILE:
            raise StudyError(
                f"{self.path}: {name} has {member.file_size:,} bytes, at most {_LARGEST_FILE:,} are read: make it "
                "smaller, or take it away"
            )
        try:
            return self._archive.read(member)
        except zips.ZIP_DAMAGE as error:
            wrong = StudyError(f"{self.path}: {name} cannot be unpacked ({error}): write the zip again")
            raise (faults.unreadable(self.path, error) or wrong) from error


def _counts(name: str) -> bool:
    """Tell whether a name, and each folder in it, is not hidden and not one that macOS puts beside files."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _classes(path: Path, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return class -> names of its images. Raises StudyError where they do not lie in a folder for each class."""
    names = sorted(names, key=os.fsencode)
    expected = "expected a folder for each class with .png, .jpg or .jpeg files in it, as in cat/1.png and dog/1.png"
    if not names:
        raise StudyError(f"{path}: no images in it: {expected}: put them there, or name another folder")
    for name in names:
        if name != name.encode(errors="replace").decode():
            raise StudyError(f"{path}: the name {name!r} is not UTF-8: give the file or its folder another name")
    folders = [tuple(name.split("/")[:-1]) for name in names]
    # Folders above those of the classes: what all have in common, but never the last, which is a class.
    above = min(map(len, folders)) - 1
    while len({folder[:above] for folder in folders}) > 1:
        above -= 1
    found: dict[str, list[str]] = {}
    for name, folder in zip(names, folders, strict=True):
        if len(folder) != above + 1 or above < 0:
            there = f"it has {name}" + (f" and {names[0]}" if name != names[0] else "")
            raise StudyError(
                f"{path}: its images do not lie in one folder for each class ({there}): {expected}: name the folder "
                "that has these, or move the others away"
            )
        found.setdefault(folder[-1], []).append(name)
    return {name: tuple(found[name]) for name in sorted(found, key=str.encode)}


@functools.cache
def checked(path: Path) -> ImageFiles:
    """Return the images of a folder, or a zip of one, each of which was read and can be.

    What was found is kept in the user's cache folder, under path, names, sizes and times, and found there again.

    Raises StudyError, which names the file, where an image cannot be read: it is damaged, animated, transparent, too
    large, or has more than 8 bits a channel or other channels than grey or RGB.
    """
    with opened(path) as images:
        states = images.names()
        classes = _classes(path, states)
        own = [] if path.is_dir() else [path.stat().st_size, path.stat().st_mtime_ns]
        known = [_CHECKS, str(path.resolve()), *own, sorted((name, *state) for name, state in states.items())]
        note = cache.note("images", known)
        if (said := cache.read_note(note)) is None:
            if len(states) >= _MANY:
                print(f"{path}: reading {len(states):,} images, once", file=sys.stderr, flush=True)
            said = json.dumps(_inspected(images, classes))
            cache.write_note(note, said)
    found = json.loads(said)
    return ImageFiles(path, classes, found["digest"], {tuple(size): name for size, name in found["sizes"]})


def _inspected(images: "_Folder | _Zip", classes: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the digest of all images, and up to a few of their sizes, each with an image."""
    digest, sizes = hashlib.sha256(), dict[tuple[int, int], str]()
    for label, names in classes.items():
        for name in names:
            content = images.read(name)
            with _decoded(content, f"{images.path}: {name}") as (_, size):
                if len(sizes) < _FEW:
                    sizes.setdefault(size, name)
            of_file = [label, name.rpartition("/")[2], hashlib.sha256(content).hexdigest()]
            digest.update(json.dumps(of_file).encode())
    return {"digest": digest.hexdigest(), "sizes": [[list(size), name] for size, name in sizes.items()]}


@contextmanager
def _decoded(content: bytes, where: str, *, draft: bool = True) -> Iterator[tuple["Image", tuple[int, int]]]:
    """Decode an image; yield it, and its width and height. where: for messages.

    draft: a JPEG is decoded to fewer pixels, which says sooner whether it is whole.

    Raises StudyError where it is none that is read here.
    """
    import PIL.Image

    if len(content) > _LARGEST_FILE:
        raise StudyError(
            f"{where} has {len(content):,} bytes, at most {_LARGEST_FILE:,} are read: make it smaller, or take it away"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            # A camera's notes that cannot be read say nothing of the pixels.
            warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
            with PIL.Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
                _refuse_unusable(image, content, where)
                width, height = image.size
                if draft and image.format != "PNG":
                    image.draft("L", (1, 1))
                image.load()
                # Of a palette, or of a colour that stands for none, Pillow says so apart from the pixels.
                may_hide = "A" in image.getbands() or "transparency" in image.info
                if may_hide and image.convert("RGBA").getchannel("A").histogram()[255] < width * height:
                    raise StudyError(f"{where} is transparent in parts: write it again on a background, without alpha")
                yield image, (width, height)
    except StudyError:
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(where, str(error)) from error
    except _DAMAGE as error:
        raise StudyError(f"{where} is no readable PNG or JPEG image ({error}): {_ADVICE}") from error


def _too_many_pixels(where: str, said: str) -> StudyError:
    return StudyError(
        f"{where} is too large to be decoded ({said}): at most {_MOST_PIXELS:,} pixels are: make it smaller, or take "
        "it away"
    )


def _refuse_unusable(image: "Image", content: bytes, where: str) -> None:
    """Raise StudyError where an image's header says that it is not one of at most 8 bits a channel, grey or RGB."""
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise _too_many_pixels(where, f"{width:,} x {height:,} pixels")
    # Cameras write a small second picture into a JPEG, which is then of format MPO.
    if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
        raise StudyError(f"{where} is animated: write one of its pictures as a PNG of its own, or take it away")
    # Pillow reads 16 bits of colour as 8 without a word.
    if image.format == "PNG" and content[_PNG_DEPTH] == 16:
        raise StudyError(f"{where} has 16 bits a channel, expected 8 at most: {_ADVICE}")
    if image.mode not in (*_MODES, "RGBA", "LA"):
        raise StudyError(f"{where} has channels {image.mode}, expected shades of grey or RGB: {_ADVICE}")


def pixels(content: bytes, where: str, side: int, channels: int) -> "np.ndarray":
    """Decode an image and bring it to uint8 [side, side, channels].

    A camera's note of how it was held is followed. Of an image that is no square the largest one in the middle is
    taken. A larger one is averaged over boxes, a smaller one enlarged bilinearly. where: for messages.
    """
    import numpy as np
    from PIL import Image

    with _decoded(content, where, draft=False) as (image, _):
        upright = _upright(image).convert("RGB").convert({1: "L", 3: "RGB"}[channels])
        width, height = upright.size
        square = min(width, height)
        left, top = (width - square) // 2, (height - square) // 2
        kind = Image.Resampling.BOX if square >= side else Image.Resampling.BILINEAR
        box = (left, top, left + square, top + square)
        return np.asarray(upright.resize((side, side), kind, box=box), np.uint8).reshape(side, side, channels)


def _upright(image: "Image") -> "Image":
    """Turn an image as its camera was held; what cannot be read of that says nothing of the pixels."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE:
        return image
