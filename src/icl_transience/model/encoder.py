"""The image encoder, as functions of a dictionary of tensors: images to what the transformer reads as exemplars.

Letters for shapes as in model/transformer.py; U images, P pixels a side, Q channels of them (grey 1, colour 3).

The layers are those of specs/encoder.py. Padding is even, (kernel - 1) / 2 on each side. The released code pads as
TensorFlow does, one pixel less on the left where a step of 2 meets an even side; mirrored in both axes that is the same
network, since the padding of all other layers is even.

Batch norm is PyTorch's: in training over all images of the lane's batch, and the running statistics move by a tenth to
the batch's mean and unbiased variance; at evaluation with the running ones. The released code begins its running means
at nothing and divides by 1 - .9^n after n batches, which is 1 to float32 after 160.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience.specs.encoder import Convolution, ResNet, blocks, convolutions, stem

BATCH_NORM_EPSILON = 1e-5
# Share of a batch in running statistics; the paper's decay is 0.9.
MOMENTUM = 0.1


def encode(
    parameters: Mapping[str, Tensor], resnet: ResNet, images: Tensor, training: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Encode each lane's images by its own encoder.

    parameters: name -> [S, …], with the running statistics unless `training`. images [S, U, P, P, Q], in [0, 1].
    training: by the statistics of the batch, else by the running ones. Returns what the transformer reads, [S, U, D],
    and in training name of a running statistic -> that of the batch [S, …], see `moved`.
    """
    found = [
        encode_lane({name: value[lane] for name, value in parameters.items()}, resnet, of_lane, training)
        for lane, of_lane in enumerate(images)
    ]
    statistics = {name: torch.stack([of_lane[name] for _, of_lane in found]) for name in found[0][1]}
    return torch.stack([encoded for encoded, _ in found]), statistics


def encode_lane(
    parameters: Mapping[str, Tensor], resnet: ResNet, images: Tensor, training: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Encode one lane's images [U, P, P, Q]; as `encode`, without a lane axis."""
    statistics: dict[str, Tensor] = {}

    def normed(x: Tensor, one: Convolution) -> Tensor:
        weight, stride = parameters[f"{one.name}.weight"], one.stride
        if one.kernel == 1 and stride > 1:
            # The same numbers: of steps over single pixels those between are never read. PyTorch 2.13 writes outside
            # its memory in the backward pass of such a convolution, channels last on a CPU, with 3 to 6 of them.
            x, stride = x[:, :, ::stride, ::stride], 1
        x = functional.conv2d(x, weight, stride=stride, padding=(one.kernel - 1) // 2)
        norm = f"{one.name}.norm"
        names = f"{norm}.running_mean", f"{norm}.running_var"
        if training:
            # All of it moves to the batch's: what stands there afterwards is the batch's.
            mean, variance = (statistics.setdefault(name, torch.zeros_like(weight[:, 0, 0, 0])) for name in names)
        else:
            mean, variance = (parameters[name] for name in names)
        scale, bias = parameters[f"{norm}.scale"], parameters[f"{norm}.bias"]
        return functional.batch_norm(x, mean, variance, scale, bias, training, 1.0, BATCH_NORM_EPSILON)

    # Channels last in memory, which convolutions on CPUs are fastest with.
    x = images.permute(0, 3, 1, 2)
    x = normed(x, stem(resnet, x.shape[1])).relu().contiguous(memory_format=torch.channels_last)
    if resnet.pool > 1:
        x = functional.max_pool2d(x, resnet.pool, 2, (resnet.pool - 1) // 2)
    for block in blocks(resnet):
        first, second, third = block.convolutions
        shortcut = normed(x, block.shortcut) if block.shortcut else x
        inner = normed(normed(x, first).relu(), second).relu()
        x = (normed(inner, third) + shortcut).relu()
    return x.mean(dim=(2, 3)).to(images.dtype), statistics


@torch.no_grad()
def moved(running: Tensor, batch: Tensor) -> None:
    """Move running statistics in place by a batch's."""
    running.lerp_(batch.to(running.dtype), MOMENTUM)


def initial_statistics(resnet: ResNet, channels: int) -> dict[str, Tensor]:
    """Return the running statistics of a lane before the first batch, float32: means 0, variances 1."""
    found: dict[str, Tensor] = {}
    for one in convolutions(resnet, channels):
        found[f"{one.name}.norm.running_mean"] = torch.zeros(one.outputs)
        found[f"{one.name}.norm.running_var"] = torch.ones(one.outputs)
    return found
