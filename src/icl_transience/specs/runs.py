"""What trains: runs, their seeds and lanes, and the packs in which lanes train together."""

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import Annotated

from icl_transience.specs.banks import BankSpec
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.identity import Identified, canonical, from_values, identity, identity_values, round_up
from icl_transience.specs.interventions import Intervention as Operations
from icl_transience.specs.interventions import together
from icl_transience.specs.keys import Key, SeedNumber, neutral
from icl_transience.specs.model import Model, component, parameter_shapes, running_shapes
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.training import (
    ActivationIntervention,
    Forgetting,
    Freeze,
    Intervention,
    Optimizer,
    Snapshots,
    StartFrom,
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training configuration: everything that shapes the weights but the seed. No horizon.

    interventions: in the order in which they come; before the first, `recipe` and `optimizer` hold.
    activation_interventions: all that are done at some time, as one at a time; equal in lanes that train together.
    """

    bank: Annotated[BankSpec, Key("the exemplars")]
    recipe: Annotated[Recipe, Key("how a training sequence is composed")]
    model: Annotated[Model, Key("the transformer")]
    optimizer: Annotated[Optimizer, Key("from gradients to steps")]
    batch_size: Annotated[int, Key("sequences in a training step", default=32, unit="sequences", minimum=1)]
    numerics: Annotated[
        str,
        Key(
            "number format of training and evaluation; tf32 and bfloat16 are of matrix products "
            "alone, weights stay float32 (a CPU computes tf32 as float32)",
            default="float32",
            choices=("float32", "tf32", "bfloat16", "float64"),
        ),
    ]
    snapshots: Annotated[Snapshots, Key("when the parameters are kept for evaluation; does not depend on the horizon")]
    forgetting: Annotated[
        Forgetting,
        Key("label embeddings are drawn anew again and again (active forgetting), and their optimizer begins anew"),
    ] = neutral(Forgetting())
    interventions: Annotated[
        tuple[
            Annotated[
                Intervention,
                Key("what is as before unless it says otherwise; evaluators stay those of the first recipe"),
            ],
            ...,
        ],
        Key(
            "changes in mid-training by name; each lasts, and a later one changes what the earlier ones left",
            names=r"^[a-z][a-z0-9_]*$",
        ),
    ] = neutral(())
    activation_interventions: Annotated[
        tuple[
            Annotated[ActivationIntervention, Key("operations on places, see docs/circuits.md, and their strength")],
            ...,
        ],
        Key(
            "what is done to the model's activations in every training batch, by name; gradients flow through it. "
            "Evaluation is without it. The eager engine alone trains with it",
            names=r"^[a-z][a-z0-9_]*$",
        ),
    ] = neutral(())
    freeze: Annotated[Freeze, Key("parameters that do not move, for some time or always")] = neutral(Freeze())
    start_from: Annotated[
        StartFrom,
        Key("initial weights are those of another run's snapshot; the optimizer and the sequences begin anew"),
    ] = neutral(StartFrom())

    @property
    def id(self) -> str:
        """Return the identity; it stands in names of files."""
        return identity("training", self)

    @property
    def n_labels(self) -> int:
        """Return the number of labels that the model knows."""
        return self.recipe.n_labels(self.bank.shape.n_train_classes)

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every parameter of a lane, in forward order."""
        sizes = self.bank.shape.width, self.n_labels, self.recipe.context, self._channels
        return parameter_shapes(self.model, *sizes)

    @property
    def running_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of the running statistics of a lane; snapshots hold them beside the parameters."""
        return running_shapes(self.model, self._channels)

    @property
    def _channels(self) -> int:
        return self.bank.images.channels if self.bank.images else 1

    @property
    def tensor_shape(self) -> str:
        """Return what is equal in runs that can train as one batched model: all but what each lane has of its own."""
        values = identity_values(self)
        values["model"].pop("init")
        for key in ("learning_rate", "l2", "clip", "momentum", "weight_decay", "schedule"):
            values["optimizer"].pop(key, None)
        for key in ("forgetting", "interventions", "freeze", "start_from"):
            values.pop(key, None)
        values["recipe"] = {"context": self.recipe.context, "labels": self.recipe.labelling.labels}
        return canonical(values)

    @property
    def recipes(self) -> list[Recipe]:
        """Return all recipes that hold at some time."""
        return [self.recipe, *(change.recipe for change in self.interventions)]

    def at(self, seen: int) -> "Run":
        """Return this run with the recipe and optimizer of the batch that begins at `seen` sequences seen."""
        recipe, optimizer = self.recipe, self.optimizer
        for change in self.interventions:
            if round_up(change.at, self.batch_size) <= seen:
                recipe, optimizer = change.recipe, change.optimizer
        return dataclasses.replace(self, recipe=recipe, optimizer=optimizer, interventions=())

    def encoder_frozen_at(self, seen: int) -> bool:
        """Return whether nothing of the image encoder moves in the batch that begins at `seen` sequences seen.

        It then encodes as at evaluation, by its running statistics, which stay too.
        """
        encoder = {name for name in self.parameter_shapes if component(name) == "encoder"}
        return encoder <= set(self.freeze.parameters) and self.freeze.holds(self.batch_size, seen)

    def activations_at(self, seen: int) -> Operations:
        """Return what is done to the activations of the batch that begins at `seen` sequences seen."""
        return together(one.at(self.batch_size, seen) for one in self.activation_interventions)

    def changes(self, start: int, until: int) -> set[int]:
        """Return the sequences seen, in (start, until), at which recipe, optimizer, labels or what is frozen change."""
        points = {round_up(change.at, self.batch_size) for change in self.interventions}
        points.update(self.freeze.bounds(self.batch_size))
        if every := round_up(self.forgetting.every, self.batch_size):
            last = round_up(self.forgetting.until, self.batch_size) if self.forgetting.until else until
            points.update(range(start - start % every + every, min(last + 1, until), every))
        return {point for point in points if start < point < until}


@dataclass(frozen=True, kw_only=True, order=True)
class Seed:
    """What draws the initial weights, and what draws the training sequences."""

    init: Annotated[SeedNumber, Key("draws the initial weights", required=True)]
    data: Annotated[SeedNumber, Key("draws the training sequences", required=True)]

    @property
    def label(self) -> str:
        """Return the seed as tables have it: one number where both are the same."""
        return str(self.init) if self.init == self.data else f"init{self.init}-data{self.data}"


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A run with a seed: the unit that has one curve."""

    run: Run
    seed: Seed


@dataclass(frozen=True, kw_only=True)
class Export(Identified):
    """What others' code reads of a run: its evaluators, and its first training sequences with this seed."""

    run: Run
    sequence_set: SequenceSet
    seed: Seed
    training_sequences: int

    @property
    def id(self) -> str:
        """Return the identity; it stands in names of files."""
        return f"{self.run.id}/{self.sequence_set.id}/{self.seed.data}/{self.training_sequences}"


@dataclass(frozen=True, kw_only=True)
class PackSpec:
    """Lanes of equal tensor shapes that train as one batched model."""

    lanes: tuple[Lane, ...]

    @property
    def run(self) -> Run:
        """Return any of its runs: what they have in common is the same in all."""
        return self.lanes[0].run

    @property
    def id(self) -> str:
        """Return the identity; it stands in names of files."""
        model = self.run.model
        return f"{self.run.bank.slug}-{model.depth}x{model.width}-{identity('training', self)}"

    @functools.cached_property
    def json(self) -> str:
        """One line of JSON with everything that a training job needs; each run once."""
        runs = {lane.run.id: identity_values(lane.run) for lane in self.lanes}
        lanes = [{"run": lane.run.id, "init": lane.seed.init, "data": lane.seed.data} for lane in self.lanes]
        return canonical({"runs": runs, "lanes": lanes})

    @classmethod
    def from_json(cls, text: str) -> "PackSpec":
        """Return the pack whose `json` is given."""
        document = json.loads(text)
        runs = {name: from_values(Run, values) for name, values in document["runs"].items()}
        return cls(
            lanes=tuple(
                Lane(run=runs[lane["run"]], seed=Seed(init=lane["init"], data=lane["data"]))
                for lane in document["lanes"]
            )
        )


def seed_labels(pack: PackSpec) -> str:
    """Return the pack's seeds in words: "seeds 0 1 2"."""
    return "seeds " + " ".join(dict.fromkeys(lane.seed.label for lane in pack.lanes))


def parameter_names(pack: PackSpec) -> list[str]:
    """Return the names of the parameters, in forward order."""
    return list(pack.run.parameter_shapes)


def snapshot_names(pack: PackSpec) -> list[str]:
    """Return the names of what a snapshot holds: parameters, and running statistics after them."""
    return [*pack.run.parameter_shapes, *pack.run.running_shapes]
