"""List results that no study refers to, their sizes, and the command that removes them. Remove nothing.

Studies are all workflow/studies/*.yaml and the configured one. Of a study that cannot be loaded nobody knows what it
refers to; whatever is of a source that it mentions is then left out of the list. Never listed: downloads in sources/,
archives, provenance, packs that a job is training, and packs that cannot be read.
"""

import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from icl_transience.planning import registry
from icl_transience.planning.circuits import specs_where
from icl_transience.planning.packs import Pack, other_sources
from icl_transience.planning.plan import Plan, bases_folder, study_files
from icl_transience.planning.registry import Registered
from icl_transience.results.status import training
from icl_transience.specs.banks import SOURCES
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import Lane
from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.store import atomic, layout, locks
from icl_transience.study import bases, load
from icl_transience.study.document import read_yaml
from icl_transience.study.experiments import Study
from icl_transience.system.formatting import format_bytes, format_path

ORPHAN, BEYOND = "no study refers to", "beyond every horizon"
# A link has no lock; it bears its temporary name for a moment only.
LINK_SECONDS = 24 * 3600
_OF_SEGMENT = re.compile(
    r"^(?:segment|unfinished|metrics-(?P<set>.+)|circuits-(?P<circuits>.+))-(?P<start>\d{12})-(?P<end>\d{12})\.\w+$"
)
_PEAKS = re.compile(r"^peaks-(?P<circuits>.+)\.\w+$")
_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]+\.(tmp|link)$")
_PATHS_A_COMMAND = 100


@dataclass(frozen=True)
class Removable:
    """A file or folder that may go, and why: ORPHAN, BEYOND, "damaged" or "temporary"."""

    path: Path
    reason: str


@dataclass
class _Known:
    """What the studies that could be loaded refer to; experiments and exports by study."""

    experiments: dict[str, set[str]] = field(default_factory=dict)
    exports: dict[str, set[str]] = field(default_factory=dict)
    banks: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    horizons: dict[Lane, int] = field(default_factory=dict)
    sets_of: dict[Lane, set[str]] = field(default_factory=dict)
    circuits_of: dict[Lane, set[str]] = field(default_factory=dict)
    with_circuits: set[tuple[str, str]] = field(default_factory=set)

    def add(self, loaded: Study) -> None:
        """Add what a study refers to."""
        # Two files of one name, one of them elsewhere, write into the same folders.
        self.experiments.setdefault(loaded.name, set()).update(loaded.experiments)
        if loaded.minimal_model:
            self.experiments[loaded.name].add(MINIMAL_MODEL)
        self.exports.setdefault(loaded.name, set()).update(_export_names(loaded))
        for experiment in loaded.experiments.values():
            if experiment.circuits:
                self.with_circuits.add((loaded.name, experiment.name))
            for named in experiment.runs:
                # Where segments end, the packs say; either may be.
                inside = {
                    spec.id for ends in (False, True) for spec in specs_where(experiment, named, horizon_is_end=ends)
                }
                self.banks.add(named.run.bank.id)
                self.sets.add(named.sequence_set.id)
                for seed in experiment.seeds:
                    lane = Lane(run=named.run, seed=seed)
                    self.horizons[lane] = max(experiment.horizon, self.horizons.get(lane, 0))
                    self.sets_of.setdefault(lane, set()).add(named.sequence_set.id)
                    self.circuits_of.setdefault(lane, set()).update(inside)


@dataclass(frozen=True)
class _Unknown:
    """A study that cannot be loaded, or not all of it, why, and the sources that it mentions; () is any."""

    name: str
    problem: str
    sources: tuple[str, ...]


def find(plan: Plan) -> tuple[list[Removable], list[str]]:
    """Return what may go, and a line for each study that cannot be loaded and each pack that cannot be read.

    These say what is left out of the list because of them.
    """
    known, unknown = _load(plan)
    results = Path(plan.paths.root)
    registered = registry.read_registered(results / "packs")
    search = _Search(results, known, unknown, registered)
    left_out = [
        f"study {one.name} cannot be loaded whole, so nothing of "
        + (f"the sources that it mentions ({', '.join(one.sources)})" if one.sources else "any source")
        + f" is listed; make it loadable, or move its file away, and ask again: {one.problem}"
        for one in unknown
    ]
    left_out += [f"{one}; nothing in it is listed" for one in registered.skipped]
    # Nothing twice: what lies in a folder that may go is not listed again.
    removable: dict[Path, Removable] = {}
    for one in sorted(search.everything(), key=lambda one: (len(one.path.parts), one.path)):
        if one.path not in removable and not any(parent in removable for parent in one.path.parents):
            removable[one.path] = one
    return sorted(removable.values(), key=lambda one: one.path), left_out


def _load(plan: Plan) -> tuple[_Known, list[_Unknown]]:
    """Load the plan's study and those in workflow/studies; return what they refer to, and those that fail."""
    known, unknown = _Known(), []

    def add(loaded: Study, path: Path) -> None:
        known.add(loaded)
        for name, one in loaded.left_out.items():
            unknown.append(_Unknown(loaded.name, one.reason, _mentioned(path, bases_folder(plan.base), name)))

    add(plan.study, plan.study_path)
    folders = plan.sources.folders
    for path in study_files(plan.base):
        if path.resolve() == plan.study_path.resolve():
            continue
        try:
            add(load.load(path, folders, bases_folder(plan.base)), path)
        except StudyError as error:
            problem, *others = str(error).splitlines()
            more = f" (and {len(others)} more)" if others else ""
            unknown.append(_Unknown(path.stem, problem + more, _mentioned(path, bases_folder(plan.base))))
    return known, unknown


def _mentioned(path: Path, of_bases: Path, experiment: str | None = None) -> tuple[str, ...]:
    """Return the sources that a study file mentions, anywhere or for one experiment; () where nothing says which.

    of_bases: the folder of the bases that it can name, which count as its own defaults.
    """

    def words(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from value
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from words(item)
        elif isinstance(value, str):
            yield value

    try:
        document = read_yaml(path)
        document = document | {"defaults": bases.defaults_of(document, path, of_bases)[0]}
    except (StudyError, AttributeError, TypeError):  # what is no mapping has no sections either
        return ()
    asked, defaults = document, _section(document, "defaults")
    if experiment is not None:
        asked = _section(_section(document, "experiments"), experiment)
        # Its own source stands in place of the one in defaults.
        defaults = defaults if "source" not in _section(asked, "bank") else asked
        asked = [asked, _section(defaults, "bank").get("source")]
    if "source" not in _section(defaults, "bank"):
        return ()  # what experiments do not name, defaults do, or the schema: the default source, whatever that is
    mentioned = set(words(asked))
    return tuple(name for name in SOURCES if name in mentioned)


def _section(document: Any, name: str) -> dict:
    """Return a section of what may be no mapping; empty where there is none."""
    section = document.get(name) if isinstance(document, dict) else None
    return section if isinstance(section, dict) else {}


@dataclass(frozen=True)
class _Search:
    """Where in the results folder to look for what `known` does not name and `unknown` cannot own."""

    results: Path
    known: _Known
    unknown: list[_Unknown]
    registered: Registered

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
        yield from self._named("banks", self.known.banks)
        yield from self._named("encoders", self.known.banks)
        yield from self._named("sequences", self.known.sets)
        yield from self._packs()
        yield from self._of_studies()
        yield from self._leavings()

    def _spared(self, name: str) -> bool:
        """Say whether a study that cannot be loaded may refer to a bank, set or pack of this name."""
        return any(not one.sources or name.split("-")[0] in one.sources for one in self.unknown)

    def _named(self, kind: str, known: set[str]) -> Iterator[Removable]:
        """Yield files {kind}/{id}.*, their logs and benchmarks."""
        for folder in (self.results / kind, self.results / "logs" / kind, self.results / "benchmarks" / kind):
            for path in _files(folder):
                name = path.stem.removesuffix("-card")
                if _is_ours(name) and name not in known and not self._spared(name):
                    yield Removable(path, ORPHAN)

    # Packs.

    def _packs(self) -> Iterator[Removable]:
        """Yield packs, or files of packs, with their logs and benchmarks."""
        folder = self.results / "packs"
        names = {path.name for path in _folders(folder)}
        beside = [self.results / kind / "packs" for kind in ("logs", "benchmarks")]
        for name in names | {path.name for parent in beside for path in _folders(parent)}:
            if not _is_ours(name) or name in self.untouchable or self._spared(name):
                continue
            own = [parent / name for parent in (folder, *beside) if (parent / name).is_dir()]
            pack = self.registered.packs.get(name)
            if pack is None or not (self._is_known(pack) or name in self.started_from):
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
        spared = {one.name for one in self.unknown}
        for folder in _folders(parent):
            if folder.name not in spared:
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


def _export_names(of: Study) -> set[str]:
    """Return the names of a study's exports."""
    runs = [(experiment.name, named.name) for experiment in of.experiments.values() for named in experiment.runs]
    return {run for _, run in runs} | {f"{experiment}-{run}" for experiment, run in runs}


def _is_abandoned(path: Path) -> bool:
    """Say whether no process is writing a temporary file: its lock is free, or, of a link, it is a day old."""
    if path.suffix == ".tmp":
        return not locks.is_held(path)
    return time.time() - path.lstat().st_mtime > LINK_SECONDS


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.is_symlink())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))


# Sizes and words.


def size(paths: Iterable[Path]) -> int:
    """Return the bytes of all files in and below the paths; a file with several names counts once."""
    inodes: dict[tuple[int, int], int] = {}
    for path in paths:
        below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        for file in below if path.is_dir() else [path]:
            state = file.lstat()
            inodes[state.st_dev, state.st_ino] = state.st_size
    return sum(inodes.values())


def listing(plan: Plan) -> str:
    """Return what `find` finds as text: sizes, totals, and for each kind the command that removes it."""
    removable, left_out = find(plan)
    lines: list[str] = []
    for title, reasons in (
        ("no study refers to these", (ORPHAN, "damaged", "temporary")),
        ("finished, but beyond every horizon; a longer one will want them again", (BEYOND,)),
    ):
        chosen = [one for one in removable if one.reason in reasons]
        if not chosen:
            continue
        lines.append(f"{title} ({format_bytes(size(one.path for one in chosen))}):")
        for one in chosen:
            why = f"  ({one.reason})" if one.reason not in (ORPHAN, BEYOND) else ""
            lines.append(f"  {format_bytes(size([one.path])):>9}  {format_path(one.path)}{why}")
        lines.append("to remove them:")
        lines += [f"  {command}" for command in commands(one.path for one in chosen)]
        lines.append("")
    if not lines:
        lines = [f"{plan.paths.root}: nothing that no study refers to was found", ""]
    return "\n".join([*lines, *left_out]).rstrip()


def commands(paths: Iterable[Path]) -> list[str]:
    """Return shell commands that remove the paths."""
    # A name that begins with a hyphen is no option.
    quoted = [shlex.quote(str(path)) for path in paths]
    return [
        " ".join(["rm -rf --", *quoted[first : first + _PATHS_A_COMMAND]])
        for first in range(0, len(quoted), _PATHS_A_COMMAND)
    ]
