"""The transformer as a `torch.nn.Module`, for hooks, captum, nnsight and weight surgery.

It computes what model/transformer.py computes, for one lane and all rows; `held_against_model` proves that in float64
before a module is handed out. Letters for shapes as there.
"""

import math
from collections import OrderedDict
from functools import cache

import torch
from torch import Tensor, nn

from icl_transience.access.encoder_module import ImageEncoder, module_name
from icl_transience.engines.verify import normal_parameters, relative_error
from icl_transience.model import encoder, transformer
from icl_transience.specs.errors import StudyError
from icl_transience.specs.model import component
from icl_transience.specs.runs import Run

# Both compute in float64, in another order: they differ by roundings, each 2^-53 of a number, some hundreds of them,
# magnified by cancellation. A term that is missing or wrong is over 1e-3.
_APART = 1e-9
_CHECKED_SEQUENCES = 2


class Embedding(nn.Module):
    """Exemplars [B, C+1, I] and labels [B, C] to tokens x1 l1 … xC lC xq with their positions, [B, T, D].

    Where an image encoder is the embedder, exemplars are images [B, C+1, P, P, Q].
    """

    def __init__(self, run: Run):
        super().__init__()
        model = run.model
        self.kind, self.base, self.layout = model.positions.kind, model.positions.base, model.positions.layout
        images = run.bank.images
        self.embedder: nn.Module = (
            ImageEncoder(model.resnet, images.channels) if images else nn.Linear(run.bank.shape.width, model.width)
        )
        self.label_embedding = nn.Embedding(run.n_labels, model.width)
        if self.kind == "learned":
            self.positions = nn.Parameter(torch.zeros(2 * run.recipe.context + 1, model.width))

    def forward(self, exemplars: Tensor, labels: Tensor) -> Tensor:
        """Return tokens [B, T, D]."""
        embedded = self.embedder(exemplars)
        pairs = torch.stack([embedded[:, :-1], self.label_embedding(labels)], dim=2).flatten(1, 2)
        tokens = torch.cat([pairs, embedded[:, -1:]], dim=1)
        if self.kind == "sinusoid":
            places = transformer.sinusoidal_positions(tokens.shape[1], tokens.shape[2], self.base, self.layout)
            return tokens + places.to(tokens)
        # Shorter sequences than those of training have its first places.
        return tokens + self.positions[: tokens.shape[1]] if self.kind == "learned" else tokens


class Rotation(nn.Module):
    """Queries or keys [B, H, T, A], each turned by its place (Su et al. 2021)."""

    def __init__(self, base: float):
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        """Return x with each pair of coordinates turned, [B, H, T, A]."""
        turns = transformer.sinusoidal_positions(x.shape[2], x.shape[3], self.base).to(x)
        sine, cosine = turns[:, ::2], turns[:, 1::2]
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Causal attention over x [B, T, D].

    query, key, value: their outputs are [B, T, D], head h at h*A … (h+1)*A. query_rotation, key_rotation: of rotary
    positions, else none. pattern: from scores [B, H, T, T], -inf where a token may not look, to the attention pattern.
    out: its input is what the heads have mixed, [B, T, D].
    """

    def __init__(self, run: Run):
        super().__init__()
        model = run.model
        self.heads = model.heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(model.width, model.width, bias=model.attention_bias) for _ in range(4)
        )
        rotary = model.positions.kind == "rotary"
        self.query_rotation, self.key_rotation = (
            Rotation(model.positions.base) if rotary else nn.Identity() for _ in range(2)
        )
        self.pattern = nn.Softmax(dim=-1)
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the attention adds to the residual stream, [B, T, D]."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        query, key = self.query_rotation(query), self.key_rotation(key)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        mixed = self.pattern(scores.masked_fill(future, -torch.inf)) @ value
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """One pre-LN block over the residual stream [B, T, D]."""

    def __init__(self, run: Run):
        super().__init__()
        model = run.model
        width, hidden = model.width, model.mlp_ratio * model.width
        self.norm1 = nn.LayerNorm(width, eps=transformer.LAYER_NORM_EPSILON)
        self.attention = Attention(run)
        if hidden:
            self.norm2 = nn.LayerNorm(width, eps=transformer.LAYER_NORM_EPSILON)
            parts = {"in": nn.Linear(width, hidden), "gelu": nn.GELU("tanh"), "out": nn.Linear(hidden, width)}
            self.mlp = nn.Sequential(OrderedDict(parts, dropout=nn.Dropout(model.dropout)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream after the block, [B, T, D]."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x)) if "mlp" in self._modules else x


class Transformer(nn.Module):
    """The model of a run: embedding, blocks, norm, unembedding; `blocks.0.attention.query` and so on below.

    forward(exemplars [B, C+1, I] of the query last, labels int64 [B, C] of the context) -> logits of the query's label
    [B, K]. Weights of linear maps are PyTorch's [out, in].
    """

    def __init__(self, run: Run):
        super().__init__()
        self.embedding = Embedding(run)
        self.blocks = nn.Sequential(*(Block(run) for _ in range(run.model.depth)))
        self.norm = nn.LayerNorm(run.model.width, eps=transformer.LAYER_NORM_EPSILON)
        self.unembedding = nn.Linear(run.model.width, run.n_labels)

    def forward(self, exemplars: Tensor, labels: Tensor) -> Tensor:
        """Return the logits of the query's label, [B, K]."""
        x = self.blocks(self.embedding(exemplars, labels))
        return self.unembedding(self.norm(x[:, -1]))


def state_dict(parameters: transformer.Parameters) -> dict[str, Tensor]:
    """Return the `state_dict` of a module with these parameters of one lane, name -> tensor without a lane axis."""
    state: dict[str, Tensor] = {}
    for name, value in parameters.items():
        stem, _, last = name.rpartition(".")
        if component(name) == "encoder" or last.startswith("running"):
            state[module_name(name)] = value
            continue
        if last == "qkv":
            parts = zip(("query", "key", "value"), value.chunk(3, dim=1), strict=True)
            state |= {f"{stem}.{part}.weight": weight.T.contiguous() for part, weight in parts}
        elif name.endswith("qkv.bias"):
            above = stem.removesuffix(".qkv")
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            state |= {f"{above}.{part}.bias": bias for part, bias in parts}
        elif name.endswith("attention.out"):
            state[f"{name}.weight"] = value.T.contiguous()
        elif last == "weight":
            state[name] = value.T.contiguous()
        else:
            state[{"scale": f"{stem}.weight", "label_embedding": "label_embedding.weight"}.get(last, name)] = value
    embedding = ("embedder.", "label_embedding.", "positions")
    return {f"embedding.{name}" if name.startswith(embedding) else name: value for name, value in state.items()}


def module_of(run: Run, parameters: transformer.Parameters) -> Transformer:
    """Return the module of a run with these parameters of one lane, in evaluation mode.

    Raises StudyError where it would not compute what model/transformer.py does.
    """
    held_against_model(run)
    return _loaded(run, parameters)


def _loaded(run: Run, parameters: transformer.Parameters) -> Transformer:
    # Weights that are replaced at once need not be drawn.
    with torch.device("meta"):
        module = Transformer(run)
    state = {name: value.clone() for name, value in state_dict(parameters).items()}
    module.load_state_dict(state, assign=True)
    return module.eval()


@cache
@torch.no_grad()
def held_against_model(run: Run) -> float:
    """Hold the module against the model's functions, in float64 on weights of its own; return how far they are apart.

    Relative, over the logits of a few sequences. Raises StudyError where that is more than rounding: the model was
    changed, and this file was not.
    """
    generator = torch.Generator().manual_seed(3)
    context, images = run.recipe.context, run.bank.images
    sizes = (images.side, images.side, images.channels) if images else (run.bank.shape.width,)
    exemplars = torch.randn(_CHECKED_SEQUENCES, context + 1, *sizes, generator=generator, dtype=torch.float64)
    labels = torch.randint(run.n_labels, (_CHECKED_SEQUENCES, context), generator=generator)
    parameters = normal_parameters(run, exemplars)
    geometry = transformer.Geometry(run.model, context, torch.float64)
    read = exemplars[None]
    if images:
        for name, shape in run.running_shapes.items():
            parameters[name] = 1 + torch.rand(1, *shape, generator=generator, dtype=torch.float64)
        read, _ = encoder.encode(parameters, run.model.resnet, exemplars.flatten(0, 1)[None], training=False)
        read = read.unflatten(1, exemplars.shape[:2])
    (expected,) = transformer.query_logits(parameters, run.model, geometry, read, labels[None])
    try:
        found = _loaded(run, {name: value[0] for name, value in parameters.items()})(exemplars, labels)
        apart = relative_error(found, expected)
    except RuntimeError as error:  # a parameter that the module does not know
        raise StudyError(f"module: cannot be made of this model ({' '.join(str(error).split())}): {_MEND}") from error
    if not apart < _APART:
        raise StudyError(f"module: its logits are off by {apart:.2g} of their size: {_MEND}")
    return apart


_MEND = "model/transformer.py was changed, make the same change in access/module.py"
