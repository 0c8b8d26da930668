"""Where a study's results are: in a results folder, or in an archive that `snakemake archive` made."""

import shlex
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.store.checksums import CHECKSUMS
from icl_transience.store.layout import EVIDENCE, TABLES, VERDICTS, Paths

RECORD = "experiment.json"
ARCHIVE = ".tar.gz"
# What is read of an archive.
_IN_EXPERIMENTS = (*TABLES, CHECKSUMS, RECORD)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a study's results are.

    experiments: the folder that has a folder for each experiment. top: the folder of verdicts.csv. results: the results
    folder, which has weights too; None of an archive. at: what to call it in messages. config: what `snakemake
    --config` needs to be told so that it works there. held: keeps the files of an archive until nobody reads them.
    """

    study: str
    experiments: Path
    top: Path
    results: Path | None
    at: Path
    config: tuple[str, ...] = ()
    held: object = None

    def records(self) -> dict[str, Path]:
        """Return experiment -> the file that says what it is made of, in the order of their names."""
        return {path.parent.name: path for path in sorted(self.experiments.glob(f"*/{RECORD}"))}

    def command(self, target: str = "all") -> str:
        """Return the command that makes a target of the study."""
        return f"snakemake {target}" + (f" --config {shlex.join(self.config)}" if self.config else "")


def find(study: str | PathLike[str], results: str | PathLike[str] | None = None) -> Source:
    """Find a study's results.

    study: its name; or the path of an archive, {study}.tar.gz, or of the folder that one was extracted to.
    results: the results folder; None: `results` of the config.yaml in the nearest folder, from the working one upwards,
    that has a Snakefile too; `results` in the working folder where there is none.

    Raises StudyError where there is no such study, naming those that there are.
    """
    path = Path(study)
    if fspath(study).endswith(ARCHIVE):
        return _unpacked(path)
    if list(path.glob(f"experiments/*/{RECORD}")):
        return Source(study=path.resolve().name, experiments=path / "experiments", top=path, results=None, at=path)
    name = fspath(study)
    root, config = (Path(results), (f"results={fspath(results)}",)) if results is not None else _configured()
    folder = Path(Paths(str(root), name).study_folder)
    source = Source(
        study=name, experiments=folder, top=folder, results=root, at=folder, config=(f"study={name}", *config)
    )
    if "/" in name or not name or not source.records():
        known = sorted({record.parents[1].name for record in root.glob(f"studies/*/*/{RECORD}")})
        there = f"there are {', '.join(known)}" if known else "there is none yet"
        raise StudyError(
            f"load: no study {name!r} in {root / 'studies'}{did_you_mean(name, known)} ({there}): name one of them, "
            f"another folder (`results=`), or an archive (a path that ends in {ARCHIVE}); or make it: "
            f"`{source.command()}`"
        )
    return source


def _configured() -> tuple[Path, tuple[str, ...]]:
    """Return the results folder that config.yaml names; and nothing, since Snakemake reads it there too."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        config = folder / "config.yaml"
        if config.is_file() and (folder / "Snakefile").is_file():
            from icl_transience.study.document import read_yaml

            return folder / str((read_yaml(config) or {}).get("results", "results")), ()
    return here / "results", ()


def _unpacked(path: Path) -> Source:
    """Read the tables of an archive into a temporary folder, which goes when the source does."""
    held = tempfile.TemporaryDirectory(prefix="icl-transience-")
    top = Path(held.name)
    study = ""
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                study, _, name = member.name.partition("/")
                parts = name.split("/")
                in_experiment = len(parts) == 3 and parts[0] == "experiments" and parts[2] in _IN_EXPERIMENTS
                # Names are checked against those that an archive has: none leads out of the folder.
                if member.isfile() and (in_experiment or name in (VERDICTS, EVIDENCE, CHECKSUMS)) and ".." not in parts:
                    content = archive.extractfile(member)
                    assert content is not None
                    target = top / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content.read())
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise StudyError(f"{path}: no archive can be read there ({error}): `snakemake archive` makes one") from error
    source = Source(study=study, experiments=top / "experiments", top=top, results=None, at=path, held=held)
    if not source.records():
        raise StudyError(f"{path}: no archive of a study: it has no experiments; `snakemake archive` makes one")
    return source
