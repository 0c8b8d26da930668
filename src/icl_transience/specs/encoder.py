"""The image encoder that trains together with the transformer: its keys, layers, and the shapes of its parameters.

A ResNet of bottleneck blocks (He et al. 2015, v1: normalise after each convolution), as in the released code of Chan et
al. (2022): a stem, groups of blocks, the mean over what is left of the image. Every convolution is without bias and has
a batch norm. The first block of a group may take steps, and projects its shortcut.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from icl_transience.specs.keys import Key, neutral

# The width within a bottleneck is that of its output over this.
BOTTLENECK = 4
# Names of parameters begin with it.
ENCODER = "embedder"

_Count = Annotated[int, Key(minimum=1)]


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """Size of the encoder; the defaults are the paper's.

    channels, blocks, strides: of each group of blocks.
    """

    kernel: Annotated[int, Key("of the stem's convolution, odd", unit="pixels", minimum=1, maximum=15)] = neutral(7)
    stride: Annotated[int, Key("of the stem's convolution", unit="pixels", minimum=1, maximum=8)] = neutral(2)
    stem: Annotated[int, Key("channels of the stem", unit="channels", minimum=1)] = neutral(64)
    pool: Annotated[
        int,
        Key("largest of so many pixels a side, every 2nd, after the stem, odd; 1 = no pooling", minimum=1, maximum=9),
    ] = neutral(3)
    channels: Annotated[
        tuple[Annotated[int, Key(minimum=BOTTLENECK, multiple_of=BOTTLENECK)], ...],
        Key("of each group of blocks, a quarter of it within a block; the last is the model's width", fewest=1),
    ] = neutral((16, 32, 32, 64))
    blocks: Annotated[tuple[_Count, ...], Key("in each group", fewest=1)] = neutral((2, 2, 2, 2))
    strides: Annotated[tuple[_Count, ...], Key("of each group's first block", fewest=1)] = neutral((1, 2, 2, 2))


@dataclass(frozen=True)
class Convolution:
    """A convolution with its batch norm: parameters {name}.weight [outputs, inputs, kernel, kernel], {name}.norm.*."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int

    def side(self, side: int) -> int:
        """Return the pixels a side that it makes of `side`: padded evenly, so that stride 1 keeps them."""
        return -(-side // self.stride)

    def flop(self, side: int) -> int:
        """Return the FLOP of a forward pass on one image of `side` pixels a side: 2 for each multiply-add."""
        return 2 * self.side(side) ** 2 * self.kernel**2 * self.inputs * self.outputs


@dataclass(frozen=True)
class Block:
    """A bottleneck: 1x1, 3x3 (which takes the steps), 1x1; `shortcut` is None where it is the input itself."""

    convolutions: tuple[Convolution, Convolution, Convolution]
    shortcut: Convolution | None


def stem(resnet: ResNet, channels: int) -> Convolution:
    """Return the first convolution, on images of so many channels."""
    return Convolution(f"{ENCODER}.stem", channels, resnet.stem, resnet.kernel, resnet.stride)


def blocks(resnet: ResNet) -> Iterator[Block]:
    """Yield the blocks in forward order."""
    inputs = resnet.stem
    for group, (outputs, count, stride) in enumerate(zip(resnet.channels, resnet.blocks, resnet.strides, strict=True)):
        for number in range(count):
            name, inner = f"{ENCODER}.blocks.{group}.{number}", outputs // BOTTLENECK
            steps = 1 if number else stride
            yield Block(
                (
                    Convolution(f"{name}.conv1", inputs, inner, 1, 1),
                    Convolution(f"{name}.conv2", inner, inner, 3, steps),
                    Convolution(f"{name}.conv3", inner, outputs, 1, 1),
                ),
                None if number else Convolution(f"{name}.shortcut", inputs, outputs, 1, steps),
            )
            inputs = outputs


def convolutions(resnet: ResNet, channels: int) -> Iterator[Convolution]:
    """Yield all convolutions in forward order, a block's shortcut before it."""
    yield stem(resnet, channels)
    for block in blocks(resnet):
        yield from ([block.shortcut] if block.shortcut else [])
        yield from block.convolutions


def pooled(resnet: ResNet, side: int) -> int:
    """Return the pixels a side after the stem and its pooling."""
    side = -(-side // resnet.stride)
    return side if resnet.pool == 1 else -(-side // 2)


def encoder_shapes(resnet: ResNet, channels: int) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every parameter, in forward order, for images of so many channels."""
    shapes: dict[str, tuple[int, ...]] = {}
    for one in convolutions(resnet, channels):
        shapes[f"{one.name}.weight"] = (one.outputs, one.inputs, one.kernel, one.kernel)
        shapes[f"{one.name}.norm.scale"] = shapes[f"{one.name}.norm.bias"] = (one.outputs,)
    return shapes


def statistic_shapes(resnet: ResNet, channels: int) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of the running means and variances of the batch norms, in forward order."""
    return {
        f"{one.name}.norm.{statistic}": (one.outputs,)
        for one in convolutions(resnet, channels)
        for statistic in ("running_mean", "running_var")
    }


def encoder_flop(resnet: ResNet, side: int, channels: int) -> int:
    """Return the FLOP of encoding one image, of convolutions alone: 2 for each multiply-add."""
    total, side_now = stem(resnet, channels).flop(side), pooled(resnet, side)
    for block in blocks(resnet):
        first, second, third = block.convolutions
        total += first.flop(side_now) + second.flop(side_now)
        total += block.shortcut.flop(side_now) if block.shortcut else 0
        side_now = second.side(side_now)
        total += third.flop(side_now)
    return total
