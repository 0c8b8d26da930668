"""What a self-check of an engine found, see selfcheck.py, and the file that remembers it."""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from icl_transience.engines.proof import Deviation
from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic
from icl_transience.store.cache import cache_folder


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a check of an engine found.

    problem: what differed; "" where nothing did. worst: the deviation that came nearest to what is allowed. memory:
    bytes that the whole pack takes on the GPU, as measured on 1 and 2 lanes; None elsewhere. seconds: of the check; 0
    where it was remembered.
    """

    engine: str
    numerics: str
    problem: str = ""
    worst: Deviation | None = None
    memory: int | None = None
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """Return the report in words."""
        text = f"{self.engine}, {self.numerics}: {self.problem or 'passed'}"
        if self.worst and not self.problem:
            text += f"; {self.worst.part} off by {self.worst.error:.2g}, allowed {self.worst.allowed:.2g}"
        if self.memory is not None:
            text += f"; {self.memory / 2**20:,.0f} MiB"
        return f"{text}; {self.seconds:.1f} s" if self.seconds else f"{text}; known from an earlier check"


def known(engine: str, key: str) -> Report | None:
    """Return what an earlier check of an engine found, or None. key: what it held for, see `selfcheck`."""
    try:
        found = json.loads(_file(key).read_text(encoding="utf-8"))
        report = Report(**{name: found[name] for name in ("engine", "numerics", "problem", "memory")})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # checked anew
    if report.engine != engine or not isinstance(report.problem, str) or not isinstance(report.memory, int | None):
        return None
    if not report.problem:
        return report
    return replace(report, problem=f"{report.problem} (at an earlier check; delete {_file(key)} to check again)")


def remember(key: str, report: Report) -> Path | None:
    """Keep what a check found and return the file; None where it cannot be kept, which costs the next job a check."""
    try:
        path = _file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(asdict(report), indent=1) + "\n")
    except (OSError, StudyError) as error:
        print(f"the self-check of engine {report.engine} cannot be kept ({error})", file=sys.stderr)
        return None
    return path


def _file(key: str) -> Path:
    return cache_folder() / f"selfcheck-{key}.json"
