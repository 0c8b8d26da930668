"""What is said where an engine deviates from the reference, and what is kept where it does not; see verify.py."""

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from icl_transience.specs import code_digest
from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic
from icl_transience.store.cache import cache_folder

# What is checked -> the stage of specs/code_digest.py whose files it proves.
_STAGES = {"step": "training/{}", "answers": "metrics"}


@dataclass(frozen=True)
class Deviation:
    """How far `part` of an engine's results is from the reference, relative, and how far rounding may bring it."""

    part: str
    error: float
    allowed: float
    numerics: str

    @property
    def excess(self) -> float:
        """Error over what is allowed; infinite where the error is no number."""
        ratio = self.error / self.allowed
        return ratio if ratio == ratio else float("inf")


class RefusedInWords:
    """Turn what an engine raises that cannot compute the model as it stands into a StudyError."""

    def __init__(self, engine: str, what: str):
        self.engine, self.what = engine, what

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise StudyError in place of what a missing or misshapen parameter raises."""
        stopped = isinstance(error, StudyError | torch.OutOfMemoryError)
        if isinstance(error, KeyError | ValueError | RuntimeError) and not stopped:
            raise _refusal(self.engine, self.what, f"cannot compute the model as it stands ({error!r})") from error


def judge(engine: str, what: str, found: list[Deviation]) -> None:
    """Raise StudyError where the largest deviation is more than rounding; else keep which files were proven."""
    worst = max(found, key=lambda deviation: deviation.excess)
    if worst.excess >= 1:
        part = worst.part if what == "answers" or worst.part == "loss" else f"the gradient of {worst.part}"
        raise _refusal(
            engine,
            what,
            f"does not compute what the model says: in {worst.numerics}, {part} is off by {worst.error:.2g} of its "
            f"size, where rounding may move it by {worst.allowed:.2g}",
        )
    _keep_proof(engine, what)


def _refusal(engine: str, what: str, problem: str) -> StudyError:
    return StudyError(
        f"engine: {engine} {problem}. {_changed_since(engine, what)} Set `engine: eager`, or mend the engine"
    )


def _changed_since(engine: str, what: str) -> str:
    """Say which files have changed since the engine was last proven."""
    try:
        path = _proof(engine, what)
    except OSError as error:
        return f"There is no record of when it was last proven ({error}), so which file was edited is not known."
    try:
        proof = json.loads(path.read_text(encoding="utf-8"))
        then, date, torch_then = proof["files"], proof["date"], proof["torch"]
    except FileNotFoundError:
        return f"There is no record of when it was last proven ({path}), so which file was edited is not known."
    except (OSError, ValueError, KeyError, TypeError) as error:
        return (
            f"The record of when it was last proven cannot be read ({path}: {error}), so nor can which file was edited."
        )
    now = code_digest.file_digests(_STAGES[what].format(engine))
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if torch_then != torch.__version__:
        changed.append(f"PyTorch ({torch_then} then, {torch.__version__} now)")
    if changed:
        return f"Changed since it was last proven ({date}): {', '.join(changed)}."
    return f"None of its files has changed since it was last proven ({date}), for this model or for another."


def _proof(engine: str, what: str) -> Path:
    return cache_folder() / f"proven-{engine}-{what}.json"


def _keep_proof(engine: str, what: str) -> None:
    """Keep the digests of the files that were proven, unless they are kept already."""
    try:
        path = _proof(engine, what)
    except OSError as error:
        print(f"the proof of engine {engine} cannot be kept ({error})", file=sys.stderr)
        return
    proof = {"files": code_digest.file_digests(_STAGES[what].format(engine)), "torch": torch.__version__}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if {name: known.get(name) for name in proof} == proof:
            return
    except (OSError, ValueError, AttributeError):
        pass  # proven for the first time, or damaged: written anew
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(proof | {"date": datetime.now(UTC).date().isoformat()}, indent=1) + "\n")
    except (OSError, StudyError) as error:
        # It costs the next refusal its list of files, and nothing else.
        print(f"{path}: the proof of engine {engine} cannot be kept ({error})", file=sys.stderr)
