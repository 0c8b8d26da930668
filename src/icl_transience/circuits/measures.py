"""What heads attend to, what they read from each other, and what they add to the answer.

specs/measures.py says what each measure is. Letters for shapes as in model/transformer.py; L layers, N sequences. All
are computed for all lanes at once (snapshots of a lane are lanes too), in chunks of sequences; a measure that has no
meaning in any of the sequences is NaN.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience.circuits.interventions import activations, copying_test, logits
from icl_transience.circuits.network import Network
from icl_transience.model.places import Recorder
from icl_transience.model.transformer import LAYER_NORM_EPSILON
from icl_transience.specs.interventions import Intervention
from icl_transience.specs.measures import HEAD_MEASURES
from icl_transience.specs.places import Place

# Sequences at a time: patterns of a few lanes and layers stay within a processor's cache.
CHUNK = 64
# Measures that need no row but the query's.
_OF_QUERY = ("induction", "query_items", "query_labels", "context_labels")


class _Means:
    """Means over sequences, those left out where a value has no meaning."""

    def __init__(self) -> None:
        self.sums = dict[str, Tensor]()
        self.counts = dict[str, Tensor]()

    def add(self, name: str, values: Tensor, known: Tensor) -> None:
        """Add values [S, B, …], of the sequences where they are `known` (bool [S, B])."""
        known = known.reshape(*known.shape, *(1 for _ in values.shape[2:]))
        self.sums[name] = self.sums.get(name, 0) + torch.where(known, values, 0).double().sum(1)
        self.counts[name] = self.counts.get(name, 0) + known.double().sum(1)

    def __getitem__(self, name: str) -> Tensor:
        return self.sums[name] / self.counts[name]


def of_heads(
    network: Network,
    exemplars: Tensor,
    labels: Tensor,
    names: Iterable[str] = tuple(HEAD_MEASURES),
    same_class: Tensor | None = None,
    intervention: Intervention | None = None,
    others: Mapping[str, Network] | None = None,
) -> dict[str, Tensor]:
    """Return name -> [S, L, H], float64, of HEAD_MEASURES.

    exemplars [N, C+1, I], labels int64 [N, C+1], the target last. same_class: bool [N, C], which items are of the
    query's class; by default those that bear its label. intervention, others: see `interventions.logits`.
    """
    names, means = tuple(names), _Means()
    every_row = not set(names) <= set(_OF_QUERY)
    layers = range(network.model.depth)
    for part in _chunks(exemplars):
        found = activations(
            network, exemplars[part], labels[part], ["patterns"], intervention, others, every_row=every_row
        )
        right = (labels[part, :-1] == labels[part, -1:]).expand(network.lanes, -1, -1)
        of_class = right if same_class is None else same_class[part].expand(network.lanes, -1, -1)
        for layer in layers:
            pattern = found[f"block{layer}.pattern"]
            for name in names:
                values, known = _MEASURES[name](pattern, right, of_class)
                means.add(f"{layer} {name}", values, known)
    return {name: torch.stack([means[f"{layer} {name}"] for layer in layers], dim=1) for name in names}


# pattern [S, B, H, R, T], right and of_class [S, B, C] -> (values [S, B, H], known [S, B]).


def _induction(pattern: Tensor, right: Tensor, of_class: Tensor) -> tuple[Tensor, Tensor]:
    to_labels = pattern[..., -1, 1::2]
    sides = [side.to(pattern.dtype) for side in (right, ~right)]
    of_right, of_wrong = (side / side.sum(-1, keepdim=True) for side in sides)
    known = right.any(-1) & ~right.all(-1)
    return (to_labels * (of_right - of_wrong)[:, :, None]).sum(-1), known


def _previous_token(pattern: Tensor, right: Tensor, of_class: Tensor) -> tuple[Tensor, Tensor]:
    return _previous(pattern).mean(-1), _everywhere(right)


def _previous_token_corrected(pattern: Tensor, right: Tensor, of_class: Tensor) -> tuple[Tensor, Tensor]:
    previous = _previous(pattern)
    token = 1 + 2 * torch.arange(previous.shape[-1], device=pattern.device)
    return (previous - (1 - previous) / token).mean(-1), _everywhere(right)


def _self(pattern: Tensor, right: Tensor, of_class: Tensor) -> tuple[Tensor, Tensor]:
    return pattern.diagonal(dim1=-2, dim2=-1)[..., 1::2].mean(-1), _everywhere(right)


def _query_items(pattern: Tensor, right: Tensor, of_class: Tensor) -> tuple[Tensor, Tensor]:
    return (pattern[..., -1, :-1:2] * of_class[:, :, None]).sum(-1), of_class.any(-1)


def _query_labels(pattern: Tensor, right: Tensor, of_class: Tensor) -> tuple[Tensor, Tensor]:
    return (pattern[..., -1, 1::2] * of_class[:, :, None]).sum(-1), of_class.any(-1)


def _context_labels(pattern: Tensor, right: Tensor, of_class: Tensor) -> tuple[Tensor, Tensor]:
    return pattern[..., -1, 1::2].sum(-1), _everywhere(right)


def _previous(pattern: Tensor) -> Tensor:
    """Return a[t, t-1] of label tokens t, [S, B, H, C]."""
    return pattern.diagonal(offset=-1, dim1=-2, dim2=-1)[..., ::2]


def _everywhere(right: Tensor) -> Tensor:
    return torch.ones_like(right[..., 0])


_MEASURES: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "induction": _induction,
    "previous_token": _previous_token,
    "previous_token_corrected": _previous_token_corrected,
    "self": _self,
    "query_items": _query_items,
    "query_labels": _query_labels,
    "context_labels": _context_labels,
}


def mean_patterns(network: Network, exemplars: Tensor, labels: Tensor) -> Tensor:
    """Return the mean attention pattern of each head, [S, L, H, T, T], float64. Arguments as of `of_heads`."""
    means, layers = _Means(), range(network.model.depth)
    for part in _chunks(exemplars):
        found = activations(network, exemplars[part], labels[part], ["patterns"])
        for layer in layers:
            pattern = found[f"block{layer}.pattern"]
            means.add(str(layer), pattern, torch.ones_like(pattern[:, :, 0, 0, 0], dtype=torch.bool))
    return torch.stack([means[str(layer)] for layer in layers], dim=1)


def argmax_in_context(network: Network, exemplars: Tensor, labels: Tensor) -> Tensor:
    """Return the share of sequences whose largest logit is that of a label in the context, [S], float64."""
    means = _Means()
    for part in _chunks(exemplars):
        answer = logits(network, exemplars[part], labels[part]).argmax(-1)
        inside = (answer[..., None] == labels[part, :-1]).any(-1)
        means.add("", inside.double(), torch.ones_like(inside))
    return means[""]


def compositions(network: Network) -> dict[tuple[str, int, int], Tensor]:
    """Return (name, layer, later layer) -> [S, H, H], float64, of COMPOSITIONS: head of the layer, of the later one.

    The norm between is left out, as in icl-dynamics: it is of weights alone (Elhage et al. 2021).
    """
    model, found = network.model, {}
    heads = (model.heads, model.width // model.heads)
    for later in range(1, model.depth):
        read = network.parameters[f"blocks.{later}.attention.qkv"].double().unflatten(-1, (3, *heads))
        for layer in range(later):
            written = network.parameters[f"blocks.{layer}.attention.out"].double().unflatten(1, heads)
            product = torch.einsum("shad,sdpkb->sphkab", written, read)
            sizes = torch.einsum("sh,spk->sphk", written.norm(dim=(2, 3)), read.norm(dim=(1, 4)))
            ratios = product.norm(dim=(4, 5)) / sizes
            found |= {(f"{part}_composition", layer, later): ratios[:, index] for index, part in enumerate("qkv")}
    return found


def attribution(
    network: Network,
    exemplars: Tensor,
    labels: Tensor,
    intervention: Intervention | None = None,
    others: Mapping[str, Network] | None = None,
) -> dict[str, Tensor]:
    """Return what each part of the model adds to logit(right) - mean logit(other context labels): part -> [S], float64.

    Parts: embedding and positions (of the query), block0.head0 …, block0.mlp …, and bias (of the final norm and the
    unembedding); they sum to the difference of logits. The final norm's scale is frozen: it is that of the whole
    residual stream. Sequences whose context has no other label are left out. Arguments as of `of_heads`.
    """
    model, means = network.model, _Means()
    heads = (model.heads, model.width // model.heads)
    layers, last = range(model.depth), f"residual{model.depth - 1}"
    plain = ["embedding", "positions", *(f"block{layer}.mlp" for layer in layers if model.mlp_ratio)]
    of_heads = [f"block{layer}.heads" for layer in layers]
    for part in _chunks(exemplars):
        recorder = Recorder([*plain, *of_heads, last])
        logits(network, exemplars[part], labels[part], intervention, others, recorder)
        # Of the query alone.
        found = {name: x[..., -1, :] for name, x in recorder.activations.items()}
        wrong = labels[part, :-1] != labels[part, -1:]
        known = wrong.any(-1).expand(network.lanes, -1)
        shares = wrong.to(exemplars.dtype) / wrong.sum(-1, keepdim=True).clamp(min=1)
        signed = torch.cat([-shares, torch.ones_like(shares[:, :1])], dim=1)
        towards = (_unembedded(network.parameters["unembedding.weight"], labels[part]) * signed[..., None]).sum(-2)
        scale, bias = (network.parameters[f"norm.{name}"][:, None] for name in ("scale", "bias"))
        of_unembedding = (network.parameters["unembedding.bias"][:, labels[part]] * signed).sum(-1)
        means.add("bias", (towards * bias).sum(-1) + of_unembedding, known)
        spread = (found[last].var(-1, correction=0, keepdim=True) + LAYER_NORM_EPSILON).sqrt()
        gradient = towards * scale / spread
        # The norm takes the mean off what is added; taking it off the gradient is the same.
        gradient = gradient - gradient.mean(-1, keepdim=True)
        for name in plain:
            means.add(name, (found[name] * gradient).sum(-1), known)
        for layer in layers:
            out = network.parameters[f"blocks.{layer}.attention.out"].unflatten(1, heads)
            added = (found[f"block{layer}.heads"] * torch.einsum("sbd,shad->sbha", gradient, out)).sum(-1)
            for head in range(model.heads):
                means.add(Place(f"block{layer}.heads", head).written, added[..., head], known)
    return {name: means[name] for name in means.sums}


def copying(
    network: Network, exemplars: Tensor, labels: Tensor, head: Place, weights: Iterable[float]
) -> dict[float, Tensor]:
    """Return weight -> in-context accuracy [S], float64, in the skip-trigram copying test of a head.

    See `interventions.copying_test`. Arguments as of `of_heads`.
    """
    found, context = {}, labels[:, :-1]
    for weight, intervention in copying_test(head, network.model, weights).items():
        means = _Means()
        for part in _chunks(exemplars):
            of_context = context[part].expand(network.lanes, -1, -1)
            answers = logits(network, exemplars[part], labels[part], intervention).gather(-1, of_context)
            label = of_context.gather(-1, answers.argmax(-1, keepdim=True)).squeeze(-1)
            correct = label == labels[part, -1]
            means.add("", correct.double(), torch.ones_like(correct))
        found[weight] = means[""]
    return found


def _chunks(exemplars: Tensor) -> Iterator[slice]:
    for first in range(0, len(exemplars), CHUNK):
        yield slice(first, first + CHUNK)


def _unembedded(weight: Tensor, labels: Tensor) -> Tensor:
    """Return the columns [S, B, C+1, D] of the unembedding's weight [S, D, K] at labels [B, C+1]."""
    return torch.stack([functional.embedding(labels, one) for one in weight.transpose(1, 2)])
