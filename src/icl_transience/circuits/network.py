"""A model with weights, as measures and interventions take it.

Letters for shapes as in model/transformer.py.
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from icl_transience.model import transformer
from icl_transience.model.places import Tap, untouched
from icl_transience.specs.model import Model


@dataclass(frozen=True)
class Network:
    """A model with weights: parameters, name -> [S, …], on sequences of `context` items.

    exemplars: [S, B, C+1, D], what an image encoder of its own makes of the sequences on which it is asked for
    activations, where these are read beside another model; None: it reads what that one reads.
    """

    parameters: transformer.Parameters
    model: Model
    context: int
    exemplars: Tensor | None = None

    @cached_property
    def geometry(self) -> transformer.Geometry:
        """What its forward pass needs besides."""
        some = self.parameters["unembedding.weight"]
        return transformer.Geometry(self.model, self.context, some.dtype, some.device)

    @property
    def lanes(self) -> int:
        """How many lanes there are; snapshots of a lane are lanes too."""
        return len(self.parameters["unembedding.weight"])

    def reads(self, exemplars: Tensor) -> Tensor:
        """Return its own exemplars in place of those that another model reads, if it has any."""
        return exemplars if self.exemplars is None else self.exemplars

    def logits(self, exemplars: Tensor, labels: Tensor, tap: Tap = untouched, every_row: bool = False) -> Tensor:
        """Return the query's logits [S, B, K]; exemplars [S, B, C+1, I], labels [S, B, C+1], see query_logits."""
        context = labels[..., :-1]
        return transformer.query_logits(self.parameters, self.model, self.geometry, exemplars, context, tap, every_row)
