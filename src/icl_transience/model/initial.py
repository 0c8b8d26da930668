"""Initial weights, drawn by counters."""

import math
from collections.abc import Collection

import torch

from icl_transience import philox
from icl_transience.model.transformer import Parameters
from icl_transience.specs.model import Model, parameter_shapes

# Standard deviation of a standard normal truncated at +-2, which LeCun normal (JAX's) divides out.
_TRUNCATED_STD = 0.87962566103423978
_LABEL_STD = 0.02
# Learned positions begin uniform within it: one over the root of the 32 rows that the authors' table has.
_POSITION_BOUND = 32**-0.5


def initial_parameters(
    model: Model,
    input_width: int,
    n_labels: int,
    seed: int,
    context: int | None = None,
    redrawn: int = 0,
    channels: int = 1,
    names: Collection[str] | None = None,
) -> Parameters:
    """Draw one lane's initial weights (no lane axis), float32 on the CPU: a pure function of (seed, name, redrawn).

    `lecun_normal`: weights normal, truncated at two standard deviations and rescaled so that the standard
    deviation is 1/sqrt(fan-in); biases 0; label table normal truncated at two sigma, sigma 0.02.
    `pytorch`: weights and biases uniform on +-1/sqrt(fan-in), label table normal, sigma 0.02.
    Learned positions: uniform on +-1/sqrt(32), as the authors'.
    `model.init.scale` multiplies every weight matrix, the label table and learned positions, not biases or norms.
    Of an image encoder, the scale of each block's last norm is 0: a block begins as its shortcut.
    context, channels: see `parameter_shapes`. redrawn: how often they have been drawn anew, each time independently.
    names: of those wanted, None for all; each is the same without the others.
    """
    parameters = {}
    fan_in = 0
    again = f"/{redrawn}" if redrawn else ""
    for name, shape in parameter_shapes(model, input_width, n_labels, context, channels).items():
        if not name.endswith((".scale", ".bias")):
            fan_in = shape[0] if len(shape) == 2 else math.prod(shape[1:])
        if names is not None and name not in names:
            continue
        count, key = math.prod(shape), philox.domain(f"initial weights/{name}{again}")
        if name.endswith("conv3.norm.scale"):
            values = torch.zeros(count, dtype=torch.float64)
        elif name.endswith(".scale"):
            values = torch.ones(count, dtype=torch.float64)
        elif name == "label_embedding":
            draw = philox.truncated_normal if model.init.distribution == "lecun_normal" else philox.normal
            values = model.init.scale * _LABEL_STD * draw(seed, key, count)
        elif name == "positions":
            values = model.init.scale * _POSITION_BOUND * (2 * philox.uniform(seed, key, count) - 1)
        elif name.endswith(".bias"):
            values = torch.zeros(count, dtype=torch.float64)
            # A norm has no fan-in; every other bias follows its own weight in `parameter_shapes`.
            if model.init.distribution == "pytorch" and "norm" not in name:
                values = (2 * philox.uniform(seed, key, count) - 1) / math.sqrt(fan_in)
        else:
            if model.init.distribution == "lecun_normal":
                values = philox.truncated_normal(seed, key, count) / _TRUNCATED_STD
            else:
                values = 2 * philox.uniform(seed, key, count) - 1
            values = model.init.scale * values / math.sqrt(fan_in)
        parameters[name] = values.reshape(shape).to(torch.float32)
    return parameters
