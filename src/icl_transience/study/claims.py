"""What an experiment is expected to show: sentences that its tables support, contradict or leave open.

A claim is about one column of transience.csv, or one minus another, and of one kind:
    trend        it rises or falls along an axis of numbers, on runs that differ in nothing else
    difference   it is greater or less in one run than in another
    threshold    it is above or below a value, in one run or in every run
or it has several such parts, and holds where all of them do. analysis/verdicts.py says
how each is tested.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.evaluators import TRAINING, column_of
from icl_transience.specs.experiment import CONJUNCTION, DIRECTIONS, QUANTITIES, TIMES, Claim, Part, is_number

# Every part has these.
_NEEDED = ("kind", "of", "direction")
# What a claim has beside its parts.
_BESIDE_PARTS = ("text", "source", CONJUNCTION)
# Kind -> the keys that it needs, and those that it may have.
_KEYS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "trend": (("axis",), ("from", "up_to", "at")),
    "difference": (("run", "than"), ()),
    "threshold": (("value",), ("run",)),
}


@dataclass(frozen=True)
class Claimant:
    """What a claim can be about: an experiment's axes, its runs with their places on these, and its curves.

    evaluators: names of curves.csv, the training loss not among them.
    """

    axes: Sequence[str]
    runs: Mapping[str, Mapping[str, Any]]
    evaluators: Sequence[str] = field(default=())

    @property
    def columns(self) -> list[str]:
        """Return the columns of transience.csv."""
        names = list(map(column_of, [*self.evaluators, TRAINING]))
        return [*QUANTITIES, *(f"{when}_{name}" for when in ("final", "at_peak") for name in names)]


def resolve(where: str, sections: Mapping[str, Mapping[str, Any]], claimant: Claimant) -> tuple[Claim, ...]:
    """Return the claims of an experiment. Raises StudyError with a line for every problem.

    where: key path of `sections`.
    """
    resolved, problems = [], []
    for name, section in sections.items():
        found = list(_problems_of_claim(f"{where}.{name}", section, claimant))
        problems += found
        if not found:
            resolved.append(_claim(name, section, claimant))
    if problems:
        raise StudyError("\n".join(problems))
    return tuple(resolved)


def _claim(name: str, section: Mapping[str, Any], claimant: Claimant) -> Claim:
    text, source = (" ".join(section.get(key, "").split()) for key in ("text", "source"))
    parts = tuple(_part(part, claimant) for part in section.get(CONJUNCTION, (section,)))
    if CONJUNCTION not in section:
        return Claim(name=name, text=text, source=source, **vars(parts[0]))
    runs = tuple(dict.fromkeys(run for part in parts for run in part.runs))
    return Claim(name=name, text=text, source=source, kind=CONJUNCTION, of="", direction="", runs=runs, all_of=parts)


def _part(section: Mapping[str, Any], claimant: Claimant) -> Part:
    kind, levels = section["kind"], {}
    if kind == "trend":
        levels = dict(sorted((level, runs[0]) for level, runs in _levels(section, claimant).items()))
        runs = list(levels.values())
    elif kind == "difference":
        runs = [section["run"], section["than"]]
    else:
        runs = [section["run"]] if "run" in section else list(claimant.runs)
    return Part(
        kind=kind,
        of=section["of"],
        direction=section["direction"],
        runs=tuple(runs),
        minus=section.get("minus", ""),
        axis=section.get("axis", ""),
        levels=tuple(map(float, levels)),
        value=float(section.get("value", 0)),
    )


def _problems_of_claim(where: str, section: Mapping[str, Any], claimant: Claimant) -> Iterator[str]:
    if CONJUNCTION not in section:
        yield from _problems(where, section, claimant)
        return
    yield from (
        f"`{where}.{key}` is given, but a claim with `{CONJUNCTION}` has none of its own: write it in a part"
        for key in section
        if key not in _BESIDE_PARTS
    )
    of_parts: dict[str, str] = {}
    for number, part in enumerate(section[CONJUNCTION]):
        path = f"{where}.{CONJUNCTION}[{number}]"
        found = list(_problems(path, part, claimant))
        yield from found
        if not found and (twin := of_parts.setdefault(repr(_part(part, claimant)), path)) != path:
            yield f"`{path}` says what `{twin}` says: leave one of them out"


def _problems(where: str, section: Mapping[str, Any], claimant: Claimant) -> Iterator[str]:
    if lacking := [f"`{key}`" for key in _NEEDED if key not in section]:
        yield f"`{where}` lacks {', '.join(lacking)}: add it"
        return
    kind = section["kind"]
    needed, allowed = _KEYS[kind]
    missing = [key for key in needed if key not in section]
    others = {key for keys in _KEYS.values() for part in keys for key in part} - {*needed, *allowed}
    yield from (f"`{where}` lacks `{key}`, which a {kind} needs: add it" for key in missing)
    yield from (
        f"`{where}.{key}` is given, but a {kind} has no `{key}`: leave it out" for key in section if key in others
    )
    if section["direction"] not in DIRECTIONS[kind]:
        yield (
            f"`{where}.direction` is {section['direction']!r}, but a {kind} {_copula(kind)} "
            f"{' or '.join(DIRECTIONS[kind])}: choose one of these"
        )
    taken = [key for key in ("of", "minus") if key in section]
    allowed_columns = [name for name in claimant.columns if len(taken) == 1 or name not in TIMES]
    for key in taken:
        if (column := section[key]) not in allowed_columns:
            yield (
                f"`{where}.{key}` is {column!r}{did_you_mean(column, allowed_columns)}, expected a column of "
                f"transience.csv{' that is no time' * (len(taken) > 1)}: {', '.join(allowed_columns)}"
            )
    if len(taken) == 2 and _unit(section["of"]) != _unit(section["minus"]):
        yield (
            f"`{where}.minus` is {section['minus']!r}, in {_unit(section['minus'])}, but `of` is {section['of']!r}, in "
            f"{_unit(section['of'])}: name columns of one unit"
        )
    elif section["of"] == section.get("minus"):
        yield f"`{where}.minus` is {section['of']!r}, as `of` is: that is always 0"
    if not missing:
        yield from _problems_of_runs(where, section, claimant)
        if kind == "trend":
            yield from _problems_of_trend(where, section, claimant)


def _unit(column: str) -> str:
    """Return the unit of a column of transience.csv."""
    if column in TIMES:
        return "sequences seen"
    return "loss" if column.endswith("training_loss") else "shares of 1"


def _copula(kind: str) -> str:
    return "either" if kind == "trend" else "is"


def _problems_of_runs(where: str, section: Mapping[str, Any], claimant: Claimant) -> Iterator[str]:
    for key in ("run", "than"):
        run = section.get(key)
        if run is not None and run not in claimant.runs:
            yield (
                f"`{where}.{key}` is {run!r}{did_you_mean(run, list(claimant.runs))}, which is no run of the "
                f"experiment (there are {_listed(claimant.runs)})"
            )
    if section["kind"] == "difference" and section["run"] == section["than"]:
        yield f"`{where}.than` is {section['than']!r}, as `run` is: name two different runs"


def _problems_of_trend(where: str, section: Mapping[str, Any], claimant: Claimant) -> Iterator[str]:
    axis, axes = section["axis"], list(claimant.axes)
    at = section.get("at", {})
    if axis not in axes:
        yield (
            f"`{where}.axis` is {axis!r}{did_you_mean(axis, axes)}, along which the experiment's runs do not "
            f"differ (they do along {_listed(axes) or 'none'})"
        )
    for other, level in at.items():
        known = list(dict.fromkeys(str(places.get(other)) for places in claimant.runs.values()))
        if other == axis:
            yield f"`{where}.at` names {other}, the trend's own axis: narrow it by `from` and `up_to`"
        elif other not in axes:
            yield f"`{where}.at` names {other!r}{did_you_mean(other, axes)}, expected one of {_listed(axes)}"
        elif all(places.get(other) != level for places in claimant.runs.values()):
            yield f"`{where}.at.{other}` is {level!r}, where no run stands (they stand at {_listed(known)})"
    if axis in axes:
        yield from _problems_of_levels(where, axis, section, claimant)


def _problems_of_levels(where: str, axis: str, section: Mapping[str, Any], claimant: Claimant) -> Iterator[str]:
    levels = _levels(section, claimant)
    words = [str(places[axis]) for places in claimant.runs.values() if not is_number(places[axis])]
    if words:
        yield (
            f"`{where}.axis` is {axis!r}, whose levels are not numbers ({_listed(words)}): claim a difference between "
            "two runs instead"
        )
    elif len(levels) < 2:
        yield (
            f"`{where}` takes {len(levels)} of the levels of {axis}, expected at least 2: widen `from`, `up_to` or "
            "`at`, or add levels to the axis"
        )
    for level, runs in levels.items():
        if len(runs) > 1:
            others = _listed(other for other in claimant.axes if other != axis)
            yield (
                f"`{where}`: runs {' and '.join(runs[:2])} both stand at {axis} = {level:g}: say under `at` at which "
                f"level of the other axes ({others}) the claim is"
            )
            return


def _levels(section: Mapping[str, Any], claimant: Claimant) -> dict[float, list[str]]:
    """Return level of a trend's axis -> the runs there that the claim takes."""
    axis, at = section["axis"], section.get("at", {})
    lowest, highest = section.get("from", float("-inf")), section.get("up_to", float("inf"))
    levels: dict[float, list[str]] = {}
    for run, places in claimant.runs.items():
        level = places.get(axis)
        stands = all(places.get(other) == wanted for other, wanted in at.items())
        if stands and level is not None and is_number(level) and lowest <= level <= highest:
            levels.setdefault(level, []).append(run)
    return levels


def _listed(words: Iterable[str], most: int = 12) -> str:
    words = list(words)
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
