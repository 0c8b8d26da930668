"""The shapes that benchmarks/throughput.py measures, as packs: see docs/performance.md."""

from dataclasses import dataclass

from icl_transience.specs.banks import BankSpec, Gaussian, Omniglot
from icl_transience.specs.compute import training_flop
from icl_transience.specs.model import Model
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import Lane, PackSpec, Run, Seed
from icl_transience.specs.training import Optimizer, Snapshots

BATCH = 32


@dataclass(frozen=True)
class Shape:
    """Hold what the table of docs/performance.md calls (a) to (f); paper's names: D width, L depth, C context.

    dim: of embeddings; or side: of images, which the paper's ResNet encodes while it trains.
    """

    depth: int
    mlp_ratio: int
    context: int
    burstiness: int
    classes: int
    dim: int
    width: int = 64
    heads: int = 8
    side: int = 0

    def flop(self) -> int:
        """Return the model FLOP of training on one sequence."""
        return training_flop(pack_of(self, 1, "float32").run)


SHAPES = {
    "a": Shape(depth=2, mlp_ratio=0, context=8, burstiness=4, classes=1936, dim=64),
    "b": Shape(depth=2, mlp_ratio=0, context=2, burstiness=1, classes=12_800, dim=64),
    "c": Shape(depth=12, mlp_ratio=4, context=8, burstiness=4, classes=1600, dim=512),
    "d": Shape(depth=12, mlp_ratio=4, context=8, burstiness=4, classes=12_800, dim=512),
    "e": Shape(depth=2, mlp_ratio=0, context=8, burstiness=4, classes=1600, dim=0, side=28),
    "f": Shape(depth=2, mlp_ratio=0, context=8, burstiness=4, classes=1600, dim=0, side=105),
}


def pack_of(shape: Shape, lanes: int, numerics: str) -> PackSpec:
    """Return a pack of so many lanes of a shape."""
    if shape.side:
        parameters = Omniglot(
            zips=("images_background.zip", "images_evaluation.zip"),
            characters=shape.classes // 8,
            holdout_characters=0,
            exemplars=20,
            holdout_exemplars=0,
            side=shape.side,
            encoder="none",
            dim=shape.side**2,
        )
    else:
        parameters = Gaussian(
            classes=shape.classes, holdout_classes=0, exemplars=20, holdout_exemplars=0, dim=shape.dim, noise=0.1
        )
    embedder = "resnet" if shape.side else "linear"
    run = Run(
        bank=BankSpec(seed=0, parameters=parameters),
        recipe=Recipe(context=shape.context, burstiness=shape.burstiness),
        model=Model(
            depth=shape.depth, width=shape.width, heads=shape.heads, mlp_ratio=shape.mlp_ratio, embedder=embedder
        ),
        optimizer=Optimizer(learning_rate=3e-4),
        batch_size=BATCH,
        numerics=numerics,
        snapshots=Snapshots(first=2**62, per_doubling=1, every=2**62),
    )
    return PackSpec(lanes=tuple(Lane(run=run, seed=Seed(init=n, data=n)) for n in range(lanes)))
