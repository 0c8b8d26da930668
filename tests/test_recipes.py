"""What each key of a recipe does to a sequence, and with which probability; the plain one is in test_sequences.py."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from distribution_asserts import assert_probabilities, assert_share, assert_uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from icl_transience.sequences import classes
from icl_transience.sequences import draw as sequences_draw
from icl_transience.sequences.draw import TRAINING_STREAM, Sequences, examples, input_noise, pool_members
from icl_transience.specs.banks import BankShape
from icl_transience.specs.evaluators import DEFAULT_EVALUATORS, evaluator_recipe
from icl_transience.specs.recipes import Component, Labelling, Recipe, Relabelling, Zipf

PLAIN = Recipe(context=8, burstiness=3)
PAIRS = Recipe(context=8, burstiness=4)
CHAN = Recipe(context=8, burstiness=3, replacement=False, distinct=False, separate_free=True)
BANK = BankShape(n_classes=40, n_exemplars=12, n_train_classes=32, n_train_exemplars=8, width=1)
MANY = replace(BANK, n_classes=12_984, n_train_classes=12_800)
PARTS = ("classes", "exemplars", "labels")

RECIPES = {
    "mixture": replace(
        PLAIN,
        mixture=(
            Component(share=0.25, burstiness=0, support="none"),
            Component(share=0.5, burstiness=4, labels="relabelled", match=0.5),
        ),
    ),
    "zipf": replace(PLAIN, zipf=Zipf(alpha=1.0)),
    "zipf without support": Recipe(context=8, burstiness=0, support="none", zipf=Zipf(alpha=1.5, ranks="identity")),
    "no distractor": replace(PLAIN, distractor=False),
    "match": replace(PLAIN, match=0.5),
    "different exemplars": replace(PLAIN, replacement=False),
    "as Chan et al.": replace(CHAN, mixture=(Component(share=0.1, burstiness=0, replacement=False),)),
    "label noise": replace(PLAIN, label_noise=0.1),
    "pool": replace(PLAIN, pool=100),
    "labelling": replace(PLAIN, labelling=Labelling(labels=10)),
    "labelling without support": Recipe(context=8, burstiness=0, support="none", labelling=Labelling(labels=10)),
    "relabelling": replace(PAIRS, labels="relabelled", relabelling=Relabelling(labels=5, holdout_share=0.2)),
}


def draw(recipe: Recipe, n: int, bank: BankShape = BANK, *, seed: int = 0, purpose: str = TRAINING_STREAM) -> Sequences:
    return sequences_draw.draw(recipe, bank, seed, purpose, torch.arange(n))


def as_numpy(drawn: Sequences) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """classes, exemplars, labels."""
    return drawn.classes.numpy(), drawn.exemplars.numpy(), drawn.labels.numpy()


def same(one: Sequences, other: Sequences) -> np.ndarray:
    """bool [N]: which sequences are equal."""
    return np.all([(getattr(one, part) == getattr(other, part)).all(dim=1).numpy() for part in PARTS], axis=0)


def kinds_of_items(drawn: np.ndarray, burstiness: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of classes [N, C+1]: is of the query's class, is of the distractor's [N, C]; and whether none coincides [N]."""
    context, query = drawn[:, :-1], drawn[:, -1:]
    of_query = context == query
    times = (context[:, :, None] == context[:, None, :]).sum(axis=2)
    times[of_query] = 0
    distractor = context[np.arange(len(context)), times.argmax(axis=1)][:, None]
    of_distractor = context == distractor
    plain = (of_query.sum(axis=1) == burstiness) & (of_distractor.sum(axis=1) == burstiness)
    return of_query, of_distractor, plain


# --- Mixtures


def test_a_sequence_of_a_mixture_is_that_number_of_one_of_its_kinds():
    mixed = RECIPES["mixture"]
    drawn = draw(mixed, 20_000)
    of_kind = [same(drawn, draw(kind, 20_000)) for _, kind in mixed.kinds()]
    assert (np.sum(of_kind, axis=0) == 1).all()
    assert_probabilities(np.argmax(of_kind, axis=0), [0.25, 0.25, 0.5])


def test_kinds_come_independently_of_each_other_and_of_what_they_hold():
    mixed = RECIPES["mixture"]
    drawn = draw(mixed, 50_000)
    third = same(drawn, draw(mixed.kinds()[2][1], 50_000))
    assert_uniform(third[:-1] * 2 + third[1:], 4)
    assert_uniform(third * 32 + drawn.classes[:, -1].numpy(), 64)


def test_a_share_that_leaves_nothing_is_all_and_one_of_nothing_is_none():
    other = Component(share=1.0, burstiness=0, support="none")
    assert same(
        draw(replace(PLAIN, mixture=(other,)), 5000), draw(replace(PLAIN, burstiness=0, support="none"), 5000)
    ).all()
    assert same(draw(replace(PLAIN, mixture=(replace(other, share=0.0),)), 5000), draw(PLAIN, 5000)).all()


def test_what_is_not_composition_holds_for_every_kind_of_a_mixture():
    common = {"zipf": Zipf(alpha=1.0), "label_noise": 0.2, "pool": 50, "labelling": Labelling(labels=4)}
    for _, kind in replace(RECIPES["mixture"], **common).kinds():
        assert {name: getattr(kind, name) for name in common} == common
        assert kind.mixture == ()


# --- Distractor


def test_without_a_distractor_the_places_left_are_free():
    four = replace(BANK, n_train_classes=4)
    drawn, _, _ = as_numpy(draw(Recipe(context=5, burstiness=2, distractor=False), 50_000, four))
    # Counted from the query's class on: that of each of the three free items is uniform.
    counts = ((drawn[:, :-1] - drawn[:, -1:]) % 4)[:, :, None] == np.arange(4)
    counts = counts.sum(axis=1)
    counts[:, 0] -= 2
    assert (counts.sum(axis=1) == 3).all()
    cells = {}
    probabilities = {}
    for free in itertools.product(range(4), repeat=3):
        key = tuple(free.count(value) for value in range(4))
        cells.setdefault(key, len(cells))
        probabilities[key] = probabilities.get(key, 0) + 1 / 64
    found = np.array([cells[tuple(row)] for row in counts.tolist()])
    assert_probabilities(found, [probabilities[key] for key in cells])


def test_without_a_distractor_more_than_half_the_context_can_be_of_the_querys_class():
    drawn, _, _ = as_numpy(draw(Recipe(context=4, burstiness=4, distractor=False), 1000))
    assert (drawn[:, :-1] == drawn[:, -1:]).all()


def test_the_query_can_stand_at_every_place_without_a_distractor():
    drawn, _, _ = as_numpy(draw(Recipe(context=4, burstiness=1, distractor=False), 40_000, MANY))
    here = drawn[:, :-1] == drawn[:, -1:]
    assert_uniform(here[here.sum(axis=1) == 1].argmax(axis=1), 4)


# --- Which exemplars


@pytest.mark.parametrize("match", [0.3, 1.0])
def test_bursty_items_repeat_an_exemplar_with_the_probability_asked_for(match):
    drawn, exemplars, _ = as_numpy(draw(replace(PLAIN, match=match), 50_000, MANY))
    of_query, of_distractor, plain = kinds_of_items(drawn, 3)
    assert plain.mean() > 0.99
    context, query = exemplars[plain, :-1], exemplars[plain, -1:]
    like_query = (context == query)[of_query[plain]].reshape(-1, 3).all(axis=1)
    assert_share(like_query, match + (1 - match) / 8**3)
    of_distractor = context[of_distractor[plain]].reshape(-1, 3)
    assert_share((of_distractor == of_distractor[:, :1]).all(axis=1), match + (1 - match) / 8**2)
    # One coin decides for both.
    assert_share(like_query & (of_distractor == of_distractor[:, :1]).all(axis=1), match + (1 - match) / 8**3 / 8**2)


def test_matched_exemplars_are_any_with_equal_probability_and_the_distractors_tells_nothing_of_the_querys():
    drawn, exemplars, _ = as_numpy(draw(replace(PLAIN, match=1.0), 50_000, MANY))
    _, of_distractor, plain = kinds_of_items(drawn, 3)
    query = exemplars[plain, -1]
    distractor = exemplars[plain, :-1][of_distractor[plain]].reshape(-1, 3)[:, 0]
    assert_uniform(query * 8 + distractor, 64)


def test_free_items_match_nothing_even_where_they_are_of_the_querys_class():
    two = replace(BANK, n_train_classes=2)
    drawn, exemplars, _ = as_numpy(draw(Recipe(context=2, burstiness=1, distractor=False, match=1.0), 40_000, two))
    both = (drawn[:, :-1] == drawn[:, -1:]).all(axis=1)
    pairs = exemplars[both, :-1] == exemplars[both, -1:]
    assert pairs.any(axis=1).all()
    assert_share(pairs.all(axis=1), 1 / 8)


def test_matching_changes_exemplars_alone_and_only_where_it_happens():
    free, matched = draw(PLAIN, 10_000), draw(replace(PLAIN, match=0.5), 10_000)
    assert torch.equal(free.classes, matched.classes)
    assert torch.equal(free.labels, matched.labels)
    untouched = (free.exemplars == matched.exemplars).all(dim=1).numpy()
    # A matched sequence is untouched only where seven exemplars happened to be as they must: never in 10,000.
    assert_share(untouched, 0.5)


def test_items_of_a_class_have_different_exemplars_without_replacement():
    for bank in (BANK, replace(BANK, n_train_classes=3)):
        drawn, exemplars, _ = as_numpy(draw(replace(PLAIN, replacement=False), 20_000, bank))
        numbers = np.sort(drawn * 8 + exemplars, axis=1)
        assert (numbers[:, 1:] > numbers[:, :-1]).all()
        assert set(exemplars.ravel()) == set(range(8))


def test_without_replacement_all_exemplars_of_a_class_can_be_in_one_sequence():
    exactly = replace(BANK, n_train_exemplars=5)
    drawn, exemplars, _ = as_numpy(draw(Recipe(context=8, burstiness=4, replacement=False), 2000, exactly))
    of_query = np.concatenate([drawn[:, :-1] == drawn[:, -1:], np.ones((len(drawn), 1), bool)], axis=1)
    assert (np.sort(exemplars[of_query].reshape(-1, 5), axis=1) == np.arange(5)).all()


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_classes_that_need_not_be_distinct_are_independent(alpha):
    drawn, _, _ = as_numpy(draw(replace(CHAN, burstiness=4, zipf=Zipf(alpha=alpha, ranks="identity")), 40_000))
    weights = np.arange(1, 33.0) ** -alpha
    assert_share((drawn[:, :-1] == drawn[:, -1:]).all(axis=1), ((weights / weights.sum()) ** 2).sum())


def test_free_items_drawn_apart_repeat_exemplars_of_the_others_as_chance_has_it_and_none_of_their_own():
    one_class = replace(BANK, n_train_classes=1)
    drawn, exemplars, _ = as_numpy(draw(CHAN, 40_000, one_class))
    assert (drawn == 0).all()
    times = (exemplars[:, :, None] == exemplars[:, None, :]).sum(axis=2)
    # Six bursty items and the query have 7 of 8 exemplars. The two free ones have two of all: 21 pairs of 28 are of
    # the 7 alone, and 7 pairs are of one of these and the exemplar left.
    assert times.max() == 2
    repeated = (times == 2).sum(axis=1) // 2
    assert set(repeated) == {1, 2}
    assert_share(repeated == 2, 21 / 28)
    # Nothing but free items repeats, so the query's is repeated where one of two free items has its exemplar.
    assert_share((exemplars[:, :-1] == exemplars[:, -1:]).any(axis=1), 2 / 8)
    exactly = replace(one_class, n_train_exemplars=9)
    _, whole, _ = as_numpy(draw(replace(CHAN, burstiness=4), 1000, exactly))
    assert (np.sort(whole, axis=1) == np.arange(9)).all()


def test_without_replacement_every_choice_of_different_exemplars_is_equally_likely():
    four = replace(BANK, n_train_exemplars=4)
    drawn, exemplars, _ = as_numpy(draw(Recipe(context=4, burstiness=2, replacement=False), 40_000, four))
    of_query = drawn[:, :-1] == drawn[:, -1:]
    query_items = np.concatenate([exemplars[:, :-1][of_query].reshape(-1, 2), exemplars[:, -1:]], axis=1)
    distractor_items = exemplars[:, :-1][~of_query].reshape(-1, 2)
    threes = {order: number for number, order in enumerate(itertools.permutations(range(4), 3))}
    twos = {order: number for number, order in enumerate(itertools.permutations(range(4), 2))}
    first = np.array([threes[tuple(row)] for row in query_items.tolist()])
    second = np.array([twos[tuple(row)] for row in distractor_items.tolist()])
    assert_uniform(first * 12 + second, 24 * 12)


# --- Which classes


def zipf_of_six(alpha: float) -> np.ndarray:
    probabilities = np.arange(1, 7) ** -alpha
    return probabilities / probabilities.sum()


@pytest.mark.parametrize("alpha", [0.7, 1.5])
def test_query_and_distractor_follow_zipf_and_the_distractor_what_the_query_leaves(alpha):
    p = zipf_of_six(alpha)
    six = replace(BANK, n_train_classes=6)
    zipf = Zipf(alpha=alpha, ranks="identity")
    drawn, _, _ = as_numpy(draw(replace(PAIRS, zipf=zipf), 100_000, six))
    query = drawn[:, -1]
    distractor = drawn[:, :-1][drawn[:, :-1] != drawn[:, -1:]].reshape(-1, 4)[:, 0]
    joint = np.outer(p, p) / (1 - p)[:, None]
    np.fill_diagonal(joint, 0)
    assert_probabilities(query * 6 + distractor, joint.ravel())


def test_free_items_follow_zipf_whatever_the_query():
    p = zipf_of_six(1.0)
    six = replace(BANK, n_train_classes=6)
    recipe = Recipe(context=2, burstiness=0, zipf=Zipf(alpha=1.0, ranks="identity"))
    drawn, _, _ = as_numpy(draw(recipe, 50_000, six))
    joint = np.einsum("i,j,k->ijk", p, p, p)
    assert_probabilities(drawn @ [36, 6, 1], joint.ravel())


def test_without_support_classes_follow_zipf_among_those_left():
    p = zipf_of_six(1.0)[:5] / zipf_of_six(1.0)[:5].sum()
    five = replace(BANK, n_train_classes=5)
    recipe = Recipe(context=2, burstiness=0, support="none", zipf=Zipf(alpha=1.0, ranks="identity"))
    drawn, _, _ = as_numpy(draw(recipe, 50_000, five))
    cells = np.zeros((5, 5, 5))
    for query, first, second in itertools.permutations(range(5), 3):
        cells[query, first, second] = p[query] * p[first] / (1 - p[query]) * p[second] / (1 - p[query] - p[first])
    assert cells.sum() == pytest.approx(1)
    assert_probabilities(drawn @ [5, 1, 25], cells.ravel())


def test_frequent_classes_are_a_matter_of_the_zipf_seed_and_not_of_the_data_seed():
    favourites = []
    for zipf_seed, seed in [(0, 0), (0, 1), (1, 0)]:
        zipf = Zipf(alpha=2.0, seed=zipf_seed)
        drawn, _, _ = as_numpy(draw(replace(PLAIN, zipf=zipf), 5000, seed=seed))
        favourites.append(np.bincount(drawn[:, -1]).argmax())
    assert favourites[0] == favourites[1] != favourites[2]


@pytest.mark.parametrize("name", [name for name in DEFAULT_EVALUATORS if name != "train"])
def test_evaluators_draw_classes_alike_and_embed_them_without_noise_whatever_training_does(name):
    training = replace(PLAIN, zipf=Zipf(alpha=1.0), input_noise=0.5, label_noise=0.1, match=0.5, pool=10)
    assert evaluator_recipe(name, training) == evaluator_recipe(name, PLAIN)


@pytest.mark.parametrize("name", DEFAULT_EVALUATORS)
def test_without_replacement_items_of_two_classes_differ_in_evaluators(name):
    recipe, plain = evaluator_recipe(name, PLAIN, replacement=False), evaluator_recipe(name, PLAIN)
    two_classes = name.startswith("icl") or name == "flip"
    assert recipe == replace(plain, replacement=not two_classes)
    bank = replace(BANK, n_exemplars=13)
    drawn, exemplars, _ = as_numpy(draw(recipe, 2000, bank))
    repeated = [len(set(row)) < 9 for row in (drawn * 100 + exemplars).tolist()]
    assert any(repeated) == (name == "train")
    again = as_numpy(draw(plain, 2000, bank))[:2]
    assert any(len(set(row)) < 9 for row in (again[0] * 100 + again[1]).tolist()) == (two_classes or name == "train")


def test_the_evaluator_train_follows_training_in_everything_but_its_pool():
    for recipe in RECIPES.values():
        assert evaluator_recipe("train", recipe) == replace(recipe, pool=0)


# --- Which labels

LABELLED = replace(PLAIN, labelling=Labelling(labels=10, seed=1))
LABEL_OF = classes.class_labels(32, LABELLED.labelling).numpy()


def labelled(name: str, n: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """classes and labels of an evaluator of runs whose 32 classes share ten labels."""
    drawn, _, labels = as_numpy(draw(evaluator_recipe(name, LABELLED), n, purpose=f"evaluator/{name}"))
    return drawn, labels


def test_classes_share_labels():
    drawn, labels = labelled("train")
    assert (labels == LABEL_OF[drawn]).all()
    assert set(labels.ravel()) == set(range(10))


def test_the_distractor_bears_another_label_and_is_any_class_that_does():
    drawn, _ = labelled("icl", 40_000)
    query = drawn[:, -1]
    distractor = drawn[:, :-1][drawn[:, :-1] != drawn[:, -1:]].reshape(-1, 4)[:, 0]
    allowed = LABEL_OF[:, None] != LABEL_OF[None, :]
    assert_probabilities(query * 32 + distractor, (allowed / allowed.sum(axis=1, keepdims=True) / 32).ravel())


def test_without_support_no_label_stands_twice_and_the_querys_not_at_all():
    _, labels = labelled("iwl")
    ordered = np.sort(labels, axis=1)
    assert (ordered[:, 1:] > ordered[:, :-1]).all()


def test_without_support_classes_are_any_of_the_labels_left():
    # Two labels of two classes and one of one: who comes next depends on how many classes are left, not labels.
    five = replace(BANK, n_train_classes=5)
    recipe = Recipe(context=1, burstiness=0, support="none", labelling=Labelling(labels=3))
    label = classes.class_labels(5, recipe.labelling).numpy()
    drawn, _, _ = as_numpy(draw(recipe, 20_000, five))
    allowed = label[:, None] != label[None, :]
    assert_probabilities(drawn[:, 1] * 5 + drawn[:, 0], (allowed / allowed.sum(axis=1, keepdims=True) / 5).ravel())


def test_swapped_labels_are_those_of_query_and_distractor_and_never_the_same():
    drawn, labels = labelled("flip")
    of_query = drawn == drawn[:, -1:]
    distractor = drawn[:, :-1][~of_query[:, :-1]].reshape(-1, 4)[:, :1]
    assert (labels == np.where(of_query, LABEL_OF[distractor], LABEL_OF[drawn[:, -1:]])).all()
    assert (labels[:, -1] != LABEL_OF[drawn[:, -1]]).all()


def test_a_copied_label_is_the_querys_and_stands_once_among_different_ones():
    drawn, labels = labelled("ciwl")
    assert (labels[:, -1] == LABEL_OF[drawn[:, -1]]).all()
    assert ((labels[:, :-1] == labels[:, -1:]).sum(axis=1) == 1).all()
    ordered = np.sort(labels[:, :-1], axis=1)
    assert (ordered[:, 1:] > ordered[:, :-1]).all()


@pytest.mark.parametrize("name", ["icl", "icl_holdout", "icl_new_exemplar"])
def test_relabelled_classes_are_called_0_and_1_however_many_labels_there_are(name):
    drawn, labels = labelled(name)
    assert (labels == np.where(drawn == drawn[:, -1:], labels[:, -1:], 1 - labels[:, -1:])).all()
    assert_uniform(labels[:, -1], 2)
    assert drawn.min() == (32 if name == "icl_holdout" else 0)


# --- Pairs of labels

FIVE = RECIPES["relabelling"].relabelling
ALL_PAIRS = {labels: set(itertools.combinations(range(labels), 2)) for labels in range(2, 13)}


def pairs_of(relabelling: Relabelling, part: str) -> list[tuple[int, int]]:
    return [(one, other) for one, other in classes.label_pairs(relabelling, part, torch.device("cpu")).tolist()]


def label_pairs(drawn: Sequences) -> np.ndarray:
    """[N, 2]: the query's label, and the other one, of sequences whose context has these two alone."""
    _, _, labels = as_numpy(drawn)
    assert (labels[:, :-1] == labels[:, -1:]).sum(axis=1).tolist() == [labels.shape[1] // 2] * len(labels)
    others = labels[:, :-1][labels[:, :-1] != labels[:, -1:]].reshape(len(labels), -1)
    assert (others == others[:, :1]).all()
    return np.stack([labels[:, -1], others[:, 0]], axis=1)


@given(labels=st.integers(2, 12), share=st.floats(0, 0.999), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=100)
def test_every_pair_of_labels_is_trained_on_or_held_out_and_every_label_is_trained_on(labels, share, seed):
    relabelling = Relabelling(labels=labels, holdout_share=share, seed=seed)
    # What is refused in a study leaves some label without a pair.
    possible = relabelling.n_pairs - relabelling.n_holdout_pairs >= labels - 1
    train, holdout = (pairs_of(relabelling, part) for part in ("train", "holdout"))
    assert {label for pair in train for label in pair} == set(range(labels))
    assert sorted([*train, *holdout]) == sorted(ALL_PAIRS[labels])
    assert len(holdout) == relabelling.n_holdout_pairs or not possible


def test_the_seed_draws_which_pairs_are_held_out_and_each_choice_is_equally_likely():
    both = {frozenset(pairs): number for number, pairs in enumerate(itertools.combinations(ALL_PAIRS[5], 2))}
    found = [both[frozenset(pairs_of(replace(FIVE, seed=seed), "holdout"))] for seed in range(900)]
    assert_uniform(np.array(found), 45)


@pytest.mark.parametrize("name", ["training", "icl", "icl_holdout", "icl_new_exemplar", "icl_holdout_pairs"])
def test_relabelled_classes_get_each_pair_of_their_part_equally_often_in_both_orders(name):
    recipe = RECIPES["relabelling"] if name == "training" else evaluator_recipe(name, RECIPES["relabelling"])
    drawn = draw(recipe, 20_000)
    pairs = pairs_of(FIVE, "holdout" if name == "icl_holdout_pairs" else "train")
    assert len(pairs) == (2 if name == "icl_holdout_pairs" else 8)
    orders = {pair: number for number, pair in enumerate([*pairs, *((other, one) for one, other in pairs)])}
    found = np.array([orders[query, other] for query, other in label_pairs(drawn).tolist()])
    assert_uniform(found, len(orders))
    # Whatever the query's class: as the place of the query's first item, which is drawn too.
    n_classes = 8 if name == "icl_holdout" else 32
    assert_uniform(found * n_classes + drawn.classes[:, -1].numpy() % n_classes, len(orders) * n_classes)


def test_evaluators_relabel_with_the_pairs_of_training_and_two_labels_are_as_without_the_key():
    two = evaluator_recipe("icl", PLAIN)
    assert two == Recipe(context=8, burstiness=4, labels="relabelled")
    assert set(map(tuple, label_pairs(draw(two, 1000)).tolist())) == {(0, 1), (1, 0)}
    held_out = evaluator_recipe("icl_holdout_pairs", RECIPES["relabelling"])
    assert held_out == replace(RECIPES["relabelling"], label_pairs="holdout")


def test_another_number_of_labels_changes_labels_alone():
    two, five = draw(replace(PAIRS, labels="relabelled"), 2000), draw(RECIPES["relabelling"], 2000)
    assert torch.equal(two.classes, five.classes)
    assert torch.equal(two.exemplars, five.exemplars)
    # The same class has the larger label.
    assert torch.equal(two.labels == 1, five.labels == five.labels.max(dim=1, keepdim=True).values)


def test_label_noise_of_relabelled_sequences_is_any_of_their_labels():
    noisy = draw(replace(RECIPES["relabelling"], label_noise=1.0), 5000)
    assert_uniform(noisy.labels.numpy(), 5)


def test_label_noise_replaces_labels_at_random_and_nothing_else():
    clean, noisy = draw(PLAIN, 20_000), draw(replace(PLAIN, label_noise=0.2), 20_000)
    assert torch.equal(clean.classes, noisy.classes)
    assert torch.equal(clean.exemplars, noisy.exemplars)
    changed = (clean.labels != noisy.labels).numpy()
    for place in range(9):
        assert_share(changed[:, place], 0.2 * 31 / 32)
    assert_share(changed[:, 0] & changed[:, -1], (0.2 * 31 / 32) ** 2)
    moved = ((noisy.labels - clean.labels) % 32).numpy()[changed]
    assert_uniform(moved - 1, 31)


def test_all_labels_can_be_noise():
    noisy = draw(replace(PLAIN, label_noise=1.0), 20_000).labels.numpy()
    assert_uniform(noisy[:, 0] * 32 + noisy[:, -1], 32 * 32)


def test_noisy_labels_of_relabelled_classes_are_0_and_1():
    relabelled = replace(PAIRS, labels="relabelled")
    clean, noisy = (draw(replace(relabelled, label_noise=p), 20_000).labels.numpy() for p in (0.0, 0.5))
    assert_share(clean != noisy, 0.25)
    assert set(noisy.ravel()) == {0, 1}


# --- Noise on exemplars


def noise(recipe: Recipe, n: int = 2000, width: int = 5, **source) -> np.ndarray:
    source = {"seed": 0, "purpose": TRAINING_STREAM} | source
    return input_noise(recipe, width, numbers=torch.arange(n), **source).numpy()


def test_input_noise_is_normal_with_the_standard_deviation_asked_for():
    found = noise(replace(PLAIN, input_noise=0.25))
    assert found.shape == (2000, 9, 5)
    assert stats.kstest(found.ravel() / 0.25, "norm").pvalue > 1e-4


def test_input_noise_is_independent_from_place_to_place_and_sequence_to_sequence():
    found = noise(replace(PLAIN, input_noise=1.0)).reshape(2000, 45)
    correlation = np.corrcoef(np.concatenate([found[:-1], found[1:]], axis=1).T)
    np.fill_diagonal(correlation, 0)
    # 4,005 of them, each normal with standard deviation 1 / sqrt(1999): 5.5 of those by chance once in 6,000 times.
    assert np.abs(correlation).max() < 5.5 / 1999**0.5


def test_input_noise_is_a_function_of_seed_purpose_and_number():
    recipe = replace(PLAIN, input_noise=1.0)
    whole = noise(recipe, 100)
    part = input_noise(recipe, 5, 0, TRAINING_STREAM, torch.tensor([70, 3, 99]))
    np.testing.assert_array_equal(part.numpy(), whole[[70, 3, 99]])
    assert not np.isclose(whole, noise(recipe, 100, seed=1)).any()
    assert not np.isclose(whole, noise(recipe, 100, purpose="evaluator/train")).any()


def test_examples_are_the_banks_rows_with_their_noise():
    embeddings = torch.arange(40 * 12 * 5, dtype=torch.float32).view(40, 12, 5)
    for sigma in (0.0, 0.5):
        recipe, positions = replace(PLAIN, input_noise=sigma), torch.arange(10, 30)
        drawn = sequences_draw.draw(recipe, BANK, 3, TRAINING_STREAM, positions)
        assert torch.equal(drawn.classes, sequences_draw.draw(PLAIN, BANK, 3, TRAINING_STREAM, positions).classes)
        found = examples(recipe, embeddings, drawn, 3, TRAINING_STREAM, positions)
        expected = embeddings[drawn.classes, drawn.exemplars]
        if sigma:
            expected = expected + input_noise(recipe, 5, 3, TRAINING_STREAM, positions).float()
        assert torch.equal(found, expected)
    assert torch.equal(embeddings.flatten(), torch.arange(40 * 12 * 5, dtype=torch.float32))


# --- A pool


@pytest.mark.parametrize("pool", [1, 7, 100, 8192, 20_000])
def test_every_epoch_holds_every_sequence_of_the_pool_once(pool):
    n_epochs = 3
    members = pool_members(replace(PLAIN, pool=pool), 0, TRAINING_STREAM, torch.arange(pool * n_epochs))
    epochs = members.view(n_epochs, pool)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(pool).expand(n_epochs, -1))
    if pool > 10:
        assert not torch.equal(epochs[0], epochs[1])
        assert not torch.equal(epochs[0], torch.arange(pool))


def test_a_pool_is_the_first_sequences_of_the_endless_stream():
    pooled, endless = draw(replace(PLAIN, pool=50), 500), draw(PLAIN, 50)
    members = pool_members(replace(PLAIN, pool=50), 0, TRAINING_STREAM, torch.arange(500))
    for part in PARTS:
        assert torch.equal(getattr(pooled, part), getattr(endless, part)[members])


def test_noise_stays_with_its_sequence_in_every_epoch():
    recipe = replace(PLAIN, pool=20, input_noise=1.0)
    members = pool_members(recipe, 0, TRAINING_STREAM, torch.arange(100))
    np.testing.assert_array_equal(noise(recipe, 100), noise(replace(recipe, pool=0), 20)[members.numpy()])


def test_every_order_of_an_epoch_is_equally_likely_and_tells_nothing_of_the_next():
    members = pool_members(replace(PLAIN, pool=3), 0, TRAINING_STREAM, torch.arange(60_000)).view(-1, 3)
    orders = {order: number for number, order in enumerate(itertools.permutations(range(3)))}
    found = np.array([orders[tuple(row)] for row in members.tolist()])
    assert_uniform(found[:-1] * 6 + found[1:], 36)


def test_another_seed_has_another_pool_and_another_order():
    one, other = (draw(replace(PLAIN, pool=40), 40, seed=seed) for seed in (0, 1))
    assert not same(one, other).any()
    orders = [pool_members(replace(PLAIN, pool=40), s, TRAINING_STREAM, torch.arange(40)) for s in (0, 1)]
    assert not torch.equal(*orders)


# --- All of them


@given(
    name=st.sampled_from(list(RECIPES)),
    seed=st.integers(0, 2**32 - 1),
    start=st.integers(0, 2**40),
    length=st.integers(1, 40),
    data=st.data(),
)
@settings(deadline=None, max_examples=100)
def test_a_batch_is_the_same_rows_however_the_sequences_are_cut_and_ordered(name, seed, start, length, data):
    before = data.draw(st.integers(0, min(start, 20)), label="rows drawn before it")
    order = torch.tensor(data.draw(st.permutations(range(length)), label="order"))
    positions = torch.arange(start, start + length)
    recipe = RECIPES[name]
    bigger = sequences_draw.draw(recipe, BANK, seed, TRAINING_STREAM, torch.arange(start - before, start + length))
    shuffled = sequences_draw.draw(recipe, BANK, seed, TRAINING_STREAM, positions[order])
    for part in PARTS:
        assert torch.equal(getattr(shuffled, part), getattr(bigger, part)[before:][order])


@pytest.mark.parametrize("name", RECIPES)
def test_sequences_stay_within_the_training_part_of_the_bank_and_its_labels(name):
    drawn, exemplars, labels = as_numpy(draw(RECIPES[name], 5000))
    assert set(drawn.ravel()) == set(range(32))
    assert set(exemplars.ravel()) == set(range(8))
    assert labels.min() >= 0
    assert labels.max() < RECIPES[name].n_labels(32)


GOLDEN = {
    "mixture": "237fb1ad87d2eadc",
    "zipf": "bc03957469b32c12",
    "zipf without support": "8d84638683d46fcc",
    "no distractor": "99d9a1fefe74e927",
    "match": "f22b1642e2b69a3b",
    "different exemplars": "d9525b812219b33d",
    "as Chan et al.": "0843692965b4a1c4",
    "label noise": "62c6188bdbd07885",
    "pool": "48b85dd1c465abf9",
    "labelling": "11d37da64466d819",
    "labelling without support": "cc22017a2299ac24",
    "relabelling": "2ba6b7e2fffa02d1",
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_sequences_of_seed_0_are_what_they_have_always_been(name):
    # As in test_sequences.py: recorded, of the first 1,000.
    content = b"".join(part.astype("<i4").tobytes() for part in as_numpy(draw(RECIPES[name], 1000)))
    assert hashlib.sha256(content).hexdigest()[:16] == GOLDEN[name]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("name", RECIPES)
def test_cpu_and_gpu_draw_the_same_sequences(name):
    positions = torch.arange(2**33, 2**33 + 1000)
    on_cpu = sequences_draw.draw(RECIPES[name], BANK, 3, TRAINING_STREAM, positions)
    on_gpu = sequences_draw.draw(RECIPES[name], BANK, 3, TRAINING_STREAM, positions.cuda())
    for part in PARTS:
        assert torch.equal(getattr(on_cpu, part), getattr(on_gpu, part).cpu())
