"""The transformer: its keys, and the shapes of its parameters."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from icl_transience.specs.encoder import ENCODER, ResNet, encoder_shapes, statistic_shapes
from icl_transience.specs.errors import StudyError, did_you_mean
from icl_transience.specs.keys import Key, neutral


@dataclass(frozen=True, kw_only=True)
class Positions:
    """How a token learns its place.

    kind: "sinusoid", added to the embeddings; "learned", a table of as many places as training sequences have tokens,
    added too; "rotary", queries and keys turned by it; "none". base: of the wavelengths of "sinusoid" and "rotary".
    layout: which columns of "sinusoid" are sines.
    """

    kind: Annotated[
        str,
        Key(
            "how a token learns its place: a fixed or a learned table added to it; queries and keys "
            "turned by it; not at all",
            choices=("sinusoid", "learned", "rotary", "none"),
        ),
    ] = "sinusoid"
    base: Annotated[float, Key("of the wavelengths of sinusoid and rotary", above=0)] = 30.0
    layout: Annotated[
        str,
        Key(
            "columns of sinusoid: sine and cosine of each wavelength side by side, as in Singh et al.'s code; or all "
            "sines, then all cosines, as in Chan et al.'s",
            choices=("interleaved", "halves"),
        ),
    ] = neutral("interleaved")


@dataclass(frozen=True, kw_only=True)
class Init:
    """The distribution from which the initial weights are drawn, and a factor on them."""

    distribution: Annotated[
        str,
        Key(
            "lecun_normal: as published; pytorch: uniform +-1/sqrt(fan-in), weights about 0.58 as large",
            choices=("lecun_normal", "pytorch"),
        ),
    ] = "pytorch"
    scale: Annotated[float, Key("multiplies every weight matrix and the label table, not biases or norms", above=0)] = (
        1.0
    )


@dataclass(frozen=True, kw_only=True)
class Model:
    """The transformer: its size, how it knows places, its initial weights and dropout."""

    depth: Annotated[int, Key("blocks", default=2, unit="blocks", minimum=1)]
    width: Annotated[int, Key("residual stream (d)", default=64, unit="coordinates", minimum=4, multiple_of=2)]
    heads: Annotated[int, Key("attention heads; must divide width", default=8, unit="heads", minimum=1)]
    mlp_ratio: Annotated[int, Key("MLP hidden units over width; 0 = attention only", default=0, minimum=0)]
    positions: Annotated[Positions, Key("how a token learns its place")] = Positions()
    init: Annotated[Init, Key("the initial weights")] = Init()
    dropout: Annotated[
        float,
        Key(
            "share of the numbers that attentions and MLPs add to the residual stream which is "
            "dropped in training; needs the eager engine",
            minimum=0,
            below=1,
        ),
    ] = neutral(0.0)
    attention_bias: Annotated[
        bool,
        Key("whether queries, keys, values and what heads write have biases, as in Chan et al.'s code"),
    ] = neutral(False)
    embedder: Annotated[
        str,
        Key(
            "from an exemplar to the residual stream: linear, of a bank of embeddings; resnet, of a bank of images "
            "(`encoder: none`), which trains together with the transformer",
            choices=("linear", "resnet"),
        ),
    ] = neutral("linear")
    resnet: Annotated[ResNet, Key("size of the embedder resnet")] = neutral(ResNet())

    @property
    def encodes_images(self) -> bool:
        """Return whether an image encoder trains together with the transformer."""
        return self.embedder == "resnet"


# The parts of the model whose L2 can differ, and that can be frozen; `component` says which parameters are whose.
COMPONENTS = ("embedder", "encoder", "attention", "mlp", "norm", "unembedding")
# A component that stands for another one too, unless that has its own word: an image encoder is part of the embedder.
PART_OF = {"encoder": "embedder"}


def parameter_shapes(
    model: Model, input_width: int, n_labels: int, context: int | None = None, channels: int = 1
) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every parameter of one lane (without the lane axis), in forward order.

    Weights are [in, out]: the model computes x @ W; of convolutions [out, in, height, width]. context: that of
    training, which learned positions need to know. channels: of the bank's images, where there are any.
    """
    width, hidden = model.width, model.mlp_ratio * model.width
    if model.encodes_images:
        shapes = encoder_shapes(model.resnet, channels)
    else:
        shapes: dict[str, tuple[int, ...]] = {"embedder.weight": (input_width, width), "embedder.bias": (width,)}
    shapes["label_embedding"] = (n_labels, width)
    if model.positions.kind == "learned":
        if context is None:
            raise ValueError("learned positions: expected the context length that they are learned for, got none")
        shapes["positions"] = (2 * context + 1, width)
    for layer in range(model.depth):
        block = f"blocks.{layer}"
        shapes |= {
            f"{block}.norm1.scale": (width,),
            f"{block}.norm1.bias": (width,),
            f"{block}.attention.qkv": (width, 3 * width),
            **({f"{block}.attention.qkv.bias": (3 * width,)} if model.attention_bias else {}),
            f"{block}.attention.out": (width, width),
            **({f"{block}.attention.out.bias": (width,)} if model.attention_bias else {}),
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


def running_shapes(model: Model, channels: int = 1) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of what is kept beside the parameters: running statistics of the image encoder."""
    return statistic_shapes(model.resnet, channels) if model.encodes_images else {}


def parameters_named(written: Iterable[str], model: Model, where: str = "parameters") -> tuple[str, ...]:
    """Return the parameters, in forward order, that names stand for: components, parameters, or `blocks.0.*`.

    where: the key, for the message. Raises StudyError where the model has none of that name.
    """
    # Sizes do not change which there are.
    there, found = list(parameter_shapes(model, 1, 1, 1)), set[str]()
    for name in written:
        matches = {one for one in there if name in _components(one) or fnmatch.fnmatchcase(one, name)}
        if not matches:
            parts = [part for part in COMPONENTS if part in map(component, there)]
            raise StudyError(
                f"`{where}` has {name!r}, which the model does not have{did_you_mean(name, [*parts, *there])}: "
                f"there are {', '.join(parts)}; {', '.join(there)}; a star stands for any part, as in blocks.0.*"
            )
        found |= matches
    return tuple(name for name in there if name in found)


def component(name: str) -> str:
    """Return whose parameter it is, among COMPONENTS; biases go with their weights, both tables with the embedder."""
    if name.startswith(f"{ENCODER}.") and name not in ("embedder.weight", "embedder.bias"):
        return "encoder"
    for part in ("norm", "attention", "mlp", "unembedding"):
        if f".{part}" in f".{name}":
            return part
    return "embedder"


def _components(name: str) -> set[str]:
    """Return the components that a parameter belongs to: its own, and that of which this is a part."""
    own = component(name)
    return {own, PART_OF.get(own, own)}
