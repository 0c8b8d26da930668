"""The transformer against an independent one from torch.nn, and its initial weights against their definitions.

Tolerances are relative to the largest entry of the array compared. A float64 result is off by its rounding, 1e-16
an operation, and sums here have at most a few hundred terms: 1e-10 leaves room for any order of summation, and no
mistake in a formula is that small. For float32 (6e-8 an operation) the same reasoning gives 1e-4.
"""

import math

import pytest
import torch
from builders import changed
from scipy import stats
from torch import nn
from torch.nn import functional

from icl_transience import philox
from icl_transience.model import transformer
from icl_transience.model.initial import initial_parameters
from icl_transience.specs.model import COMPONENTS, Init, Model, Positions, component, parameter_shapes

CONTEXT, INPUT_WIDTH, LABELS, BATCH = 3, 5, 7, 4
FLOAT64, FLOAT32 = 1e-10, 1e-4
DEPTHS_AND_MLPS = [(depth, ratio) for depth in (1, 2, 3) for ratio in (0, 4)]
KINDS_OF_POSITIONS = ("sinusoid", "learned", "rotary", "none")
# What torch.nn's modules call the pieces of our tensors' names.
TORCH_NAMES = {
    "label_embedding": "label_embedding.weight",
    ".scale": ".weight",
    "attention.qkv.bias": "attention.in_proj_bias",
    "attention.out.bias": "attention.out_proj.bias",
    "attention.qkv": "attention.in_proj_weight",
    "attention.out": "attention.out_proj.weight",
    "mlp.in": "mlp.0",
    "mlp.out": "mlp.2",
}


def small(depth=2, mlp_ratio=4, positions="sinusoid", **init) -> Model:
    places = Positions(kind=positions)
    return Model(depth=depth, width=8, heads=2, mlp_ratio=mlp_ratio, positions=places, init=Init(**init))


def random_parameters(model: Model, lanes: int, dtype=torch.float64) -> transformer.Parameters:
    """Weights without special values: no bias is 0 and no scale 1, so each must be used and in its place."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (0.5 * torch.randn(lanes, *shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()
        for name, shape in parameter_shapes(model, INPUT_WIDTH, LABELS, CONTEXT).items()
    }


def random_batch(lanes: int, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    exemplars = torch.randn(lanes, BATCH, CONTEXT + 1, INPUT_WIDTH, generator=generator, dtype=torch.float64)
    return exemplars.to(dtype), torch.randint(LABELS, (lanes, BATCH, CONTEXT), generator=generator)


def logits_of(parameters, model: Model, exemplars, labels) -> torch.Tensor:
    return transformer.query_logits(
        parameters, model, transformer.Geometry(model, CONTEXT, exemplars.dtype), exemplars, labels
    )


def gradients(output: torch.Tensor, parameters: transformer.Parameters) -> dict[str, torch.Tensor]:
    """Of a weighted sum of all outputs, so that no two of them can stand in for each other."""
    weights = torch.linspace(-1, 1, output[0].numel(), dtype=output.dtype).view(output[0].shape)
    values = torch.autograd.grad((output * weights).sum(), list(parameters.values()))
    return dict(zip(parameters, values, strict=True))


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str = "") -> None:
    assert actual.shape == expected.shape, what
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max(), what


def position(token: int, column: int, width: int, base: float) -> float:
    angle = token / base ** (2 * (column // 2) / width)
    return math.cos(angle) if column % 2 else math.sin(angle)


class RotaryAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention whose queries and keys are turned: pairs of coordinates as complex numbers."""

    def forward(self, x, *_, attn_mask, **__):
        batch, tokens, _ = x.shape
        query, key, value = (
            functional.linear(x, self.in_proj_weight).view(batch, tokens, 3, self.num_heads, -1).unbind(2)
        )
        pairs = query.shape[-1] // 2
        speed = 30.0 ** (-torch.arange(pairs, dtype=x.dtype) / pairs)
        turn = torch.polar(torch.ones(tokens, pairs, dtype=x.dtype), torch.arange(tokens)[:, None] * speed)

        def turned(part):
            complex_pairs = torch.view_as_complex(part.unflatten(-1, (-1, 2)).contiguous())
            return torch.view_as_real(complex_pairs * turn[:, None]).flatten(-2)

        scores = torch.einsum("bqha,bkha->bhqk", turned(query), turned(key)) / (2 * pairs) ** 0.5
        weights = scores.masked_fill(attn_mask, -torch.inf).softmax(-1)
        return self.out_proj(torch.einsum("bhqk,bkha->bqha", weights, value).flatten(2)), None


class ReferenceBlock(nn.Module):
    def __init__(self, model: Model):
        super().__init__()
        width, hidden = model.width, model.mlp_ratio * model.width
        self.norm1 = nn.LayerNorm(width)
        kind = RotaryAttention if model.positions.kind == "rotary" else nn.MultiheadAttention
        self.attention = kind(width, model.heads, bias=model.attention_bias, batch_first=True)
        if hidden:
            self.norm2 = nn.LayerNorm(width)
            self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, attn_mask=future, need_weights=False)[0]
        return x + self.mlp(self.norm2(x)) if hasattr(self, "mlp") else x


class Reference(nn.Module):
    """The same transformer for one lane, from torch.nn's modules: every token through every block."""

    def __init__(self, model: Model):
        super().__init__()
        self.embedder = nn.Linear(INPUT_WIDTH, model.width)
        self.label_embedding = nn.Embedding(LABELS, model.width)
        self.kind, self.layout = model.positions.kind, model.positions.layout
        if self.kind == "learned":
            self.positions = nn.Parameter(torch.empty(2 * CONTEXT + 1, model.width))
        self.blocks = nn.ModuleList(ReferenceBlock(model) for _ in range(model.depth))
        self.norm = nn.LayerNorm(model.width)
        self.unembedding = nn.Linear(model.width, LABELS)

    def forward(self, exemplars: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        tokens = [self.embedder(exemplars[:, 0])]
        for pair in range(labels.shape[1]):
            tokens += [self.label_embedding(labels[:, pair]), self.embedder(exemplars[:, pair + 1])]
        width, x = tokens[0].shape[-1], torch.stack(tokens, dim=1)
        if self.kind == "sinusoid":
            table = [[position(token, column, width, 30.0) for column in range(width)] for token in range(len(tokens))]
            if self.layout == "halves":
                table = [row[::2] + row[1::2] for row in table]
            x = x + torch.tensor(table, dtype=exemplars.dtype)
        if self.kind == "learned":
            x = x + self.positions
        for block in self.blocks:
            x = block(x)
        return self.unembedding(self.norm(x))[:, -1]


def torch_name(name: str) -> str:
    for ours, theirs in TORCH_NAMES.items():
        if ours in name:
            return name.replace(ours, theirs)
    return name


def transposed(name: str, value: torch.Tensor) -> torch.Tensor:
    """From one layout to the other: our matrices are [in, out], torch's [out, in], and the label table is no matrix."""
    return value if value.dim() == 1 or name in ("label_embedding", "positions") else value.T


def reference_with(parameters: transformer.Parameters, model: Model, lane: int) -> Reference:
    reference = Reference(model).double()
    weights = {torch_name(name): transposed(name, value[lane]).detach() for name, value in parameters.items()}
    reference.load_state_dict(weights)
    return reference


def test_the_published_model_has_836096_parameters():
    published = Model(depth=12, width=64, heads=8, mlp_ratio=4)
    shapes = parameter_shapes(published, input_width=512, n_labels=1600)
    assert sum(math.prod(shape) for shape in shapes.values()) == 836_096


@pytest.mark.parametrize("positions", KINDS_OF_POSITIONS)
@pytest.mark.parametrize(("depth", "mlp_ratio"), DEPTHS_AND_MLPS)
def test_logits_and_every_gradient_are_those_of_a_model_from_torch_nn(depth, mlp_ratio, positions):
    assert_as_from_torch_nn(small(depth, mlp_ratio, positions))


@pytest.mark.parametrize(
    "changes", [{"positions.layout": "halves"}, {"attention_bias": True}], ids=["sines, then cosines", "biases"]
)
@pytest.mark.parametrize(("depth", "mlp_ratio"), DEPTHS_AND_MLPS)
def test_so_they_are_with_what_chan_et_al_have_besides(depth, mlp_ratio, changes):
    assert_as_from_torch_nn(changed(small(depth, mlp_ratio), changes))


def assert_as_from_torch_nn(model: Model) -> None:
    """Hold logits and gradients against the reference; a bias of the keys moves all scores alike, so has none."""
    keys = slice(model.width, 2 * model.width)
    parameters, (exemplars, labels) = random_parameters(model, lanes=2), random_batch(lanes=2)
    logits = logits_of(parameters, model, exemplars, labels)
    found = gradients(logits, parameters)
    for lane in range(2):
        reference = reference_with(parameters, model, lane)
        expected = reference(exemplars[lane], labels[lane])
        assert_close(logits[lane], expected, FLOAT64)
        of_reference = gradients(expected[None], dict(reference.named_parameters()))
        for name in parameters:
            assert found[name][lane].abs().max() > 0, name
            assert_close(found[name][lane], transposed(name, of_reference[torch_name(name)]), FLOAT64, name)
            if name.endswith("qkv.bias"):
                assert found[name][lane, keys].abs().max() < FLOAT64 * found[name][lane].abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, FLOAT64), (torch.float32, FLOAT32)])
def test_a_pack_of_lanes_computes_what_its_lanes_compute_alone(dtype, tolerance):
    model = small(depth=3)
    parameters, (exemplars, labels) = random_parameters(model, 3, dtype), random_batch(3, dtype)
    logits = logits_of(parameters, model, exemplars, labels)
    packed = gradients(logits, parameters)
    for lane in range(3):
        alone = {name: value[lane : lane + 1].detach().requires_grad_() for name, value in parameters.items()}
        logits_alone = logits_of(alone, model, exemplars[lane : lane + 1], labels[lane : lane + 1])
        assert_close(logits[lane], logits_alone[0], tolerance)
        for name, gradient in gradients(logits_alone, alone).items():
            assert_close(packed[name][lane], gradient[0], tolerance, name)


@pytest.mark.parametrize("mlp_ratio", [0, 4])
def test_a_token_feels_itself_and_earlier_tokens_and_no_later_one(mlp_ratio):
    model = small(mlp_ratio=mlp_ratio)
    parameters, n_tokens = random_parameters(model, lanes=1), 2 * CONTEXT + 1
    geometry = transformer.Geometry(model, CONTEXT, torch.float64)
    x = torch.randn(1, 1, n_tokens, model.width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x.requires_grad_()
    rows = transformer._block(parameters, 0, model, geometry, x, x)
    weights = torch.linspace(-1, 1, model.width, dtype=torch.float64)  # a plain sum of a row could cancel
    for token in range(n_tokens):
        (gradient,) = torch.autograd.grad((rows[0, 0, token] * weights).sum(), x, retain_graph=True)
        felt = gradient[0, 0].abs().amax(dim=1)
        assert (felt[: token + 1] > 0).all()
        assert (felt[token + 1 :] == 0).all()


@pytest.mark.parametrize("depth", [1, 2])
def test_the_answer_depends_on_every_exemplar_and_every_label(depth):
    model = small(depth)
    parameters, (exemplars, labels) = random_parameters(model, lanes=1), random_batch(lanes=1)
    exemplars.requires_grad_()
    logits = logits_of(parameters, model, exemplars, labels)
    (gradient,) = torch.autograd.grad(logits[..., 0].sum(), exemplars)
    assert (gradient.abs().amax(dim=-1) > 0).all()
    for pair in range(CONTEXT):
        other = labels.clone()
        other[:, :, pair] = (other[:, :, pair] + 1) % LABELS
        assert (logits_of(parameters, model, exemplars, other) != logits).any(dim=-1).all()


def test_the_order_of_the_context_matters_through_the_positions_alone():
    # In a single block, a query without positions reads its context as a set.
    model = small(depth=1)
    parameters, (exemplars, labels) = random_parameters(model, lanes=1), random_batch(lanes=1)
    order = [2, 0, 1]
    reordered = exemplars[:, :, [*order, CONTEXT]], labels[:, :, order]
    geometry = transformer.Geometry(model, CONTEXT, torch.float64)

    def logits(batch):
        return transformer.query_logits(parameters, model, geometry, *batch).detach()

    assert (logits(reordered) - logits((exemplars, labels))).abs().max() > 1e-3
    geometry.positions.zero_()
    assert_close(logits(reordered), logits((exemplars, labels)), FLOAT64)


def test_without_positions_the_order_of_the_context_does_not_matter_and_with_others_it_does():
    parameters, (exemplars, labels) = random_parameters(small(1, 4, "learned"), lanes=1), random_batch(lanes=1)
    order = [2, 0, 1]
    reordered = exemplars[:, :, [*order, CONTEXT]], labels[:, :, order]
    for kind in KINDS_OF_POSITIONS:
        own = {name: value for name, value in parameters.items() if kind == "learned" or name != "positions"}
        one, other = (logits_of(own, small(1, 4, kind), *batch) for batch in ((exemplars, labels), reordered))
        assert ((one - other).abs().max() < FLOAT64 * one.abs().max()) == (kind == "none"), kind


def test_a_shorter_sequence_has_the_first_of_the_learned_places():
    model = small(positions="learned")
    parameters, (exemplars, labels) = random_parameters(model, lanes=2), random_batch(lanes=2)
    shorter = exemplars[:, :, :3], labels[:, :, :2]

    def logits(parameters):
        return transformer.query_logits(parameters, model, transformer.Geometry(model, 2, torch.float64), *shorter)

    cut = parameters | {"positions": parameters["positions"][:, :5]}
    assert torch.equal(logits(parameters), logits(cut))


def test_learned_positions_need_to_know_for_how_many():
    with pytest.raises(ValueError, match="expected the context length"):
        parameter_shapes(small(positions="learned"), INPUT_WIDTH, LABELS)


@pytest.mark.parametrize(("n_tokens", "width", "base"), [(17, 64, 30.0), (5, 8, 10_000.0)])
def test_positions_are_interleaved_sines_and_cosines(n_tokens, width, base):
    positions = transformer.sinusoidal_positions(n_tokens, width, base)
    expected = [[position(token, column, width, base) for column in range(width)] for token in range(n_tokens)]
    # Sines of angles up to 17, whose own rounding is 17 * 1e-16.
    assert torch.allclose(positions, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)


def initial(seed=0, input_width=48, n_labels=300, **changes) -> transformer.Parameters:
    """Large enough that every array has the moments of its distribution."""
    model = changed(Model(depth=2, width=48, heads=8, mlp_ratio=4), changes)
    return initial_parameters(model, input_width, n_labels, seed)


def fan_in(name: str, value: torch.Tensor) -> int:
    """Inputs of the layer that a weight or bias belongs to."""
    if value.dim() == 2:
        return value.shape[0]
    return 4 * 48 if name.endswith("mlp.out.bias") else 48


def is_norm(name: str) -> bool:
    return "norm" in name


def assert_drawn_from(values: torch.Tensor, distribution) -> None:
    """Kolmogorov-Smirnov: true draws fail with probability 1e-6, and the seed is fixed."""
    assert stats.kstest(values.double().flatten().numpy(), distribution.cdf).pvalue > 1e-6


def test_initial_weights_are_a_pure_function_of_seed_and_name():
    base = initial()
    for other in (initial(), initial(depth=5), initial(n_labels=400), initial(mlp_ratio=0)):
        common = [name for name in base if name in other and base[name].shape == other[name].shape]
        assert len(common) >= 11
        assert all(torch.equal(base[name], other[name]) for name in common)


def test_seeds_and_names_draw_independent_weights():
    weights = [
        value.flatten()
        for seed in (0, 1)
        for name, value in initial(seed, depth=3).items()
        if name.endswith("attention.out")
    ]
    correlations = torch.corrcoef(torch.stack(weights)).fill_diagonal_(0)
    # Of independent samples the correlation is normal with standard deviation 1/sqrt(2304).
    assert len(weights) == 6
    assert correlations.abs().max() < 5 / 48


def test_lecun_normal_has_the_spread_of_one_over_the_root_of_the_fan_in():
    for name, value in initial(**{"init.distribution": "lecun_normal"}).items():
        if value.dim() == 1:
            assert (value == (1 if name.endswith(".scale") else 0)).all(), name
        elif name != "label_embedding":
            unit = value.double() * math.sqrt(value.shape[0])
            # The standard deviation of a sample is off by at most 1/sqrt(2n); five times that is never exceeded.
            assert abs(unit.std() - 1) < 5 / math.sqrt(2 * unit.numel()), name
            bound = 2 / stats.truncnorm(-2, 2).std()
            assert 0.95 * bound < unit.abs().max() <= bound * (1 + 1e-6), name
            assert_drawn_from(unit, stats.truncnorm(-2, 2, scale=bound / 2))


def test_pytorch_weights_and_biases_are_uniform_within_one_over_the_root_of_the_fan_in():
    for name, value in initial(**{"init.distribution": "pytorch"}).items():
        if is_norm(name):
            assert (value == (1 if name.endswith(".scale") else 0)).all(), name
        elif name != "label_embedding":
            unit = value.double() * math.sqrt(fan_in(name, value))
            assert 0.9 < unit.abs().max() <= 1 + 1e-6, name
            assert_drawn_from(unit, stats.uniform(-1, 2))


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [("pytorch", stats.norm(scale=0.02)), ("lecun_normal", stats.truncnorm(-2, 2, scale=0.02))],
)
def test_the_label_table_is_normal_with_sigma_0_02(distribution, expected):
    assert_drawn_from(initial(**{"init.distribution": distribution})["label_embedding"], expected)


@pytest.mark.parametrize("distribution", ["pytorch", "lecun_normal"])
def test_scale_multiplies_weights_and_label_table_and_nothing_else(distribution):
    whole = initial(**{"init.distribution": distribution})
    half = initial(**{"init.distribution": distribution, "init.scale": 0.5})
    for name, value in whole.items():
        assert torch.equal(half[name], value * (0.5 if value.dim() == 2 else 1.0)), name


@pytest.mark.parametrize("distribution", ["pytorch", "lecun_normal"])
def test_learned_positions_are_uniform_within_one_over_the_root_of_32(distribution):
    model = Model(depth=1, width=48, heads=8, mlp_ratio=0, positions=Positions(kind="learned"))
    for scale in (1.0, 0.5):
        own = changed(model, {"init.distribution": distribution, "init.scale": scale})
        table = initial_parameters(own, 4, 5, seed=0, context=20)["positions"]
        assert table.shape == (41, 48)
        bound = scale / math.sqrt(32)
        assert table.abs().max() <= bound
        assert_drawn_from(table, stats.uniform(-bound, 2 * bound))


def test_weights_that_are_drawn_anew_are_others_of_the_same_distribution():
    tables = [
        initial_parameters(Model(depth=1, width=48, heads=8, mlp_ratio=0), 4, 300, 0, None, redrawn)["label_embedding"]
        for redrawn in (0, 1, 2)
    ]
    assert torch.equal(tables[0], initial()["label_embedding"])
    for table in tables:
        assert_drawn_from(table, stats.norm(scale=0.02))
    correlations = torch.corrcoef(torch.stack([table.flatten() for table in tables])).fill_diagonal_(0)
    # Of independent samples the correlation is normal with standard deviation 1/sqrt(14400).
    assert correlations.abs().max() < 5 / 120


def test_every_array_is_of_one_component():
    names = parameter_shapes(small(positions="learned"), INPUT_WIDTH, LABELS, CONTEXT)
    found = {part: [name for name in names if component(name) == part] for part in COMPONENTS}
    assert sum(map(len, found.values())) == len(names)
    assert found["embedder"] == ["embedder.weight", "embedder.bias", "label_embedding", "positions"]
    assert found["attention"] == [f"blocks.{layer}.attention.{part}" for layer in (0, 1) for part in ("qkv", "out")]
    assert found["unembedding"] == ["unembedding.weight", "unembedding.bias"]
    assert len(found["mlp"]) == 8
    assert len(found["norm"]) == 2 * 4 + 2


# Dropout.


def test_what_is_dropped_at_every_place_is_as_if_its_layer_gave_nothing():
    model = small(depth=2)
    parameters, batch = random_parameters(model, lanes=2), random_batch(lanes=2)
    geometry = transformer.Geometry(model, CONTEXT, torch.float64)
    for place, silent in (("attention", ["attention.out"]), ("mlp", ["mlp.out.weight", "mlp.out.bias"])):
        for layer in (0, 1):
            block = f"blocks.{layer}"
            dropped = transformer.query_logits(
                parameters, model, geometry, *batch, lambda name, x, here=f"block{layer}.{place}": x * (name != here)
            )
            without = parameters | {
                f"{block}.{name}": torch.zeros_like(parameters[f"{block}.{name}"]) for name in silent
            }
            assert_close(dropped, logits_of(without, model, *batch), FLOAT64)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_drops_its_share_independently_and_keeps_the_mean(probability):
    drop = transformer.Dropout(probability, [0, 1], start=0)
    ones = torch.ones(2, 50, 4, 25, dtype=torch.float64)
    dropped = torch.stack([drop(place, ones) for place in ("block0.attention", "block0.mlp", "block1.mlp")])
    assert set(dropped.unique().tolist()) == {0.0, 1 / (1 - probability)}
    # Five standard errors of 30,000 draws, and of a correlation of 5,000.
    share = (dropped == 0).double().mean()
    assert abs(share - probability) < 5 * (probability * (1 - probability) / dropped.numel()) ** 0.5
    correlations = torch.corrcoef(dropped.flatten(0, 1).flatten(1)).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / 5000**0.5


def test_what_is_dropped_is_drawn_under_the_name_that_parameters_have():
    # Results that were trained with dropout are found again: what it drops must never change.
    ones = torch.ones(1, 3, 2, 5)
    for place, name in (("block0.mlp", "blocks.0.mlp"), ("block11.attention", "blocks.11.attention")):
        words = philox.table(7, philox.domain(f"dropout/{name}"), torch.arange(16, 19), 0, 10)
        expected = torch.where(philox.bernoulli(words, 0.5), 0.0, 2.0).view(ones.shape)
        assert torch.equal(transformer.Dropout(0.5, [7], start=16)(place, ones), expected)
    for place in ("embedding", "block0.heads", "block0.pattern", "residual0", "logits"):
        assert transformer.Dropout(0.5, [7], start=16)(place, ones) is ones


def test_what_is_dropped_is_a_pure_function_of_seed_sequence_number_and_place():
    ones = torch.ones(3, 8, 2, 5)
    together = transformer.Dropout(0.5, [4, 5, 6], start=16)("block0.mlp", ones)
    alone = transformer.Dropout(0.5, [5], start=20)("block0.mlp", ones[:1, :4])
    assert torch.equal(together[1, 4:], alone[0])
    assert not torch.equal(together[1, :4], alone[0])
    assert not torch.equal(together[0], together[1])
