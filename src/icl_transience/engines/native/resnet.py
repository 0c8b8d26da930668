"""An image encoder through the kernels of encoder.cpp: forward, and backward after it, on buffers that stay.

Letters for shapes as in model/encoder.py; N blocks of 16 images. It computes what `model.encoder.encode_lane` computes
on a batch that has each image `counts` times, and is tested against it in float64.
"""

import ctypes
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience.engines.native.compiler import encoder_library
from icl_transience.model.encoder import BATCH_NORM_EPSILON
from icl_transience.model.transformer import Parameters
from icl_transience.specs.encoder import Block, Convolution, ResNet, blocks, pooled, stem
from icl_transience.specs.runs import Run
from icl_transience.specs.sources import ImageShape

# Images in a block, see encoder.cpp.
_BLOCK = 16


class Norm(NamedTuple):
    """What a batch norm went by: mean and 1 / standard deviation, float64 [C]."""

    mean: Tensor
    inverse: Tensor


class NativeResNet:
    """Encoders of one size on batches of at most `most` images, one batch at a time; see `forward`."""

    def __init__(self, resnet: ResNet, images: ImageShape, most: int, dtype: torch.dtype = torch.float32):
        """Compile the kernels. Raises compiler.UnavailableError."""
        self.resnet, self.dtype, self.n_blocks = resnet, dtype, -(-most // _BLOCK)
        self.library = encoder_library(dtype == torch.float64)
        self.stem, self.blocks = stem(resnet, images.channels), list(blocks(resnet))
        self.pad = (resnet.kernel - 1) // 2
        self.stem_side, self.pooled_side = self.stem.side(images.side), pooled(resnet, images.side)
        self.pooling = resnet.pool, 1 if resnet.pool == 1 else 2
        wide = images.side + 2 * self.pad
        self.images = torch.zeros(self.n_blocks, images.channels, wide, wide, _BLOCK, dtype=dtype)
        self.place = torch.zeros(
            self.n_blocks, resnet.stem, self.pooled_side, self.pooled_side, _BLOCK, dtype=torch.uint8
        )
        self._buffers: dict[str, Tensor] = {}
        self.norms: dict[str, Norm] = {}
        self._inputs: dict[str, Tensor] = {}

    def forward(
        self, parameters: Mapping[str, Tensor], images: Tensor, counts: Tensor, training: bool
    ) -> tuple[Tensor, Parameters]:
        """Encode images [U, P, P, Q] of one lane, of which the batch has `counts` [U] copies each.

        parameters: name -> tensor without a lane axis, with the running statistics unless `training`. Returns [D, U],
        and in training name of a running statistic -> that of the batch, as `encode_lane` does.
        """
        self.used = len(images)
        self.n = -(-self.used // _BLOCK)
        self.parameters, self.training = parameters, training
        self.count, self.statistics = float(counts.sum()), dict[str, Tensor]()
        left_over = self.n * _BLOCK - self.used
        self.often = functional.pad(counts.to(self.dtype), (0, left_over))
        blocked = functional.pad(images.to(self.dtype), (0, 0, 0, 0, 0, 0, 0, left_over)).unflatten(0, (-1, _BLOCK))
        inner = slice(self.pad, self.images.shape[2] - self.pad)
        self.images[: self.n, :, inner, inner] = blocked.permute(0, 4, 2, 3, 1)
        x = self._stem_forward()
        for block in self.blocks:
            x = self._block_forward(block, x)
        self.encoded = x
        return x.mean(dim=(2, 3)).transpose(0, 1).flatten(1)[:, : self.used], self.statistics

    def backward(self, gradient: Tensor, gradients: Parameters) -> None:
        """Write the parameters' gradients, from that of what the last `forward` in training returned, [D, U].

        gradients: contiguous, of this encoder's type.
        """
        self.gradients = gradients
        x = self.encoded
        blocked = functional.pad(gradient.to(self.dtype), (0, self.n * _BLOCK - self.used)).unflatten(1, (-1, _BLOCK))
        dx = self._buffer("gradient encoded", x.shape[1], x.shape[2])
        dx.copy_((blocked.transpose(0, 1) / x.shape[2] ** 2)[:, :, None, None].expand_as(dx))
        for block in reversed(self.blocks):
            dx = self._block_backward(block, dx)
        self._stem_backward(dx)

    # The stem.

    def _stem_forward(self) -> Tensor:
        one, side, norm = self.stem, self.stem_side, f"{self.stem.name}.norm"
        sizes = self.n, one.inputs, self.images.shape[2], side, one.kernel, one.stride
        self.sums = torch.zeros(one.inputs * one.kernel**2, dtype=torch.float64)
        if self.training:
            self._call("stem_sums", self.sums, self.images, self.often, *sizes)
            mean = self._weight(one).double() @ self.sums / (self.count * side**2)
        else:
            mean = self.parameters[f"{norm}.running_mean"].double()
        made = self._buffer("stem", one.outputs, self.pooled_side)
        squares = torch.zeros(one.outputs, dtype=torch.float64)
        weight, scale = self._parameter(f"{one.name}.weight"), self._parameter(f"{norm}.scale")
        self._call(
            "stem_forward",
            *(made, self.place, squares, self.images, weight, mean, scale, self.often),
            *(self.n, one.inputs, one.outputs, self.images.shape[2], side, self.pooled_side),
            *(one.kernel, one.stride, *self.pooling),
        )
        self._set_norm(one, mean, squares / (self.count * side**2), side)
        return self._normalised(one, made, "after stem")

    def _stem_backward(self, dx: Tensor) -> None:
        one, side, norm = self.stem, self.stem_side, f"{self.stem.name}.norm"
        made, after = (self._buffer(name, one.outputs, self.pooled_side) for name in ("stem", "after stem"))
        mean, inverse = self.norms[one.name]
        total, along = (torch.zeros(one.outputs, dtype=torch.float64) for _ in range(2))
        sizes = self.n, one.outputs, self.pooled_side**2
        self._call("norm_sums", total, along, dx, after, made, mean, inverse, *sizes)
        taps = one.inputs * one.kernel**2
        products = torch.zeros(one.outputs, taps, dtype=torch.float64)
        gram = torch.zeros(taps, taps, dtype=torch.float64)
        self._call(
            "stem_backward",
            *(products, gram, dx, self.place, self.images, self.often),
            *(self.n, one.inputs, one.outputs, self.images.shape[2], side, self.pooled_side),
            *(one.kernel, one.stride, *self.pooling),
        )
        self.gradients[f"{norm}.bias"].copy_(total)
        self.gradients[f"{norm}.scale"].copy_(along)
        # What the batch norm takes off the gradient is a sum over all pixels: by the sums and products of what taps
        # read, not by what the convolution made, which is not in memory.
        gram = gram.triu() + gram.triu(1).T
        pixels = self.count * side**2
        weight = self._weight(one).double()
        of_normed = inverse[:, None] * (weight @ gram - mean[:, None] * self.sums)
        off = total[:, None] * self.sums + along[:, None] * of_normed
        factor = (self._parameter(f"{norm}.scale").double() * inverse)[:, None]
        found = factor * (products - off / pixels)
        self.gradients[f"{one.name}.weight"].copy_(found.view(self.gradients[f"{one.name}.weight"].shape))

    # A block.

    def _block_forward(self, block: Block, x: Tensor) -> Tensor:
        first, second, third = block.convolutions
        shortcut = x
        if block.shortcut:
            made = self._convolved(block.shortcut, x)
            shortcut = self._normalised(block.shortcut, made, f"{block.shortcut.name} after", rectified=False)
        inner = self._normalised(first, self._convolved(first, x), f"{first.name} after", pad=1)
        inner = self._normalised(second, self._convolved(second, inner), f"{second.name} after")
        self._inputs[third.name] = x
        return self._normalised(third, self._convolved(third, inner), f"{third.name} after", beside=shortcut)

    def _block_backward(self, block: Block, gradient: Tensor) -> Tensor:
        first, second, third = block.convolutions
        x = self._inputs[third.name]
        after = self._buffer(f"{third.name} after", third.outputs, gradient.shape[2])
        self._call("rectify_backward", gradient, after, gradient.numel())
        inner = self._buffer(f"{second.name} after", second.outputs, gradient.shape[2])
        dinner = self._backward(third, gradient, inner)
        wide = self._buffer(f"{first.name} after", first.outputs, x.shape[2] + 2)
        dwide = self._backward(second, dinner, wide, out=inner)
        dx = self._backward(first, dwide, x, out=wide, pad=1)
        if block.shortcut:
            self._backward(block.shortcut, gradient, x, onto=dx)
        else:
            dx += gradient
        return dx

    def _convolved(self, one: Convolution, x: Tensor) -> Tensor:
        """Return what a convolution makes of x, whose border, if the kernel has one, stands in memory."""
        side = (x.shape[2] - one.kernel) // one.stride + 1
        made = self._buffer(one.name, one.outputs, side)
        sizes = self.n, one.inputs, one.outputs, x.shape[2], side, one.kernel, one.stride
        self._call("convolve", made, x, self._parameter(f"{one.name}.weight"), *sizes)
        norm = f"{one.name}.norm"
        if self.training:
            mean, variance = (torch.zeros(one.outputs, dtype=torch.float64) for _ in range(2))
            self._call("statistics", mean, variance, made, self.often, self.n, one.outputs, side**2, self.count)
            self._set_norm(one, mean, variance, side)
        else:
            self._set_norm(one, self.parameters[f"{norm}.running_mean"].double(), torch.empty(0), side)
        return made

    def _set_norm(self, one: Convolution, mean: Tensor, variance: Tensor, side: int) -> None:
        """Keep what the batch norm goes by; variance: the batch's, biased, which training goes by."""
        norm = f"{one.name}.norm"
        if self.training:
            pixels = self.count * side**2
            self.statistics[f"{norm}.running_mean"] = mean
            self.statistics[f"{norm}.running_var"] = variance * (pixels / (pixels - 1))
        else:
            variance = self.parameters[f"{norm}.running_var"].double()
        inverse = torch.empty_like(variance)
        self._call("inverses", inverse, variance, BATCH_NORM_EPSILON, one.outputs)
        self.norms[one.name] = Norm(mean, inverse)

    def _normalised(
        self,
        one: Convolution,
        made: Tensor,
        name: str,
        pad: int = 0,
        beside: Tensor | None = None,
        rectified: bool = True,
    ) -> Tensor:
        mean, inverse = self.norms[one.name]
        scale, bias = (self._parameter(f"{one.name}.norm.{part}") for part in ("scale", "bias"))
        out = self._buffer(name, one.outputs, made.shape[2] + 2 * pad)
        sizes = self.n, one.outputs, made.shape[2], pad, int(rectified)
        self._call("normalise", out, made, mean, inverse, scale, bias, beside, *sizes)
        return out

    def _backward(
        self,
        one: Convolution,
        gradient: Tensor,
        x: Tensor,
        out: Tensor | None = None,
        pad: int = 0,
        onto: Tensor | None = None,
    ) -> Tensor:
        """Write the gradients of a convolution and its norm; return that of x, which it read.

        gradient: of what the norm made, with a border `pad`; out: that, where it was rectified. onto: to add to.
        """
        made = self._buffer(one.name, one.outputs, gradient.shape[2] - 2 * pad)
        side, norm = made.shape[2], f"{one.name}.norm"
        dmade = self._buffer(f"gradient {one.name}", one.outputs, side)
        dscale, dbias = (self.gradients[f"{norm}.{part}"] for part in ("scale", "bias"))
        mean, inverse = self.norms[one.name]
        self._call(
            "normalise_backward",
            *(dmade, dscale, dbias, gradient, out, made, mean, inverse, self._parameter(f"{norm}.scale")),
            *(self.often, self.n, one.outputs, side, pad, self.count),
        )
        sizes = self.n, one.inputs, one.outputs, x.shape[2], side, one.kernel, one.stride
        self._call("weight_backward", self.gradients[f"{one.name}.weight"], dmade, x, *sizes)
        dx = self._buffer(f"gradient into {one.name}", one.inputs, x.shape[2]) if onto is None else onto
        weight = self._parameter(f"{one.name}.weight")
        self._call("convolve_backward", dx, dmade, weight, *sizes, int(onto is not None))
        return dx

    # Arrays and calls.

    def _parameter(self, name: str) -> Tensor:
        return self.parameters[name].to(self.dtype).contiguous()

    def _weight(self, one: Convolution) -> Tensor:
        """[Co, Ci * K * K]."""
        return self._parameter(f"{one.name}.weight").flatten(1)

    def _buffer(self, name: str, channels: int, side: int) -> Tensor:
        """Return the array [N, C, side, side, 16] of that name, of the blocks in use."""
        return self._kept(f"{name} {side}", self.n_blocks, channels, side, side, _BLOCK)[: self.n]

    def _kept(self, name: str, *shape: int) -> Tensor:
        if name not in self._buffers:
            self._buffers[name] = torch.zeros(shape, dtype=self.dtype)
        return self._buffers[name]

    def _call(self, kernel: str, *arguments: Tensor | int | float | None) -> None:
        function = getattr(self.library, kernel)
        function.restype = None
        function(*map(_converted, arguments))


def _converted(argument: Tensor | int | float | None) -> ctypes.c_void_p | ctypes.c_long | ctypes.c_double:
    if argument is None:
        return ctypes.c_void_p(0)
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_double(argument)


def resnet_for(run: Run, most: int) -> NativeResNet:
    """Return what encodes up to `most` images of a run at a time. Raises compiler.UnavailableError."""
    if run.bank.images is None:
        raise TypeError(f"bank {run.bank.id} holds embeddings, expected images")
    return NativeResNet(run.model.resnet, run.bank.images, most)
