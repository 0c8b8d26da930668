"""Which files a study is made of, and which of them are there."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from icl_transience.planning.packs import Pack, lanes_by_run
from icl_transience.planning.records import Records
from icl_transience.specs.banks import BankSpec
from icl_transience.specs.code_digest import declaration, declaration_of_claims
from icl_transience.specs.evaluators import STRATEGY
from icl_transience.specs.figures import FORMATS, names_of_figures
from icl_transience.specs.runs import Export, Lane, Seed
from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.store.checksums import CHECKSUMS
from icl_transience.store.layout import ACQUISITION_TABLES, CIRCUITS, CIRCUITS_TABLES, FORECAST, Paths
from icl_transience.store.tables_file import EVIDENCE, MINIMAL_MODEL_TABLES, TABLES, VERDICTS
from icl_transience.study.experiments import Study

TABLE_FILES = (*TABLES, CHECKSUMS)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A snapshot from which a lane starts: at so many sequences seen, in the segment (start, end] of another pack.

    place: of the source's lane in that pack.
    """

    lane: Lane
    at: int
    pack: str
    place: int
    segment: tuple[int, int]


@dataclass(frozen=True)
class Targets:
    """Files to make, as paths below the results folder."""

    paths: Paths
    study: Study
    banks: Mapping[str, BankSpec]
    packs: Mapping[str, Pack]
    records: Records
    export_sequences: int

    def all(self) -> list[str]:
        """Return every file that the study is made of."""
        files = [path for experiment in self.study.experiments for path in self.experiment(experiment)]
        return files + self.minimal_model() + self.verdicts() + self.evidence() + self.cards()

    def cards(self) -> list[str]:
        """Return the quality cards of all banks."""
        return [self.paths.card(bank_id, kind) for bank_id in self.banks for kind in ("svg", "png")]

    # Packs and metrics.

    def previous_segment(self, pack_id: str, start: int) -> str | None:
        """Return the segment of a pack that ends at `start`; None at 0."""
        boundaries = self.packs[pack_id].boundaries
        if start == 0:
            return None
        return self.paths.segment(pack_id, boundaries[boundaries.index(start) - 1], start)

    def source_segments(self, pack_id: str, start: int) -> list[str]:
        """Return the segments of other packs from whose snapshots lanes of a pack start; none but at 0."""
        found = self.sources(pack_id) if start == 0 else []
        return list(dict.fromkeys(self.paths.segment(one.pack, *one.segment) for one in found))

    def sources(self, pack_id: str) -> list[Source]:
        """Return the snapshots from which lanes of a pack start, but those of lanes that are known nowhere."""
        found = []
        for lane in self.packs[pack_id].spec.lanes:
            start = lane.run.start_from
            if start and (start.run, lane.seed) in self._lanes:
                pack, place = self._lanes[start.run, lane.seed]
                at = start.sequences_seen
                # The snapshot at 0 stands in the first segment, any other where it is not later than the end.
                segment = next(ends for ends in itertools.pairwise(self.packs[pack].boundaries) if at <= ends[1])
                found.append(Source(lane=lane, at=at, pack=pack, place=place, segment=segment))
        return found

    @cached_property
    def _lanes(self) -> dict[tuple[str, Seed], tuple[str, int]]:
        return lanes_by_run(self.packs)

    def metrics(self, experiment: str) -> list[str]:
        """Return every metrics file that the tables of an experiment read."""
        declared, found = self.study.experiments[experiment], {}
        for named in declared.runs:
            for lane in self.records.lanes(declared, named):
                for start, end in self.packs[lane.pack].segments(declared.horizon):
                    found[self.paths.metrics(lane.pack, named.sequence_set.id, start, end)] = None
        return list(found)

    def acquisition(self, experiment: str) -> list[str]:
        """Return the tables of when in-context learning is acquired; none where the study does not ask for them."""
        folder = self.paths.experiment_folder(experiment)
        asked = self.study.experiments[experiment].statistics.acquisition
        return [f"{folder}/{name}" for name in ACQUISITION_TABLES] if asked else []

    def circuits_tables(self, experiment: str) -> list[str]:
        """Return the tables of an experiment's circuits and their checksums; none where nothing is measured."""
        folder = self.paths.circuits_folder(experiment)
        asked = self.study.experiments[experiment].circuits
        return [f"{folder}/{name}" for name in (*CIRCUITS_TABLES, CHECKSUMS)] if asked else []

    def forecast(self, experiment: str) -> list[str]:
        """Return the table of forecasts of an experiment; none where no strategy, or no flip, is evaluated."""
        curves = self.study.experiments[experiment].runs[0].sequence_set.curves
        return [f"{self.paths.experiment_folder(experiment)}/{FORECAST}"] if {STRATEGY, "flip"} <= {*curves} else []

    def with_files(self, files: Callable[[str], Collection[str]]) -> str:
        """Return a pattern for the experiments of which `files` returns some; it matches nothing where none has any."""
        return "|".join(filter(files, self.study.experiments)) or "(?!)"

    def circuits_figures(self, experiment: str) -> dict[str, list[str]]:
        """Return the figures of an experiment's circuits, as `figures` does; they stand in a folder of their own."""
        return self._files(experiment, self.study.experiments[experiment].circuits_figures)

    # Experiments.

    def experiment(self, experiment: str) -> list[str]:
        """Return the files of an experiment."""
        folder = self.paths.experiment_folder(experiment)
        files = [
            *TABLE_FILES,
            *(file for files in self.figures(experiment).values() for file in files),
            *(f"{CIRCUITS}/{file}" for files in self.circuits_figures(experiment).values() for file in files),
        ]
        tables = [*self.acquisition(experiment), *self.circuits_tables(experiment), *self.forecast(experiment)]
        return [self.declared(experiment), *(f"{folder}/{name}" for name in files), *tables]

    def declared(self, experiment: str) -> str:
        """Return a file whose name says what the experiment's tables are made from; missing where they are not."""
        declared = declaration(self.records.experiment(experiment, figures=False))
        return f"{self.paths.experiment_folder(experiment)}/.declared-{declared}"

    def figures(self, experiment: str) -> dict[str, list[str]]:
        """Return the figures of an experiment: name -> names of files, first the one that the report shows."""
        declared = self.study.experiments[experiment]
        names = names_of_figures(
            declared.levels(),
            len(declared.runs),
            declared.figures.drawn,
            acquisition=declared.statistics.acquisition,
        )
        return self._files(experiment, names)

    def _files(self, experiment: str, names: Sequence[str]) -> dict[str, list[str]]:
        kinds = sorted(self.study.experiments[experiment].figures.formats, key=FORMATS.index)
        return {name: [f"{name}.{kind}" for kind in kinds] for name in names}

    @cached_property
    def exports(self) -> dict[str, Export]:
        """Exports by name: {experiment}-{run}, and {run} alone where the study has but one run of that name."""
        exports: dict[str, Export] = {}
        by_run_name: dict[str, set[Export]] = {}
        for experiment in self.study.experiments.values():
            for named in experiment.runs:
                export = Export(
                    run=named.run,
                    sequence_set=named.sequence_set,
                    seed=experiment.seeds[0],
                    training_sequences=self.export_sequences,
                )
                exports[f"{experiment.name}-{named.name}"] = export
                by_run_name.setdefault(named.name, set()).add(export)
        return {name: same.pop() for name, same in by_run_name.items() if len(same) == 1} | exports

    def finished(self) -> list[str]:
        """Return the folders of the experiments that have been built."""
        folders = {
            self.paths.experiment_folder(name): self.figures(name)["curves"][0] for name in self.study.experiments
        }
        return [
            folder
            for folder, curves in folders.items()
            if all(Path(folder, name).exists() for name in (*TABLE_FILES, curves))
        ]

    # The minimal model.

    def minimal_model(self) -> list[str]:
        """Return the files of the minimal model; none in a study that has none."""
        if self.study.minimal_model is None:
            return []
        folder = self.paths.experiment_folder(MINIMAL_MODEL)
        names = (*MINIMAL_MODEL_TABLES, CHECKSUMS, *(f"{MINIMAL_MODEL}.{kind}" for kind in ("svg", "png")))
        return [self.minimal_model_declared(), *(f"{folder}/{name}" for name in names)]

    def minimal_model_declared(self) -> str:
        """Return a file whose name says what its tables are made from; see `declared`."""
        assert self.study.minimal_model is not None
        return f"{self.paths.experiment_folder(MINIMAL_MODEL)}/.declared-{declaration(self.study.minimal_model)}"

    def tables_beside_minimal_model(self) -> list[str]:
        """Return the tables of the experiments that its figure shows too."""
        assert self.study.minimal_model is not None
        folders = [self.paths.experiment_folder(one.experiment) for one in self.study.minimal_model.beside]
        return [f"{folder}/{name}" for folder in folders for name in TABLE_FILES]

    def is_minimal_model_finished(self) -> bool:
        """Say whether the study has a minimal model and it has been built."""
        files = self.minimal_model()
        return bool(files) and all(Path(path).exists() for path in files)

    # Claims.

    def judged_tables(self) -> list[str]:
        """Return the tables from which the claims are judged."""
        claiming = [name for name, experiment in self.study.experiments.items() if experiment.claims]
        names = ("transience.csv", CHECKSUMS)
        return [f"{self.paths.experiment_folder(experiment)}/{name}" for experiment in claiming for name in names]

    def verdicts(self) -> list[str]:
        """Return the tables of verdicts and evidence, and what says that they are; none where nothing is claimed."""
        claims = any(one.claims for one in (*self.study.experiments.values(), *self.study.left_out.values()))
        tables = [f"{self.paths.study_folder}/{name}" for name in (VERDICTS, EVIDENCE, CHECKSUMS)]
        return [*tables, self.claims_declared()] if claims else []

    def claims_declared(self) -> str:
        """Return a file whose name says which claims the verdicts are on; missing where they are on others."""
        return f"{self.paths.study_folder}/.declared-{declaration_of_claims(self.records.claims())}"

    def evidence(self) -> list[str]:
        """Return the figure of the evidence; none in a study that claims nothing."""
        return [f"{self.paths.study_folder}/evidence.{kind}" for kind in ("svg", "png")] if self.verdicts() else []

    def is_judged(self) -> bool:
        """Say whether the study claims something and its claims have been judged."""
        written = self.verdicts()
        return bool(written) and all(Path(path).exists() for path in written)
