"""The same training as most would write it: nn.Module, scaled_dot_product_attention, logits of every token, fused Adam.

For `throughput.py --against`. Lanes train one after the other.
"""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        hidden = mlp_ratio * width
        self.mlp = None
        if hidden:
            self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU("tanh"), nn.Linear(hidden, width))

    def forward(self, x):
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x)) if self.mlp else x


class Transformer(nn.Module):
    positions: torch.Tensor

    def __init__(self, shape):
        super().__init__()
        self.embedder, self.labels = nn.Linear(shape.dim, shape.width), nn.Embedding(shape.classes, shape.width)
        self.register_buffer("positions", torch.randn(2 * shape.context + 1, shape.width))
        self.blocks = nn.Sequential(*(Block(shape.width, shape.heads, shape.mlp_ratio) for _ in range(shape.depth)))
        self.norm, self.unembedding = nn.LayerNorm(shape.width), nn.Linear(shape.width, shape.classes)

    def forward(self, exemplars, labels):
        items = torch.stack([self.embedder(exemplars), self.labels(labels)], dim=2).flatten(1, 2)[:, :-1]
        return self.unembedding(self.norm(self.blocks(items + self.positions)))


def step_for(shape, lanes: int, device: str):
    models = [Transformer(shape).to(device) for _ in range(lanes)]
    optimizers = [torch.optim.Adam(model.parameters(), lr=3e-4, fused=True) for model in models]
    bank = torch.randn(shape.classes, 20, shape.dim, device=device)

    def step() -> None:
        for model, optimizer in zip(models, optimizers, strict=True):
            classes = torch.randint(shape.classes, (32, shape.context + 1), device=device)
            exemplars = bank[classes, torch.randint(20, classes.shape, device=device)]
            loss = functional.cross_entropy(model(exemplars, classes)[:, -1], classes[:, -1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step
