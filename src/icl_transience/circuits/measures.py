"""What heads attend to, what they read from each other, and what they add to the answer.

specs/measures.py says what each measure is. Letters for shapes as in model/transformer.py; L layers, N sequences. All
are computed for all lanes at once (snapshots of a lane are lanes too), in chunks of sequences; a measure that has no
meaning in any of the sequences is NaN.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience.circuits.interventions import copying_test, logits
from icl_transience.circuits.network import Network
from icl_transience.model.places import Recorder
from icl_transience.model.transformer import LAYER_NORM_EPSILON
from icl_transience.specs.compute import MEASURED_AT_A_TIME
from icl_transience.specs.interventions import Intervention
from icl_transience.specs.measures import ATTRIBUTION, HEAD_MEASURES
from icl_transience.specs.places import Place

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

    def all(self) -> dict[str, Tensor]:
        return {name: self[name] for name in self.sums}


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
    return measure(network, exemplars, labels, tuple(names), same_class, intervention=intervention, others=others).heads


def _add_heads(
    means: _Means,
    network: Network,
    found: Mapping[str, Tensor],
    labels: Tensor,
    names: Iterable[str],
    same_class: Tensor | None,
) -> None:
    """Add measures of heads. found: patterns by name; labels [B, C+1], same_class bool [B, C]."""
    right = (labels[:, :-1] == labels[:, -1:]).expand(network.lanes, -1, -1)
    of_class = right if same_class is None else same_class.expand(network.lanes, -1, -1)
    for layer in range(network.model.depth):
        for name in names:
            values, known = _MEASURES[name](found[f"block{layer}.pattern"], right, of_class)
            means.add(f"{layer} {name}", values, known)


def _of_layers(means: _Means, network: Network, names: Iterable[str]) -> dict[str, Tensor]:
    """Return name -> [S, L, …]."""
    layers = range(network.model.depth)
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
    found = measure(network, exemplars, labels, (), with_patterns=True).patterns
    assert found is not None
    return found


def _add_patterns(means: _Means, network: Network, found: Mapping[str, Tensor]) -> None:
    for layer in range(network.model.depth):
        pattern = found[f"block{layer}.pattern"]
        means.add(f"{layer} pattern", pattern, torch.ones_like(pattern[:, :, 0, 0, 0], dtype=torch.bool))


def argmax_in_context(network: Network, exemplars: Tensor, labels: Tensor) -> Tensor:
    """Return the share of sequences whose largest logit is that of a label in the context, [S], float64."""
    found = measure(network, exemplars, labels, ["argmax_in_context"]).argmax_in_context
    assert found is not None
    return found


def _add_argmax(means: _Means, answers: Tensor, labels: Tensor) -> None:
    inside = (answers.argmax(-1)[..., None] == labels[:, :-1]).any(-1)
    means.add("argmax", inside.double(), torch.ones_like(inside))


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

    Parts: embedding and positions (of the query), block0.head0 …, block0.mlp …, and bias (of the final norm, the
    unembedding and what heads write); they sum to the difference of logits. The final norm's scale is frozen: it is
    that of the whole residual stream. Sequences whose context has no other label are left out. Arguments as of
    `of_heads`.
    """
    found = measure(network, exemplars, labels, [ATTRIBUTION], intervention=intervention, others=others).attribution
    assert found is not None
    return found


def _attributed(network: Network) -> list[str]:
    """Return the places of which attribution is the sum, and that after them."""
    model = network.model
    parts = ("mlp", "heads") if model.mlp_ratio else ("heads",)
    of_blocks = [f"block{layer}.{part}" for part in parts for layer in range(model.depth)]
    return ["embedding", "positions", *of_blocks, f"residual{model.depth - 1}"]


def _add_attribution(means: _Means, network: Network, activations: Mapping[str, Tensor], labels: Tensor) -> None:
    """Add attribution. activations: at the places `_attributed`; labels [B, C+1]."""
    model = network.model
    heads = (model.heads, model.width // model.heads)
    *added, last = _attributed(network)
    # Of the query alone.
    found = {name: activations[name][..., -1, :] for name in (*added, last)}
    wrong = labels[:, :-1] != labels[:, -1:]
    known = wrong.any(-1).expand(network.lanes, -1)
    shares = wrong.to(found[last].dtype) / wrong.sum(-1, keepdim=True).clamp(min=1)
    signed = torch.cat([-shares, torch.ones_like(shares[:, :1])], dim=1)
    towards = (_unembedded(network.parameters["unembedding.weight"], labels) * signed[..., None]).sum(-2)
    scale, bias = (network.parameters[f"norm.{name}"][:, None] for name in ("scale", "bias"))
    of_unembedding = (network.parameters["unembedding.bias"][:, labels] * signed).sum(-1)
    spread = (found[last].var(-1, correction=0, keepdim=True) + LAYER_NORM_EPSILON).sqrt()
    gradient = towards * scale / spread
    # The norm takes the mean off what is added; taking it off the gradient is the same.
    gradient = gradient - gradient.mean(-1, keepdim=True)
    of_attention = [f"blocks.{layer}.attention.out.bias" for layer in range(model.depth) if model.attention_bias]
    of_heads_bias = sum((network.parameters[name][:, None] * gradient).sum(-1) for name in of_attention)
    means.add("bias", (towards * bias).sum(-1) + of_unembedding + of_heads_bias, known)
    for name in added:
        if not name.endswith(".heads"):
            means.add(name, (found[name] * gradient).sum(-1), known)
            continue
        block = name.partition(".")[0]
        out = network.parameters[f"blocks.{block.removeprefix('block')}.attention.out"].unflatten(1, heads)
        of_heads = (found[name] * torch.einsum("sbd,shad->sbha", gradient, out)).sum(-1)
        for head in range(model.heads):
            means.add(Place(name, head).written, of_heads[..., head], known)


@dataclass(frozen=True)
class OfModel:
    """Measures of a model on the sequences of an evaluator.

    heads: name -> [S, L, H]. argmax_in_context: [S]. attribution: part -> [S]. patterns: [S, L, H, T, T]. All float64;
    None, and left out of `heads`, where they were not asked for.
    """

    heads: dict[str, Tensor]
    argmax_in_context: Tensor | None
    attribution: dict[str, Tensor] | None
    patterns: Tensor | None


def measure(
    network: Network,
    exemplars: Tensor,
    labels: Tensor,
    names: Collection[str],
    same_class: Tensor | None = None,
    *,
    intervention: Intervention | None = None,
    others: Mapping[str, Network] | None = None,
    with_patterns: bool = False,
) -> OfModel:
    """Return several measures from one forward pass; `of_heads`, `argmax_in_context` and so on return one of them.

    names: of HEAD_MEASURES, MODEL_MEASURES, ATTRIBUTION. Other arguments as of `of_heads`. Every row is computed only
    where something reads more than the query's.
    """
    means, attributed, of_heads = _Means(), _Means(), [name for name in names if name in HEAD_MEASURES]
    has_argmax, has_attribution = "argmax_in_context" in names, ATTRIBUTION in names
    every_row = with_patterns or not set(of_heads) <= set(_OF_QUERY)
    read = [f"block{layer}.pattern" for layer in range(network.model.depth)] if of_heads or with_patterns else []
    read += _attributed(network) if has_attribution else []
    for part in _chunks(exemplars):
        recorder = Recorder(read)
        given = exemplars[..., part, :, :], labels[part]
        answers = logits(network, *given, intervention, others, recorder, every_row=every_row)
        found = recorder.activations
        _add_heads(means, network, found, labels[part], of_heads, None if same_class is None else same_class[part])
        if with_patterns:
            _add_patterns(means, network, found)
        if has_argmax:
            _add_argmax(means, answers, labels[part])
        if has_attribution:
            _add_attribution(attributed, network, found, labels[part])
    return OfModel(
        heads=_of_layers(means, network, of_heads),
        argmax_in_context=means["argmax"] if has_argmax else None,
        attribution=attributed.all() if has_attribution else None,
        patterns=_of_layers(means, network, ["pattern"])["pattern"] if with_patterns else None,
    )


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
            answers = logits(network, exemplars[..., part, :, :], labels[part], intervention).gather(-1, of_context)
            label = of_context.gather(-1, answers.argmax(-1, keepdim=True)).squeeze(-1)
            correct = label == labels[part, -1]
            means.add("", correct.double(), torch.ones_like(correct))
        found[weight] = means[""]
    return found


def _chunks(exemplars: Tensor) -> Iterator[slice]:
    for first in range(0, exemplars.shape[-3], MEASURED_AT_A_TIME):
        yield slice(first, first + MEASURED_AT_A_TIME)


def _unembedded(weight: Tensor, labels: Tensor) -> Tensor:
    """Return the columns [S, B, C+1, D] of the unembedding's weight [S, D, K] at labels [B, C+1]."""
    return torch.stack([functional.embedding(labels, one) for one in weight.transpose(1, 2)])
