"""Where everything under results/ stands: every folder and file name in one place."""

import re
from dataclasses import dataclass
from pathlib import Path

from icl_transience.specs.theory import MINIMAL_MODEL

# The folder beside finished files that holds them under a second name; see hdf5.restore.
KEPT = ".kept"
# What a study's own file is called in its archive, where bases stand beside it.
ARCHIVED_STUDY = "study.yaml"
# A study's page of all curves.
EXPLORER = "explorer.html"
# The tables of an experiment, and those of a study: how its claims stand, and how they came to stand so.
TABLES = ("curves.csv", "transience.csv", "runs.csv")
VERDICTS = "verdicts.csv"
EVIDENCE = "evidence.csv"
# Beside the tables of an experiment, where its study asks for them; see analysis/acquisition.py.
ACQUISITION_TABLES = ("survival.csv", "threshold.csv")
# Whether where models stand between ideal predictors forecasts flip.
FORECAST = "forecast.csv"
# The folder of an experiment's tables and figures of circuits, and these tables.
CIRCUITS = "circuits"
CIRCUITS_TABLES = ("heads.csv", "composition.csv", "attention.csv")
# Sequences seen, zero-padded, in the names of a segment and its metrics.
SEGMENT = re.compile(r"^segment-(\d{12})-(\d{12})\.h5$")


def segment_name(start: int, end: int) -> str:
    """Return the file name of a segment in its pack's folder; `start` and `end` in sequences seen."""
    return f"segment-{start:012d}-{end:012d}.h5"


def segment_identity(pack_id: str, start: int, end: int) -> str:
    """Return the identity of a segment: a function of its pack and its ends, not of where earlier segments met."""
    return f"{pack_id}/{start}-{end}"


def metrics_name(set_id: str, start: int, end: int) -> str:
    """Return the file name of a segment's metrics on an evaluator set, beside the segment."""
    return f"metrics-{set_id}-{start:012d}-{end:012d}.h5"


def circuits_name(circuits_id: str, start: int, end: int) -> str:
    """Return the file name of what was measured inside a segment's snapshots, beside the segment."""
    return f"circuits-{circuits_id}-{start:012d}-{end:012d}.h5"


def peaks_name(circuits_id: str) -> str:
    """Return the file name of the lanes' peaks, from which grafts come, in the pack's folder."""
    return f"peaks-{circuits_id}.json"


def kept_name(path: Path) -> Path:
    """Return the second name of a finished file; Snakemake does not know it, and so never deletes it."""
    return path.parent / KEPT / path.name


def unfinished_name(segment: Path) -> Path:
    """Return the path of the unfinished segment that a stopped training job leaves."""
    return kept_name(segment).with_name(segment.name.replace("segment-", "unfinished-"))


@dataclass(frozen=True)
class Paths:
    """Paths below the results folder `root`, as texts for rules; `study` is the study's name."""

    root: str
    study: str

    @property
    def packs(self) -> str:
        """The folder of all packs."""
        return f"{self.root}/packs"

    @property
    def study_folder(self) -> str:
        """The folder of the study's tables and figures."""
        return f"{self.root}/studies/{self.study}"

    @property
    def claims(self) -> str:
        """The file of the study's claims; see planning/records.py."""
        return f"{self.study_folder}/claims.json"

    def source(self, name: str) -> str:
        """Return the path of a downloaded source file."""
        return f"{self.root}/sources/{name}"

    def encoder(self, bank_id: str) -> str:
        """Return the file of the encoder that is trained for a bank."""
        return f"{self.root}/encoders/{bank_id}.h5"

    def bank(self, bank_id: str) -> str:
        """Return the file of a bank."""
        return f"{self.root}/banks/{bank_id}.h5"

    def card(self, bank_id: str, kind: str) -> str:
        """Return the quality card of a bank; kind: svg or png."""
        return f"{self.root}/banks/{bank_id}.{kind}"

    def sequences(self, set_id: str) -> str:
        """Return the file of the frozen sequences of an evaluator set."""
        return f"{self.root}/sequences/{set_id}.h5"

    def segment(self, pack_id: str, start: int, end: int) -> str:
        """Return the file of a segment of a pack; `start` and `end` in sequences seen."""
        return f"{self.packs}/{pack_id}/{segment_name(start, end)}"

    def metrics(self, pack_id: str, set_id: str, start: int, end: int) -> str:
        """Return the file of a segment's metrics on an evaluator set."""
        return f"{self.packs}/{pack_id}/{metrics_name(set_id, start, end)}"

    def circuits(self, pack_id: str, circuits_id: str, start: int, end: int) -> str:
        """Return the file of what was measured inside a segment's snapshots."""
        return f"{self.packs}/{pack_id}/{circuits_name(circuits_id, start, end)}"

    def peaks(self, pack_id: str, circuits_id: str) -> str:
        """Return the file of the lanes' peaks, from which grafts come."""
        return f"{self.packs}/{pack_id}/{peaks_name(circuits_id)}"

    def circuits_folder(self, experiment: str) -> str:
        """Return the folder of an experiment's tables and figures of circuits."""
        return f"{self.experiment_folder(experiment)}/{CIRCUITS}"

    def experiment_folder(self, experiment: str) -> str:
        """Return the folder of an experiment's tables and figures."""
        return f"{self.study_folder}/{experiment}"

    def experiment(self, experiment: str) -> str:
        """Return the file from which tables and figures can be made, given metrics; see planning/records.py."""
        return f"{self.experiment_folder(experiment)}/experiment.json"

    @property
    def minimal_model(self) -> str:
        """The file from which tables and figure of the minimal model can be made; see planning/records.py."""
        return f"{self.experiment_folder(MINIMAL_MODEL)}/{MINIMAL_MODEL}.json"
