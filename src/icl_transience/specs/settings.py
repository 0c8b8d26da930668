"""The sections of a study file that are no values of a run: experiments, claims, evaluation and settings.

They declare keys and are never made: `study/load.py` makes experiments of what is written under them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from icl_transience.specs.circuits import CircuitsSection
from icl_transience.specs.evaluators import DEFAULT_EVALUATORS, EVALUATORS, Strategy
from icl_transience.specs.experiment import DIRECTIONS, EVIDENCE, Statistics
from icl_transience.specs.figures import Figures
from icl_transience.specs.keys import Key, SeedNumber
from icl_transience.specs.runs import Run, Seed
from icl_transience.specs.theory import MinimalModel

# Names stand in names of files.
_Name = Annotated[str, Key(pattern=r"^[a-z][a-z0-9_]*$", longest=100)]
_RunName = Annotated[str, Key(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.=+-]*$", longest=100)]
_Context = Annotated[int, Key(unit="pairs", minimum=1, maximum=255)]
_Contexts = Annotated[
    tuple[_Context, ...],
    Key("exemplar-label pairs before the query, besides as many as in training", default=(), unique=True),
]
_Evaluator = Annotated[str, Key(choices=EVALUATORS)]
_Levels = Annotated[tuple[Any, ...], Key(fewest=1, unique=True)]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The frozen sequences that every lane answers at every snapshot."""

    evaluators: Annotated[
        tuple[_Evaluator, ...],
        Key("which of the recipes to evaluate on", default=DEFAULT_EVALUATORS, fewest=1, unique=True),
    ]
    contexts: Annotated[
        Mapping[str, _Contexts],
        Key(
            "other context lengths, for evaluators that stand in `evaluators`; they are named icl@16, say",
            each=tuple(name for name in EVALUATORS if name != "train"),
        ),
    ]
    replacement: Annotated[
        bool,
        Key(
            "whether items of one class are drawn independently in icl, icl_holdout and the like, and flip; otherwise "
            "their exemplars differ, as in Chan et al.'s code; `train` follows the recipe",
            default=True,
        ),
    ]
    sequences: Annotated[int, Key("sequences of each evaluator", default=1000, unit="sequences", minimum=1)]
    seed: Annotated[SeedNumber, Key("draws them; the same for all lanes", default=0)]
    strategy: Annotated[Strategy, Key("where snapshots stand between two ideal predictors, as curves.csv's `strategy`")]


@dataclass(frozen=True, kw_only=True)
class StatisticsSection:
    """How a curve is summarised, and at which level its claims are tested."""

    statistics: Annotated[Statistics, Key(beside=True)]
    claims_alpha: Annotated[
        float,
        Key(
            "error level of an experiment's claims, after Holm's correction over those of the study",
            default=0.05,
            above=0,
            below=1,
        ),
    ]
    evidence: Annotated[
        str,
        Key(
            "how its claims are decided: by evidence that may be read after every seed, so that seeds can be added "
            "until it is clear; or by a test of as many seeds as were fixed beforehand",
            default="anytime",
            choices=EVIDENCE,
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class PartSection:
    """What is tested, as it is written; claims.py says which keys each kind needs."""

    kind: Annotated[str, Key("along an axis; between two runs; against a value", choices=tuple(DIRECTIONS))]
    of: Annotated[str, Key("column of transience.csv: peak, index, emergence, final_iwl, ...")]
    minus: Annotated[str, Key("another column, taken from it in each lane: `of: final_ciwl, minus: at_peak_ciwl`")]
    direction: Annotated[
        str,
        Key(
            "a trend rises or falls, a difference is greater or less, a threshold above or below",
            choices=tuple(direction for pair in DIRECTIONS.values() for direction in pair),
        ),
    ]
    axis: Annotated[str, Key("of a trend: the axis, as under `axes`; its levels are numbers")]
    from_: Annotated[float, Key("of a trend: the lowest level that it takes in")]
    up_to: Annotated[float, Key("of a trend: the highest level that it takes in")]
    at: Annotated[
        Mapping[str, float | str | bool],
        Key("of a trend: the level of each other axis, as it stands in the tables"),
    ]
    run: Annotated[str, Key("of a difference or threshold: which run; a threshold without one is for every run")]
    than: Annotated[str, Key("of a difference: the run to compare with")]
    value: Annotated[float, Key("of a threshold: the value")]


@dataclass(frozen=True, kw_only=True)
class ClaimSection:
    """A claim as it is written: with keys of its own, or with parts."""

    text: Annotated[str, Key("the claim, in a sentence", shortest=1, required=True)]
    source: Annotated[str, Key("where it was made: paper, section or figure", default="")]
    tested: Annotated[PartSection, Key(beside=True)]
    all_of: Annotated[
        tuple[PartSection, ...],
        Key("instead of a kind: parts, each with the keys of a claim; it holds where all of them do", fewest=2),
    ]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an experiment's runs have, and what holds for all of their lanes."""

    run: Annotated[Run, Key(beside=True)]
    seeds: Annotated[
        tuple[SeedNumber | Seed, ...],
        Key("the lanes of each run: an integer for both, or {init, data}", default=(0, 1, 2), fewest=1, unique=True),
    ]
    horizon: Annotated[
        int,
        Key(
            "sequences seen at the end of training, rounded up to whole batches",
            default=1_280_000,
            unit="sequences seen",
            minimum=1,
        ),
    ]
    evaluation: Annotated[Evaluation, Key("the frozen sequences that every lane answers at every snapshot")]
    statistics: Annotated[StatisticsSection, Key("how a curve is summarised; definitions in transience.py")]
    figures: Annotated[Figures, Key("what figures show; a change draws them again and makes nothing else")]
    circuits: Annotated[
        CircuitsSection | None,
        Key("what is measured inside the models, and done to them, at every snapshot; without it nothing is"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ExperimentSection:
    """An experiment as it is written."""

    question: Annotated[str, Key("what the experiment asks; shown above its figure and in the report", default="")]
    optional: Annotated[
        bool,
        Key(
            "whether the study goes on without it, saying so, where its source's files are not at "
            "hand; its claims then stay undecided",
            default=False,
        ),
    ]
    axes: Annotated[
        Mapping[str, _Levels],
        Key(
            "dotted run key -> the values it takes; every combination is a run (`optimizer.l2.strength: [0, 1e-5]`)",
            fewest=1,
        ),
    ]
    runs: Annotated[
        Mapping[_RunName, Run], Key("instead of axes: named runs, each with the keys in which it differs", fewest=1)
    ]
    claims: Annotated[
        Mapping[
            _Name,
            Annotated[ClaimSection, Key("a sentence that the experiment's tables support, contradict or leave open")],
        ],
        Key(
            "what the experiment is expected to show, each claim under its name; judged in the study's verdicts.csv",
            default={},
        ),
    ]
    settings: Annotated[Settings, Key(beside=True)]


@dataclass(frozen=True, kw_only=True)
class MinimalModelSection:
    """The minimal model as it is written."""

    model: Annotated[MinimalModel, Key(beside=True)]
    beside: Annotated[
        Mapping[_Name, _RunName],
        Key("experiment -> its run, whose loss on `icl` and `ciwl` is drawn beside the minimal model's", default={}),
    ]


@dataclass(frozen=True, kw_only=True)
class BaseSection:
    """A base file: defaults that studies share, see study/bases.py; a study file begins alike."""

    description: Annotated[str, Key("what the file is for, in a sentence", default="")]
    extends: Annotated[
        str,
        Key(
            "a base, whose defaults hold where these say nothing: a file in workflow/studies/bases without its .yaml, "
            "or with it one in the folder of this file; part of no identity",
            default="",
            pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.+-]*)?$",
            longest=100,
        ),
    ]
    defaults: Annotated[Settings, Key("values that hold for every experiment unless it says otherwise")]


@dataclass(frozen=True, kw_only=True)
class StudySection:
    """A study file."""

    base: Annotated[BaseSection, Key(beside=True)]
    experiments: Annotated[
        Mapping[_Name, ExperimentSection],
        Key("one question each, under its name (lower case, digits, underscores)", fewest=1, required=True),
    ]
    minimal_model: Annotated[
        MinimalModelSection,
        Key("the minimal model of coopetition, which is computed and not trained; see theory/minimal_model.py"),
    ]
