"""Identities: equal for equal content, different for every difference, whatever the values were written like."""

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from builders import OMNIGLOT_BANK, TINY_BANK, TINY_RUN, TINY_SET, changed, pack, tiny_run
from hypothesis import given
from hypothesis import strategies as st

from icl_transience.specs import banks, evaluators, model, recipes, runs, sources, training
from icl_transience.specs.banks import BankSpec, Gaussian, Omniglot
from icl_transience.specs.circuits import Circuits, CircuitsSpec
from icl_transience.specs.evaluators import evaluator_at, evaluator_parts, in_order
from icl_transience.specs.identity import SEMANTICS, canonical, from_values, identity, identity_values, round_up
from icl_transience.specs.model import Init, Model, Positions
from icl_transience.specs.recipes import COMPOSITION, Component, Labelling, Recipe, Zipf
from icl_transience.specs.runs import Run, Seed
from icl_transience.specs.training import L2, Forgetting, Intervention, Optimizer, Schedule, Snapshots

OMNIGLOT_RUN = tiny_run(bank=OMNIGLOT_BANK)
# Nothing in its recipe is as in a plain one.
RICH_RUN = tiny_run(
    recipe=Recipe(
        context=4,
        burstiness=2,
        distractor=False,
        support="none",
        labels="copied",
        match=0.5,
        replacement=False,
        classes="holdout",
        exemplars="holdout",
        zipf=Zipf(alpha=1.0, ranks="identity", seed=1),
        labelling=Labelling(labels=5, seed=1),
        label_noise=0.1,
        input_noise=0.2,
        pool=30,
        mixture=(Component(share=0.25, burstiness=1, distractor=False), Component(share=0.5, burstiness=2, match=1.0)),
    )
)
# Nor in how it trains.
RICH_TRAINING = tiny_run(
    **{
        "model.positions.kind": "learned",
        "model.dropout": 0.1,
        "optimizer": Optimizer(
            name="adamw",
            learning_rate=0.01,
            momentum=0.5,
            weight_decay=0.1,
            clip=1.0,
            schedule=Schedule(kind="cosine", warmup=10, length=100, final=0.5),
            l2=L2(strength=0.1, embedder=0.2, attention=0.0, mlp=0.3, norm=0.4, unembedding=0.5),
        ),
        "forgetting": Forgetting(every=50, until=500),
        "interventions": (
            Intervention(at=30, recipe=RICH_RUN.recipe, optimizer=TINY_RUN.optimizer),
            Intervention(at=61, recipe=TINY_RUN.recipe, optimizer=Optimizer(learning_rate=0.1, l2=L2(mlp=0.1))),
        ),
    }
)
MODULES = (banks, sources, evaluators, model, recipes, runs, training)
DATACLASSES = list(
    dict.fromkeys(kind for module in MODULES for kind in vars(module).values() if dataclasses.is_dataclass(kind))
)


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value of every field of a dataclass that is neither a section nor an absent one."""
    found = {}
    for f in dataclasses.fields(value):
        inner = getattr(value, f.name)
        if dataclasses.is_dataclass(inner):
            found |= leaves(inner, f"{prefix}{f.name}.")
        elif inner is not None:
            found[prefix + f.name] = inner
    return found


def another(leaf: Any) -> Any:
    """Some other value of the leaf's type."""
    if isinstance(leaf, tuple) and leaf and isinstance(leaf[0], Intervention):
        return leaf[1:]
    return (*leaf, "more") if isinstance(leaf, tuple) else leaf + ("x" if isinstance(leaf, str) else 1)


def of_each_leaf(*values: Any):
    """A test for every leaf of every value."""
    cases = [(value, path) for value in values for path in leaves(value)]
    return pytest.mark.parametrize(
        ("value", "path"), cases, ids=[f"{type(value).__name__}.{path}" for value, path in cases]
    )


# Identity is content.


@of_each_leaf(TINY_RUN, OMNIGLOT_RUN, RICH_RUN, RICH_TRAINING, TINY_SET, TINY_BANK, OMNIGLOT_BANK)
def test_every_value_is_in_the_identity(value, path):
    other = changed(value, {path: another(leaves(value)[path])})
    assert identity("training", other) != identity("training", value)


def test_a_name_ends_with_the_identity_behind_it():
    assert TINY_RUN.id == identity("training", TINY_RUN)
    assert TINY_SET.id == f"gaussian-10x3-{identity('sequences', TINY_SET)}"
    assert TINY_BANK.id == f"gaussian-10x3-{identity('bank', TINY_BANK)}"
    assert OMNIGLOT_BANK.id == f"omniglot-24x4-{identity('bank', OMNIGLOT_BANK)}"
    assert pack().id == f"gaussian-10x3-2x8-{identity('training', pack())}"


def test_the_lanes_of_a_pack_and_their_order_are_in_its_identity():
    first, second = TINY_RUN, tiny_run(**{"optimizer.learning_rate": 0.5})
    ids = {pack(*runs).id for runs in ([first], [first, first], [first, second], [second, first])}
    assert len(ids) == 4


@pytest.mark.parametrize("value", [TINY_RUN, OMNIGLOT_RUN, RICH_RUN, RICH_TRAINING, TINY_SET, TINY_BANK, OMNIGLOT_BANK])
def test_values_survive_the_way_through_json(value):
    text = canonical(identity_values(value))
    back = from_values(type(value), json.loads(text))
    assert back == value
    assert back.id == value.id
    assert canonical(identity_values(back)) == text


def test_a_number_has_one_identity_however_it_is_written():
    plain = identity_values(TINY_RUN)
    for path, text in [("positions", {"base": 30}), ("init", {"scale": 1})]:
        written = plain | {"model": plain["model"] | {path: plain["model"][path] | text}}
        assert from_values(Run, written).id == TINY_RUN.id
    written = plain | {"optimizer": plain["optimizer"] | {"learning_rate": float("0.1e-2")}, "batch_size": 4.0}
    assert from_values(Run, written).id == TINY_RUN.id


def test_a_default_that_is_written_out_changes_nothing():
    written = Run(
        bank=TINY_BANK,
        recipe=Recipe(context=4, burstiness=1, support="bursty", labels="classes", classes="train", exemplars="train"),
        model=Model(
            depth=2,
            width=8,
            heads=2,
            mlp_ratio=2,
            positions=Positions(kind="sinusoid", base=30.0),
            init=Init(distribution="pytorch", scale=1.0),
        ),
        optimizer=Optimizer(
            name="adam",
            learning_rate=1e-3,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            l2=L2(strength=0.0, form="squared"),
        ),
        batch_size=4,
        numerics="float32",
        snapshots=Snapshots(first=8, per_doubling=1, every=64),
    )
    assert written.id == TINY_RUN.id


def test_the_order_in_which_values_are_written_changes_nothing():
    values = identity_values(TINY_RUN)
    backwards = json.loads(json.dumps(values), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert list(backwards) == list(reversed(values))
    assert from_values(Run, backwards).id == TINY_RUN.id
    assert canonical(backwards) == canonical(values)


def test_what_is_not_a_number_has_no_identity():
    with pytest.raises(ValueError, match="not JSON compliant"):
        identity("training", tiny_run(**{"optimizer.learning_rate": math.nan}))


# Keys that came later.


@dataclass(frozen=True, kw_only=True)
class Before:
    size: int


@dataclass(frozen=True, kw_only=True)
class After:
    size: int
    shape: str = field(default="round", metadata={"neutral": "round"})
    depth: int = field(default=0, metadata={"neutral": 0})


def test_a_later_key_at_its_neutral_value_leaves_identities_as_they_were():
    assert identity("bank", After(size=3)) == identity("bank", Before(size=3))
    assert identity_values(After(size=3)) == {"size": 3}


def test_a_later_key_at_another_value_makes_another_identity():
    values = [After(size=3), After(size=3, shape="square"), After(size=3, depth=1), After(size=3, shape="", depth=1)]
    assert len({identity("bank", value) for value in values}) == 4


def test_what_was_written_before_a_key_existed_reads_as_its_neutral_value():
    assert from_values(After, {"size": 3}) == After(size=3, shape="round", depth=0)


@pytest.mark.parametrize("kind", DATACLASSES, ids=lambda kind: kind.__name__)
def test_a_neutral_value_is_the_default(kind):
    # Otherwise a value left out of the identity would be read back as another.
    for f in dataclasses.fields(kind):
        if "neutral" in f.metadata:
            assert f.default == f.metadata["neutral"], f.name


def test_a_plain_training_recipe_is_its_context_and_its_burstiness():
    assert identity_values(Recipe(context=8, burstiness=3)) == {"context": 8, "burstiness": 3}
    relabelled = Recipe(context=8, burstiness=4, labels="relabelled", classes="holdout")
    assert identity_values(relabelled) == {
        "context": 8,
        "burstiness": 4,
        "labels": "relabelled",
        "classes": "holdout",
    }


@pytest.mark.parametrize("stage", list(SEMANTICS))
def test_a_new_meaning_of_a_stage_makes_new_identities_of_it_and_of_what_is_made_from_it_alone(stage, monkeypatch):
    def ids() -> dict[str, set[str]]:
        inside = CircuitsSpec(
            set=TINY_SET.id, circuits=Circuits(measures=("self",), evaluators=("icl",), interventions=())
        )
        return {
            "bank": {TINY_BANK.id},
            "sequences": {TINY_SET.id},
            "training": {TINY_RUN.id, pack().id},
            "circuits": {inside.id},
        }

    made_from = {"bank": {"bank"}, "sequences": {"bank", "sequences"}, "training": {"bank", "training"}}
    made_from["circuits"] = {*made_from["sequences"], "circuits"}

    before = ids()
    monkeypatch.setitem(SEMANTICS, stage, SEMANTICS[stage] + 1)
    after = ids()
    for name in SEMANTICS:
        assert before[name].isdisjoint(after[name]) == (stage in made_from[name]), name


@pytest.mark.parametrize("f", dataclasses.fields(Component), ids=lambda f: f.name)
def test_every_value_of_a_kind_in_a_mixture_is_in_the_identity(f):
    first, second = RICH_RUN.recipe.mixture
    others = (dataclasses.replace(first, **{f.name: another(getattr(first, f.name))}), second)
    assert changed(RICH_RUN, {"recipe.mixture": others}).id != RICH_RUN.id


def test_the_kinds_of_a_mixture_share_what_is_not_composition_and_all_of_the_sequences():
    recipe = RICH_RUN.recipe
    (share, own), (first_share, first), (second_share, second) = recipe.kinds()
    assert (share, first_share, second_share) == (0.25, 0.25, 0.5)
    assert own == dataclasses.replace(recipe, mixture=())
    for kind, part in zip((first, second), recipe.mixture, strict=True):
        differing = {f.name for f in dataclasses.fields(Recipe) if getattr(kind, f.name) != getattr(own, f.name)}
        assert differing <= set(COMPOSITION)
        assert all(getattr(kind, name) == getattr(part, name) for name in COMPOSITION)


def test_what_a_mixture_may_differ_in_is_part_of_a_recipe_with_the_same_neutral_values():
    of_recipe = {f.name: f.metadata.get("neutral") for f in dataclasses.fields(Recipe)}
    for f in dataclasses.fields(Component):
        if f.name != "share":
            assert of_recipe[f.name] == f.metadata.get("neutral"), f.name


@given(st.permutations(["train", "icl", "icl@4", "icl@16", "ciwl@2", "icl_holdout"]))
def test_evaluators_stand_in_one_order_each_before_itself_at_other_contexts(names):
    assert in_order(names) == ["train", "icl", "icl@4", "icl@16", "ciwl@2", "icl_holdout"]


def test_the_name_of_an_evaluator_says_its_context():
    assert evaluator_parts("icl") == ("icl", None)
    assert evaluator_parts(evaluator_at("icl_holdout", 16)) == ("icl_holdout", 16)


# What changes while a run trains.


def test_an_intervention_holds_from_the_batch_on_that_begins_at_its_point_or_later():
    first, second = RICH_TRAINING.interventions
    assert RICH_TRAINING.batch_size == 4
    for seen, recipe, optimizer in (
        (0, RICH_TRAINING.recipe, RICH_TRAINING.optimizer),
        (28, RICH_TRAINING.recipe, RICH_TRAINING.optimizer),
        (32, first.recipe, first.optimizer),
        (60, first.recipe, first.optimizer),
        (64, second.recipe, second.optimizer),
        (10**9, second.recipe, second.optimizer),
    ):
        now = RICH_TRAINING.at(seen)
        assert (now.recipe, now.optimizer) == (recipe, optimizer), seen
        assert now == dataclasses.replace(RICH_TRAINING, recipe=recipe, optimizer=optimizer, interventions=())


@given(st.integers(0, 30), st.integers(0, 300), st.integers(1, 7), st.integers(0, 200), st.integers(0, 200))
def test_labels_are_forgotten_at_every_multiple_in_whole_batches_while_it_lasts(
    every, until, batch_size, start, length
):
    run = tiny_run(batch_size=batch_size, forgetting=Forgetting(every=every, until=until))
    first, last = start * batch_size, (start + length) * batch_size
    step, end = round_up(every, batch_size), round_up(until, batch_size) if until else math.inf
    expected = {n for n in range(batch_size, last, batch_size) if every and n % step == 0 and n <= end}
    assert run.changes(first, last) == {n for n in expected if first < n}
    for seen in range(0, last, batch_size):
        before = {n for n in expected if n <= seen}
        assert run.forgetting.times(batch_size, seen) == len(before)
        assert run.forgetting.latest(batch_size, seen) == max(before, default=0)


def test_a_run_changes_where_it_is_intervened_in_and_nowhere_twice():
    run = changed(RICH_TRAINING, {"forgetting": Forgetting(every=16)})
    assert run.changes(0, 100) == {16, 32, 48, 64, 80, 96}
    assert run.changes(32, 64) == {48}
    assert changed(run, {"forgetting": Forgetting()}).changes(0, 64) == {32}
    assert TINY_RUN.changes(0, 10**9) == set()


# What can train as one model.


@of_each_leaf(TINY_RUN, RICH_TRAINING)
def test_runs_have_one_tensor_shape_if_they_differ_in_what_a_lane_has_of_its_own_and_only_then(value, path):
    of_optimizer = ("learning_rate", "l2.", "clip", "momentum", "weight_decay", "schedule.")
    own = (*(f"optimizer.{key}" for key in of_optimizer), "model.init.", "recipe.", "forgetting.", "interventions")
    own += ("freeze.", "start_from.")
    joined = path.startswith(own) and path not in ("recipe.context", "recipe.labelling.labels")
    other = changed(value, {path: another(leaves(value)[path])})
    assert (other.tensor_shape == value.tensor_shape) == joined


# Snapshots.

SCHEDULES = st.builds(
    Snapshots, first=st.integers(1, 5000), per_doubling=st.integers(1, 4), every=st.integers(50, 10_000)
)
BATCH_SIZES = st.integers(1, 300)
LENGTHS = st.integers(0, 40_000)


def test_the_default_schedule_point_by_point():
    # From 4,096 on by root 2, in whole batches, while steps are below 64,000: 131,072 x 0.41 is, 185,364 x 0.41 not.
    assert Snapshots(first=4096, per_doubling=2, every=64_000).points(32, 0, 400_000) == [
        *(0, 4096, 5824, 8192, 11616, 16384, 23200, 32768, 46368, 65536, 92704, 131_072),
        *(192_000, 256_000, 320_000, 384_000),
    ]


def test_a_series_that_begins_with_a_multiple_of_every_begins_with_it():
    assert Snapshots(first=64, per_doubling=1, every=64).points(1, 0, 200) == [0, 64, 128, 192]
    assert Snapshots(first=100, per_doubling=1, every=64).points(1, 0, 200) == [0, 128, 192]


@given(SCHEDULES, BATCH_SIZES, LENGTHS, LENGTHS)
def test_a_longer_horizon_only_appends_snapshots(schedule, batch_size, one, other):
    shorter, longer = sorted([one, other])
    points = schedule.points(batch_size, 0, longer)
    assert schedule.points(batch_size, 0, shorter) == [point for point in points if point <= shorter]


@given(SCHEDULES, BATCH_SIZES, st.integers(1, 40_000), st.lists(st.integers(1, 100), max_size=4))
def test_the_snapshots_of_segments_are_those_of_the_whole(schedule, batch_size, until, cuts):
    whole = schedule.points(batch_size, 0, until)
    boundaries = sorted({0, until, *(cut * batch_size for cut in cuts if cut * batch_size < until)})
    pieces = [schedule.points(batch_size, start, end) for start, end in itertools.pairwise(boundaries)]
    assert list(itertools.chain(*pieces)) == whole


@given(SCHEDULES, BATCH_SIZES, LENGTHS, LENGTHS)
def test_snapshots_lie_at_whole_batches_after_the_start_and_up_to_the_end(schedule, batch_size, after, until):
    points = schedule.points(batch_size, after, until)
    assert points == sorted(set(points))
    assert all(point % batch_size == 0 for point in points)
    assert all(after < point <= until for point in points if point)
    assert (0 in points) == (after == 0)


@given(SCHEDULES, LENGTHS)
def test_snapshots_are_spread_geometrically_and_then_evenly(schedule, until):
    points = schedule.points(1, 0, until)[1:]
    series = {math.ceil(schedule.first * 2 ** (step / schedule.per_doubling)) for step in range(100)}
    geometric = [point for point in points if point % schedule.every]
    even = [point for point in points if not geometric or point > geometric[-1]]
    assert set(geometric) <= series
    assert all(b - a == schedule.every for a, b in itertools.pairwise(even))
    # Neither a doubling nor the passage from one kind to the other leaves a hole.
    assert all(b - a < 2 * schedule.every for a, b in itertools.pairwise(points))
    assert not points or points[0] == schedule.first or points[0] % schedule.every == 0
    assert points == [] or until - points[-1] < 2 * schedule.every


# The small print.


@given(st.integers(0, 10**12), st.integers(1, 10**5))
def test_rounding_up_gives_the_next_whole_batch(sequences, batch_size):
    rounded = round_up(sequences, batch_size)
    assert rounded % batch_size == 0
    assert sequences <= rounded < sequences + batch_size


def test_a_seed_that_is_one_number_is_shown_as_one():
    assert Seed(init=3, data=3).label == "3"
    assert Seed(init=0, data=3).label == "init0-data3"


@given(st.lists(st.builds(Seed, init=st.integers(0, 20), data=st.integers(0, 20)), unique=True, max_size=20))
def test_different_seeds_have_different_labels(seeds):
    assert len({seed.label for seed in seeds}) == len(seeds)


def test_training_classes_and_exemplars_come_first():
    shape = Gaussian(classes=10, holdout_classes=2, exemplars=3, holdout_exemplars=1, dim=6, noise=0.5).shape
    assert (shape.n_classes, shape.n_exemplars, shape.width) == (12, 4, 6)
    assert shape.class_range("train") == (0, 10)
    assert shape.class_range("holdout") == (10, 2)
    assert shape.exemplar_range("train") == (0, 3)
    assert shape.exemplar_range("holdout") == (3, 1)


def test_an_omniglot_character_is_eight_classes():
    shape = OMNIGLOT_BANK.shape
    assert shape.class_range("train") == (0, 24)
    assert shape.class_range("holdout") == (24, 8)


def test_a_bank_is_written_as_its_source_and_a_section_of_that_name():
    said = (
        '{"files":[],"gaussian":{"classes":10,"dim":6,"exemplars":3,"holdout_classes":2,"holdout_exemplars":1,'
        '"noise":0.5},"seed":0,"source":"gaussian"}'
    )
    assert TINY_BANK.json == said
    assert from_values(BankSpec, json.loads(said)) == TINY_BANK
    for bank in (TINY_BANK, OMNIGLOT_BANK):
        assert from_values(BankSpec, json.loads(bank.json)) == bank


def test_parameters_of_another_source_are_refused():
    assert OMNIGLOT_BANK.parameters_of(Omniglot) is OMNIGLOT_BANK.parameters
    with pytest.raises(TypeError, match="is of source omniglot, expected gaussian"):
        OMNIGLOT_BANK.parameters_of(Gaussian)
