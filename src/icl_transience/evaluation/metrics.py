"""The metrics of a snapshot's answers."""

import torch
from torch import Tensor

from icl_transience.engines.answers import Answers
from icl_transience.specs.evaluators import METRICS


def metrics(answers: Answers, labels: Tensor) -> Tensor:
    """Compute every metric of every sequence: [S, B, len(METRICS)], float64, from arithmetic in the logits' own type.

    labels int64 [B, C+1], the target last.
    """
    context, targets = labels[:, :-1], labels[:, -1]
    # A label that stands in the context twice is one answer.
    seen_before = (context[:, :, None] == context[:, None, :]).tril(-1).any(-1)
    context_logits = answers.context_logits.masked_fill(seen_before, -torch.inf)
    logsumexp_context, logsumexp_other = context_logits.logsumexp(-1), answers.logsumexp_other
    logsumexp_all = torch.logaddexp(logsumexp_context, logsumexp_other)

    target_in_context = (context == targets[:, None]).any(-1)
    max_context_logit, column = context_logits.max(-1)
    max_context_label = context.expand(*context_logits.shape).gather(-1, column.unsqueeze(-1)).squeeze(-1)
    # Equal logits: the lower label, as argmax over all would have it.
    ties_lower = (max_context_logit == answers.max_other_logit) & (max_context_label < answers.max_other_label)
    label = max_context_label.where((max_context_logit > answers.max_other_logit) | ties_lower, answers.max_other_label)

    def correct(answer: Tensor) -> Tensor:
        return (answer == targets).to(context_logits.dtype)

    target = answers.target_logit
    columns = {
        "loss": logsumexp_all - target,
        "accuracy": correct(label),
        "in_context_accuracy": correct(max_context_label) * target_in_context,
        "out_of_context_accuracy": correct(answers.max_other_label) * ~target_in_context,
        "target_probability": (target - logsumexp_all).exp(),
        "in_context_target_probability": (target - logsumexp_context).exp().where(target_in_context, 0.0),
        "out_of_context_target_probability": (target - logsumexp_other).exp().where(~target_in_context, 0.0),
        "context_probability": (logsumexp_context - logsumexp_all).exp(),
    }
    return torch.stack([columns[name] for name in METRICS], dim=-1).double()


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard error over sequences of `values` [S, N, …], [S, …] each."""
    return values.mean(dim=1), values.std(dim=1, correction=0) / values.shape[1] ** 0.5
