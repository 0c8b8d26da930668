"""What metrics need of the logits, and the reference that computes it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from icl_transience.engines.interface import DTYPES, autocast, tensor_cores
from icl_transience.model import transformer
from icl_transience.specs.model import Model


@dataclass(frozen=True)
class Answers:
    """What metrics need of the logits at B queries; all [S, B] but `inside`, which is [S, B, C].

    inside: those of the context's labels, one for each place. best_outside, label_outside, log_outside: of all labels
    that do not stand in the context the highest logit, its label, and the logarithm of the sum of exponentials.
    target: the target's logit.
    """

    inside: Tensor
    best_outside: Tensor
    label_outside: Tensor
    log_outside: Tensor
    target: Tensor


class Forward(Protocol):
    """Answers of all lanes to the same sequences."""

    def load(self, parameters: transformer.Parameters) -> None:
        """name -> [S, …], used from now on."""

    def __call__(self, exemplars: Tensor, labels: Tensor) -> Answers:
        """exemplars [B, C+1, I], labels [B, C+1], the target last; B at most what forward_for was told."""


def answers(logits: Tensor, labels: Tensor) -> Answers:
    """logits [..., B, K], labels [B, C+1], the target last."""
    context, target = (part.expand(*logits.shape[:-1], -1) for part in (labels[:, :-1], labels[:, -1:]))
    outside = logits.scatter(-1, context, -torch.inf)
    best, label = outside.max(-1)
    target_logit = logits.gather(-1, target).squeeze(-1)
    return Answers(logits.gather(-1, context), best, label, outside.logsumexp(-1), target_logit)


class EagerForward:
    """See Forward."""

    def __init__(self, model: Model, context: int, numerics: str, device: torch.device | str = "cpu"):
        self.model, self.numerics, self.device = model, numerics, torch.device(device)
        self.geometry = transformer.Geometry(model, context, DTYPES[numerics], self.device)

    def load(self, parameters: transformer.Parameters) -> None:
        self.parameters = parameters

    def logits(self, exemplars: Tensor, context: Tensor) -> Tensor:
        """exemplars [B, C+1, I], context [B, C] -> [S, B, K]."""
        lanes = len(next(iter(self.parameters.values())))
        shared = (part.expand(lanes, *part.shape) for part in (exemplars, context))
        with tensor_cores(self.numerics), autocast(self.numerics, self.device):
            logits = transformer.query_logits(self.parameters, self.model, self.geometry, *shared)
        return logits.to(exemplars.dtype)

    def __call__(self, exemplars: Tensor, labels: Tensor) -> Answers:
        return answers(self.logits(exemplars, labels[:, :-1]), labels)
