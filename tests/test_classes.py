"""How often a class comes, with and without others left out, and which label it bears."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from chances import assert_probabilities, assert_uniform

from icl_transience import philox
from icl_transience.sequences import classes
from icl_transience.specs.recipes import Labelling, Zipf

CPU = torch.device("cpu")


def weighted(weights: list[int], labels: list[int] | None = None) -> classes.WeightedClasses:
    """A line of classes in the order given; those of a label must adjoin."""
    label = torch.tensor(labels or list(range(len(weights))))
    weight = torch.tensor(weights)
    of_label = torch.zeros(int(label.max()) + 1, dtype=torch.int64).index_add_(0, label, weight)
    start = of_label.cumsum(0) - of_label
    return classes.WeightedClasses(
        torch.arange(len(weights)), label, weight.cumsum(0), start[label], of_label[label], sum(weights)
    )


def drawn(choice: classes.Classes, n: int, excluded: torch.Tensor | None = None, seed: int = 0) -> np.ndarray:
    """Positions of n draws."""
    high, low = philox.words(seed, 0, torch.arange(n), 0, 2)
    if excluded is None:
        excluded = torch.empty(n, 0, dtype=torch.int64)
    return choice.draw(high, low, excluded.expand(n, -1)).numpy()


@pytest.mark.parametrize(
    ("weights", "labels", "excluded"),
    [
        ([1, 1, 1, 1], None, []),
        ([6, 3, 2], None, []),
        ([6, 3, 2], None, [0]),
        ([6, 3, 2], None, [0, 2]),
        ([5, 1, 4, 2, 3], None, [1, 3, 4]),
        ([5, 1, 4, 2, 3], [0, 0, 1, 1, 2], [1]),
        ([5, 1, 4, 2, 3], [0, 0, 1, 1, 2], [0, 4]),
        ([5, 1, 4, 2, 3], [0, 0, 1, 2, 2], [2, 3]),
    ],
    ids=str,
)
def test_every_number_on_the_line_is_one_class_and_a_class_left_out_has_none(weights, labels, excluded):
    # By enumeration: each class is met once for every unit of its weight.
    choice, labels = weighted(weights, labels), labels or list(range(len(weights)))
    gone = {labels[position] for position in excluded}
    left = {position: weight for position, weight in enumerate(weights) if labels[position] not in gone}
    numbers = torch.arange(sum(left.values()))
    positions = choice.invert(numbers, torch.tensor([excluded], dtype=torch.int64).expand(len(numbers), -1))
    assert Counter(positions.tolist()) == left


@pytest.mark.parametrize("ranks", ["permuted", "identity"])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_a_class_is_as_likely_as_its_rank_says(alpha, ranks):
    n_classes = 24
    choice = classes.choice(n_classes, Zipf(alpha=alpha, ranks=ranks, seed=5), Labelling(), CPU)
    probabilities = np.arange(1, n_classes + 1) ** -alpha
    found = choice.classes(torch.from_numpy(drawn(choice, 100_000))).numpy()
    order = np.arange(n_classes)
    if ranks == "permuted":
        order = classes.permutation(5, "ranks of classes", n_classes).numpy()
        assert not np.array_equal(order, np.arange(n_classes))
    of_class = np.empty(n_classes)
    of_class[order] = probabilities / probabilities.sum()
    assert_probabilities(found, of_class)


def test_weights_are_zipfs_to_a_millionth_for_as_many_classes_as_the_paper_has():
    for alpha in (0.5, 1.0, 2.0):
        weights = classes.class_weights(12_800, Zipf(alpha=alpha, ranks="identity")).double().numpy()
        exact = np.arange(1, 12_801) ** -alpha
        np.testing.assert_allclose(weights / weights.sum(), exact / exact.sum(), rtol=1e-6)


def test_weights_are_integers_that_do_not_depend_on_a_machines_logarithm():
    # By fractions: alpha = 1 has no logarithm.
    total = sum(Fraction(1, rank) for rank in range(1, 31))
    weights = classes.class_weights(30, Zipf(alpha=1.0, ranks="identity")).tolist()
    assert weights == [round(2**48 * Fraction(1, rank) / total) for rank in range(1, 31)]


def test_no_class_is_too_rare_to_come():
    assert classes.class_weights(1600, Zipf(alpha=8.0)).min() == 1


def test_what_is_left_keeps_its_proportions():
    choice = classes.choice(10, Zipf(alpha=1.0, ranks="identity"), Labelling(), CPU)
    probabilities = 1 / np.arange(1, 11)
    probabilities[[0, 3, 7]] = 0
    found = drawn(choice, 50_000, torch.tensor([[0, 3, 7]]))
    assert_probabilities(found, probabilities / probabilities.sum())


def test_ranks_are_a_permutation_that_the_seed_draws():
    orders = [classes.permutation(seed, "ranks of classes", 50).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_every_permutation_is_equally_likely():
    first = [classes.permutation(seed, "x", 3).tolist() for seed in range(3000)]
    cells = {order: number for number, order in enumerate(sorted({tuple(order) for order in first}))}
    assert len(cells) == 6
    assert_uniform(np.array([cells[tuple(order)] for order in first]), 6)


@pytest.mark.parametrize(("n_classes", "labels"), [(12, 4), (10, 4), (7, 7), (9, 2)])
def test_labels_are_shared_evenly(n_classes, labels):
    found = classes.class_labels(n_classes, Labelling(labels=labels, seed=3))
    sizes = np.bincount(found.numpy(), minlength=labels)
    assert len(sizes) == labels
    assert sizes.max() - sizes.min() <= 1
    assert found.tolist() != classes.class_labels(n_classes, Labelling(labels=labels, seed=4)).tolist()


def test_without_a_labelling_a_class_is_its_own_label():
    assert classes.class_labels(5, Labelling()).tolist() == [0, 1, 2, 3, 4]


def test_classes_that_share_a_label_are_left_out_together():
    choice = classes.choice(12, Zipf(), Labelling(labels=3), CPU)
    label = classes.class_labels(12, Labelling(labels=3)).numpy()
    for position in range(12):
        excluded = torch.tensor([[position]])
        found = choice.classes(torch.from_numpy(drawn(choice, 5000, excluded, seed=position))).numpy()
        gone = label[int(choice.classes(excluded))]
        assert_probabilities(found, np.where(label == gone, 0, 1 / 8))


def test_labels_of_places_are_those_of_their_classes():
    choice = classes.choice(40, Zipf(alpha=1.0), Labelling(labels=7, seed=2), CPU)
    positions = torch.arange(40)
    of_class = classes.class_labels(40, Labelling(labels=7, seed=2))
    assert torch.equal(choice.labels(positions), of_class[choice.classes(positions)])
    assert sorted(choice.classes(positions).tolist()) == list(range(40))


def test_plain_classes_are_drawn_from_one_word_each():
    choice = classes.choice(6, Zipf(), Labelling(), CPU)
    assert not choice.two_words
    high = torch.arange(0, 2**32, 2**32 // 60)[:60]
    assert torch.equal(choice.draw(high, None, torch.empty(60, 0, dtype=torch.int64)), high * 6 >> 32)
