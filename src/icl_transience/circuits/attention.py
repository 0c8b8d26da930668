"""What interventions do to attention: scores that are forbidden, patterns that are clamped, logits that are copied.

Letters for shapes as in model/transformer.py; R rows: the last R tokens. A change sees all heads of a place,
[S, B, H, R, T], or one, [S, B, R, T]. Definitions are those of icl-dynamics (Singh et al. 2023, 2024, 2025), for any C.
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience.model.places import HEADS, Change
from icl_transience.specs.interventions import Clamp, Forbid
from icl_transience.specs.places import Place

# In place of what is to have no weight.
FORBIDDEN = -1e9


def _rows(x: Tensor, which: str) -> Tensor:
    """Return bool [R, 1]: all rows, or those of label tokens."""
    number = torch.arange(x.shape[-1] - x.shape[-2], x.shape[-1], device=x.device)[:, None]
    return number % 2 == 1 if which == "labels" else number >= 0


def _previous(x: Tensor) -> Tensor:
    """Return bool [R, T]: the token before each row's."""
    token = torch.arange(x.shape[-1], device=x.device)
    return token == token[-x.shape[-2] :, None] - 1


def forbidden(x: Tensor, forbid: Forbid) -> Tensor:
    """Forbid tokens in scores; at a strength below 1 their attention is less by that share before it is normalised."""
    if forbid.tokens == "previous_token":
        where = _previous(x) & _rows(x, forbid.rows)
    else:
        token = torch.arange(x.shape[-1], device=x.device)
        where = (token % 2 == 0) & (token[-x.shape[-2] :, None] == token[-1])
    if forbid.strength == 1:
        return x.masked_fill(where, FORBIDDEN)
    return torch.where(where, x + math.log1p(-forbid.strength), x)


def clamped(clamp: Clamp, exemplars: Tensor, labels: Tensor) -> Change:
    """Return the change that sets rows of a pattern."""
    if clamp.to == "previous_token":
        return partial(_to_previous_token, clamp=clamp)
    right = labels[..., :-1] == labels[..., -1:]
    if clamp.to == "induction":
        n_right, n_wrong = (side.to(exemplars.dtype).sum(-1, keepdim=True) for side in (right, ~right))
        of_items = torch.where(right, clamp.weight / n_right, (1 - clamp.weight) / n_wrong)
        known = ((n_right > 0) & (n_wrong > 0))[..., None]  # [S, B, 1, 1]
    else:
        nearness = functional.cosine_similarity(exemplars[:, :, :-1], exemplars[:, :, -1:], dim=-1)
        if clamp.temperature:
            of_items = (nearness / clamp.temperature).softmax(-1)
        else:
            of_items = nearness == nearness.amax(-1, keepdim=True)
        known = torch.ones_like(right[..., :1, None])
    row = torch.stack([torch.zeros_like(of_items), of_items], dim=-1).flatten(2)
    row = functional.pad(row.to(exemplars.dtype), (0, 1))[:, :, None]  # [S, B, 1, T]
    return partial(_to_row, row=row, known=known, share=clamp.strength)


def _to_previous_token(x: Tensor, clamp: Clamp) -> Tensor:
    """Row t: weight on t-1, the rest on t; row 0 is all on itself."""
    previous = _previous(x)
    token = torch.arange(x.shape[-1], device=x.device)
    itself = (token == token[-x.shape[-2] :, None]).to(x.dtype)
    of_both = clamp.weight * previous.to(x.dtype) + (1 - clamp.weight) * itself
    target = torch.where(previous.any(-1, keepdim=True), of_both, itself)
    target = target if clamp.strength == 1 else x.lerp(target.expand_as(x), clamp.strength)
    return torch.where(_rows(x, clamp.rows), target, x)


def _to_row(x: Tensor, row: Tensor, known: Tensor, share: float) -> Tensor:
    """Set the query's row, the last of x, in the sequences where it is `known`."""
    if x.dim() == HEADS + 3:
        row, known = row.unsqueeze(HEADS), known.unsqueeze(HEADS)
    last = x[..., -1:, :]
    target = row.to(x.dtype).expand_as(last)
    target = torch.where(known, target if share == 1 else last.lerp(target, share), last)
    return torch.cat([x[..., :-1, :], target], dim=-2)


class Copier:
    """A tap by which the logits are a head's scores of the query at the context's labels, and -1e9 elsewhere.

    A label that stands several times has the logarithm of the summed exponentials: the softmax over labels is then the
    attention that label tokens get, among label tokens.
    """

    def __init__(self, head: Place, labels: Tensor):
        self.head, self.context = head, labels[..., :-1]
        self.scores = torch.empty(0)

    def __call__(self, place: str, x: Tensor) -> Tensor:
        """Keep the scores when they come by, and return them at the logits."""
        if place == self.head.name.replace("heads", "scores"):
            self.scores = x[:, :, self.head.head, -1, 1::2]
        if place != "logits":
            return x
        same = self.context[..., :, None] == self.context[..., None, :]
        of_labels = self.scores[..., None, :].masked_fill(~same, -torch.inf).logsumexp(-1)
        return torch.full_like(x, FORBIDDEN).scatter(-1, self.context, of_labels.to(x.dtype))
