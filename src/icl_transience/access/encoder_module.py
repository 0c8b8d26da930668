"""The image encoder as a `torch.nn.Module`; it computes what model/encoder.py computes at evaluation."""

from torch import Tensor, nn

from icl_transience.model.encoder import BATCH_NORM_EPSILON, MOMENTUM
from icl_transience.specs.encoder import Block, Convolution, ResNet, blocks, stem


class Normed(nn.Module):
    """A convolution and its batch norm: `conv`, `norm`."""

    def __init__(self, one: Convolution):
        super().__init__()
        # Single pixels are chosen before the convolution; see model.encoder.encode_lane.
        self.step = one.stride if one.kernel == 1 else 1
        sizes = one.inputs, one.outputs, one.kernel, one.stride // self.step, (one.kernel - 1) // 2
        self.conv = nn.Conv2d(*sizes, bias=False)
        self.norm = nn.BatchNorm2d(one.outputs, BATCH_NORM_EPSILON, MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x [U, channels, side, side], normalised."""
        return self.norm(self.conv(x[:, :, :: self.step, :: self.step]))


class Bottleneck(nn.Module):
    """A block: conv1, conv2, conv3, and shortcut where it is no identity."""

    def __init__(self, block: Block):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = map(Normed, block.convolutions)
        self.shortcut = Normed(block.shortcut) if block.shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return what the block makes of x [U, channels, side, side]."""
        inner = self.conv2(self.conv1(x).relu()).relu()
        return (self.conv3(inner) + self.shortcut(x)).relu()


class ImageEncoder(nn.Module):
    """From images [..., P, P, Q] to what the transformer reads, [..., D]: stem, pool, blocks (blocks.0.0, …)."""

    def __init__(self, resnet: ResNet, channels: int):
        super().__init__()
        self.stem = Normed(stem(resnet, channels))
        self.pool = nn.MaxPool2d(resnet.pool, 2, (resnet.pool - 1) // 2) if resnet.pool > 1 else nn.Identity()
        made = iter(list(blocks(resnet)))
        groups = (nn.Sequential(*(Bottleneck(next(made)) for _ in range(count))) for count in resnet.blocks)
        self.blocks = nn.Sequential(*groups)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images [..., P, P, Q]."""
        leading = images.shape[:-3]
        x = images.flatten(0, -4).permute(0, 3, 1, 2)
        return self.blocks(self.pool(self.stem(x).relu())).mean(dim=(2, 3)).unflatten(0, leading)


def module_name(name: str) -> str:
    """Return the name that a parameter or running statistic of the encoder has in the module."""
    place, _, last = name.rpartition(".")
    if last == "weight":
        return f"{place}.conv.weight"
    return f"{place}.weight" if last == "scale" else name
