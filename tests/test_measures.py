"""Measures of circuits against their definitions, written out by loops over tokens and heads."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import LABELS, make_network, make_sequences, networks

from icl_transience.circuits import measures
from icl_transience.circuits.interventions import activations, logits
from icl_transience.circuits.network import Network
from icl_transience.specs.interventions import parse
from icl_transience.specs.measures import COMPOSITIONS, HEAD_MEASURES
from icl_transience.specs.places import Place

# Rounding in float64; see test_places.py.
FLOAT64 = 1e-11


def by_hand(a: torch.Tensor, labels: list[int], name: str) -> float | None:
    """The measure of one head on one sequence; a [T, T]. None: it has no meaning there."""
    *context, target = labels
    query, label_tokens = len(a) - 1, [2 * item + 1 for item in range(len(context))]
    right = [token for token, label in zip(label_tokens, context, strict=True) if label == target]
    wrong = [token for token in label_tokens if token not in right]

    def mean(values):
        return sum(values) / len(values)

    if name == "induction":
        if not right or not wrong:
            return None
        return float(mean([a[query, token] for token in right]) - mean([a[query, token] for token in wrong]))
    if name in ("query_items", "query_labels"):
        shift = 1 if name == "query_items" else 0
        return float(sum(a[query, token - shift] for token in right)) if right else None
    return {
        "previous_token": lambda: float(mean([a[t, t - 1] for t in label_tokens])),
        "previous_token_corrected": lambda: float(mean([a[t, t - 1] - (1 - a[t, t - 1]) / t for t in label_tokens])),
        "self": lambda: float(mean([a[t, t] for t in label_tokens])),
        "context_labels": lambda: float(sum(a[query, t] for t in label_tokens)),
    }[name]()


@settings(max_examples=10)
@given(networks, st.integers(0, 5))
def test_heads_are_measured_as_defined(network, seed):
    exemplars, labels = make_sequences(network.context, seed=seed)
    # In some sequences there is no right label, in some no other.
    labels[0, -1] = LABELS - 1
    labels[0, :-1] = 0
    labels[1, :] = 3
    found = measures.of_heads(network, exemplars, labels)
    patterns = activations(network, exemplars, labels, ["patterns"])
    assert list(found) == list(HEAD_MEASURES)
    for name, values in found.items():
        assert values.shape == (network.lanes, network.model.depth, network.model.heads)
        for lane, layer, head in torch.cartesian_prod(*(torch.arange(size) for size in values.shape)).tolist():
            of_head = patterns[f"block{layer}.pattern"][lane, :, head]
            each = [by_hand(a, said, name) for a, said in zip(of_head, labels.tolist(), strict=True)]
            known = [value for value in each if value is not None]
            assert values[lane, layer, head] == pytest.approx(sum(known) / len(known), abs=FLOAT64), name


def test_a_measure_without_meaning_is_no_number():
    network, (exemplars, labels) = make_network(), make_sequences()
    labels[:, -1] = LABELS  # in no context
    found = measures.of_heads(network, exemplars, labels)
    no_meaning = {name for name, values in found.items() if values.isnan().all()}
    assert no_meaning == {"induction", "query_items", "query_labels"}
    assert not any(values.isnan().any() for name, values in found.items() if name not in no_meaning)


def test_even_attention_is_no_previous_token_head_once_chance_is_taken_off():
    network, sequences = make_network(), make_sequences()
    weights = {name: value * (not name.endswith("qkv")) for name, value in network.parameters.items()}
    found = measures.of_heads(replace(network, parameters=weights), *sequences)
    assert (found["previous_token"] > 0.1).all()
    assert torch.allclose(found["previous_token_corrected"], torch.zeros(1, dtype=torch.float64), atol=FLOAT64)
    perfect = parse({"clamp": {"place": "patterns", "to": "previous_token"}})
    found = measures.of_heads(network, *sequences, intervention=perfect)
    assert (found["previous_token"] == 1).all()
    assert (found["previous_token_corrected"] == 1).all()
    assert (found["self"] == 0).all()


def test_the_querys_items_can_be_told_by_class():
    network, (exemplars, labels) = make_network(), make_sequences()
    same_class = torch.zeros(len(labels), 4, dtype=torch.bool)
    same_class[:, 2] = True
    found = measures.of_heads(network, exemplars, labels, ["query_items", "query_labels"], same_class)
    patterns = activations(network, exemplars, labels, ["block1.pattern"])["block1.pattern"][:, :, :, -1]
    assert torch.allclose(found["query_items"][:, 1], patterns[..., 4].mean(1))
    assert torch.allclose(found["query_labels"][:, 1], patterns[..., 5].mean(1))


def test_measures_do_not_depend_on_chunks_and_the_query_needs_no_other_row(monkeypatch):
    network, sequences = make_network(mlp_ratio=2), make_sequences(count=11)

    def all_of_them(names=tuple(HEAD_MEASURES)):
        of_heads = measures.of_heads(network, *sequences, names)
        other = {"patterns": measures.mean_patterns(network, *sequences)} | measures.attribution(network, *sequences)
        return of_heads | other | {"argmax": measures.argmax_in_context(network, *sequences)}

    whole = all_of_them()
    monkeypatch.setattr(measures, "MEASURED_AT_A_TIME", 4)
    for found in (all_of_them(), all_of_them(("induction", "query_items", "query_labels", "context_labels"))):
        for name, value in found.items():
            assert torch.allclose(value, whole[name], rtol=FLOAT64, atol=FLOAT64), name


def test_the_mean_pattern_is_over_sequences():
    network, sequences = make_network(), make_sequences()
    found = measures.mean_patterns(network, *sequences)
    for layer, name in enumerate(("block0.pattern", "block1.pattern")):
        assert torch.allclose(found[:, layer], activations(network, *sequences, [name])[name].mean(1))


def test_an_answer_in_context_is_one_of_its_labels():
    network, (exemplars, labels) = make_network(seed=1), make_sequences(count=40)
    answers = logits(network, exemplars, labels).argmax(-1)
    share = [
        sum(int(answer) in row[:-1] for answer, row in zip(of_lane, labels.tolist(), strict=True)) / len(labels)
        for of_lane in answers
    ]
    assert measures.argmax_in_context(network, exemplars, labels).tolist() == pytest.approx(share)
    assert any(0 < each < 1 for each in share)


@settings(max_examples=10)
@given(networks)
def test_what_parts_add_sums_to_the_difference_of_logits(network):
    exemplars, labels = make_sequences(network.context)
    found = measures.attribution(network, exemplars, labels)
    answers = logits(network, exemplars, labels)
    right = answers.gather(-1, labels[:, -1:].expand(network.lanes, -1, -1)).squeeze(-1)
    wrong = labels[:, :-1] != labels[:, -1:]
    of_context = answers.gather(-1, labels[:, :-1].expand(network.lanes, -1, -1))
    difference = (right - (of_context * wrong).sum(-1) / wrong.sum(-1)).mean(-1)
    total = torch.stack(list(found.values())).sum(0)
    assert (total - difference).abs().max() <= 100 * FLOAT64 * max(1, difference.abs().max())
    heads = [Place(f"block{layer}.heads", head).written for layer in range(network.model.depth) for head in (0,)]
    assert set(heads) < set(found)


def test_what_a_part_adds_is_the_slope_of_the_answer_in_it():
    # Of the last block's head, with the norm's scale as it is: by central differences, on one sequence.
    network, (exemplars, labels) = make_network(lanes=1), make_sequences(count=1)
    found = measures.attribution(network, exemplars, labels)
    stream = activations(network, exemplars, labels, ["residual1", "block1.head1", "embedding"], every_row=False)
    last, head = stream["residual1"][0, 0, -1], stream["block1.head1"][0, 0, -1]
    added = head @ network.parameters["blocks.1.attention.out"][0, 4:]
    spread = (last.var(correction=0) + 1e-5).sqrt()

    def difference(x: torch.Tensor) -> torch.Tensor:
        normed = (x - x.mean()) / spread * network.parameters["norm.scale"][0] + network.parameters["norm.bias"][0]
        answers = normed @ network.parameters["unembedding.weight"][0] + network.parameters["unembedding.bias"][0]
        wrong = labels[0, :-1][labels[0, :-1] != labels[0, -1]]
        return answers[labels[0, -1]] - answers[wrong].mean()

    for part, vector in (("block1.head1", added), ("embedding", stream["embedding"][0, 0, -1])):
        assert float(found[part][0]) == pytest.approx(float(difference(last) - difference(last - vector)), rel=1e-9)


@settings(max_examples=10)
@given(networks)
def test_composition_is_the_norm_of_a_product_over_the_product_of_norms(network):
    found, model = measures.compositions(network), network.model
    size = model.width // model.heads
    pairs = [(below, above) for above in range(model.depth) for below in range(above)]
    assert set(found) == {(name, *pair) for name in COMPOSITIONS for pair in pairs}
    for (name, below, above), ratios in found.items():
        kind = "qkv".index(name[0])
        for lane, head, later in torch.cartesian_prod(*(torch.arange(n) for n in ratios.shape)).reshape(-1, 3).tolist():
            out = network.parameters[f"blocks.{below}.attention.out"][lane, head * size : (head + 1) * size]
            first = kind * model.width + later * size
            read = network.parameters[f"blocks.{above}.attention.qkv"][lane, :, first : first + size]
            expected = (out @ read).norm() / (out.norm() * read.norm())
            assert float(ratios[lane, head, later]) == pytest.approx(float(expected), rel=FLOAT64)
            assert 0 <= ratios[lane, head, later] <= 1


def test_a_head_that_copies_labels_passes_the_copying_test_and_one_that_negates_them_fails():
    def network(sign: float) -> Network:
        """Head 1 of block 1 writes the label that it attends to where the unembedding reads it."""
        made = make_network(lanes=1, width=32, heads=2, positions="none")
        weights = {name: torch.zeros_like(value) for name, value in made.parameters.items()}
        one_hot = torch.eye(LABELS, 32, dtype=torch.float64)
        weights["label_embedding"][0] = one_hot
        for name in ("blocks.1.norm1.scale", "norm.scale", "blocks.0.norm1.scale"):
            weights[name].fill_(1)
        weights["blocks.1.attention.qkv"][0, :16, 64 + 16 :] = torch.eye(16)
        weights["blocks.1.attention.out"][0, 16:, :16] = sign * torch.eye(16)
        weights["unembedding.weight"][0] = one_hot.T
        return replace(made, parameters=weights)

    sequences, strengths = make_sequences(count=12), (0.0, 0.2, 0.8, 1.0)
    for sign, expected in ((1.0, [0, 0, 1, 1]), (-1.0, [1, 1, 0, 0])):
        found = measures.copying(network(sign), *sequences, Place("block1.heads", 1), strengths)
        assert [float(value) for value in found.values()] == expected
