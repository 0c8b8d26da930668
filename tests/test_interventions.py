"""Interventions on places: what each does, on models of any depth, width of heads and context, and what is refused."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import LABELS, make_network, make_sequences, networks

from icl_transience.circuits.interventions import activations, copying_test, logits
from icl_transience.circuits.network import Network
from icl_transience.circuits.pairs import paired
from icl_transience.specs.errors import StudyError
from icl_transience.specs.interventions import PAIRED, Intervention, check, check_graft, parse
from icl_transience.specs.keys import declared
from icl_transience.specs.model import Model
from icl_transience.specs.places import Place

# Rounding in float64; see test_places.py.
FLOAT64 = 1e-12
MODEL = Model(depth=2, width=64, heads=8, mlp_ratio=0)

# One of each operation, on any model of at least one block and one head.
OPERATIONS = {
    "ablate a head": {"ablate": "block0.head0"},
    "ablate a block": {"ablate": "block0.*"},
    "ablate the embedding": {"ablate": "embedding", "keep": ["patterns", "values"]},
    "previous token": {"clamp": {"place": "block0.head0.pattern", "to": "previous_token", "weight": 0.7}},
    "previous token of labels": {"clamp": {"place": "block0.pattern", "to": "previous_token", "rows": "labels"}},
    "induction": {"clamp": {"place": "block0.head0.pattern", "to": "induction", "weight": 0.8}},
    "match": {"clamp": {"place": "block0.pattern", "to": "match"}},
    "match softly": {"clamp": {"place": "block0.head0.pattern", "to": "match", "temperature": 0.1}},
    "no previous token": {"forbid": {"place": "block0.head0.scores", "tokens": "previous_token"}},
    "no previous token of labels": {"forbid": {"place": "block0.scores", "tokens": "previous_token", "rows": "labels"}},
    "labels alone": {"forbid": {"place": "block0.scores", "tokens": "non_labels"}},
    "temperature": {"temperature": {"place": "block0.head0.scores", "by": 0.5}},
    "graft": {"graft": {"place": "residual0", "from": "peak"}},
    "graft of a pattern": {"graft": {"place": "block0.pattern", "from": "peak"}},
    **{f"patch {kind}": {"patch": {"place": "block0.values", "from": kind}} for kind in PAIRED},
}


def answer(network: Network, values: dict, **changes) -> torch.Tensor:
    others = {"peak": replace(network, parameters=make_like(network))}
    return logits(network, *make_sequences(network.context), parse(values), others, **changes)


def make_like(network: Network) -> dict[str, torch.Tensor]:
    """Other weights of the same shapes."""
    generator = torch.Generator().manual_seed(17)
    return {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in network.parameters.items()
    }


def plain(network: Network) -> torch.Tensor:
    return logits(network, *make_sequences(network.context))


def pattern(network: Network, values: dict, place: str = "block0.pattern") -> torch.Tensor:
    return activations(network, *make_sequences(network.context), [place], parse(values))[place]


@settings(max_examples=10)
@given(networks)
def test_of_strength_0_an_intervention_changes_no_bit(network):
    others = {"peak": replace(network, parameters=make_like(network))}
    for operation in OPERATIONS.values():
        weak = parse(operation).scaled(0)
        assert torch.equal(logits(network, *make_sequences(network.context), weak, others), plain(network))
    kept = parse({"keep": ["patterns", "values", "queries", "keys", "block0.*", "residual*"]})
    assert torch.equal(logits(network, *make_sequences(network.context), kept), plain(network))


@pytest.mark.parametrize("name", OPERATIONS)
def test_of_growing_strength_an_intervention_goes_all_the_way(name):
    network = make_network(depth=2, mlp_ratio=2)
    others = {"peak": replace(network, parameters=make_like(network))}
    sequences = make_sequences(network.context)
    full = parse(OPERATIONS[name])
    done = [logits(network, *sequences, full.scaled(share), others) for share in (1e-9, 0.5, 1 - 1e-9, 1)]
    assert torch.equal(done[3], logits(network, *sequences, full, others))
    assert (done[3] - plain(network)).abs().max() > 1e-3
    # Smooth: near the ends it is what it is at the ends.
    assert (done[0] - plain(network)).abs().max() < 1e-6
    assert (done[2] - done[3]).abs().max() < 1e-6
    assert (done[1] - done[3]).abs().max() > 1e-3
    assert (done[1] - plain(network)).abs().max() > 1e-3


# Heads.


@settings(max_examples=20)
@given(networks, st.integers(0, 2), st.integers(0, 3))
def test_an_ablated_head_is_one_whose_output_weights_are_0(network, layer, head):
    layer, head = layer % network.model.depth, head % network.model.heads
    rows = slice(head * (size := network.model.width // network.model.heads), (head + 1) * size)
    name = f"blocks.{layer}.attention.out"
    without = network.parameters[name].clone()
    without[:, rows] = 0
    silent = replace(network, parameters=network.parameters | {name: without})
    for written in (f"block{layer}.head{head}", f"block{layer}.head{head}.values", f"block{layer}.head{head}.pattern"):
        found = answer(network, {"ablate": written})
        assert (found - plain(silent)).abs().max() <= FLOAT64 * found.abs().max(), written
    others = [f"block{layer}.head{other}" for other in range(network.model.heads) if other != head]
    if others:
        assert torch.equal(answer(network, {"only": f"block{layer}.head{head}"}), answer(network, {"ablate": others}))


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mlp_ratio", [0, 2])
def test_a_block_ablated_in_part_adds_so_much_less(strength, mlp_ratio):
    """Once, though its keys, patterns and heads stand on the way to what it adds."""
    network = make_network(depth=2, mlp_ratio=mlp_ratio)
    kinds = ["block0.attention", *(["block0.mlp"] if mlp_ratio else [])]
    before = activations(network, *make_sequences(), ["block0.attention"])["block0.attention"]
    for place in ("block0.*", "block*.*"):
        found = activations(
            network, *make_sequences(), kinds, parse({"ablate": {"place": place, "strength": strength}})
        )
        torch.testing.assert_close(found["block0.attention"], (1 - strength) * before, rtol=1e-12, atol=1e-12)
    # Named twice it is done once.
    twice = parse({"ablate": {"place": ["block0.*", "block0.values", "block0.head1.*"], "strength": strength}})
    found = activations(network, *make_sequences(), kinds, twice)
    torch.testing.assert_close(found["block0.attention"], (1 - strength) * before, rtol=1e-12, atol=1e-12)
    by_name = parse({"ablate": {"place": kinds, "strength": strength}})
    named = activations(network, *make_sequences(), kinds, by_name)
    of_star = activations(
        network, *make_sequences(), kinds, parse({"ablate": {"place": "block0.*", "strength": strength}})
    )
    assert all(torch.equal(named[kind], of_star[kind]) for kind in kinds)


def test_a_head_ablated_in_part_gives_so_much_less():
    network = make_network(depth=2)
    half = parse({"ablate": {"place": "block0.head1.*", "strength": 0.5}})
    before, found = (
        activations(network, *make_sequences(), ["block0.heads"], *given)["block0.heads"] for given in ((), (half,))
    )
    torch.testing.assert_close(found[:, :, 1], before[:, :, 1] / 2, rtol=1e-12, atol=1e-12)
    assert torch.equal(found[:, :, 0], before[:, :, 0])


def test_a_block_grafted_in_part_is_so_far_on_the_way_and_one_patched_at_some_tokens_is_as_it_was_at_others():
    network = make_network(depth=2, mlp_ratio=2)
    others, kinds = {"peak": replace(network, parameters=make_like(network))}, ["block0.attention"]
    sequences = make_sequences(network.context)
    before, there = (activations(one, *sequences, kinds)["block0.attention"] for one in (network, others["peak"]))
    half = parse({"graft": {"place": "block0.*", "from": "peak", "strength": 0.5}})
    found = activations(network, *sequences, kinds, half, others)["block0.attention"]
    torch.testing.assert_close(found, (before + there) / 2, rtol=1e-10, atol=1e-10)
    labels = parse({"patch": {"place": "block0.*", "from": "swapped_labels", "tokens": "labels"}})
    found = activations(network, *sequences, kinds, labels)["block0.attention"]
    assert torch.equal(found[:, :, ::2], before[:, :, ::2])
    assert not torch.equal(found[:, :, 1::2], before[:, :, 1::2])


@settings(max_examples=20)
@given(networks)
def test_a_block_ablated_whole_adds_nothing(network):
    weights = dict(network.parameters)
    for name in ("attention.out", "attention.out.bias", "mlp.out.weight", "mlp.out.bias"):
        if f"blocks.0.{name}" in weights:
            weights[f"blocks.0.{name}"] = torch.zeros_like(weights[f"blocks.0.{name}"])
    found, expected = answer(network, {"ablate": "block0.*"}), plain(replace(network, parameters=weights))
    assert (found - expected).abs().max() <= FLOAT64 * found.abs().max()


def test_what_is_kept_is_what_it_was_and_what_is_ablated_is_0_all_the_same():
    network, sequences = make_network(mlp_ratio=2), make_sequences()
    kinds = ["patterns", "values", "queries", "keys"]
    undisturbed = activations(network, *sequences, kinds)
    for kept in kinds:
        found = activations(network, *sequences, kinds, parse({"ablate": "block0.*", "keep": kept}))
        name = "block1.pattern" if kept == "patterns" else f"block1.{kept}"
        for other in ("block1.pattern", "block1.values", "block1.queries", "block1.keys"):
            # Patterns follow from scores, which are made of queries and keys.
            assert torch.equal(found[other], undisturbed[other]) == (other == name), (kept, other)
        assert (found["block0.values"] == 0).all()
    everything = answer(network, {"ablate": ["block0.*", "block1.mlp"], "keep": kinds})
    silent = dict(network.parameters)
    # Block 1's attention as it was, on top of the embedding alone.
    heads = activations(network, *sequences, ["block1.heads"], every_row=False)["block1.heads"]
    added = heads.transpose(2, 3).flatten(3) @ silent["blocks.1.attention.out"][:, None]
    tokens = activations(network, *sequences, ["embedding", "positions"])
    stream = tokens["embedding"] + tokens["positions"]
    expected = activations(network, *sequences, ["logits"], parse({"ablate": ["block0.*", "block1.*"]}))
    assert not torch.equal(everything, expected["logits"])
    normed = torch.nn.functional.layer_norm((stream[:, :, -1:] + added)[:, :, 0], (8,), eps=1e-5)
    normed = normed * silent["norm.scale"][:, None] + silent["norm.bias"][:, None]
    by_hand = normed @ silent["unembedding.weight"] + silent["unembedding.bias"][:, None]
    assert (everything - by_hand).abs().max() <= 100 * FLOAT64 * by_hand.abs().max()


def test_without_the_embedding_positions_stay():
    network, sequences = make_network(), make_sequences()
    found = activations(network, *sequences, ["embedding", "positions", "residual0"], parse({"ablate": "embedding"}))
    assert (found["embedding"] == 0).all()
    assert (found["positions"][:, :, 1:] != 0).any(-1).all()
    assert torch.equal(found["residual0"][:, :1], found["residual0"][:, 1:2])  # every sequence is the same


# Attention.


@settings(max_examples=15)
@given(networks, st.floats(0, 1), st.sampled_from(["all", "labels"]))
def test_a_clamp_to_the_previous_token_sets_rows_alone(network, weight, rows):
    clamp = {"place": "block0.head0.pattern", "to": "previous_token", "weight": weight, "rows": rows}
    found, before = (
        pattern(network, {"clamp": clamp}),
        pattern(network, {"keep": "patterns"}),
    )
    for row in range(2 * network.context + 1):
        if rows == "labels" and row % 2 == 0:
            assert torch.equal(found[:, :, 0, row], before[:, :, 0, row])
            continue
        expected = torch.zeros(2 * network.context + 1, dtype=torch.float64)
        expected[row] = 1 - weight if row else 1
        if row:
            expected[row - 1] = weight
        assert (found[:, :, 0, row] == expected).all()
    assert torch.equal(found[:, :, 1:], before[:, :, 1:])


@settings(max_examples=25)
@given(networks, st.floats(0, 1))
def test_a_clamp_to_induction_spreads_the_query_evenly_over_right_and_over_wrong_labels(network, weight):
    _, labels = make_sequences(network.context)
    last = f"block{network.model.depth - 1}"
    clamp = {"clamp": {"place": f"{last}.head0.pattern", "to": "induction", "weight": weight}}
    found, before = (pattern(network, values, f"{last}.pattern") for values in (clamp, {"keep": "patterns"}))
    right = labels[:, :-1] == labels[:, -1:]
    row = found[:, :, 0, -1]
    assert (row[..., ::2] == 0).all()
    assert torch.allclose((row[..., 1::2] * right).sum(-1), torch.tensor(weight, dtype=torch.float64))
    assert torch.allclose(row.sum(-1), torch.tensor(1, dtype=torch.float64))
    for side in (right, ~right):
        shares = row[..., 1::2].masked_fill(~side, torch.nan)
        assert torch.equal(shares.nan_to_num(-1).amax(-1), shares.nan_to_num(2).amin(-1))
    assert torch.equal(found[:, :, :, :-1], before[:, :, :, :-1])


def test_sequences_without_a_right_or_without_another_label_are_left_as_they_are():
    network, (exemplars, labels) = make_network(), make_sequences()
    labels[::3] = torch.tensor([1, 2, 3, 4, LABELS - 1])
    labels[1::3] = 5
    clamp = parse({"clamp": {"place": "block1.pattern", "to": "induction"}})
    found = logits(network, exemplars, labels, clamp)
    same = (found == logits(network, exemplars, labels)).all(-1)
    assert found.isfinite().all()
    assert same[:, ::3].all()
    assert same[:, 1::3].all()
    assert not same[:, 2::3].any()


def test_a_head_that_matches_looks_at_labels_of_the_nearest_items():
    network, (exemplars, labels) = make_network(), make_sequences()
    # Item 2 is the query but for its length, item 0 is like item 2; nothing is nearer.
    exemplars[:, 2] = 3 * exemplars[:, -1]
    exemplars[:, 0] = exemplars[:, 2]
    sequences = exemplars, labels

    def row(temperature):
        clamp = {"clamp": {"place": "block1.head1.pattern", "to": "match", "temperature": temperature}}
        (found,) = activations(network, *sequences, ["block1.head1.pattern"], parse(clamp)).values()
        return found[:, :, -1]

    hard = torch.zeros(9, dtype=torch.float64)
    hard[[1, 5]] = 1  # every item that is nearest has a weight of 1
    assert (row(0) == hard).all()
    nearness = torch.nn.functional.cosine_similarity(exemplars[:, :-1], exemplars[:, -1:], dim=-1)
    assert torch.allclose(row(0.3)[..., 1::2], (nearness / 0.3).softmax(-1).expand(2, -1, -1))
    assert (row(0.3)[..., ::2] == 0).all()


@settings(max_examples=25)
@given(networks, st.sampled_from(["all", "labels"]))
def test_forbidden_tokens_get_no_attention_and_the_others_all_of_it_in_proportion(network, rows):
    place = "block0.head0"

    def forbidden(**changes):
        forbid = {"forbid": {"place": f"{place}.scores", "tokens": "previous_token", "rows": rows, **changes}}
        return pattern(network, forbid, f"{place}.pattern")

    found, before = forbidden(), pattern(network, {"keep": "patterns"}, f"{place}.pattern")
    half = forbidden(strength=0.5)
    for row in range(1, 2 * network.context + 1):
        if rows == "labels" and row % 2 == 0:
            assert torch.equal(found[:, :, row], before[:, :, row])
            continue
        assert (found[:, :, row, row - 1] == 0).all()
        others = before[:, :, row].clone()
        others[..., row - 1] = 0
        assert torch.allclose(found[:, :, row], others / others.sum(-1, keepdim=True))
        others[..., row - 1] = before[:, :, row, row - 1] / 2
        assert torch.allclose(half[:, :, row], others / others.sum(-1, keepdim=True))
    silent = {"forbid": {"place": f"{place}.scores", "tokens": "non_labels"}}
    labels_alone = pattern(network, silent, f"{place}.pattern")
    assert (labels_alone[:, :, -1, ::2] == 0).all()
    assert torch.equal(labels_alone[:, :, :-1], before[:, :, :-1])


def test_temperature_divides_scores_of_its_heads():
    network, sequences = make_network(), make_sequences()
    values = {"temperature": [{"place": "block1.head0.scores", "by": 4}, {"place": "block1.head1.scores", "by": 0.5}]}
    found, before = (
        activations(network, *sequences, ["block1.scores"], parse(said))["block1.scores"]
        for said in (values, {"keep": "patterns"})
    )
    assert torch.equal(found[:, :, 0], before[:, :, 0] / 4)
    assert torch.equal(found[:, :, 1], before[:, :, 1] * 2)


@settings(max_examples=10)
@given(networks)
def test_a_copied_pattern_answers_as_attention_to_label_tokens_says(network):
    _, labels = make_sequences(network.context)
    last = f"block{network.model.depth - 1}.head0"
    found = answer(network, {"copy": last}).softmax(-1)
    to_labels = pattern(network, {"keep": "patterns"}, f"{last}.pattern")[:, :, -1, 1::2]
    to_labels = to_labels / to_labels.sum(-1, keepdim=True)
    expected = torch.zeros_like(found).scatter_add(-1, labels[:, :-1].expand_as(to_labels), to_labels)
    assert torch.allclose(found, expected)


# Other snapshots, other sequences.


@settings(max_examples=20)
@given(networks)
def test_a_grafted_stream_is_that_of_a_model_made_of_both(network):
    other = replace(network, parameters=make_like(network))
    sequences = make_sequences(network.context)
    for layer in range(network.model.depth):
        lower = ("embedder", "label_embedding", "positions", *(f"blocks.{below}." for below in range(layer + 1)))

        def made_of(below: Network, above: Network, lower=lower) -> torch.Tensor:
            parts = {name: (below if name.startswith(lower) else above).parameters[name] for name in network.parameters}
            return plain(replace(network, parameters=parts))

        def grafted(direction: str, layer=layer) -> torch.Tensor:
            values = {"graft": {"place": f"residual{layer}", "from": "peak", "direction": direction}}
            return logits(network, *sequences, parse(values), {"peak": other})

        assert torch.equal(grafted("in"), made_of(other, network))
        assert torch.equal(grafted("out"), made_of(network, other))


@settings(max_examples=20)
@given(networks, st.sampled_from(PAIRED))
def test_a_patch_of_all_that_comes_in_is_the_paired_sequence_and_of_some_tokens_a_mixture(network, kind):
    exemplars, labels = make_sequences(network.context)
    other = paired(kind, exemplars[None], labels[None], LABELS)
    expected = logits(network, other[0][0], other[1][0])
    whole = answer(network, {"patch": {"place": "embedding", "from": kind}})
    assert torch.equal(whole, expected)
    tokens = "query" if kind == "other_query" else "labels"
    assert torch.equal(answer(network, {"patch": {"place": "embedding", "from": kind, "tokens": tokens}}), expected)
    nowhere = "labels" if kind == "other_query" else ["exemplars", 0]
    untouched = answer(network, {"patch": {"place": "embedding", "from": kind, "tokens": nowhere}})
    assert torch.equal(untouched, plain(network))
    assert not torch.equal(expected, plain(network))


def test_a_patch_at_some_tokens_leaves_the_others():
    network, sequences = make_network(), make_sequences()
    patch = parse({"patch": {"place": "block0.head1.keys", "from": "other_labels", "tokens": [1, 4, 5]}})
    before, found = (activations(network, *sequences, ["block0.keys"], said)["block0.keys"] for said in (None, patch))
    changed = (before != found).any(-1)  # [S, B, H, T]
    assert changed[:, :, 1, [1, 5]].all()
    assert changed.sum() == changed[:, :, 1, [1, 5]].sum()  # token 4 is an exemplar, the same in both


def test_paired_sequences_differ_in_one_respect():
    exemplars, labels = make_sequences(4, count=8)
    of_kind = {kind: paired(kind, exemplars[None], labels[None], LABELS) for kind in PAIRED}
    context, target = labels[:, :-1], labels[:, -1:]
    for kind, (other, other_labels) in of_kind.items():
        assert torch.equal(other_labels[0, :, -1:], target), kind
        assert torch.equal(other[0, :, :-1], exemplars[:, :-1]), kind
        assert torch.equal(other[0], exemplars) == (kind != "other_query")
        assert torch.equal(other_labels[0], labels) == (kind == "other_query")
    swapped = of_kind["swapped_labels"][1][0, :, :-1]
    for row, pair in enumerate(swapped):
        wrong = next(label for label in context[row].tolist() if label != target[row])
        names = {int(target[row]): wrong, wrong: int(target[row])}
        assert pair.tolist() == [names.get(label, label) for label in context[row].tolist()]
    other = of_kind["other_labels"][1][0, :, :-1]
    assert (other != context).all()
    same = partial(lambda labels: labels[:, :, None] == labels[:, None])
    assert torch.equal(same(other), same(context))
    for row, query in enumerate(of_kind["other_query"][0][0, :, -1]):
        wrong = next(item for item, label in enumerate(context[row].tolist()) if label != target[row])
        assert torch.equal(query, exemplars[row, wrong])


def test_operations_combine_in_a_fixed_order():
    network = make_network()
    clamp = {"place": "block1.head0.pattern", "to": "induction", "weight": 1}
    # What is clamped is not what is kept, and what is forbidden is not what is clamped.
    together = {
        "clamp": clamp,
        "keep": ["patterns", "values"],
        "forbid": {"place": "block1.scores", "tokens": "non_labels"},
    }
    assert torch.equal(answer(network, together), answer(network, {"clamp": clamp, "keep": ["patterns", "values"]}))
    assert torch.equal(
        answer(network, {"ablate": "block1.head0", "clamp": clamp}), answer(network, {"ablate": "block1.head0"})
    )


def test_the_copying_test_leaves_one_head_and_positions():
    network, sequences = make_network(heads=4), make_sequences()
    tests = copying_test(Place("block1.heads", 2), network.model, [0.0, 1.0])
    assert list(tests) == [0, 1]
    for weight, said in tests.items():
        found = activations(network, *sequences, ["embedding", "block*.heads", "block1.head2.pattern"], said)
        assert (found["embedding"] == 0).all()
        assert (found["block0.heads"] == 0).all()
        assert (found["block1.heads"][:, :, [0, 1, 3]] == 0).all()
        right = sequences[1][:, :-1] == sequences[1][:, -1:]
        to_right = (found["block1.head2.pattern"][:, :, -1, 1::2] * right).sum(-1)
        assert torch.allclose(to_right, torch.full_like(to_right, weight))


def test_lanes_do_not_see_each_other():
    network = make_network(lanes=3, mlp_ratio=2)
    peak = replace(network, parameters=make_like(network))

    def of_lane(network: Network, lane: int) -> Network:
        return replace(network, parameters={name: value[lane : lane + 1] for name, value in network.parameters.items()})

    for name, operation in OPERATIONS.items():
        together = logits(network, *make_sequences(), parse(operation), {"peak": peak})
        for lane in range(3):
            alone = logits(of_lane(network, lane), *make_sequences(), parse(operation), {"peak": of_lane(peak, lane)})
            assert (together[lane] - alone[0]).abs().max() <= FLOAT64 * alone.abs().max(), name


# What is written.


def test_the_interventions_of_the_page_on_circuits_are_what_a_model_can_have():
    page = (Path(__file__).parents[1] / "docs/circuits.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", page.partition("## Interventions")[2], re.DOTALL)[0]
    written = yaml.safe_load(examples)
    for name, values in written.items():
        check(parse(values, name), MODEL, 4, name)
    # The table has every key.
    rows = re.findall(r"^\| `(\w+)` \|", page.partition("## Interventions")[2], re.MULTILINE)
    assert sorted(rows) == sorted(each.name for each in declared(Intervention))
    assert set(rows) == {key for values in written.values() for key in values}


def test_a_name_is_short_for_a_section_and_several_are_one_operation():
    assert parse({"ablate": "block0.*"}) == parse({"ablate": {"place": ["block0.*"]}})
    assert parse({"ablate": ["block0.head1", "block0.head2"]}) == parse(
        {"ablate": [{"place": ["block0.head1", "block0.head2"]}]}
    )
    clamp = {"place": "block1.head3.pattern", "to": "induction", "weight": 1}
    assert parse({"clamp": clamp}) == parse({"clamp": [clamp]})
    assert not Intervention()
    assert parse({"only": "block1.head3"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"ablat": "block0.*"},
            "unknown key `intervention.ablat` (did you mean `ablate`?) (allowed here: ablate,",
        ),
        ("block0.*", "`intervention` is 'block0.*', expected a mapping (`key: value`) of ablate, only,"),
        ({}, "`intervention` says nothing: give it one of ablate, only,"),
        ({"ablate": []}, "`intervention` says nothing"),
        ({"ablate": {"strength": 1}}, "`intervention.ablate` lacks `place`: add it"),
        ({"ablate": {"place": "embedding", "strength": 2}}, "`intervention.ablate.strength` is 2, expected at most 1"),
        ({"ablate": {"place": "embedding", "strength": True}}, "is True, expected a number"),
        ({"ablate": 3}, "`intervention.ablate` is 3, expected a mapping"),
        ({"clamp": "block1.head3.pattern"}, "`intervention.clamp` is 'block1.head3.pattern', expected a mapping"),
        (
            {"clamp": {"place": "block0.pattern", "to": "inducton"}},
            "`intervention.clamp.to` is 'inducton' (did you mean `induction`?), expected one of previous_token,",
        ),
        ({"temperature": {"place": "block0.scores", "by": 0}}, "`intervention.temperature.by` is 0, expected above 0"),
        (
            {"temperature": [{"place": "patterns", "by": float("nan")}, {"by": 1, "place": "a"}]},
            "temperature[0].by",
        ),
        (
            {"patch": {"place": "embedding", "from": "flip"}},
            "one of other_labels, swapped_labels, other_query",
        ),
        ({"patch": {"place": "embedding", "from": "other_query", "tokens": "odd"}}, "expected one of all, exemplars,"),
    ],
    ids=str,
)
def test_what_is_written_wrongly_is_refused(values, said):
    with pytest.raises(StudyError) as refused:
        parse(values)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("values", "context", "said"),
    [
        (
            {"ablate": "block0.head9"},
            4,
            "`intervention.ablate` is 'block0.head9', which the model does not have: there are head0 … head7",
        ),
        ({"only": "block5.head1"}, 4, "there are block0 … block1"),
        ({"keep": "block0.mlp"}, 4, "its blocks have no MLP"),
        (
            {"clamp": {"place": "block1.head3.pattern", "to": "induction"}},
            5,
            "`intervention.clamp.to` is 'induction' on sequences of 5 items, expected an even number",
        ),
        (
            {"clamp": {"place": "block1.head3", "to": "match"}},
            4,
            "`intervention.clamp.place` is block1.heads, expected places that end in .pattern: block1.head3.pattern",
        ),
        ({"forbid": {"place": "patterns", "tokens": "non_labels"}}, 4, "expected places that end in .scores"),
        ({"only": "block1.head3.keys"}, 4, "expected single heads: block1.head3, say"),
        ({"copy": "block1.head*"}, 4, "`intervention.copy` names 8 heads, expected one"),
        ({"copy": "embedding"}, 4, "expected single heads"),
        (
            {"graft": {"place": "block0.pattern", "from": "peak", "direction": "out"}},
            4,
            "`intervention.graft.place` is block0.pattern with `direction: out`, expected a residual stream",
        ),
        (
            {"patch": {"place": "embedding", "from": "other_query", "tokens": [9]}},
            4,
            "`intervention.patch.tokens` has 9, expected 0 … 8: sequences have 9 tokens",
        ),
        ({"patch": {"place": "logits", "from": "other_query", "tokens": "query"}}, 4, "logits, which have no tokens"),
    ],
    ids=str,
)
def test_what_a_model_cannot_have_is_refused_with_what_it_has(values, context, said):
    with pytest.raises(StudyError) as refused:
        check(parse(values), MODEL, context)
    assert said in str(refused.value)


def test_all_that_is_impossible_is_said_at_once():
    with pytest.raises(StudyError) as refused:
        check(parse({"ablate": "block7.*", "keep": "nothing", "only": "block0.head8"}), MODEL, 4, "interventions.odd")
    assert [line.split("`")[1] for line in str(refused.value).splitlines()] == [
        "interventions.odd.ablate",
        "interventions.odd.only",
        "interventions.odd.keep",
    ]


def test_models_that_do_not_fit_are_not_grafted():
    network = make_network(width=8)
    sequences = make_sequences()
    for place, other, said in (
        ("residual0", make_network(width=16), "whose model.width is 16, expected 8 as here"),
        ("block0.pattern", make_network(heads=4), "whose model.heads is 4, expected 2 as here"),
        ("residual1", make_network(depth=1), "(of peak)` is 'residual1', which the model does not have"),
        ("residual0", make_network(lanes=3), "of 3 lanes, expected 1 or 2"),
    ):
        for direction in ("in", "out") if place == "residual0" else ("in",):
            graft = parse({"graft": {"place": place, "from": "peak", "direction": direction}})
            with pytest.raises(StudyError) as refused:
                logits(network, *sequences, graft, {"peak": other})
            assert said in str(refused.value)
    (graft,) = parse({"graft": {"place": "residual0", "from": "peak"}}).graft
    with pytest.raises(StudyError, match=r"`graft\.from` is 'peak', expected one of the snapshots given: end"):
        logits(network, *sequences, Intervention(graft=(graft,)), {"end": network})
    check_graft(graft, MODEL, replace(MODEL, heads=4))
    both = {"graft": [{"place": "residual0", "from": "a", "direction": "out"}, {"place": "residual1", "from": "b"}]}
    with pytest.raises(StudyError, match="goes out and in at once"):
        logits(network, *sequences, parse(both), {"a": network, "b": network})
