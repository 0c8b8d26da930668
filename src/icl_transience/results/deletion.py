"""What goes when an experiment, a run or a lane of a study is deleted, what stays and why, and what is made again.

Of what studies share goes only what nothing else refers to: lanes of another experiment or study, banks and sequences
that others use, snapshots from which others start, and packs in which another lane trains stay. A file of a pack holds
all its lanes, so that one of them cannot go alone. The index of a pack stays as long as the study asks for its lanes,
so that these train in the same packs again.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from icl_transience.planning import registry
from icl_transience.planning.plan import Plan
from icl_transience.results import orphans, referred, stale
from icl_transience.results.orphans import Removable, Search
from icl_transience.results.referred import Referred, Use
from icl_transience.results.removal import LOCK, Part, files_below
from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.records import experiment_from
from icl_transience.specs.runs import Lane
from icl_transience.store import atomic, layout, locks
from icl_transience.system import tensorboard
from icl_transience.system.formatting import format_number_of, format_path

_MOST_NAMED = 4


@dataclass(frozen=True)
class Selection:
    """What is to go of the plan's study. uses: its lanes. experiments: those whose tables go, too. study: all of it."""

    uses: frozenset[Use]
    experiments: frozenset[str] = frozenset()
    study: bool = False


@dataclass(frozen=True)
class Deletion:
    """parts: what goes. stays: why something that was asked for does not go. again: what Snakemake makes again."""

    parts: tuple[Part, ...]
    stays: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


def selected(plan: Plan, names: Iterable[str]) -> Selection:
    """Return what EXPERIMENT, EXPERIMENT/RUN, EXPERIMENT/RUN/SEED name. Raises StudyError where a name is unknown."""
    uses_of: dict[str, list[Use]] = {}
    for experiment in plan.study.experiments.values():
        for named in experiment.runs:
            for seed in experiment.seeds:
                use = Use(plan.study_path, experiment.name, named.name, seed.label)
                run = f"{experiment.name}/{named.name}"
                for name in (experiment.name, run, f"{run}/{seed.label}"):
                    uses_of.setdefault(name, []).append(use)
    names = list(names)
    for name in names:
        if name not in uses_of:
            raise StudyError(
                f"study {plan.study.name} has no {name!r}{did_you_mean(name, list(uses_of))}: expected EXPERIMENT, "
                f"EXPERIMENT/RUN or EXPERIMENT/RUN/SEED; experiments are {', '.join(plan.study.experiments)}"
            )
    return Selection(
        frozenset(use for name in names for use in uses_of[name]),
        frozenset(name for name in names if name in plan.study.experiments),
    )


def whole_study(plan: Plan) -> Selection:
    """Return all of the plan's study that can be loaded."""
    experiments = frozenset(plan.study.experiments)
    return dataclasses.replace(selected(plan, experiments), study=True)


def of_orphans(plan: Plan, reasons: Sequence[str]) -> tuple[Deletion, list[str]]:
    """Return what `snakemake orphans` lists for these reasons, and what it says is left out."""
    found, left_out = orphans.find(plan)
    parts = [Part.whole(one.path) for one in found if one.reason in reasons]
    return Deletion(tuple(part for part in parts if part.files or part.path.is_dir())), left_out


def of_stale(plan: Plan, *, shared: bool) -> Deletion:
    """Return the packs of the study that other code trained than the code as it stands, as whole packs."""
    packs = set(stale.stale_packs(plan))
    return _Deleted(plan, shared).packs_alone(packs)


def of_selection(plan: Plan, selection: Selection, *, shared: bool = False) -> Deletion:
    """Return what goes with a part of a study.

    shared: lanes go with all of their packs, whoever else refers to these. Raises StudyError where a job is training
    one of the packs.
    """
    return _Deleted(plan, shared).selection(selection)


class _Deleted:
    """Work out deletions. plan: of the study of which something goes. shared: see of_selection."""

    def __init__(self, plan: Plan, shared: bool):
        self.plan, self.shared = plan, shared
        self.results = Path(plan.paths.root)
        self.registered = registry.read_registered(self.results / "packs")
        self.studies, self.unloaded = referred.load_all(plan)
        # Experiments of which there are results, but which no study of this name has.
        self._unknown: set[str] = set()
        self.home = {lane: pack_id for pack_id, pack in self.registered.packs.items() for lane in pack.spec.lanes}

    def packs_alone(self, packs: set[str]) -> Deletion:
        """Return what goes where whole packs are to be trained again; banks and sequences stay."""
        referred = self._referred(lambda use: False)
        uses = {
            use
            for lane, all_of in referred.uses.items()
            if self.home.get(lane) in packs
            for use in all_of
            if use.file == self.plan.study_path
        }
        return self.selection(Selection(frozenset(uses)), banks=False)

    def selection(self, selection: Selection, *, banks: bool = True) -> Deletion:
        """Return what goes with a part of the study. banks: banks and sequences that nothing else uses, too."""
        before = self._referred(lambda use: False)
        after = self._referred(lambda use: use in selection.uses)
        packs = {
            self.home[lane]
            for lane, uses in before.uses.items()
            if lane in self.home and selection.uses.intersection(uses)
        }
        for pack_id in sorted(packs):
            if locks.is_held(Path(self.plan.paths.packs, pack_id, LOCK)):
                raise StudyError(
                    f"{self.plan.paths.packs}/{pack_id}: a job is training this pack: wait for it or stop it; nothing "
                    "was deleted"
                )
        also: tuple[str, ...] = ()
        if self.shared:
            also = tuple(sorted({str(use) for lane in self._lanes(packs) for use in after.uses.get(lane, [])}))
            after.forget(self._lanes(packs))
        found = self._new(before, after, frozenset(packs) if self.shared else frozenset())
        if not banks:
            found = [one for one in found if "packs" in one.path.relative_to(self.results).parts]
        parts = [self._part(one) for one in found]
        parts += self._tables(selection)
        parts += self._outdated(parts, after, packs)
        parts = sorted((part for part in parts if part.files), key=lambda part: part.path)
        gone = {file for part in parts for file in part.files}
        return Deletion(tuple(parts), tuple(self._stays(packs, gone, after)), tuple(self._again(gone, selection, also)))

    def _referred(self, leave_out: Callable[[Use], bool]) -> Referred:
        """Return what studies refer to, and what results here were made from for files of which nothing is known."""
        found = referred.referred_to(self.studies, leave_out)
        for path in sorted(self.results.glob("studies/*/*/experiment.json")):
            study, name = path.parts[-3:-1]
            if name in found.experiments.get(study, ()):
                continue
            if study == self.plan.study.name:
                self._unknown.add(name)
            record = experiment_from(atomic.read_planned(path))
            for run in record.runs:
                for lane in run.lanes:
                    if lane.pack in self.registered.packs:
                        trained = self.registered.packs[lane.pack].spec.lanes[lane.place]
                        use = Use(Path(study), record.experiment, run.name, lane.seed)
                        found.add_use(trained, use, record.horizon, run.set, lane.circuits)
        return found

    def _lanes(self, packs: Iterable[str]) -> list[Lane]:
        return [lane for pack_id in packs for lane in self.registered.packs[pack_id].spec.lanes]

    def _new(self, before: Referred, after: Referred, forced: frozenset[str]) -> list[Removable]:
        """Return what may go of what studies share because less is referred to, and what is forced to."""
        known = {one.path for one in Search(self.results, before, self.unloaded, self.registered).shared()}
        search = Search(self.results, after, self.unloaded, self.registered, forced)
        found = orphans.without_doubles(search.shared())
        return [one for one in found if not known.intersection((one.path, *one.path.parents))]

    def _part(self, one: Removable) -> Part:
        """Return what goes of a file or folder; of a pack's folder all but its index and its lock."""
        files = tuple(files_below(one.path))
        if one.path.parent != self.results / "packs":
            return Part(one.path, files)
        keep = {one.path / registry.INDEX, one.path / LOCK}
        held = self.registered.packs[one.path.name].spec.lanes
        return Part(one.path, tuple(sorted(set(files) - keep)), format_number_of(len(held), "lane"))

    def _tables(self, selection: Selection) -> Iterator[Part]:
        """Yield the folders of tables and figures that go, with their logs; of a whole study its exports, too."""
        paths, name = self.plan.paths, self.plan.study.name
        beside = ("logs/studies", tensorboard.FOLDER)
        folders = (Path(paths.study_folder), *(self.results / kind / name for kind in beside))
        others = [study for path, study in self.studies if path != self.plan.study_path and study.name == name]
        if selection.study and not others:
            # What cannot be loaded now stays, and what another file of this name may have asked for.
            names = {*self.plan.study.left_out, *self._unknown}
            left_out = {folder / experiment for folder in folders for experiment in names}
            for folder in (*folders, self.results / "exports" / name, self.results / "logs/exports" / name):
                if folder.is_dir():
                    files = files_below(folder)
                    yield Part(folder, tuple(file for file in files if left_out.isdisjoint(file.parents)))
            return
        for experiment in sorted(selection.experiments):
            if not any(experiment in study.experiments for study in others):
                yield from (Part.whole(folder / experiment) for folder in folders if (folder / experiment).is_dir())

    def _outdated(self, parts: Sequence[Part], after: Referred, packs: Iterable[str]) -> Iterator[Part]:
        """Yield tables and figures of experiments that are made from what goes.

        Where they stayed, Snakemake would find them up to date and make nothing again.
        """
        gone = {_declared(file) for part in parts for file in part.files}
        names = {(self.plan.study.name, name) for name in self._made_from(gone)}
        if self.shared:
            uses = (use for lane in self._lanes(packs) for use in after.uses.get(lane, []))
            names |= {(use.file.stem, use.experiment) for use in uses}
        listed = {part.path for part in parts}
        for study, experiment in sorted(names):
            folder = self.results / "studies" / study / experiment
            if folder.is_dir() and listed.isdisjoint((folder, *folder.parents)):
                yield Part.whole(folder)

    def _made_from(self, declared: set[Path]) -> list[str]:
        """Return the experiments of the plan's study that are made from one of these files."""
        return [
            name
            for name in self.plan.study.experiments
            if not declared.isdisjoint(path for paths in self._asked(name).values() for path in paths)
        ]

    # In words.

    def _stays(self, packs: Iterable[str], gone: set[Path], after: Referred) -> Iterator[str]:
        """Yield a line for each pack of which training stays, and why."""
        search = Search(self.results, after, self.unloaded, self.registered)
        for pack_id in sorted(packs):
            folder = self.results / "packs" / pack_id
            files = (one for place in (folder, folder / layout.KEPT) for one in place.glob("*") if one not in gone)
            left = {one.name for one in files if layout.SEGMENT.match(one.name)}
            if not left:
                continue
            users = sorted({use for lane in self._lanes([pack_id]) for use in after.uses.get(lane, [])})
            if folder.is_symlink():
                why = f"it is a link, to {format_path(folder.resolve())}: delete that by hand, then the link"
            elif users:
                why = f"it trains {_some(users)}, too"
                if unknown := sorted(self._unknown & {use.experiment for use in users}):
                    why += f"; no study here has {', '.join(unknown)}: say `delete --orphans` first, if none should"
            elif pack_id in search.started_from:
                why = "other lanes start from its snapshots"
            else:
                why = "a study that cannot be loaded here may refer to it"
            yield (
                f"{format_path(folder)} stays: {why} ({format_number_of(len(left), 'segment')}, each of all "
                "lanes of the pack); --shared deletes it all the same"
            )

    def _again(self, gone: set[Path], selection: Selection, also: Sequence[str]) -> Iterator[str]:
        """Yield lines that say what Snakemake makes again as long as the study asks for it."""
        declared = {_declared(file) for file in gone}
        counts: Counter[str] = Counter()
        experiments = {*selection.experiments, *self._made_from(declared)}
        for noun in _NOUNS:
            asked = {path for name in self.plan.study.experiments for path in self._asked(name)[noun]}
            counts[noun] = len(asked & declared)
        made = [format_number_of(counts[noun], noun) for noun in _NOUNS if counts[noun]]
        if experiments:
            made.append(
                f"tables and figures of {', '.join(one for one in self.plan.study.experiments if one in experiments)}"
            )
        if selection.study and self.plan.study.minimal_model:
            made.append("the minimal model")
        if counts["bank"]:
            made.append("cards")
        if any(self.plan.study.experiments[name].claims for name in experiments):
            made.append("verdicts")
        if made:
            yield (
                f"study {self.plan.study.name} still asks for this: the next snakemake makes {_listed(made)} again, "
                f"unless you take it out of {format_path(self.plan.study_path)}"
            )
        if also:
            yield f"others that have lanes of these packs, and get them trained again: {_some(also)}"

    @cached_property
    def _asked_of(self) -> Mapping[str, dict[str, set[Path]]]:
        found = {}
        for name, experiment in self.plan.study.experiments.items():
            paths, targets = self.plan.paths, self.plan.targets
            metrics = {Path(one) for one in targets.metrics(name)}
            runs = [named.run.bank for named in experiment.runs]
            found[name] = {
                "encoder": {Path(paths.encoder(bank.id)) for bank in runs},
                "bank": {Path(paths.bank(bank.id)) for bank in runs},
                "evaluator set": {Path(paths.sequences(named.sequence_set.id)) for named in experiment.runs},
                "segment": {one.with_name(f"segment-{one.name[-28:]}") for one in metrics},
                "metrics file": metrics,
                "circuits file": {Path(one) for one in self.plan.circuits.files(name)},
            }
        return found

    def _asked(self, experiment: str) -> dict[str, set[Path]]:
        """Return noun -> the files of that kind that an experiment is made from."""
        return self._asked_of[experiment]


_NOUNS = ("encoder", "bank", "evaluator set", "segment", "metrics file", "circuits file")


def _declared(file: Path) -> Path:
    """Return the name by which Snakemake knows a file."""
    return file.parent.parent / file.name if file.parent.name == layout.KEPT else file


def _some(things: Sequence[object]) -> str:
    """Return the first few, and how many more there are."""
    more = len(things) - _MOST_NAMED
    return ", ".join(map(str, things[:_MOST_NAMED])) + (f" and {more:,} more" if more > 0 else "")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
