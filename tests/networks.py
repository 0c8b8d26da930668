"""Models with random weights on random sequences, for claims about all of them."""

import torch
from hypothesis import strategies as st

from icl_transience.circuits.network import Network
from icl_transience.specs.model import Model, Positions, parameter_shapes

INPUT_WIDTH, LABELS = 5, 9


def make_network(
    depth: int = 2,
    heads: int = 2,
    mlp_ratio: int = 0,
    positions: str = "sinusoid",
    context: int = 4,
    lanes: int = 2,
    seed: int = 0,
    width: int = 8,
    attention_bias: bool = False,
) -> Network:
    """Weights without special values, float64."""
    places = Positions(kind=positions)
    model = Model(
        depth=depth, width=width, heads=heads, mlp_ratio=mlp_ratio, positions=places, attention_bias=attention_bias
    )
    generator = torch.Generator().manual_seed(seed)
    shapes = parameter_shapes(model, INPUT_WIDTH, LABELS, context)
    weights = {
        name: 0.7 * torch.randn(lanes, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    return Network(weights, model, context)


def make_sequences(context: int = 4, count: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences whose context has the query's label in its first half, and none of it in the second."""
    generator = torch.Generator().manual_seed(100 + seed)
    exemplars = torch.randn(count, context + 1, INPUT_WIDTH, generator=generator, dtype=torch.float64)
    labels = torch.randint(1, LABELS, (count, context + 1), generator=generator)
    right = torch.zeros(count, 1, dtype=torch.int64)
    half = (context + 1) // 2
    labels = torch.cat([right.expand(-1, half), labels[:, half:context], right], dim=1)
    order = torch.stack([torch.randperm(context, generator=generator) for _ in range(count)])
    return exemplars, torch.cat([labels[:, :-1].gather(1, order), labels[:, -1:]], dim=1)


networks = st.builds(
    make_network,
    depth=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 4]),
    mlp_ratio=st.sampled_from([0, 2]),
    positions=st.sampled_from(["sinusoid", "learned", "rotary", "none"]),
    context=st.sampled_from([2, 4, 6]),
    lanes=st.integers(1, 2),
    seed=st.integers(0, 3),
    attention_bias=st.booleans(),
)
