"""Forward passes of a snapshot: logits and activations, under an intervention or not.

Letters for shapes as in model/transformer.py; N sequences.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icl_transience.circuits import interventions
from icl_transience.circuits.network import Network
from icl_transience.engines.interface import DTYPES, autocast, tensor_cores
from icl_transience.model import encoder
from icl_transience.model.transformer import Parameters
from icl_transience.specs.compute import EVALUATION_BATCH
from icl_transience.specs.interventions import Intervention, parse
from icl_transience.specs.runs import Run


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """A forward pass of one lane, in the numerics of its run, by the functions that the eager engine calls.

    parameters: name -> tensor without a lane axis. intervention: as a study writes it, or parsed; None: none.
    others: name -> run and parameters of the snapshots that grafts name.
    """

    run: Run
    parameters: Parameters
    intervention: Intervention | Mapping[str, Any] | None
    others: Mapping[str, tuple[Run, Parameters]]

    def logits(self, examples: Tensor, labels: Tensor) -> Tensor:
        """Return the logits of the query's label, [N, K]; labels int64 [N, C+1].

        examples [N, C+1, I], or images [N, C+1, P, P, Q], which each snapshot's own encoder encodes.
        """
        (found,) = self._joined(lambda *given: (interventions.logits(*given),), examples, labels)
        return found

    def activations(self, places: Iterable[str], examples: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return name of a place -> its activation of every row, [N, …]; arguments as of `logits`."""
        names: list[str] = []

        def read(*given: Any) -> Iterable[Tensor]:
            network, exemplars, of_context, *rest = given
            found = interventions.activations(network, exemplars, of_context, places, *rest)
            names[:] = found
            return found.values()

        found = self._joined(read, examples, labels)
        return dict(zip(names, found, strict=True))

    @torch.no_grad()
    def _joined(self, answer: Callable[..., Iterable[Tensor]], examples: Tensor, labels: Tensor) -> list[Tensor]:
        """Return what `answer` gives of all sequences, each without its lane axis.

        They are split as evaluation splits them: another size of batch may round otherwise.
        """
        context, numerics = examples.shape[1] - 1, self.run.numerics
        intervention = parse(self.intervention) if isinstance(self.intervention, Mapping) else self.intervention
        network = _network(self.run, self.parameters, context)
        parts = []
        with tensor_cores(numerics), autocast(numerics, examples.device):
            for part, of_part in zip(examples.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
                others = {
                    name: replace(_network(*other, context), exemplars=_encoded(*other, part))
                    for name, other in self.others.items()
                }
                encoded = _encoded(self.run, self.parameters, part)
                given = part if encoded is None else encoded
                parts.append([found[0] for found in answer(network, given, of_part, intervention, others)])
        return [torch.cat(found).to(DTYPES[numerics]) for found in zip(*parts, strict=True)]


def _network(run: Run, parameters: Parameters, context: int) -> Network:
    return Network({name: value[None] for name, value in parameters.items()}, run.model, context)


def _encoded(run: Run, parameters: Parameters, images: Tensor) -> Tensor | None:
    """Return what a snapshot's encoder makes of images [N, C+1, P, P, Q], [1, N, C+1, D]; None: it has no encoder."""
    if not run.model.encodes_images:
        return None
    encoded, _ = encoder.encode_lane(parameters, run.model.resnet, images.flatten(0, 1), training=False)
    return encoded.unflatten(0, images.shape[:2])[None]
