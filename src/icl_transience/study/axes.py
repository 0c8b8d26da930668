"""Dotted keys: where runs stand on an experiment's axes, and the names that runs get from it."""

import re
from collections.abc import Mapping
from typing import Any

from icl_transience.specs.banks import BankSpec
from icl_transience.specs.experiment import is_number
from icl_transience.specs.model import COMPONENTS
from icl_transience.specs.runs import Run

# Runs hold these otherwise than they are written.
_AS_WRITTEN = ("activation_interventions.", "freeze.", "start_from.")


def nested(path: str, value: Any) -> dict[str, Any]:
    """Return mappings in each other with `value` at the dotted key."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def leaves(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of all values that are no mappings."""
    paths = []
    for key, value in values.items():
        paths += leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [prefix + key]
    return paths


def value_at(run: Run, values: Mapping[str, Any], path: str) -> Any:
    """Return what a run has at a dotted key, as it stands in a table's cell; None in another source's section.

    values: the run's sections as written, for the names in a mixture, which a run does not keep.
    """
    if path.startswith("recipe.mixture."):
        _, _, name, key = path.split(".")
        value = values["recipe"]["mixture"].get(name, {"share": 0}).get(key)
        return float(value) if key in ("share", "match") and value is not None else value
    if path.startswith(_AS_WRITTEN):
        return _written(values, path)
    if path.startswith("interventions."):
        return _at_intervention(run, values, path)
    if path.removeprefix("optimizer.l2.") in COMPONENTS:
        return run.optimizer.l2.of(path.removeprefix("optimizer.l2."))
    value: Any = run
    for key in path.split("."):
        value = _section(value, key) if isinstance(value, BankSpec) else getattr(value, key, None)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


def _written(values: Mapping[str, Any], path: str) -> Any:
    """Return what is written at a dotted key: a number, or a text; None where nothing is."""
    value: Any = values
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if path.endswith(".strength") and is_number(value):
        return float(value)
    return plain(value) or "none" if isinstance(value, list) else value


def _section(bank: BankSpec, key: str) -> Any:
    """Return what stands in a bank's section under a key; None for the section of another source."""
    return bank.parameters if key == bank.source else getattr(bank, key, None)


def _at_intervention(run: Run, values: Mapping[str, Any], path: str) -> Any:
    """Return, as `value_at` does, what an intervention sets; None where there is none, or it leaves the key."""
    _, name, *keys = path.split(".")
    value: Any = values["interventions"].get(name)
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    before = value_at(run, values, ".".join(keys)) if keys != ["at"] else None
    return float(value) if isinstance(before, float) and value is not None else value


def short_axis(axis: str) -> str:
    """Return the last two words of a dotted key: enough to tell axes apart in a run's name."""
    return ".".join(axis.split(".")[-2:])


def plain(value: Any) -> str:
    """Return a level as it stands in the name of a run."""
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    # Names stand in file names.
    return re.sub(r"[^\w.,=+-]", "_", text)
