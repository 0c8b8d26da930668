"""The minimal model of coopetition: its keys and values, and what its tables and figure are made from."""

from dataclasses import dataclass, replace
from typing import Annotated

from icl_transience.specs.keys import Key, neutral

# The folder of its files in a study's folder, and the target that makes them.
MINIMAL_MODEL = "minimal_model"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What the loss of the minimal model depends on; theory/minimal_model.py has the equation."""

    name: str
    alpha: Annotated[float, Key("weight of the cost of using both strategies at once", minimum=0, maximum=100)] = 0.1
    mu1: Annotated[float, Key("added to ICL's loss in the product of both", minimum=0, maximum=100)] = 0.1
    mu2: Annotated[float, Key("added to CIWL's loss in the product of both", minimum=0, maximum=100)] = 0.0


@dataclass(frozen=True, kw_only=True)
class MinimalModel:
    """Vectors a, b, c, d that gradient descent moves from a random start to a random target, for each seed."""

    variants: Annotated[
        tuple[Variant, ...],
        Key(
            "what the loss is, under names of your own; `{}` is the published one",
            names=r"^[a-z][a-z0-9_]{0,49}$",
            required=True,
        ),
    ]
    n_seeds: Annotated[int, Key("how many seeds draw starts and targets: 0, 1, 2, ...", minimum=1, maximum=1000)] = 40
    dim: Annotated[int, Key("entries of a, b and c each", minimum=1, maximum=10_000)] = 20
    dim_d: Annotated[int, Key("entries of d", minimum=1, maximum=10_000)] = 160
    learning_rate: Annotated[float, Key("of gradient descent", above=0, maximum=1000)] = 1.0
    steps: Annotated[
        int, Key("losses computed at most, the first before any step", unit="steps", minimum=2, maximum=1_000_000)
    ] = 16_000
    stop_below: Annotated[float, Key("the loss at which a seed stops", minimum=0, maximum=1)] = 1e-6


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A trained run whose losses stand beside those of the minimal model; confidence: of their intervals."""

    experiment: str
    run: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class MinimalModelRecord:
    """The minimal model of a study as its tables and figure need it; beside: empty where only tables are made."""

    study: str
    model: MinimalModel
    beside: tuple[Beside, ...] = neutral(())

    def for_tables(self) -> "MinimalModelRecord":
        """Return it without what the figure alone shows."""
        return replace(self, beside=())
