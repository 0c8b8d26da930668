"""What metrics need of the logits, and the reference that computes it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from icl_transience.engines.interface import DTYPES, autocast, tensor_cores
from icl_transience.model import encoder, transformer
from icl_transience.specs.model import Model
from icl_transience.specs.runs import Run


@dataclass(frozen=True)
class Answers:
    """What metrics need of the logits at B queries; all [S, B] but `context_logits`, which is [S, B, C].

    context_logits: of the context's labels, in the context's order. max_other_logit, max_other_label, logsumexp_other:
    over all labels that do not stand in the context. target_logit: of the target.
    """

    context_logits: Tensor
    max_other_logit: Tensor
    max_other_label: Tensor
    logsumexp_other: Tensor
    target_logit: Tensor


class Forward(Protocol):
    """Answers of all lanes to the same sequences."""

    def load(self, parameters: transformer.Parameters) -> None:
        """Use these parameters, name -> [S, …], from now on."""
        ...

    def __call__(self, exemplars: Tensor, labels: Tensor) -> Answers:
        """Answer. exemplars [B, C+1, I], labels [B, C+1], the target last; B at most what forward_for was told.

        What image encoders made of exemplars is each lane's own, [S, B, C+1, D].
        """
        ...


class Encoding(Protocol):
    """What lanes' image encoders make of the same images at evaluation, [S, U, D]."""

    def __call__(self, parameters: transformer.Parameters, images: Tensor) -> Tensor:
        """Encode images [U, P, P, Q]. parameters: name -> [S, …], running statistics among them."""
        ...


def answers(logits: Tensor, labels: Tensor) -> Answers:
    """Reduce logits [..., B, K] by labels [B, C+1], the target last."""
    context, target = (part.expand(*logits.shape[:-1], -1) for part in (labels[:, :-1], labels[:, -1:]))
    others = logits.scatter(-1, context, -torch.inf)
    max_other_logit, max_other_label = others.max(-1)
    return Answers(
        context_logits=logits.gather(-1, context),
        max_other_logit=max_other_logit,
        max_other_label=max_other_label,
        logsumexp_other=others.logsumexp(-1),
        target_logit=logits.gather(-1, target).squeeze(-1),
    )


class EagerForward:
    """Answers by the model's own functions, on any device and in any precision; see Forward."""

    def __init__(self, model: Model, context: int, numerics: str, device: torch.device | str = "cpu"):
        self.model, self.numerics, self.device = model, numerics, torch.device(device)
        self.geometry = transformer.Geometry(model, context, DTYPES[numerics], self.device)

    def load(self, parameters: transformer.Parameters) -> None:
        """Take name -> [S, …], used from now on."""
        self.parameters = parameters

    def logits(self, exemplars: Tensor, context: Tensor) -> Tensor:
        """Compute the logits [S, B, K] of exemplars [(S,) B, C+1, I] and the context's labels [B, C]."""
        lanes = len(next(iter(self.parameters.values())))
        exemplars, context = exemplars.expand(lanes, *exemplars.shape[-3:]), context.expand(lanes, *context.shape)
        with tensor_cores(self.numerics), autocast(self.numerics, self.device):
            logits = transformer.query_logits(self.parameters, self.model, self.geometry, exemplars, context)
        return logits.to(exemplars.dtype)

    def __call__(self, exemplars: Tensor, labels: Tensor) -> Answers:
        """Answer exemplars [B, C+1, I] with labels [B, C+1], the target last."""
        return answers(self.logits(exemplars, labels[:, :-1]), labels)


class EagerEncoding:
    """Encode by the model's own functions, on any device and in any precision; see Encoding."""

    def __init__(self, run: Run):
        self.run = run

    def __call__(self, parameters: transformer.Parameters, images: Tensor) -> Tensor:
        """Encode images [U, P, P, Q]."""
        numerics, lanes = self.run.numerics, len(next(iter(parameters.values())))
        images = images.to(DTYPES[numerics])
        with tensor_cores(numerics), autocast(numerics, images.device):
            of_lanes = images.expand(lanes, *images.shape)
            return encoder.encode(parameters, self.run.model.resnet, of_lanes, training=False)[0]
