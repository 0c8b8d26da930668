"""What studies refer to: lanes, banks, sets, experiments, exports.

Studies are all workflow/studies/*.yaml, the plan's, and those whose files stand elsewhere, as far as results say so.
Of a study that cannot be loaded nobody knows what it refers to; its file says at least which sources it mentions.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icl_transience.planning import made_for
from icl_transience.planning.circuits import specs_where
from icl_transience.planning.plan import Plan, bases_folder, study_files
from icl_transience.specs.banks import SOURCES
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import Lane
from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.study import bases, load
from icl_transience.study.document import read_yaml
from icl_transience.study.experiments import Study


@dataclass(frozen=True, order=True)
class Use:
    """A lane as an experiment of a study has it. file: of the study; two files may bear one name."""

    file: Path
    experiment: str
    run: str
    seed: str

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.experiment} {self.run} seed {self.seed} of study {self.file.stem}"


@dataclass
class Referred:
    """What the studies that could be loaded refer to; experiments and exports by study."""

    experiments: dict[str, set[str]] = field(default_factory=dict)
    exports: dict[str, set[str]] = field(default_factory=dict)
    banks: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    uses: dict[Lane, list[Use]] = field(default_factory=dict)
    horizons: dict[Lane, int] = field(default_factory=dict)
    sets_of: dict[Lane, set[str]] = field(default_factory=dict)
    circuits_of: dict[Lane, set[str]] = field(default_factory=dict)
    with_circuits: set[tuple[str, str]] = field(default_factory=set)

    def add(self, loaded: Study, file: Path, leave_out: Callable[[Use], bool]) -> None:
        """Add what a study refers to, but for the uses of lanes that are to be left out."""
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
                for seed in experiment.seeds:
                    use = Use(file, experiment.name, named.name, seed.label)
                    if not leave_out(use):
                        lane = Lane(run=named.run, seed=seed)
                        self.add_use(lane, use, experiment.horizon, named.sequence_set.id, inside)

    def add_use(self, lane: Lane, use: Use, horizon: int, set_id: str, circuits: Iterable[str]) -> None:
        """Add a lane as an experiment has it. circuits: ids of what is measured inside it."""
        self.banks.add(lane.run.bank.id)
        self.sets.add(set_id)
        self.uses.setdefault(lane, []).append(use)
        self.horizons[lane] = max(horizon, self.horizons.get(lane, 0))
        self.sets_of.setdefault(lane, set()).add(set_id)
        self.circuits_of.setdefault(lane, set()).update(circuits)

    def forget(self, lanes: Iterable[Lane]) -> None:
        """Leave lanes out, whoever has them."""
        for lane in lanes:
            for known in (self.uses, self.horizons, self.sets_of, self.circuits_of):
                known.pop(lane, None)


def _export_names(of: Study) -> set[str]:
    """Return the names of a study's exports."""
    runs = [(experiment.name, named.name) for experiment in of.experiments.values() for named in experiment.runs]
    return {run for _, run in runs} | {f"{experiment}-{run}" for experiment, run in runs}


@dataclass(frozen=True)
class Unloaded:
    """A study that cannot be loaded, or not all of it, why, and the sources that it mentions; () is any."""

    name: str
    problem: str
    sources: tuple[str, ...]


def in_words(unloaded: list[Unloaded]) -> str:
    """Return one line that says which studies cannot be loaded, what is not listed therefore, and how to mend it."""
    names = list(dict.fromkeys(one.name for one in unloaded))
    known = all(one.sources for one in unloaded)
    sources = ", ".join(dict.fromkeys(source for one in unloaded for source in one.sources))
    several = len(names) > 1
    of = f"the sources that {'they mention' if several else 'it mentions'} ({sources})" if known else "any source"
    more = f" (and {len(unloaded) - 1} more)" if len(unloaded) > 1 else ""
    return (
        f"{'studies' if several else 'study'} {', '.join(names)} cannot be loaded whole, so nothing of {of} is listed; "
        f"make {'them' if several else 'it'} loadable, or move the file{'s' * several} away, and ask again: "
        f"{unloaded[0].problem}{more}"
    )


def load_all(plan: Plan) -> tuple[list[tuple[Path, Study]], list[Unloaded]]:
    """Load the plan's study, those in workflow/studies and those elsewhere for which something here was made.

    Return them with their files, and those that fail.
    """
    loaded, unloaded = [], []

    def add(study: Study, path: Path) -> None:
        loaded.append((path, study))
        for name, one in study.left_out.items():
            unloaded.append(Unloaded(study.name, one.reason, _mentioned(path, bases_folder(plan.base), name)))

    add(plan.study, plan.study_path)
    folders = plan.sources.folders
    known = {plan.study_path.resolve()}
    shipped = ((path, "") for path in study_files(plan.base))
    for path, unseen in (*shipped, *made_for.noted(Path(plan.paths.root))):
        if path.resolve() in known:
            continue
        known.add(path.resolve())
        if unseen:
            unloaded.append(Unloaded(path.stem, unseen, ()))
            continue
        try:
            add(load.load(path, folders, bases_folder(plan.base)), path)
        except StudyError as error:
            problem, *others = str(error).splitlines()
            more = f" (and {len(others)} more)" if others else ""
            unloaded.append(Unloaded(path.stem, problem + more, _mentioned(path, bases_folder(plan.base))))
    return loaded, unloaded


def referred_to(
    studies: Iterable[tuple[Path, Study]], leave_out: Callable[[Use], bool] = lambda use: False
) -> Referred:
    """Return what studies refer to. leave_out: uses of lanes that do not count."""
    referred = Referred()
    for path, study in studies:
        referred.add(study, path, leave_out)
    return referred


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
