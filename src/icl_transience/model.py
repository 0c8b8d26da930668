"""The transformer of the fixed-embedding protocol, as functions of a dictionary of tensors.

Letters used for shapes here and wherever the model is called:
    S lanes    B batch     C context pairs    T = 2C + 1 tokens    I input (exemplar) width
    D width    H heads     A = D / H          F = mlp_ratio * D    K labels    N = B * T

Every tensor has a leading lane axis S: a pack of lanes is one batched model, and a lone lane is S = 1.
Architecture and initialisation follow the authors' released code (pre-LN, attention without biases, MLP
with tanh-GELU, final LayerNorm, unembedding with bias); `mlp_ratio` 0 leaves the MLP out.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience import counter
from icl_transience.spec import Model

Parameters = dict[str, Tensor]

LAYER_NORM_EPSILON = 1e-5
# Standard deviation of a standard normal truncated at +-2, which LeCun normal (JAX's) divides out.
_TRUNCATED_STD = 0.87962566103423978
_LABEL_STD = 0.02


def parameter_shapes(model: Model, input_width: int, n_labels: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of one lane (without the lane axis), in forward order.

    Weights are [in, out]: the model computes x @ W.
    """
    width, hidden = model.width, model.mlp_ratio * model.width
    shapes = {
        "embedder.weight": (input_width, width),
        "embedder.bias": (width,),
        "label_embedding": (n_labels, width),
    }
    for layer in range(model.depth):
        block = f"blocks.{layer}"
        shapes |= {
            f"{block}.norm1.scale": (width,),
            f"{block}.norm1.bias": (width,),
            f"{block}.attention.qkv": (width, 3 * width),
            f"{block}.attention.out": (width, width),
        }
        if hidden:
            shapes |= {
                f"{block}.norm2.scale": (width,),
                f"{block}.norm2.bias": (width,),
                f"{block}.mlp.in.weight": (width, hidden),
                f"{block}.mlp.in.bias": (hidden,),
                f"{block}.mlp.out.weight": (hidden, width),
                f"{block}.mlp.out.bias": (width,),
            }
    return shapes | {
        "norm.scale": (width,),
        "norm.bias": (width,),
        "unembedding.weight": (width, n_labels),
        "unembedding.bias": (n_labels,),
    }


def initial_parameters(model: Model, input_width: int, n_labels: int, seed: int) -> Parameters:
    """Initial weights of one lane (no lane axis), float32 on the CPU: a pure function of (seed, name).

    `lecun_normal`: weights normal, truncated at two standard deviations and rescaled so that the standard
    deviation is 1/sqrt(fan-in); biases 0; label table normal truncated at two sigma, sigma 0.02.
    `pytorch`: weights and biases uniform on +-1/sqrt(fan-in), label table normal, sigma 0.02.
    `model.init.scale` multiplies every weight matrix and the label table, not biases or norms.
    """
    parameters = {}
    fan_in = 0
    for name, shape in parameter_shapes(model, input_width, n_labels).items():
        count, key = math.prod(shape), counter.domain(f"initial weights/{name}")
        if name.endswith(".scale"):
            values = torch.ones(count, dtype=torch.float64)
        elif name == "label_embedding":
            draw = counter.truncated_normal if model.init.distribution == "lecun_normal" else counter.normal
            values = model.init.scale * _LABEL_STD * draw(seed, key, count)
        elif name.endswith(".bias"):
            values = torch.zeros(count, dtype=torch.float64)
            # A norm has no fan-in; every other bias follows its own weight in `parameter_shapes`.
            if model.init.distribution == "pytorch" and "norm" not in name:
                values = (2 * counter.uniform(seed, key, count) - 1) / math.sqrt(fan_in)
        else:
            fan_in = shape[0]
            if model.init.distribution == "lecun_normal":
                values = counter.truncated_normal(seed, key, count) / _TRUNCATED_STD
            else:
                values = 2 * counter.uniform(seed, key, count) - 1
            values = model.init.scale * values / math.sqrt(fan_in)
        parameters[name] = values.reshape(shape).to(torch.float32)
    return parameters


def sinusoidal_positions(n_tokens: int, width: int, base: float) -> Tensor:
    """[T, D] float64: sin(p / base^(2i/D)) at column 2i, the cosine of the same angle at 2i + 1."""
    exponent = torch.arange(0, width, 2, dtype=torch.float64) / width
    angle = torch.arange(n_tokens, dtype=torch.float64)[:, None] / base**exponent
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class Geometry:
    """The constants of a forward pass that depend on shape alone: the positions and the causal mask.

    positions [T, D]; causal_mask [T, T], 0 where a query row may look and -inf where it may not.
    """

    def __init__(self, model: Model, context: int, dtype: torch.dtype, device: torch.device | str = "cpu"):
        n_tokens = 2 * context + 1
        positions = sinusoidal_positions(n_tokens, model.width, model.positions.base)
        self.positions = positions.to(device=device, dtype=dtype)
        mask = torch.full((n_tokens, n_tokens), float("-inf"), dtype=dtype, device=device)
        self.causal_mask = mask.triu(1)


def query_logits(parameters: Parameters, model: Model, geometry: Geometry, exemplars: Tensor, labels: Tensor) -> Tensor:
    """Logits of the query's label.

    parameters: tensors with a leading lane axis. exemplars [S, B, C+1, I], the query last.
    labels [S, B, C] int64, the context's. Returns [S, B, K].

    Only the query's row leaves the last block, so only that row of it is computed.
    """
    x = _tokens(parameters, geometry, exemplars, labels)
    for layer in range(model.depth - 1):
        x = _block(parameters, f"blocks.{layer}", model, x, x, geometry.causal_mask)
    x = _block(parameters, f"blocks.{model.depth - 1}", model, x, x[:, :, -1:], None)
    x = _norm(parameters, "norm", x[:, :, 0])
    return torch.baddbmm(_row(parameters, "unembedding.bias"), x, parameters["unembedding.weight"])


def _tokens(parameters: Parameters, geometry: Geometry, exemplars: Tensor, labels: Tensor) -> Tensor:
    """Embedded sequences x1 l1 x2 l2 ... xC lC xq with their positions: [S, B, T, D]."""
    lanes, batch, n_exemplars, _ = exemplars.shape
    embedded = _linear(parameters, "embedder", exemplars.flatten(1, 2)).view(lanes, batch, n_exemplars, -1)
    table = parameters["label_embedding"]
    first_rows = torch.arange(lanes, device=labels.device) * table.shape[1]
    label_rows = functional.embedding(labels + first_rows[:, None, None], table.flatten(0, 1))
    pairs = torch.stack([embedded[:, :, :-1], label_rows], dim=3).flatten(2, 3)
    return torch.cat([pairs, embedded[:, :, -1:]], dim=2) + geometry.positions


def _block(parameters: Parameters, name: str, model: Model, x: Tensor, rows: Tensor, mask: Tensor | None) -> Tensor:
    """One pre-LN block over x [S, B, T, D], for the given rows of it [S, B, R, D] (all, or the last)."""
    rows = rows + _attention(parameters, name, model, x, rows.shape[2], mask)
    if model.mlp_ratio:
        hidden = _norm(parameters, f"{name}.norm2", rows.flatten(1, 2))
        hidden = functional.gelu(_linear(parameters, f"{name}.mlp.in", hidden), approximate="tanh")
        rows = rows + _linear(parameters, f"{name}.mlp.out", hidden).view(rows.shape)
    return rows


def _attention(parameters: Parameters, name: str, model: Model, x: Tensor, n_rows: int, mask: Tensor | None) -> Tensor:
    """Attention of the last `n_rows` tokens to all tokens before them: [S, B, R, D]."""
    lanes, batch, n_tokens, width = x.shape
    heads, head_width = model.heads, width // model.heads
    normed = _norm(parameters, f"{name}.norm1", x.flatten(1, 2))
    weight = parameters[f"{name}.attention.qkv"]

    def by_head(projected: Tensor, tokens: int) -> Tensor:  # [S, B*R, n*D] -> [n, S*B*H, R, A]
        split = projected.view(lanes * batch, tokens, -1, heads, head_width)
        return split.permute(2, 0, 3, 1, 4).reshape(-1, lanes * batch * heads, tokens, head_width)

    if n_rows == n_tokens:
        query, key, value = by_head(torch.bmm(normed, weight), n_tokens)
    else:
        key, value = by_head(torch.bmm(normed, weight[:, :, width:]), n_tokens)
        last = normed.view(x.shape)[:, :, -n_rows:].flatten(1, 2)
        (query,) = by_head(torch.bmm(last, weight[:, :, :width]), n_rows)
    scores = torch.bmm(query * head_width**-0.5, key.transpose(1, 2))
    if mask is not None:
        scores = scores + mask
    mixed = torch.bmm(scores.softmax(dim=-1), value)
    mixed = mixed.view(lanes, batch, heads, n_rows, head_width).transpose(2, 3).reshape(lanes, -1, width)
    return torch.bmm(mixed, parameters[f"{name}.attention.out"]).view(lanes, batch, n_rows, width)


def _row(parameters: Parameters, name: str) -> Tensor:
    return parameters[name].unsqueeze(1)


def _linear(parameters: Parameters, name: str, x: Tensor) -> Tensor:
    """x [S, N, in] @ weight + bias -> [S, N, out]."""
    return torch.baddbmm(_row(parameters, f"{name}.bias"), x, parameters[f"{name}.weight"])


def _norm(parameters: Parameters, name: str, x: Tensor) -> Tensor:
    """LayerNorm over the last axis of x [S, N, D], with each lane's own scale and bias."""
    normed = functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPSILON)
    return torch.addcmul(_row(parameters, f"{name}.bias"), normed, _row(parameters, f"{name}.scale"))
