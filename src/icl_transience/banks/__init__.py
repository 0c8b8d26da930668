"""Exemplars from their sources: one module a source, each with `build(spec, files) -> Bank`."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from icl_transience.banks.bank import Bank, checked, load, save
from icl_transience.spec import BankSpec

__all__ = ["Bank", "build", "load", "save"]


def build(spec: BankSpec, files: Sequence[Path] = (), log: TextIO | None = None) -> Bank:
    """The bank of `spec`, made by the module named like its source.

    files: its source files, in the spec's order. log: for how far a source is that takes long, and for warnings.
    Raises StudyError where classes cannot be told apart by the exemplars (see `checked`).
    """
    made = importlib.import_module(f"icl_transience.banks.{spec.source}").build(spec, files, log)
    bank = checked(made, files)
    for warning in bank.warnings if log else ():
        print(f"warning: {warning}", file=log, flush=True)
    return bank
