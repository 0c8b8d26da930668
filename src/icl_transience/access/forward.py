"""The one function by which snapshots answer: the place where interventions enter.

Letters for shapes as in model/transformer.py; N sequences.
"""

from typing import Any

import torch
from torch import Tensor

from icl_transience.engines.answers import EagerForward
from icl_transience.model.transformer import Parameters
from icl_transience.specs.compute import EVALUATION_BATCH
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import Run


@torch.no_grad()
def query_logits(
    run: Run, parameters: Parameters, examples: Tensor, context_labels: Tensor, interventions: Any = None
) -> Tensor:
    """Return the logits of the query's label, [N, K], computed by the eager engine as evaluation computes them.

    parameters: of one lane, without a lane axis. examples [N, C+1, I], context_labels int64 [N, C].
    """
    if interventions:
        raise StudyError(f"run: interventions {interventions!r} cannot be made yet: leave them out")
    forward = EagerForward(run.model, context_labels.shape[1], run.numerics)
    forward.load({name: value[None] for name, value in parameters.items()})
    # As evaluation splits them: another size of batch may round otherwise.
    parts = zip(examples.split(EVALUATION_BATCH), context_labels.split(EVALUATION_BATCH), strict=True)
    return torch.cat([forward.logits(*part)[0] for part in parts])
