"""Activations by name: read and set while a forward pass computes them."""

import pytest
import torch
from hypothesis import given, settings
from networks import LABELS, make_network, make_sequences, networks
from torch.nn import functional

from icl_transience.circuits.interventions import activations
from icl_transience.circuits.network import Network
from icl_transience.model.places import Recorder, Setter, chain, untouched
from icl_transience.specs.errors import StudyError
from icl_transience.specs.model import Model
from icl_transience.specs.places import Place, places, resolve

# Rounding in float64 of sums of a few dozen terms; no mistake in a formula is that small.
FLOAT64 = 1e-12


def whole(model: Model) -> list[str]:
    """Names of all activations, without their heads."""
    return [name for name, place in places(model).items() if place.head is None]


def of_lanes(network: Network, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences, as many for each lane."""
    exemplars, labels = make_sequences(network.context, seed=seed)
    return exemplars.expand(network.lanes, *exemplars.shape), labels.expand(network.lanes, *labels.shape)


@settings(max_examples=25)
@given(networks)
def test_reading_every_place_changes_no_bit_of_the_answer(network):
    recorder = Recorder(whole(network.model))
    sequences = of_lanes(network)
    plain = network.logits(*sequences)
    assert torch.equal(network.logits(*sequences, recorder), plain)
    assert list(recorder.activations) == whole(network.model)
    assert torch.equal(recorder.activations["logits"], plain)


@settings(max_examples=25)
@given(networks)
def test_all_rows_of_the_last_block_are_there_when_asked_for_and_change_no_answer(network):
    sequences, last = of_lanes(network), network.model.depth - 1
    few, all_rows = (Recorder(whole(network.model)) for _ in range(2))
    plain, asked = network.logits(*sequences, few), network.logits(*sequences, all_rows, every_row=True)
    assert (plain - asked).abs().max() <= FLOAT64 * plain.abs().max()
    n_tokens = 2 * network.context + 1
    for name, rows in (("pattern", 3), ("queries", 3), ("heads", 3), ("attention", 2)):
        name = f"block{last}.{name}"
        one, every = few.activations[name], all_rows.activations[name]
        assert one.shape[rows] == 1
        assert every.shape[rows] == n_tokens
        assert (every[..., -1:, :] - one).abs().max() <= FLOAT64 * every.abs().max()


@settings(max_examples=25)
@given(networks)
def test_places_are_what_their_names_say(network):
    model, sequences = network.model, of_lanes(network)
    found = activations(network, *make_sequences(network.context), whole(model))
    lanes, batch, n_tokens = network.lanes, sequences[0].shape[1], 2 * network.context + 1
    heads, head_width = model.heads, model.width // model.heads

    def close(name, expected):
        assert found[name].shape == expected.shape, name
        assert (found[name] - expected).abs().max() <= 100 * FLOAT64 * max(expected.abs().max(), 1), name

    x = found["embedding"] + found["positions"]
    assert x.shape == (lanes, batch, n_tokens, model.width)
    table = network.parameters["label_embedding"]
    labels = torch.stack([table[lane][sequences[1][lane, :, :-1]] for lane in range(lanes)])
    assert torch.equal(found["embedding"][:, :, 1::2], labels)
    for layer in range(model.depth):
        block = f"block{layer}"
        for part in ("queries", "keys", "values", "heads"):
            assert found[f"{block}.{part}"].shape == (lanes, batch, heads, n_tokens, head_width)
        scores = found[f"{block}.queries"] @ found[f"{block}.keys"].mT / head_width**0.5
        close(f"{block}.scores", scores)
        future = torch.ones(n_tokens, n_tokens, dtype=torch.bool).triu(1)
        close(f"{block}.pattern", scores.masked_fill(future, -torch.inf).softmax(-1))
        close(f"{block}.heads", found[f"{block}.pattern"] @ found[f"{block}.values"])
        joined = found[f"{block}.heads"].transpose(2, 3).flatten(3)
        out = f"blocks.{layer}.attention.out"
        bias = network.parameters[f"{out}.bias"][:, None, None] if model.attention_bias else 0
        close(f"{block}.attention", joined @ network.parameters[out][:, None] + bias)
        x = x + found[f"{block}.attention"] + (found[f"{block}.mlp"] if model.mlp_ratio else 0)
        close(f"residual{layer}", x)
    normed = functional.layer_norm(x[:, :, -1], x.shape[-1:], eps=1e-5)
    parameters = {name: network.parameters[name][:, None] for name in ("norm.scale", "norm.bias", "unembedding.bias")}
    normed = normed * parameters["norm.scale"] + parameters["norm.bias"]
    close("logits", normed @ network.parameters["unembedding.weight"] + parameters["unembedding.bias"])
    assert found["logits"].shape == (lanes, batch, LABELS)


@settings(max_examples=10)
@given(networks)
def test_a_place_set_to_what_it_is_changes_nothing_and_to_anything_else_the_answer(network):
    recorder = Recorder(whole(network.model))
    sequences = of_lanes(network)
    plain = network.logits(*sequences, recorder)
    for name, place in places(network.model).items():
        value = recorder.activations[place.name]
        value = value if place.head is None else value[:, :, place.head]
        same = network.logits(*sequences, Setter({place: lambda x, value=value: value}))
        assert torch.equal(same, plain), name
        # Shifts of a row of scores alone change nothing.
        factor = torch.linspace(1, 2, value.shape[-1], dtype=value.dtype)
        other = network.logits(*sequences, Setter({place: lambda x, factor=factor: 3 * factor * x + factor}))
        assert not torch.equal(other, plain), name


def test_what_is_set_is_what_later_taps_see():
    network, silent = make_network(), Place("block0.heads", 1)
    recorder = Recorder(["block0.heads"])
    network.logits(*of_lanes(network), chain(Setter({silent: torch.zeros_like}), untouched, recorder))
    of_heads = recorder.activations["block0.heads"]
    assert (of_heads[:, :, 1] == 0).all()
    assert (of_heads[:, :, 0] != 0).all()
    assert chain(untouched, untouched) is untouched


def test_gradients_go_through_what_a_tap_returns():
    network = make_network(mlp_ratio=2)
    for value in network.parameters.values():
        value.requires_grad_()
    silent = Setter({Place("block0.heads", 1): torch.zeros_like})
    network.logits(*of_lanes(network), silent).square().sum().backward()
    gradient = network.parameters["blocks.0.attention.out"].grad
    assert gradient is not None
    assert (gradient[:, 4:] == 0).all()
    assert (gradient[:, :4] != 0).any()


# Names.


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("embedding", ["embedding"]),
        ("residual1", ["residual1"]),
        ("residual*", ["residual0", "residual1"]),
        ("block1.head1.pattern", ["block1.head1.pattern"]),
        ("block1.head1", ["block1.head1"]),
        ("block0.head*", ["block0.head0", "block0.head1"]),
        ("block*.head1.scores", ["block0.head1.scores", "block1.head1.scores"]),
        ("block*.mlp", ["block0.mlp", "block1.mlp"]),
        ("patterns", ["block0.pattern", "block1.pattern"]),
        ("values", ["block0.values", "block1.values"]),
        (["block1.keys", "block0.keys", "block1.head0.keys"], ["block0.keys", "block1.keys"]),
        (
            "block1.*",
            [
                f"block1.{part}"
                for part in ("queries", "keys", "values", "scores", "pattern", "heads", "attention", "mlp")
            ],
        ),
    ],
    ids=str,
)
def test_stars_stand_for_numbers_and_parts(written, found):
    model = Model(depth=2, width=8, heads=2, mlp_ratio=2)
    assert [place.written for place in resolve(written, model)] == found


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "block0.head9.pattern",
            "`place` is 'block0.head9.pattern', which the model does not have: there are head0 … head7",
        ),
        ("block2.keys", "there are block0 … block1"),
        ("residual2", "there are residual0 … residual1"),
        ("block0.mlp", "its blocks have no MLP (`model.mlp_ratio` is 0)"),
        (
            "block0.patern",
            "(did you mean `block0.pattern`?): there are embedding, positions, residual0 … residual1, logits",
        ),
        ("block0.head1.attention", "of head0 … head7 block0.head0.pattern and the like"),
        ("", "in block0 … block1 queries, keys, values, scores, pattern, heads, attention;"),
    ],
)
def test_a_place_that_is_not_there_is_refused_with_those_that_are(written, said):
    with pytest.raises(StudyError) as refused:
        resolve(written, Model(depth=2, width=64, heads=8, mlp_ratio=0))
    assert said in str(refused.value)


def test_names_are_read_back():
    for name, place in places(Model(depth=2, width=8, heads=2, mlp_ratio=1)).items():
        assert place.written == name
    assert Place("residual11").layer == 11
    assert Place("block3.heads", 2).layer == 3
    assert Place("embedding").layer is None
    assert [Place(name).part for name in ("block0.pattern", "residual4", "logits")] == ["pattern", "residual", "logits"]
