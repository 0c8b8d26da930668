"""Sequences that differ from a sequence in one respect, for patching.

Letters for shapes as in model/transformer.py.
"""

import torch
from torch import Tensor


def paired(kind: str, exemplars: Tensor, labels: Tensor, n_labels: int) -> tuple[Tensor, Tensor]:
    """Return the paired sequences of specs.interventions.PAIRED: exemplars [S, B, C+1, I], labels [S, B, C+1].

    labels: the target last; it stays. A sequence that has no label but the query's is its own pair.
    """
    context, target = labels[..., :-1], labels[..., -1:]
    wrong = context != target
    # The first item with another label, or the first at all.
    first = wrong.to(torch.int8).argmax(-1, keepdim=True)
    if kind == "other_query":
        chosen = exemplars.gather(2, first[..., None].expand(*first.shape, exemplars.shape[-1]))
        query = torch.where(wrong.any(-1)[..., None, None], chosen, exemplars[:, :, -1:])
        return torch.cat([exemplars[:, :, :-1], query], dim=2), labels
    if kind == "other_labels":
        # One to one, so that equal labels stay equal.
        other = (context + n_labels // 2) % n_labels
    else:
        swapped = context.gather(-1, first)
        other = torch.where(context == target, swapped, torch.where(context == swapped, target, context))
    return exemplars, torch.cat([other, target], dim=-1)
