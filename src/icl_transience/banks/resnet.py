"""Residual networks (He et al. 2016) in plain PyTorch, with torchvision's parameter names, so that its files load.

torchvision itself is no dependency: it has no build for every build of PyTorch.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from icl_transience.specs.errors import StudyError
from icl_transience.store import faults

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Block(nn.Module):
    """Two 3x3 convolutions with a skip connection, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inner, side, side] to [N, outer, side / stride, side / stride]."""
        skipped = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(x)) + skipped).relu()


class ResNet(nn.Module):
    """A residual network: images [N, channels, side, side] to embeddings [N, widths[-1]], its penultimate layer.

    `fc` maps embeddings to logits.

    The stem is torchvision's (7x7 with stride 2, then 3x3 max-pooling with stride 2) or, for `small` images, 3x3 with
    stride 2. Layer i has blocks[i] blocks of widths[i] channels; all but the first halve the side.
    """

    def __init__(self, channels: int, widths: Sequence[int], blocks: Sequence[int], n_classes: int, *, small: bool):
        super().__init__()
        kernel, padding = (3, 1) if small else (7, 3)
        self.conv1 = nn.Conv2d(channels, widths[0], kernel, stride=2, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.pool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        self.n_layers, inner = len(widths), widths[0]
        for number, (width, depth) in enumerate(zip(widths, blocks, strict=True), start=1):
            strides = [1 if number == 1 else 2] + [1] * (depth - 1)
            layer = [Block(inner if index == 0 else width, width, stride) for index, stride in enumerate(strides)]
            setattr(self, f"layer{number}", nn.Sequential(*layer))
            inner = width
        self.fc = nn.Linear(inner, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images [N, channels, side, side] as [N, widths[-1]]."""
        x = self.pool(self.bn1(self.conv1(images)).relu())
        for number in range(1, self.n_layers + 1):
            x = getattr(self, f"layer{number}")(x)
        return x.mean(dim=(2, 3))


def resnet18(n_classes: int = 1000) -> ResNet:
    """Return a ResNet-18 for ImageNet: [N, 3, 224, 224] to [N, 512]."""
    return ResNet(3, (64, 128, 256, 512), (2, 2, 2, 2), n_classes, small=False)


def load_resnet18(path: Path) -> ResNet:
    """Load a ResNet-18 with the weights of torchvision's `.pth`. Raises StudyError where they are not its weights."""
    try:
        # Nothing but tensors: a file from elsewhere cannot run code.
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle and zip raise many kinds
        wrong = StudyError(f"{path}: not weights that PyTorch reads ({' '.join(str(error).split())[:200]})")
        raise (faults.unreadable(path, error) or wrong) from error
    model = resnet18()
    # The count of batches is of no use after training; files made before PyTorch 0.4.1 lack it.
    wanted = {name: value.shape for name, value in model.state_dict().items() if not name.endswith("batches_tracked")}
    found = weights if isinstance(weights, dict) else {}
    wrong = [name for name, shape in wanted.items() if getattr(found.get(name), "shape", None) != shape]
    codes = [name for name in wanted if name not in wrong and found[name].dtype not in _FLOATS]
    if codes:
        raise StudyError(
            f"{path}: {codes[0]} and {len(codes) - 1} more of {len(wanted)} tensors are not floating-point numbers "
            f"({found[codes[0]].dtype}): expected weights in float16, bfloat16, float32 or float64, not quantised: "
            "get torchvision's published file"
        )
    if wrong:
        raise StudyError(
            f"{path}: not the weights of a ResNet-18 under torchvision's names: {len(wrong)} of {len(wanted)} tensors "
            f"are missing or of another shape, the first is {wrong[0]} {list(wanted[wrong[0]])}"
        )
    model.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    return model.eval()
