"""Results that no study refers to: what they are, how large, and the command that removes them. Removes nothing itself.

Studies are all workflow/studies/*.yaml and the configured one. Of a study that cannot be loaded nobody knows what it
refers to; whatever is of a source that it mentions is then left out of the list. Never listed: downloads in sources/,
archives, provenance, and packs that a job is training.
"""

import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icl_transience.planning import packs
from icl_transience.planning.packs import Pack
from icl_transience.planning.plan import Plan
from icl_transience.results.status import training
from icl_transience.specs.banks import SOURCES
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import Lane
from icl_transience.store import atomic, layout, locks
from icl_transience.study import load
from icl_transience.study.document import read_yaml
from icl_transience.study.experiments import Study
from icl_transience.system.formatting import human, shown

ORPHAN, BEYOND = "no study refers to", "beyond every horizon"
# A link has no lock; it bears its temporary name for a moment only.
LINK_SECONDS = 24 * 3600
_OF_SEGMENT = re.compile(r"^(?:segment|unfinished|metrics-(?P<set>.+))-(?P<start>\d{12})-(?P<end>\d{12})\.\w+$")
_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]+\.(tmp|link)$")
_PATHS_A_COMMAND = 100


@dataclass(frozen=True)
class Found:
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

    def add(self, loaded: Study) -> None:
        # Two files of one name, one of them elsewhere, write into the same folders.
        self.experiments.setdefault(loaded.name, set()).update(loaded.experiments)
        self.exports.setdefault(loaded.name, set()).update(_export_names(loaded))
        for experiment in loaded.experiments.values():
            for named in experiment.runs:
                self.banks.add(named.run.bank.id)
                self.sets.add(named.sequence_set.id)
                for seed in experiment.seeds:
                    lane = Lane(run=named.run, seed=seed)
                    self.horizons[lane] = max(experiment.horizon, self.horizons.get(lane, 0))
                    self.sets_of.setdefault(lane, set()).add(named.sequence_set.id)


@dataclass(frozen=True)
class _Unknown:
    """A study that cannot be loaded, or not all of it, why, and the sources that it mentions; () is any."""

    name: str
    problem: str
    sources: tuple[str, ...]


def find(plan: Plan) -> tuple[list[Found], list[str]]:
    """What may go, and for each study that cannot be loaded a sentence that says what is therefore left out."""
    known, unknown = _load(plan)
    results = Path(plan.paths.root)
    search = _Search(results, known, unknown, packs.read_registered(results / "packs"))
    left_out = [
        f"study {one.name} cannot be loaded whole, so nothing of "
        + (f"the sources that it mentions ({', '.join(one.sources)})" if one.sources else "any source")
        + f" is listed; make it loadable, or move its file away, and ask again: {one.problem}"
        for one in unknown
    ]
    # Nothing twice: what lies in a folder that may go is not listed again.
    found: dict[Path, Found] = {}
    for one in sorted(search.everything(), key=lambda one: (len(one.path.parts), one.path)):
        if one.path not in found and not any(parent in found for parent in one.path.parents):
            found[one.path] = one
    return sorted(found.values(), key=lambda one: one.path), left_out


def _load(plan: Plan) -> tuple[_Known, list[_Unknown]]:
    known, unknown = _Known(), []

    def add(loaded: Study, path: Path) -> None:
        known.add(loaded)
        for name, one in loaded.left_out.items():
            unknown.append(_Unknown(loaded.name, one.reason, _mentioned(path, name)))

    add(plan.study, plan.study_path)
    folders = plan.sources.folders
    for path in sorted((plan.base / "workflow/studies").glob("*.yaml")):
        if path.resolve() == plan.study_path.resolve():
            continue
        try:
            add(load.load(path, folders), path)
        except StudyError as error:
            problem, *others = str(error).splitlines()
            more = f" (and {len(others)} more)" if others else ""
            unknown.append(_Unknown(path.stem, problem + more, _mentioned(path)))
    return known, unknown


def _mentioned(path: Path, experiment: str | None = None) -> tuple[str, ...]:
    """The sources that a study file mentions, anywhere or for one experiment; () where nothing says which."""

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
    except StudyError:
        return ()
    asked, defaults = document, _section(document, "defaults")
    if experiment is not None:
        asked = _section(_section(document, "experiments"), experiment)
        # Its own source stands in place of the one in defaults.
        defaults = defaults if "source" not in _section(asked, "bank") else asked
        asked = [asked, _section(defaults, "bank").get("source")]
    if "source" not in _section(defaults, "bank"):
        return ()  # what experiments do not name, defaults do, or the schema: the default source, whatever that is
    found = set(words(asked))
    return tuple(name for name in SOURCES if name in found)


def _section(document: Any, name: str) -> dict:
    """A section of what may be no mapping; empty where there is none."""
    section = document.get(name) if isinstance(document, dict) else None
    return section if isinstance(section, dict) else {}


@dataclass
class _Search:
    results: Path
    known: _Known
    unknown: list[_Unknown]
    registered: dict[str, Pack]

    def everything(self) -> Iterator[Found]:
        yield from self._named("banks", self.known.banks)
        yield from self._named("encoders", self.known.banks)
        yield from self._named("sequences", self.known.sets)
        yield from self._packs()
        yield from self._of_studies()
        yield from self._leavings()

    def _spared(self, name: str) -> bool:
        """Whether a study that cannot be loaded may refer to a bank, set or pack of this name."""
        return any(not one.sources or name.split("-")[0] in one.sources for one in self.unknown)

    def _named(self, kind: str, known: set[str]) -> Iterator[Found]:
        """Files {kind}/{id}.*, and what was logged and measured when they were made."""
        for folder in (self.results / kind, self.results / "logs" / kind, self.results / "benchmarks" / kind):
            for path in _files(folder):
                name = path.stem.removesuffix("-card")
                if _is_ours(name) and name not in known and not self._spared(name):
                    yield Found(path, ORPHAN)

    # Packs.

    def _packs(self) -> Iterator[Found]:
        folder = self.results / "packs"
        names = {path.name for path in _folders(folder)}
        live = training(folder, names)
        beside = [self.results / kind / "packs" for kind in ("logs", "benchmarks")]
        for name in names | {path.name for place in beside for path in _folders(place)}:
            if not _is_ours(name) or name in live or self._spared(name):
                continue
            places = [place / name for place in (folder, *beside) if (place / name).is_dir()]
            pack = self.registered.get(name)
            if pack is None or not any(lane in self.known.horizons for lane in pack.spec.lanes):
                yield from (Found(place, ORPHAN) for place in places)
            else:
                for place in places:
                    yield from self._of_pack(pack, place)

    def _of_pack(self, pack: Pack, folder: Path) -> Iterator[Found]:
        """What may go of a pack that is needed: its files, or their logs or benchmarks, in `folder`."""
        lanes = [lane for lane in pack.spec.lanes if lane in self.known.horizons]
        horizon = max(self.known.horizons[lane] for lane in lanes)
        sets = {set_id for lane in lanes for set_id in self.known.sets_of[lane]}
        for path in [*_files(folder), *_files(folder / layout.KEPT)]:
            match = _OF_SEGMENT.match(path.name)
            if match is None:
                continue
            if match["set"] and match["set"] not in sets:
                yield Found(path, ORPHAN)
            elif int(match["start"]) >= horizon:
                yield Found(path, BEYOND)

    # Studies.

    def _of_studies(self) -> Iterator[Found]:
        for kind in ("studies", "logs/studies"):
            for folder, experiments in self._by_study(self.results / kind, self.known.experiments):
                if experiments is None:
                    yield Found(folder, ORPHAN)
                yield from (Found(path, ORPHAN) for path in _folders(folder) if path.name not in (experiments or ()))
        for kind in ("exports", "logs/exports"):
            for folder, names in self._by_study(self.results / kind, self.known.exports):
                if names is None:
                    yield Found(folder, ORPHAN)
                for path in _files(folder):
                    if path.suffix in (".h5", ".log") and path.stem.removesuffix(".bank") not in (names or ()):
                        yield Found(path, ORPHAN)

    def _by_study(self, parent: Path, known: Mapping[str, set[str]]) -> Iterator[tuple[Path, set[str] | None]]:
        """Folders of studies and what is known of each; None of one that does not exist."""
        spared = {one.name for one in self.unknown}
        for folder in _folders(parent):
            if folder.name not in spared:
                yield folder, known.get(folder.name)

    def _leavings(self) -> Iterator[Found]:
        """Files that were moved aside as damaged, and what killed writers left."""
        folder = self.results / "packs"
        live = {folder / name for name in training(folder, {path.name for path in _folders(folder)})}
        for folder, folders, names in os.walk(self.results):
            folders[:] = [name for name in folders if Path(folder, name) not in live]
            for name in names:
                path = Path(folder, name)
                if name.endswith(atomic.DAMAGED):
                    yield Found(path, "damaged")
                elif _TEMPORARY.match(name) and _is_abandoned(path):
                    yield Found(path, "temporary")


def _is_ours(name: str) -> bool:
    """Whether it is the name of a bank, set or pack: {source}-…."""
    return name.split("-")[0] in SOURCES and "-" in name


def _export_names(of: Study) -> set[str]:
    runs = [(experiment.name, named.name) for experiment in of.experiments.values() for named in experiment.runs]
    return {run for _, run in runs} | {f"{experiment}-{run}" for experiment, run in runs}


def _is_abandoned(path: Path) -> bool:
    """Whether no process is writing a temporary file: its lock is free; of a link, that it is a day old."""
    if path.suffix == ".tmp":
        return not locks.is_held(path)
    return time.time() - path.lstat().st_mtime > LINK_SECONDS


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.is_symlink())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))


# Sizes and words.


def size(paths: Iterable[Path]) -> int:
    """Bytes of all files in and below the paths; a file with several names counts once."""
    inodes: dict[tuple[int, int], int] = {}
    for path in paths:
        below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        for file in below if path.is_dir() else [path]:
            state = file.lstat()
            inodes[state.st_dev, state.st_ino] = state.st_size
    return sum(inodes.values())


def report(plan: Plan) -> str:
    """What `find` finds, as text: sizes, totals, and a command for each kind that removes it."""
    found, left_out = find(plan)
    lines: list[str] = []
    for title, reasons in (
        ("no study refers to these", (ORPHAN, "damaged", "temporary")),
        ("finished, but beyond every horizon; a longer one will want them again", (BEYOND,)),
    ):
        chosen = [one for one in found if one.reason in reasons]
        if not chosen:
            continue
        lines.append(f"{title} ({human(size(one.path for one in chosen))}):")
        for one in chosen:
            why = f"  ({one.reason})" if one.reason not in (ORPHAN, BEYOND) else ""
            lines.append(f"  {human(size([one.path])):>9}  {shown(one.path)}{why}")
        lines.append("to remove them:")
        lines += [f"  {command}" for command in commands(one.path for one in chosen)]
        lines.append("")
    if not lines:
        lines = [f"{plan.paths.root}: nothing that no study refers to was found", ""]
    return "\n".join([*lines, *left_out]).rstrip()


def commands(paths: Iterable[Path]) -> list[str]:
    """Shell commands that remove the paths."""
    # A name that begins with a hyphen is no option.
    quoted = [shlex.quote(str(path)) for path in paths]
    return [
        " ".join(["rm -rf --", *quoted[first : first + _PATHS_A_COMMAND]])
        for first in range(0, len(quoted), _PATHS_A_COMMAND)
    ]
