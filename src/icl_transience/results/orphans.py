"""List results that no study refers to, their sizes, and the command that removes them. Remove nothing.

Studies are all workflow/studies/*.yaml, the configured one, and those elsewhere for which results say that they were
made (planning/made_for.py). Of a study that cannot be loaded nobody knows what it refers to; whatever is of a source
that it mentions is then left out of the list. Never listed: downloads in sources/, archives, provenance, packs that a
job is training, and packs that cannot be read.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from icl_transience.planning import registry
from icl_transience.planning.packs import Pack, other_sources
from icl_transience.planning.plan import Plan
from icl_transience.planning.registry import Registered
from icl_transience.results import referred, removal
from icl_transience.results.referred import Referred, Unloaded
from icl_transience.results.status import training
from icl_transience.specs.banks import SOURCES
from icl_transience.store import atomic, layout, locks
from icl_transience.system.formatting import format_bytes, format_path

ORPHAN, BEYOND = "no study refers to", "beyond every horizon"
NOT_NEEDED = (ORPHAN, "damaged", "temporary")
# A link has no lock; it bears its temporary name for a moment only.
LINK_SECONDS = 24 * 3600
_OF_SEGMENT = re.compile(
    r"^(?:segment|unfinished|metrics-(?P<set>.+)|circuits-(?P<circuits>.+))-(?P<start>\d{12})-(?P<end>\d{12})\.\w+$"
)
_PEAKS = re.compile(r"^peaks-(?P<circuits>.+)\.\w+$")
_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]+\.(tmp|link)$")


@dataclass(frozen=True)
class Removable:
    """A file or folder that may go, and why: ORPHAN, BEYOND, "damaged" or "temporary"."""

    path: Path
    reason: str


def find(plan: Plan) -> tuple[list[Removable], list[str]]:
    """Return what may go, and a line for all studies that cannot be loaded and one for each pack that cannot be read.

    These say what is left out of the list because of them. A line before them says which studies whose results are
    listed may have their files elsewhere.
    """
    studies, unloaded = referred.load_all(plan)
    known = referred.referred_to(studies)
    results = Path(plan.paths.root)
    registered = registry.read_registered(results / "packs")
    search = Search(results, known, unloaded, registered)
    left_out = [referred.in_words(unloaded)] if unloaded else []
    left_out += [f"{one}; nothing in it is listed" for one in registered.skipped]
    found = without_doubles(search.everything())
    elsewhere = [one.path.name for one in found if one.path.parent == results / "studies"]
    if elsewhere:
        left_out.insert(
            0,
            f"what only {', '.join(elsewhere)} has is listed, since no such study is in workflow/studies, nor where it "
            "was when this was made: if its file stands elsewhere, put a link to it there, and ask again",
        )
    return found, left_out


def without_doubles(found: Iterable[Removable]) -> list[Removable]:
    """Return in the order of paths what was found, nothing twice: what lies in a folder that may go is not listed."""
    removable: dict[Path, Removable] = {}
    for one in sorted(found, key=lambda one: (len(one.path.parts), one.path)):
        if one.path not in removable and not any(parent in removable for parent in one.path.parents):
            removable[one.path] = one
    return sorted(removable.values(), key=lambda one: one.path)


@dataclass(frozen=True)
class Search:
    """Where in the results folder to look for what `known` does not name and what is `unloaded` cannot own.

    forced: ids of packs that may go whoever has their lanes, unless a job trains them.
    """

    results: Path
    known: Referred
    unloaded: list[Unloaded]
    registered: Registered
    forced: frozenset[str] = frozenset()

    @cached_property
    def untouchable(self) -> set[str]:
        """Return the names of packs that a job is training, or that this version of the software cannot read."""
        folder = self.results / "packs"
        live = training(folder, (path.name for path in _folders(folder)))
        return live | {one.folder.name for one in self.registered.skipped}

    def _is_known(self, pack: Pack) -> bool:
        return any(lane in self.known.horizons for lane in pack.spec.lanes)

    @cached_property
    def started_from(self) -> dict[str, int]:
        """Return pack id -> the last snapshot of it, 1 at least, from which lanes of a needed pack start.

        Of packs that no study refers to otherwise: lanes of seeds that studies no longer have train on beside others.
        """
        needed = {name: pack for name, pack in self.registered.packs.items() if self._is_known(pack)}
        found: dict[str, int] = {}
        for name, at in other_sources(needed, self.registered.packs):
            found[name] = max(at, 1, found.get(name, 0))
        return found

    def everything(self) -> Iterator[Removable]:
        """Yield all that may go; what lies in a folder that may go is named again."""
        yield from self.shared()
        yield from self._of_studies()
        yield from self._leavings()

    def shared(self) -> Iterator[Removable]:
        """Yield what may go of all that studies share: banks, sequences, packs."""
        yield from self._named("banks", self.known.banks)
        yield from self._named("encoders", self.known.banks)
        yield from self._named("sequences", self.known.sets)
        yield from self._packs()

    def spared(self, name: str) -> bool:
        """Say whether a study that cannot be loaded may refer to a bank, set or pack of this name."""
        return any(not one.sources or name.split("-")[0] in one.sources for one in self.unloaded)

    def _named(self, kind: str, known: set[str]) -> Iterator[Removable]:
        """Yield files {kind}/{id}.*, their logs and benchmarks."""
        for folder in (self.results / kind, self.results / "logs" / kind, self.results / "benchmarks" / kind):
            for path in _files(folder):
                name = path.stem.removesuffix("-card")
                if _is_ours(name) and name not in known and not self.spared(name):
                    yield Removable(path, ORPHAN)

    # Packs.

    def _packs(self) -> Iterator[Removable]:
        """Yield packs, or files of packs, with their logs and benchmarks."""
        folder = self.results / "packs"
        names = {path.name for path in _folders(folder)}
        beside = [self.results / kind / "packs" for kind in ("logs", "benchmarks")]
        for name in names | {path.name for parent in beside for path in _folders(parent)}:
            if not _is_ours(name) or name in self.untouchable or (self.spared(name) and name not in self.forced):
                continue
            own = [parent / name for parent in (folder, *beside) if (parent / name).is_dir()]
            pack = self.registered.packs.get(name)
            needed = pack is not None and (self._is_known(pack) or name in self.started_from)
            if pack is None or not needed or name in self.forced:
                yield from (Removable(path, ORPHAN) for path in own)
            else:
                for path in own:
                    yield from self._of_pack(pack, path)

    def _of_pack(self, pack: Pack, folder: Path) -> Iterator[Removable]:
        """Yield what may go of a pack that is needed: its files, or their logs or benchmarks, in `folder`."""
        lanes = [lane for lane in pack.spec.lanes if lane in self.known.horizons]
        horizon = max([self.started_from.get(pack.spec.id, 0), *(self.known.horizons[lane] for lane in lanes)])
        sets = {set_id for lane in lanes for set_id in self.known.sets_of[lane]}
        inside = {circuits_id for lane in lanes for circuits_id in self.known.circuits_of[lane]}
        for path in [*_files(folder), *_files(folder / layout.KEPT)]:
            if (peaks := _PEAKS.match(path.name)) and peaks["circuits"] not in inside:
                yield Removable(path, ORPHAN)
            match = _OF_SEGMENT.match(path.name)
            if match is None:
                continue
            if (match["set"] and match["set"] not in sets) or (match["circuits"] and match["circuits"] not in inside):
                yield Removable(path, ORPHAN)
            elif int(match["start"]) >= horizon:
                yield Removable(path, BEYOND)

    # Studies.

    def _of_studies(self) -> Iterator[Removable]:
        """Yield folders of studies and experiments, and exports."""
        for kind in ("studies", "logs/studies"):
            for folder, experiments in self._by_study(self.results / kind, self.known.experiments):
                if experiments is None:
                    yield Removable(folder, ORPHAN)
                yield from (
                    Removable(path, ORPHAN) for path in _folders(folder) if path.name not in (experiments or ())
                )
                for path in folder.glob(f"*/{layout.CIRCUITS}"):
                    if (folder.name, path.parent.name) not in self.known.with_circuits:
                        yield Removable(path, ORPHAN)
        for kind in ("exports", "logs/exports"):
            for folder, names in self._by_study(self.results / kind, self.known.exports):
                if names is None:
                    yield Removable(folder, ORPHAN)
                for path in _files(folder):
                    if path.suffix in (".h5", ".log") and path.stem.removesuffix(".bank") not in (names or ()):
                        yield Removable(path, ORPHAN)

    def _by_study(self, parent: Path, known: Mapping[str, set[str]]) -> Iterator[tuple[Path, set[str] | None]]:
        """Yield folders of studies and what is known of each; None of one that does not exist."""
        unloaded = {one.name for one in self.unloaded}
        for folder in _folders(parent):
            if folder.name not in unloaded:
                yield folder, known.get(folder.name)

    def _leavings(self) -> Iterator[Removable]:
        """Yield files that were moved aside as damaged, and temporary ones that killed writers left."""
        untouchable = {self.results / "packs" / name for name in self.untouchable}
        for folder, folders, names in os.walk(self.results):
            folders[:] = [name for name in folders if Path(folder, name) not in untouchable]
            for name in names:
                path = Path(folder, name)
                if name.endswith(atomic.DAMAGED):
                    yield Removable(path, "damaged")
                elif _TEMPORARY.match(name) and _is_abandoned(path):
                    yield Removable(path, "temporary")


def _is_ours(name: str) -> bool:
    """Say whether it is the name of a bank, set or pack: {source}-…."""
    return name.split("-")[0] in SOURCES and "-" in name


def _is_abandoned(path: Path) -> bool:
    """Say whether no process is writing a temporary file: its lock is free, or, of a link, it is a day old."""
    if path.suffix == ".tmp":
        return not locks.is_held(path)
    return time.time() - path.lstat().st_mtime > LINK_SECONDS


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.is_symlink())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))


# In words.


def listing(plan: Plan) -> str:
    """Return what `find` finds as text: sizes, totals, and for each kind the command that removes it."""
    removable, left_out = find(plan)
    lines: list[str] = []
    for title, reasons, option in (
        ("no study refers to these", NOT_NEEDED, "--orphans"),
        ("finished, but beyond every horizon; a longer one will want them again", (BEYOND,), "--beyond"),
    ):
        chosen = [one for one in removable if one.reason in reasons]
        if not chosen:
            continue
        lines.append(f"{title} ({format_bytes(removal.size(one.path for one in chosen))}):")
        for one in chosen:
            why = f"  ({one.reason})" if one.reason not in (ORPHAN, BEYOND) else ""
            lines.append(f"  {format_bytes(removal.size([one.path])):>9}  {format_path(one.path)}{why}")
        lines += ["to remove them (it asks first):", f"  {removal.command(plan, option)}", ""]
    if lines:
        lines += [removal.RM_FREES_NOTHING, ""]
    else:
        lines = [f"{plan.paths.root}: nothing that no study refers to was found", ""]
    return "\n".join([*lines, *left_out]).rstrip()
