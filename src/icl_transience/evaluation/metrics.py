"""TODO"""

import torch
from torch import Tensor

from icl_transience.engines.answers import Answers
from icl_transience.specs.evaluators import METRICS


def metrics(answers: Answers, labels: Tensor) -> Tensor:
    """Every metric of every sequence: [S, B, len(METRICS)], float64, from arithmetic in the logits' own type.

    labels int64 [B, C+1], the target last.
    """
    context, targets = labels[:, :-1], labels[:, -1]
    # A label that stands in the context twice is one answer.
    seen_before = (context[:, :, None] == context[:, None, :]).tril(-1).any(-1)
    inside = answers.inside.masked_fill(seen_before, -torch.inf)
    log_inside, log_outside = inside.logsumexp(-1), answers.log_outside
    log_total = torch.logaddexp(log_inside, log_outside)

    target_in_context = (context == targets[:, None]).any(-1)
    best_inside, place = inside.max(-1)
    label_inside = context.expand(*inside.shape).gather(-1, place.unsqueeze(-1)).squeeze(-1)
    # Equal logits: the lower label, as argmax over all would have it.
    first_inside = (best_inside == answers.best_outside) & (label_inside < answers.label_outside)
    label = label_inside.where((best_inside > answers.best_outside) | first_inside, answers.label_outside)

    def correct(answer: Tensor) -> Tensor:
        return (answer == targets).to(inside.dtype)

    target = answers.target
    columns = {
        "loss": log_total - target,
        "accuracy": correct(label),
        "in_context_accuracy": correct(label_inside) * target_in_context,
        "out_of_context_accuracy": correct(answers.label_outside) * ~target_in_context,
        "target_probability": (target - log_total).exp(),
        "in_context_target_probability": (target - log_inside).exp().where(target_in_context, 0.0),
        "out_of_context_target_probability": (target - log_outside).exp().where(~target_in_context, 0.0),
        "context_probability": (log_inside - log_total).exp(),
    }
    return torch.stack([columns[name] for name in METRICS], dim=-1).double()
