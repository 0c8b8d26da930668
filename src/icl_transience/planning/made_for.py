"""Which study files results were made for, wherever these stand: results/studies/{study}/.made-for-{digest}.

Two files of one name in different folders write into one folder of results, and each needs what it refers to.
"""

import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

from icl_transience.store import atomic


def note(study: Path, study_folder: Path) -> None:
    """Write down in a study's folder of results that a study file asked for them."""
    said = {"study": str(study.absolute()), "results": _results(study_folder)}
    name = f".made-for-{hashlib.sha256(said['study'].encode()).hexdigest()[:12]}"
    atomic.write_text(study_folder / name, json.dumps(said) + "\n")


def noted(results: Path) -> Iterator[tuple[Path, str]]:
    """Yield the study files that asked for something in a results folder, and still exist, and "".

    Of a note or a study that may not be read, as of another user, yield the study, or its name alone, and why. What was
    noted before the folder was moved or copied does not count: it may be of another checkout.
    """
    for path in sorted(results.glob("studies/*/.made-for-*")):
        study = Path(path.parent.name)
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            study, there = Path(said["study"]), said["results"]
            if there == _results(path.parent) and stat.S_ISREG(study.stat().st_mode):
                yield study, ""
        except (FileNotFoundError, NotADirectoryError):
            continue  # the study is gone, or the note, since it was found
        except OSError as error:
            yield study, f"{error.filename}: {error.strerror}"
        except (ValueError, KeyError, TypeError):
            continue  # no note of ours; what tables were made from is known besides


def _results(study_folder: Path) -> str:
    return str(study_folder.parent.parent.resolve())
