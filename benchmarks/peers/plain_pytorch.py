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


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, projects: bool):
        super().__init__()
        inner = outputs // 4
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if projects:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x):
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(inner)) + self.shortcut(x)).relu()


class ResNet(nn.Module):
    """From images [B, Q, P, P] to [B, channels of the last group]."""

    def __init__(self, image_channels=1, kernel=7, stride=2, stem=64, pool=3, channels=(16, 32, 32, 64),
                 blocks=(2, 2, 2, 2), strides=(1, 2, 2, 2)):  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(image_channels, stem, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(stem)
        self.pool = nn.MaxPool2d(pool, 2, pool // 2) if pool > 1 else nn.Identity()
        groups, inputs = [], stem
        for outputs, count, step in zip(channels, blocks, strides, strict=True):
            first = Bottleneck(inputs, outputs, step, projects=True)
            groups.append(nn.Sequential(first, *(Bottleneck(outputs, outputs, 1, False) for _ in range(count - 1))))
            inputs = outputs
        self.groups = nn.Sequential(*groups)

    def forward(self, images):
        return self.groups(self.pool(self.bn(self.conv(images)).relu())).mean(dim=(2, 3))


class Transformer(nn.Module):
    positions: torch.Tensor

    def __init__(self, shape):
        super().__init__()
        self.embedder = ResNet() if shape.side else nn.Linear(shape.dim, shape.width)
        self.labels = nn.Embedding(shape.classes, shape.width)
        self.register_buffer("positions", torch.randn(2 * shape.context + 1, shape.width))
        self.blocks = nn.Sequential(*(Block(shape.width, shape.heads, shape.mlp_ratio) for _ in range(shape.depth)))
        self.norm, self.unembedding = nn.LayerNorm(shape.width), nn.Linear(shape.width, shape.classes)

    def forward(self, exemplars, labels):
        if isinstance(self.embedder, ResNet):
            images = exemplars.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            embedded = self.embedder(images).unflatten(0, labels.shape)
        else:
            embedded = self.embedder(exemplars)
        items = torch.stack([embedded, self.labels(labels)], dim=2).flatten(1, 2)[:, :-1]
        return self.unembedding(self.norm(self.blocks(items + self.positions)))


def step_for(shape, lanes: int, device: str):
    models = [Transformer(shape).to(device, memory_format=torch.channels_last) for _ in range(lanes)]
    optimizers = [torch.optim.Adam(model.parameters(), lr=3e-4, fused=True) for model in models]
    drawn = (shape.classes, 20, 1, shape.side, shape.side) if shape.side else (shape.classes, 20, shape.dim)
    bank = torch.randn(drawn, device=device)

    def step() -> None:
        for model, optimizer in zip(models, optimizers, strict=True):
            classes = torch.randint(shape.classes, (32, shape.context + 1), device=device)
            exemplars = bank[classes, torch.randint(20, classes.shape, device=device)]
            loss = functional.cross_entropy(model(exemplars, classes)[:, -1], classes[:, -1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step
