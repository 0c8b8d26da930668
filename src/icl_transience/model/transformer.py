"""The transformer of the fixed-embedding protocol, as functions of a dictionary of tensors.

Letters used for shapes here and wherever the model is called:
    S lanes    B batch     C context pairs    T = 2C + 1 tokens    I input (exemplar) width
    D width    H heads     A = D / H          F = mlp_ratio * D    K labels    N = B * T

Every tensor has a leading lane axis S: a pack of lanes is one batched model, and a lone lane is S = 1.
Architecture and initialisation follow the authors' released code (pre-LN, attention without biases unless
`attention_bias`, MLP with tanh-GELU, final LayerNorm, unembedding with bias); `mlp_ratio` 0 leaves the MLP out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience import philox
from icl_transience.model.places import Tap, untouched
from icl_transience.specs.model import Model

Parameters = dict[str, Tensor]

LAYER_NORM_EPSILON = 1e-5


def sinusoidal_positions(n_tokens: int, width: int, base: float, layout: str = "interleaved") -> Tensor:
    """[T, D] float64: sin(p / base^(2i/D)) at column 2i, the cosine of the same angle at 2i + 1.

    layout "halves": the sine at column i, its cosine at D/2 + i.
    """
    exponent = torch.arange(0, width, 2, dtype=torch.float64) / width
    angle = torch.arange(n_tokens, dtype=torch.float64)[:, None] / base**exponent
    if layout == "halves":
        return torch.cat([angle.sin(), angle.cos()], dim=1)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class Geometry:
    """The constants of a forward pass that depend on shape alone: the positions and the causal mask.

    positions [T, D], added to the embeddings, 0 where they are not sinusoidal; rotations, if they are rotary, the
    cosine and the sine [T, A/2] by which the pairs of a head's coordinates (2i, 2i + 1) turn, else None.
    causal_mask [T, T], 0 where a query row may look and -inf where it may not.
    """

    def __init__(self, model: Model, context: int, dtype: torch.dtype, device: torch.device | str = "cpu"):
        n_tokens, kind, base = 2 * context + 1, model.positions.kind, model.positions.base
        positions = sinusoidal_positions(n_tokens, model.width, base, model.positions.layout)
        self.positions = (positions * (kind == "sinusoid")).to(device=device, dtype=dtype)
        self.rotations: tuple[Tensor, Tensor] | None = None
        if kind == "rotary":
            turns = sinusoidal_positions(n_tokens, model.width // model.heads, base).to(device=device, dtype=dtype)
            self.rotations = turns[:, 1::2], turns[:, ::2]
        mask = torch.full((n_tokens, n_tokens), float("-inf"), dtype=dtype, device=device)
        self.causal_mask = mask.triu(1)


class Dropout:
    """A share `probability` of the numbers that attentions and MLPs add to the residual stream is 0, the rest larger.

    Which ones is a pure function of (lane's seed, sequence number, place): counters, as everything that is drawn.
    seeds: of the lanes. start: the number of the batch's first sequence. It is a tap, see model/places.py.
    """

    def __init__(self, probability: float, seeds: Sequence[int], start: int):
        self.probability, self.seeds, self.start = probability, seeds, start

    def __call__(self, place: str, x: Tensor) -> Tensor:
        """Return x [S, B, …] with dropout if it is what an attention or an MLP adds, and x itself elsewhere."""
        if not place.endswith((".attention", ".mlp")):
            return x
        numbers = torch.arange(self.start, self.start + x.shape[1], device=x.device)
        # What is drawn is drawn under the name that parameters begin with: blocks.0.mlp.
        drawn = place.replace("block", "blocks.", 1)
        domain, count = philox.domain(f"dropout/{drawn}"), x.shape[2:].numel()
        words = torch.stack([philox.table(seed, domain, numbers, 0, count) for seed in self.seeds])
        dropped = philox.bernoulli(words, self.probability).view(x.shape)
        return x.masked_fill(dropped, 0.0) / (1 - self.probability)


def query_logits(
    parameters: Parameters,
    model: Model,
    geometry: Geometry,
    exemplars: Tensor,
    labels: Tensor,
    tap: Tap = untouched,
    every_row: bool = False,
) -> Tensor:
    """Logits of the query's label.

    parameters: tensors with a leading lane axis. exemplars [S, B, C+1, I], the query last; where an image encoder is
    the embedder, what it made of them, I = D (see model/encoder.py).
    labels [S, B, C] int64, the context's. tap: what reads or sets activations on the way, see model/places.py.
    Returns [S, B, K].

    Only the query's row leaves the last block, so only that row of it is computed, unless `every_row` is asked for.
    """
    x = _tokens(parameters, geometry, exemplars, labels, tap)
    for layer in range(model.depth):
        rows = x if every_row or layer < model.depth - 1 else x[:, :, -1:]
        x = tap(f"residual{layer}", _block(parameters, layer, model, geometry, x, rows, tap))
    x = _norm(parameters, "norm", x[:, :, -1])
    return tap("logits", torch.baddbmm(_row(parameters, "unembedding.bias"), x, parameters["unembedding.weight"]))


def _tokens(
    parameters: Parameters, geometry: Geometry, exemplars: Tensor, labels: Tensor, tap: Tap = untouched
) -> Tensor:
    """Embedded sequences x1 l1 x2 l2 ... xC lC xq with their positions: [S, B, T, D]."""
    lanes, batch, n_exemplars, _ = exemplars.shape
    embedded = exemplars
    if "embedder.weight" in parameters:
        embedded = _linear(parameters, "embedder", exemplars.flatten(1, 2)).view(lanes, batch, n_exemplars, -1)
    table = parameters["label_embedding"]
    first_rows = torch.arange(lanes, device=labels.device) * table.shape[1]
    label_rows = functional.embedding(labels + first_rows[:, None, None], table.flatten(0, 1))
    pairs = torch.stack([embedded[:, :, :-1], label_rows], dim=3).flatten(2, 3)
    tokens = tap("embedding", torch.cat([pairs, embedded[:, :, -1:]], dim=2))
    positions = geometry.positions
    if "positions" in parameters:
        # Shorter sequences than those of training have its first places.
        positions = positions + parameters["positions"][:, None, : tokens.shape[2]]
    if tap is not untouched:
        positions = tap("positions", positions.expand_as(tokens))
    return tokens + positions


def _block(
    parameters: Parameters,
    layer: int,
    model: Model,
    geometry: Geometry,
    x: Tensor,
    rows: Tensor,
    tap: Tap = untouched,
) -> Tensor:
    """One pre-LN block over x [S, B, T, D], for the given rows of it [S, B, R, D] (all, or the last)."""
    name, place = f"blocks.{layer}", f"block{layer}"
    rows = rows + tap(f"{place}.attention", _attention(parameters, layer, model, geometry, x, rows.shape[2], tap))
    if model.mlp_ratio:
        hidden = _norm(parameters, f"{name}.norm2", rows.flatten(1, 2))
        hidden = functional.gelu(_linear(parameters, f"{name}.mlp.in", hidden), approximate="tanh")
        rows = rows + tap(f"{place}.mlp", _linear(parameters, f"{name}.mlp.out", hidden).view(rows.shape))
    return rows


def _attention(
    parameters: Parameters,
    layer: int,
    model: Model,
    geometry: Geometry,
    x: Tensor,
    n_rows: int,
    tap: Tap,
) -> Tensor:
    """Attention of the last `n_rows` tokens to all tokens before them: [S, B, R, D]."""
    name = f"blocks.{layer}"
    lanes, batch, n_tokens, width = x.shape
    heads, head_width = model.heads, width // model.heads
    normed = _norm(parameters, f"{name}.norm1", x.flatten(1, 2))
    weight, out = parameters[f"{name}.attention.qkv"], parameters[f"{name}.attention.out"]

    def projected(x: Tensor, first: int, last: int) -> Tensor:
        part = weight[:, :, first:last]
        if not model.attention_bias:
            return torch.bmm(x, part)
        return torch.baddbmm(_row(parameters, f"{name}.attention.qkv.bias")[..., first:last], x, part)

    def by_head(x: Tensor, tokens: int) -> Tensor:  # [S, B*R, n*D] -> [n, S*B*H, R, A]
        split = x.view(lanes * batch, tokens, -1, heads, head_width)
        return split.permute(2, 0, 3, 1, 4).reshape(-1, lanes * batch * heads, tokens, head_width)

    def at(part: str, x: Tensor) -> Tensor:  # [S*B*H, R, .]; a tap sees [S, B, H, R, .]
        if tap is untouched:
            return x
        return tap(f"block{layer}.{part}", x.unflatten(0, (lanes, batch, heads))).flatten(0, 2)

    if n_rows == n_tokens:
        query, key, value = by_head(projected(normed, 0, 3 * width), n_tokens)
    else:
        key, value = by_head(projected(normed, width, 3 * width), n_tokens)
        last = normed.view(x.shape)[:, :, -n_rows:].flatten(1, 2)
        (query,) = by_head(projected(last, 0, width), n_rows)
    if geometry.rotations:
        query, key = (_turned(part, geometry.rotations) for part in (query, key))
    query, key, value = at("queries", query), at("keys", key), at("values", value)
    scores = torch.bmm(query * head_width**-0.5, key.transpose(1, 2))
    scores = at("scores", scores)
    if n_rows > 1:  # the last token looks at all
        scores = scores + geometry.causal_mask
    pattern = at("pattern", scores.softmax(dim=-1))
    mixed = at("heads", torch.bmm(pattern, value))
    mixed = mixed.view(lanes, batch, heads, n_rows, head_width).transpose(2, 3).reshape(lanes, -1, width)
    added = torch.bmm(mixed, out)
    if model.attention_bias:
        added = added + _row(parameters, f"{name}.attention.out.bias")
    return added.view(lanes, batch, n_rows, width)


def _turned(x: Tensor, rotations: tuple[Tensor, Tensor]) -> Tensor:
    """X [N, R, A], the last R tokens, each turned by its place (Su et al. 2021)."""
    cosine, sine = (part[-x.shape[1] :] for part in rotations)
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


def _row(parameters: Parameters, name: str) -> Tensor:
    return parameters[name].unsqueeze(1)


def _linear(parameters: Parameters, name: str, x: Tensor) -> Tensor:
    """X [S, N, in] @ weight + bias -> [S, N, out]."""
    return torch.baddbmm(_row(parameters, f"{name}.bias"), x, parameters[f"{name}.weight"])


def _norm(parameters: Parameters, name: str, x: Tensor) -> Tensor:
    """LayerNorm over the last axis of x [S, N, D], with each lane's own scale and bias."""
    normed = functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPSILON)
    return torch.addcmul(_row(parameters, f"{name}.bias"), normed, _row(parameters, f"{name}.scale"))
