"""Remove files of results under all their names: sizes, the command that does it, locks, the removal itself."""

import contextlib
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from icl_transience.planning.plan import Plan, config_here
from icl_transience.specs.errors import StudyError
from icl_transience.store import layout, locks
from icl_transience.system.formatting import format_bytes, format_path

LOCK = ".lock"
RM_FREES_NOTHING = (
    f"(finished segments and metrics have a second name, in results/packs/PACK/{layout.KEPT}: `rm` of one name frees "
    "nothing, and snakemake brings the file back from the other)"
)


@dataclass(frozen=True)
class Part:
    """A file or folder of which something goes. files: what goes. note: what else there is to say."""

    path: Path
    files: tuple[Path, ...]
    note: str = ""

    @classmethod
    def whole(cls, path: Path) -> "Part":
        """Return a file or a folder as a whole."""
        return cls(path, tuple(files_below(path)))


def files_below(path: Path) -> Iterator[Path]:
    """Yield the files in and below a folder, links among them; of what is no folder, itself."""
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in [*names, *links])


def size(paths: Iterable[Path]) -> int:
    """Return the bytes of all files in and below the paths; a file with several names counts once."""
    inodes: dict[tuple[int, int], int] = {}
    for path in paths:
        for file in files_below(path):
            state = file.lstat()
            inodes[state.st_dev, state.st_ino] = state.st_size
    return sum(inodes.values())


def freed(files: Iterable[Path]) -> int:
    """Return the bytes that become free when files go: of those that have no other name besides."""
    names: Counter[tuple[int, int]] = Counter()
    states = {}
    for file in set(files):
        state = file.lstat()
        names[state.st_dev, state.st_ino] += 1
        states[state.st_dev, state.st_ino] = state
    return sum(state.st_size for inode, state in states.items() if state.st_nlink <= names[inode])


def command(plan: Plan, *arguments: str) -> str:
    """Return the shell command that deletes; it can be called where the plan was made."""
    here = Path()
    words = ["python -m icl_transience delete", *(shlex.quote(one) for one in arguments)]
    config = config_here() if Path("config.yaml").is_file() else {}
    if plan.base.resolve() != here.resolve():
        # The command reads config.yaml and workflow/studies of the folder in which it is called.
        words.insert(0, f"cd {shlex.quote(str(plan.base.resolve()))} &&")
        here = plan.base
    study = plan.config["study"]
    inside = plan.study_path.resolve().parent == (plan.base / "workflow/studies").resolve()
    named = plan.study.name if inside else str(plan.study_path.resolve())
    if here != Path() or config.get("study") != study:
        words.append(f"--study {shlex.quote(named)}")
    if here != Path() or config.get("results", "results") != plan.config["results"]:
        words.append(f"--results {shlex.quote(str(Path(plan.paths.root).resolve()))}")
    return " ".join(words)


def lines(parts: Sequence[Part]) -> list[str]:
    """Return a line for each part, with the size of what goes of it."""
    return [
        f"  {format_bytes(size(part.files)):>9}  {format_path(part.path)}{f'  ({part.note})' if part.note else ''}"
        for part in parts
    ]


def remove(results: Path, parts: Sequence[Part]) -> int:
    """Remove the files of all parts, and folders that are empty then; return the bytes that are free now.

    Raises StudyError before anything is removed, where a job is at work on what is to go, or that cannot be known.
    """
    folder = results / "packs"
    packs = sorted({folder / one.path.relative_to(folder).parts[0] for one in parts if folder in one.path.parents})
    # What Snakemake knows goes last of what one file is called: a half-done removal leaves nothing that comes back.
    files = sorted({file for part in parts for file in part.files}, key=lambda one: (layout.KEPT not in one.parts, one))
    bytes_freed = freed(files)
    with contextlib.ExitStack() as stack:
        for pack in packs:
            if pack.is_dir():
                stack.enter_context(locks.locked(pack / LOCK))
        touched = [part.path for part in parts] + packs
        busy = [
            one
            for one in locks.live_writers(results)
            if one not in packs and any(path in (one, *one.parents) for path in touched)
        ]
        if busy:
            raise StudyError(
                f"jobs are still at work on {', '.join(map(str, busy))}: wait or stop them; nothing was deleted"
            )
        for file in files:
            if file.name != LOCK:
                file.unlink(missing_ok=True)
        for part in parts:
            if part.path.is_dir() and not part.path.is_symlink():
                _remove_empty(part.path)
    return bytes_freed


def _remove_empty(path: Path) -> None:
    """Remove what is empty in a folder, itself included; the lock of a pack of which nothing else is there goes too."""
    for folder, folders, names in os.walk(path, topdown=False):
        left = [name for name in folders if Path(folder, name).exists()]
        if names == [LOCK] and not left:
            Path(folder, LOCK).unlink()
            names = []
        if not names and not left:
            Path(folder).rmdir()
