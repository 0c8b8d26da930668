"""Tiny specifications, small enough to train in a moment, and a way to change one value of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from icl_transience.specs.banks import BankSpec, Gaussian, Omniglot
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.model import Model
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import Lane, PackSpec, Run, Seed
from icl_transience.specs.training import Optimizer, Snapshots

TINY_BANK = BankSpec(
    seed=0,
    parameters=Gaussian(classes=10, holdout_classes=2, exemplars=3, holdout_exemplars=1, dim=6, noise=0.5),
)
OMNIGLOT_BANK = BankSpec(
    seed=0,
    parameters=Omniglot(
        zips=("a.zip", "b.zip"),
        characters=3,
        holdout_characters=1,
        exemplars=4,
        holdout_exemplars=2,
        side=28,
        encoder="pca",
        dim=5,
    ),
    files=("0" * 64, "1" * 64),
)
TINY_RUN = Run(
    bank=TINY_BANK,
    recipe=Recipe(context=4, burstiness=1),
    model=Model(depth=2, width=8, heads=2, mlp_ratio=2),
    optimizer=Optimizer(learning_rate=1e-3),
    batch_size=4,
    numerics="float32",
    snapshots=Snapshots(first=8, per_doubling=1, every=64),
)
TINY_SET = SequenceSet(bank=TINY_BANK, recipe=TINY_RUN.recipe, evaluators=("train", "icl"), sequences=16, seed=0)


def changed(value: Any, changes: Mapping[str, Any]) -> Any:
    """The dataclass `value` with the leaves at the dotted paths in `changes` replaced."""
    for path, leaf in changes.items():
        name, _, rest = path.partition(".")
        if isinstance(value, BankSpec) and name == value.source:
            name = "parameters"
        part = changed(getattr(value, name), {rest: leaf}) if rest else leaf
        value = dataclasses.replace(value, **{name: part})
    return value


def tiny_run(**changes: Any) -> Run:
    """TINY_RUN with changes by dotted path: tiny_run(**{"optimizer.l2.strength": 1e-3})."""
    return changed(TINY_RUN, changes)


def lane(run: Run = TINY_RUN, seed: int = 0, data: int | None = None) -> Lane:
    return Lane(run=run, seed=Seed(init=seed, data=seed if data is None else data))


def pack(*runs: Run) -> PackSpec:
    """A pack of the runs (one TINY_RUN if none is given), with seeds 0, 1, … in their order."""
    return PackSpec(lanes=tuple(lane(run, seed) for seed, run in enumerate(runs or (TINY_RUN,))))
