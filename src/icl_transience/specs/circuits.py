"""What is looked for inside the models of an experiment: measures and interventions, at every snapshot.

Metrics under an intervention stand in curves.csv under the evaluator's name and the intervention's: `icl|no_layer0`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from icl_transience.specs.experiment import Statistics
from icl_transience.specs.identity import Identified, canonical, identity, identity_values
from icl_transience.specs.interventions import Intervention
from icl_transience.specs.keys import Key
from icl_transience.specs.measures import ATTRIBUTION, COMPOSITIONS, HEAD_MEASURES, MODEL_MEASURES

# Mean attention of each head at each snapshot.
PATTERNS = "patterns"
MEASURES = (*HEAD_MEASURES, *MODEL_MEASURES, ATTRIBUTION, *COMPOSITIONS, PATTERNS)
DEFAULT = "default"
# Measured by default, where they are evaluated: the two strategies that compete.
EVALUATORS_MEASURED = ("icl", "ciwl")
# Snapshots by name; of a graft also a number of sequences seen.
START, PEAK, END = "start", "peak", "end"

_Measure = Annotated[str, Key(choices=MEASURES)]
_Default = Annotated[str, Key(choices=(DEFAULT,))]
_Name = Annotated[str, Key(pattern=r"^[a-z][a-z0-9_]*$", longest=60)]


@dataclass(frozen=True, kw_only=True)
class CircuitsSection:
    """The section `circuits` as it is written."""

    measures: Annotated[
        _Default | tuple[_Measure, ...],
        Key(
            "what is measured of heads: `default` is all of "
            f"{', '.join(MEASURES)}; specs/measures.py says what each is, `{PATTERNS}` is mean attention",
            default=DEFAULT,
            unique=True,
        ),
    ]
    evaluators: Annotated[
        tuple[str, ...] | None,
        Key(
            "on whose frozen sequences, such as icl or icl@16; null: icl and ciwl, if they are evaluated",
            default=None,
            fewest=1,
            unique=True,
        ),
    ]
    interventions: Annotated[
        Mapping[_Name, Any],
        Key(
            "what is done to activations, each under its name: {no_layer0: {ablate: block0.*}}; docs/circuits.md lists "
            "what can be done. Metrics are evaluated under each, and named icl|no_layer0, say",
            default={},
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class NamedIntervention:
    """An intervention under its name."""

    name: str
    intervention: Intervention


@dataclass(frozen=True, kw_only=True)
class Circuits:
    """What an experiment asks to know of its models' circuits: measures, in the order of MEASURES, and interventions.

    evaluators: on whose sequences, in order.
    """

    measures: tuple[str, ...]
    evaluators: tuple[str, ...]
    interventions: tuple[NamedIntervention, ...]


@dataclass(frozen=True, kw_only=True)
class Other:
    """Another snapshot of the same lane, as grafts name it. at: sequences seen; None is at the lane's peak."""

    name: str
    at: int | None = None


@dataclass(frozen=True, kw_only=True)
class CircuitsSpec(Identified):
    """What a job measures of the snapshots of a segment, on the sequences of a set.

    set: the set's id. others: the snapshots that grafts name. horizon and statistics: where the peak is looked for and
    what it is of; None where nothing asks for it.
    """

    set: str
    circuits: Circuits
    others: tuple[Other, ...] = ()
    horizon: int | None = None
    statistics: Statistics | None = None

    @property
    def id(self) -> str:
        """Return the identity; it stands in names of files."""
        return f"{self.set}-{identity('circuits', self)}"

    @property
    def of_peak(self) -> bool:
        """Whether the other snapshots include that of the lane's peak."""
        return any(other.at is None for other in self.others)


def specs_of(circuits: Circuits, set_id: str, last: int, statistics: Statistics) -> tuple[CircuitsSpec, ...]:
    """Return what there is to measure for an experiment's runs on a set: without grafts first, then with them.

    Grafts stand apart: they need segments that come later, and what is without them shall not wait. last: the snapshot
    that is called the end, with which curves end, in sequences seen.
    """
    plain = tuple(one for one in circuits.interventions if not one.intervention.graft)
    grafted = tuple(one for one in circuits.interventions if one.intervention.graft)
    found = []
    if circuits.measures or plain:
        own = Circuits(measures=circuits.measures, evaluators=circuits.evaluators, interventions=plain)
        found.append(CircuitsSpec(set=set_id, circuits=own))
    if grafted:
        names = sorted({graft.from_ for one in grafted for graft in one.intervention.graft})
        known = {START: 0, END: last, PEAK: None}
        of_peak = PEAK in names
        found.append(
            CircuitsSpec(
                set=set_id,
                circuits=Circuits(measures=(), evaluators=circuits.evaluators, interventions=grafted),
                others=tuple(Other(name=name, at=known[name] if name in known else int(name)) for name in names),
                horizon=last if of_peak else None,
                statistics=statistics if of_peak else None,
            )
        )
    return tuple(found)


def part_of_measure(measure: str, evaluator: str = "") -> str:
    """Return what is stored with a measure of a segment, to find it again in another file of the segment."""
    return canonical({"evaluator": evaluator, "measure": measure})


def part_of_intervention(intervention: Intervention, evaluator: str, grafts: Mapping[str, Any]) -> str:
    """Return the same of metrics under an intervention. grafts: name -> what the snapshot is made of."""
    said = {"evaluator": evaluator, "intervention": identity_values(intervention)}
    return canonical(said | ({"grafts": dict(grafts)} if grafts else {}))


# Names of evaluators under interventions.


def intervened(evaluator: str, intervention: str) -> str:
    """Return the name of an evaluator under an intervention: icl|no_layer0."""
    return f"{evaluator}|{intervention}"


def evaluator_of(name: str) -> str:
    """Return the evaluator's own name: icl of icl|no_layer0, and icl of icl."""
    return name.partition("|")[0]


def intervention_of(name: str) -> str:
    """Return the intervention's own name: no_layer0 of icl|no_layer0."""
    return name.partition("|")[2]


def is_intervened(name: str) -> bool:
    """Return whether it is the name of an evaluator under an intervention."""
    return "|" in name


def chosen_measures(said: str | Collection[str]) -> tuple[str, ...]:
    """Return the measures that a study asks for, in the order of MEASURES."""
    return MEASURES if said == DEFAULT else tuple(name for name in MEASURES if name in said)


FIGURES = ("heads", "head_lines", "interventions", "attention", "composition")


def names_of_circuits_figures(circuits: Circuits | None, depth: int) -> tuple[str, ...]:
    """Return the names of the figures of an experiment's circuits; report/figures/circuits.py draws them.

    depth: of the deepest model.
    """
    if circuits is None:
        return ()
    measures = set(circuits.measures)
    of_heads = not measures.isdisjoint({*HEAD_MEASURES, ATTRIBUTION})
    wanted = {
        "heads": of_heads,
        "head_lines": of_heads,
        "interventions": bool(circuits.interventions),
        "attention": PATTERNS in measures,
        "composition": depth > 1 and not measures.isdisjoint(COMPOSITIONS),
    }
    return tuple(name for name in FIGURES if wanted[name])
