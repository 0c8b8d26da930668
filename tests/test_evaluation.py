"""What the metrics say of an answer, and what stands in the files of sequences and of metrics."""

import json
import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icl_transience.analysis import curves
from icl_transience.banks import bank as banks_bank
from icl_transience.engines import answers as engine_answers
from icl_transience.engines.answers import Forward
from icl_transience.engines.state import initial_state
from icl_transience.evaluation import evaluate, metrics
from icl_transience.model import initial, transformer
from icl_transience.sequences import draw
from icl_transience.sequences.frozen import write_sequences
from icl_transience.specs import evaluators
from icl_transience.specs.banks import BankSpec, Gaussian
from icl_transience.specs.evaluators import (
    DEFAULT_EVALUATORS,
    METRICS,
    SequenceSet,
    default_metric,
    evaluator_parts,
    evaluator_recipe,
)
from icl_transience.specs.identity import from_values
from icl_transience.specs.model import Init, Model
from icl_transience.specs.recipes import Labelling, Recipe
from icl_transience.specs.runs import Lane, PackSpec, Run, Seed
from icl_transience.specs.training import Optimizer, Snapshots
from icl_transience.store import hdf5, layout, metrics_file
from icl_transience.store.segment_file import opened
from icl_transience.training import segments

GAUSSIAN = Gaussian(classes=32, holdout_classes=8, exemplars=4, holdout_exemplars=2, dim=8, noise=0.5)
BANK = BankSpec(seed=0, parameters=GAUSSIAN)
RECIPE = Recipe(context=8, burstiness=3)
MODEL = Model(depth=2, width=16, heads=2, mlp_ratio=2)
SET = SequenceSet(bank=BANK, recipe=RECIPE, evaluators=DEFAULT_EVALUATORS, sequences=30, seed=5)


def metrics_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """logits [..., B, K], labels [B, C+1] -> [..., B, len(METRICS)]."""
    return metrics.metrics(engine_answers.answers(logits, labels), labels)


def answers(logits, context_labels, targets) -> dict[str, np.ndarray]:
    """evaluation.metrics by name."""
    labels = torch.cat([torch.tensor(context_labels), torch.tensor(targets)[:, None]], dim=1)
    values = metrics_of(torch.tensor(logits), labels)
    return {name: values[..., column].numpy() for column, name in enumerate(METRICS)}


def reference(logits: list[float], context: list[int], target: int) -> dict[str, float]:
    """The metrics of one answer, by their definition: a softmax, and the same over some of the labels."""
    everything = range(len(logits))
    inside = [label for label in everything if label in context]
    outside = [label for label in everything if label not in context]

    def probabilities(labels) -> dict[int, float]:
        weights = {label: math.exp(logits[label] - max(logits)) for label in labels}
        return {label: weight / sum(weights.values()) for label, weight in weights.items()}

    def correct(labels) -> float:
        return float(target in labels and logits[target] == max(logits[label] for label in labels))

    return {
        "loss": -math.log(probabilities(everything)[target]),
        "accuracy": correct(everything),
        "in_context_accuracy": correct(inside),
        "out_of_context_accuracy": correct(outside),
        "target_probability": probabilities(everything)[target],
        "in_context_target_probability": probabilities(inside).get(target, 0.0),
        "out_of_context_target_probability": probabilities(outside).get(target, 0.0),
        "context_probability": sum(probabilities(everything)[label] for label in inside),
    }


def random_answers(
    seed: int, *, batch: int = 40, labels: int = 7, context: int = 4, lanes: int = 2, scale: float = 2.0
):
    """Logits [S, B, K], contexts with repeated labels [B, C], and targets [B] in the context and out of it."""
    generator = np.random.default_rng(seed)
    logits = scale * generator.standard_normal((lanes, batch, labels))
    return logits, generator.integers(labels, size=(batch, context)), generator.integers(labels, size=batch)


# --- Metrics


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"context": 1},
        {"labels": 3, "context": 8},  # many contexts hold every label: none is left outside
        {"labels": 2, "context": 2},
        {"labels": 50, "context": 8, "scale": 20.0},
    ],
    ids=str,
)
def test_metrics_are_those_of_a_plain_softmax_over_the_labels_they_name(sizes):
    logits, context_labels, targets = random_answers(0, **sizes)
    in_context = (context_labels == targets[:, None]).any(axis=1)
    assert in_context.any()
    found = answers(logits, context_labels, targets)
    for lane, row in np.ndindex(logits.shape[:2]):
        expected = reference(logits[lane, row].tolist(), context_labels[row].tolist(), int(targets[row]))
        for name in METRICS:
            assert found[name][lane, row] == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name


@given(seed=st.integers(0, 1000), labels=st.integers(2, 12), context=st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_the_metrics_agree_with_each_other(seed, labels, context):
    logits, context_labels, targets = random_answers(seed, labels=labels, context=context)
    found = answers(logits, context_labels, targets)
    inside = (context_labels == targets[:, None]).any(axis=1)
    np.testing.assert_allclose(np.exp(-found["loss"]), found["target_probability"], rtol=1e-9)
    # Bayes: the probability of the target is that of its side of the context times its share of that side.
    context_probability = found["context_probability"]
    restricted = np.where(
        inside,
        context_probability * found["in_context_target_probability"],
        (1 - context_probability) * found["out_of_context_target_probability"],
    )
    np.testing.assert_allclose(found["target_probability"], restricted, atol=1e-9)
    # The probabilities of all labels sum to 1, those in the context to `context_probability`.
    each = [answers(logits, context_labels, np.full_like(targets, label)) for label in range(labels)]
    np.testing.assert_allclose(sum(answer["target_probability"] for answer in each), 1, rtol=1e-9)
    np.testing.assert_allclose(sum(answer["in_context_target_probability"] for answer in each), 1, rtol=1e-9)
    # One label is the answer, one the answer among those in the context, and one among those outside if there is any.
    some_outside = np.array([len(set(row)) < labels for row in context_labels.tolist()])
    for name, count in [("accuracy", 1), ("in_context_accuracy", 1), ("out_of_context_accuracy", some_outside)]:
        assert (sum(answer[name] for answer in each) == count).all(), name
    # Who is right among all labels is right among fewer.
    assert (found["accuracy"] <= found["in_context_accuracy"] + found["out_of_context_accuracy"]).all()


def test_only_differences_of_logits_count_however_large_they_are():
    logits, context_labels, targets = random_answers(1)
    one, shifted = answers(logits, context_labels, targets), answers(logits + 1000, context_labels, targets)
    for name in METRICS:
        np.testing.assert_allclose(shifted[name], one[name], rtol=1e-9)
    sure = answers(1e4 * logits, context_labels, targets)
    assert all(np.isfinite(values).all() for values in sure.values())
    np.testing.assert_allclose(sure["target_probability"], sure["accuracy"], atol=1e-9)


def test_logits_in_single_precision_give_the_same_answers_and_as_precise_metrics_as_they_are():
    logits, context_labels, targets = random_answers(2)
    single = logits.astype(np.float32)
    from_single, from_double = (answers(x, context_labels, targets) for x in (single, single.astype(np.float64)))
    for name in METRICS:
        assert from_single[name].dtype == np.float64
        if name.endswith("accuracy"):
            np.testing.assert_array_equal(from_single[name], from_double[name])
        # Logits up to 8, so differences of them and of their logarithmic sums are rounded by some 5e-7 each.
        np.testing.assert_allclose(from_single[name], from_double[name], rtol=3e-6, atol=3e-6)


# --- What guessing gives, and what cannot be guessed


def embedded(name: str, n: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """n sequences of an evaluator: examples [N, C+1, I] and labels [N, C+1]."""
    recipe = evaluator_recipe(name, RECIPE)
    drawn = draw.draw(recipe, BANK.shape, SET.seed, f"evaluator/{name}", torch.arange(n))
    bank = torch.from_numpy(banks_bank.build(BANK).embeddings).to(dtype)
    return bank[drawn.classes, drawn.exemplars], drawn.labels


def forward(model: Model, numerics: str = "float64") -> Forward:
    return engine_answers.EagerForward(model, RECIPE.context, numerics)


def untrained(model: Model, seeds: range, dtype: torch.dtype = torch.float64) -> transformer.Parameters:
    """Initial weights, a lane a seed."""
    shape = BANK.shape
    lanes = [initial.initial_parameters(model, shape.width, shape.n_train_classes, seed) for seed in seeds]
    return {name: torch.stack([lane[name] for lane in lanes]).to(dtype) for name in lanes[0]}


CONTEXTS = ("icl@4", "icl@16", "iwl@2", "ciwl@3", "ciwl@16", "flip@2", "icl_holdout@4", "icl_new_exemplar@12")


@pytest.mark.parametrize("distribution", ["lecun_normal", "pytorch"])
@pytest.mark.parametrize("name", [*(name for name in DEFAULT_EVALUATORS if name != "train"), *CONTEXTS])
def test_an_untrained_model_is_at_chance(name, distribution):
    n, n_lanes = 1000, 16
    examples, labels = embedded(name, n, torch.float32)
    model = replace(MODEL, init=Init(distribution=distribution))
    answer = engine_answers.EagerForward(model, examples.shape[1] - 1, "float32")
    result = evaluate.evaluate(untrained(model, range(n_lanes), torch.float32), answer, examples, labels)
    accuracy = result[:, METRICS.index(default_metric(name)), 0]
    chance = evaluators.chance(name, RECIPE, BANK.shape.n_train_classes)
    # The lanes share their sequences but not their weights: the mean errs by both, and four standard errors are
    # below 0.08 here.
    error = math.sqrt(chance * (1 - chance) / n + accuracy.var() / n_lanes)
    assert 4 * error < 0.08
    assert abs(accuracy.mean() - chance) < 4 * error


@pytest.mark.parametrize("name", CONTEXTS)
def test_an_evaluator_at_another_context_is_the_same_recipe_at_that_length(name):
    kind, context = evaluator_parts(name)
    longer = replace(RECIPE, context=context)
    assert evaluator_recipe(name, RECIPE) == evaluator_recipe(kind, longer)
    assert evaluators.chance(name, RECIPE, 32) == evaluators.chance(kind, longer, 32)
    assert default_metric(name) == default_metric(kind)


def test_guessing_is_right_among_as_many_labels_as_there_are():
    recipe = replace(RECIPE, labelling=Labelling(labels=10))
    run = replace(RUN, recipe=recipe)
    assert run.n_labels == 10
    assert evaluators.chance("iwl", recipe, run.n_labels) == 1 / 10
    assert evaluators.chance("ciwl", recipe, run.n_labels) == 1 / 8
    state = initial_state(PackSpec(lanes=(Lane(run=run, seed=Seed(init=0, data=0)),)))
    assert state.parameters["label_embedding"].shape[1] == state.parameters["unembedding.bias"].shape[1] == 10


def test_no_single_number_is_chance_in_training_sequences():
    assert evaluators.chance("train", RECIPE, 32) is None


def test_iwl_cannot_be_answered_from_the_context_and_icl_flip_and_ciwl_only_from_it():
    for name in DEFAULT_EVALUATORS:
        _, labels = embedded(name, 200)
        logits = torch.nn.functional.one_hot(labels[:, -1], 32).double()  # a model that is always right
        values = metrics_of(logits, labels)
        assert (values[:, METRICS.index("accuracy")] == 1).all()
        in_context = values[:, METRICS.index("in_context_accuracy")]
        out_of_context = values[:, METRICS.index("out_of_context_accuracy")]
        assert (in_context == (0 if name == "iwl" else 1)).all()
        assert (out_of_context == (1 if name == "iwl" else 0)).all()


# --- Snapshots


def test_evaluate_gives_mean_and_standard_error_of_the_metrics_lane_by_lane():
    examples, labels = embedded("train", 50)
    parameters = untrained(MODEL, range(3))
    result = evaluate.evaluate(parameters, forward(MODEL), examples, labels)
    assert result.shape == (3, len(METRICS), 2)
    geometry = transformer.Geometry(MODEL, RECIPE.context, torch.float64)
    for lane in range(3):
        alone = {name: value[lane : lane + 1] for name, value in parameters.items()}
        logits = transformer.query_logits(alone, MODEL, geometry, examples[None], labels[None, :, :-1])[0]
        values = metrics_of(logits, labels).numpy()
        # Matrix products of other shapes round differently, some 1e-16 each.
        np.testing.assert_allclose(result[lane, :, 0], values.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(result[lane, :, 1], values.std(axis=0) / math.sqrt(50), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 7, 50, 1000])
def test_the_size_of_a_batch_changes_no_metric(batch):
    examples, labels = embedded("ciwl", 50)
    parameters = untrained(MODEL, range(2))
    expected = evaluate.evaluate(parameters, forward(MODEL), examples, labels)
    found = evaluate.evaluate(parameters, forward(MODEL), examples, labels, batch=batch)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("tensor", ["embedder.weight", "blocks.1.attention.out", "unembedding.bias"])
def test_a_diverged_lane_has_no_answer_and_the_others_keep_theirs(broken, tensor):
    examples, labels = embedded("icl", 20)
    parameters = untrained(MODEL, range(3))
    before = evaluate.evaluate(parameters, forward(MODEL), examples, labels)
    parameters[tensor][1].view(-1)[0] = broken
    after = evaluate.evaluate(parameters, forward(MODEL), examples, labels)
    assert after[1].isnan().all()
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=1e-9, atol=1e-12)


# --- The file of sequences


@pytest.fixture(scope="module")
def bank() -> np.ndarray:
    return banks_bank.build(BANK).embeddings


@pytest.fixture
def sequences_file(tmp_path, bank):
    path = tmp_path / "set.h5"
    write_sequences(path, SET, bank)
    return path


def test_a_set_holds_a_group_an_evaluator_with_the_rows_of_the_bank(sequences_file, bank):
    with hdf5.reading(sequences_file, "sequences", SET.id) as file:
        assert sorted(file) == sorted(DEFAULT_EVALUATORS)
        for name in DEFAULT_EVALUATORS:
            group, shape = file[name], (SET.sequences, RECIPE.context + 1)
            classes, exemplars, labels = (group[part][()] for part in ("classes", "exemplars", "labels"))
            assert {part.shape for part in (classes, exemplars, labels)} == {shape}
            assert {part.dtype for part in (classes, exemplars, labels)} == {np.dtype("int32")}
            examples = group["examples"][()]
            assert examples.dtype == np.float32
            np.testing.assert_array_equal(examples, bank[classes, exemplars])


def test_a_set_holds_the_sequences_its_recipes_draw_under_each_evaluators_name(sequences_file):
    with hdf5.reading(sequences_file, "sequences", SET.id) as file:
        for name in DEFAULT_EVALUATORS:
            recipe = from_values(Recipe, json.loads(file[name].attrs["recipe"]))
            assert recipe == evaluator_recipe(name, RECIPE)
            drawn = draw.draw(recipe, BANK.shape, SET.seed, f"evaluator/{name}", torch.arange(SET.sequences))
            for part in ("classes", "exemplars", "labels"):
                np.testing.assert_array_equal(file[name][part][()], getattr(drawn, part))


def test_the_evaluator_train_has_the_input_noise_of_training_and_the_others_have_none(tmp_path, bank):
    recipe = replace(RECIPE, input_noise=0.5, pool=3)
    noisy = replace(SET, recipe=recipe)
    write_sequences(tmp_path / "noisy.h5", noisy, bank)
    with hdf5.reading(tmp_path / "noisy.h5", "sequences", noisy.id) as file:
        for name in DEFAULT_EVALUATORS:
            clean = bank[file[name]["classes"][()], file[name]["exemplars"][()]]
            noise = file[name]["examples"][()] - clean
            if name == "train":
                assert 0.45 < noise.std() < 0.55
                endless = replace(recipe, pool=0)
                drawn = draw.input_noise(endless, 8, SET.seed, "evaluator/train", torch.arange(3))
                np.testing.assert_array_equal(file[name]["examples"][:3], clean[:3] + drawn.numpy().astype(np.float32))
                # No pool: 30 different sequences.
                assert len(np.unique(file[name]["classes"][()], axis=0)) == SET.sequences
            else:
                assert not noise.any()


def test_a_set_says_what_it_is_made_of(sequences_file):
    with hdf5.reading(sequences_file, "sequences") as file:
        assert from_values(SequenceSet, json.loads(file.attrs["spec"])) == SET


def test_an_evaluator_keeps_its_sequences_when_others_join_and_when_more_are_asked_for(tmp_path, sequences_file, bank):
    alone = replace(SET, evaluators=("flip",), sequences=50)
    write_sequences(tmp_path / "alone.h5", alone, bank)
    with h5py.File(sequences_file) as joined, h5py.File(tmp_path / "alone.h5") as more:
        for part in ("examples", "labels"):
            np.testing.assert_array_equal(joined["flip"][part][()], more["flip"][part][: SET.sequences])


# --- The file of metrics


RUN = Run(
    bank=BANK,
    recipe=RECIPE,
    model=MODEL,
    optimizer=Optimizer(learning_rate=1e-2),
    batch_size=4,
    numerics="float32",
    snapshots=Snapshots(first=4, per_doubling=1, every=8),
)
PACK = PackSpec(lanes=(Lane(run=RUN, seed=Seed(init=0, data=0)), Lane(run=RUN, seed=Seed(init=1, data=1))))


@pytest.fixture
def segment_file(tmp_path, bank):
    path = tmp_path / layout.segment_name(0, 16)
    segments.run_segment(segments.SegmentJob(path, PACK, bank, None, 0, 16))
    return path


def test_metrics_hold_every_snapshot_lane_and_evaluator(tmp_path, segment_file, sequences_file):
    path = tmp_path / "metrics.h5"
    evaluate.write_metrics(path, PACK, segment_file, SET, sequences_file)
    with (
        hdf5.reading(path, "metrics", f"{layout.segment_identity(PACK.id, 0, 16)}/{SET.id}") as file,
        hdf5.reading(sequences_file, "sequences") as frozen,
        opened(segment_file, PACK) as trained,
    ):
        assert list(file.attrs["metrics"]) == list(METRICS)
        assert file["sequences_seen"][()].tolist() == [0, 4, 8, 16]
        for name in DEFAULT_EVALUATORS:
            examples = torch.from_numpy(frozen[name]["examples"][()])
            labels = torch.from_numpy(frozen[name]["labels"][()]).long()
            assert file[name]["mean"].shape == file[name]["standard_error"].shape == (4, 2, len(METRICS))
            for row in range(4):
                expected = evaluate.evaluate(
                    trained.parameters(row), forward(MODEL, "float32"), examples, labels
                ).numpy()
                # In float32 a product may round differently from one call to the next, some 1e-7 of the logits.
                np.testing.assert_allclose(file[name]["mean"][row], expected[..., 0], rtol=1e-5, atol=1e-7)
                np.testing.assert_allclose(file[name]["standard_error"][row], expected[..., 1], rtol=1e-4, atol=1e-6)


def test_the_end_of_a_segment_is_answered_though_it_is_no_snapshot(tmp_path, bank, sequences_file):
    """Otherwise a horizon between two snapshots has no last value."""
    segment = tmp_path / layout.segment_name(0, 12)
    segments.run_segment(segments.SegmentJob(segment, PACK, bank, None, 0, 12))
    evaluate.write_metrics(tmp_path / "metrics.h5", PACK, segment, SET, sequences_file)
    found = metrics_file.read_metrics(tmp_path / "metrics.h5", f"{layout.segment_identity(PACK.id, 0, 12)}/{SET.id}")
    assert found.sequences_seen.tolist() == [0, 4, 8, 12]
    assert found.is_scheduled.tolist() == [True, True, True, False]
    with hdf5.reading(sequences_file, "sequences") as frozen, opened(segment, PACK) as trained:
        examples, labels = (torch.from_numpy(frozen["icl"][part][()]) for part in ("examples", "labels"))
        expected = evaluate.evaluate(trained.end_parameters(), forward(MODEL, "float32"), examples, labels.long())
        at_8 = evaluate.evaluate(trained.parameters(2), forward(MODEL, "float32"), examples, labels.long())
    np.testing.assert_allclose(found.values["icl"][0][3], expected[..., 0], rtol=1e-5, atol=1e-7)
    assert not np.allclose(expected[..., 0], at_8[..., 0], rtol=1e-4)


@pytest.mark.parametrize(
    ("horizon", "ends", "points"),
    [
        (12, [12], [0, 4, 8, 12]),
        (24, [12, 24], [0, 4, 8, 16, 24]),  # 12 is where segments meet, and no point of this curve
        (24, [24], [0, 4, 8, 16, 24]),
        (20, [24], [0, 4, 8, 16]),  # inside a segment that was finished before: the last snapshot
        (20, [12, 20], [0, 4, 8, 16, 20]),
    ],
)
def test_a_curve_ends_at_its_horizon_and_does_not_depend_on_where_segments_meet(
    tmp_path, bank, sequences_file, horizon, ends, points
):
    previous, start = None, 0
    for end in ends:
        segment = tmp_path / layout.segment_name(start, end)
        segments.run_segment(segments.SegmentJob(segment, PACK, bank, previous, start, end))
        evaluate.write_metrics(tmp_path / layout.metrics_name(SET.id, start, end), PACK, segment, SET, sequences_file)
        previous, start = segment, end
    boundaries = [0, *ends]
    joined = curves.JoinedMetrics(
        tmp_path, (PACK.id, SET.id), boundaries, horizon, horizon_is_end=horizon in boundaries
    )
    icl = joined.lane(1).query("evaluator == 'icl' and metric == 'in_context_accuracy'")
    assert icl["sequences_seen"].tolist() == points
    loss = joined.lane(1).query("evaluator == 'training'")
    assert set(loss["sequences_seen"]) <= set(points)


def test_metrics_of_other_contexts_are_what_the_snapshots_answer_to_them(tmp_path, bank, segment_file):
    wider = replace(SET, evaluators=("icl", "icl@2", "icl@16"))
    write_sequences(tmp_path / "wider.h5", wider, bank)
    evaluate.write_metrics(tmp_path / "metrics.h5", PACK, segment_file, wider, tmp_path / "wider.h5")
    with (
        hdf5.reading(tmp_path / "metrics.h5", "metrics") as file,
        hdf5.reading(tmp_path / "wider.h5", "sequences") as frozen,
        opened(segment_file, PACK) as trained,
    ):
        for name, context in (("icl", 8), ("icl@2", 2), ("icl@16", 16)):
            assert frozen[name]["labels"].shape == (SET.sequences, context + 1)
            examples, labels = (torch.from_numpy(frozen[name][part][()]) for part in ("examples", "labels"))
            answer = engine_answers.EagerForward(MODEL, context, "float32")
            expected = evaluate.evaluate(trained.parameters(3), answer, examples, labels.long()).numpy()
            np.testing.assert_allclose(file[name]["mean"][3], expected[..., 0], rtol=1e-5, atol=1e-7)


def test_snapshots_that_a_gpu_answers_for_together_answer_as_one_by_one(
    tmp_path, segment_file, sequences_file, monkeypatch
):
    """On a CPU, told to do it likewise: 3 at a time, with a rest."""
    paths = [tmp_path / f"{number}.h5" for number in (1, 3)]
    for number, path in zip((1, 3), paths, strict=True):
        monkeypatch.setattr(evaluate, "snapshots_at_a_time", lambda *_, number=number: number)
        evaluate.write_metrics(path, PACK, segment_file, SET, sequences_file, engine="eager")
    with hdf5.reading(paths[0], "metrics") as one, hdf5.reading(paths[1], "metrics") as three:
        assert len(one["sequences_seen"]) % 3
        for name in SET.evaluators:
            for part in ("mean", "standard_error"):
                np.testing.assert_allclose(three[name][part][()], one[name][part][()], rtol=1e-5, atol=1e-6)


def test_a_gpu_answers_for_as_many_snapshots_as_make_64_lanes():
    assert evaluate.snapshots_at_a_time(len(PACK.lanes), "cpu") == 1
    assert evaluate.snapshots_at_a_time(len(PACK.lanes), "cuda:1") == 32
    assert evaluate.snapshots_at_a_time(50 * len(PACK.lanes), "cuda") == 1


def test_metrics_carry_the_training_loss_and_the_divergence_of_their_segment(tmp_path, segment_file, sequences_file):
    with h5py.File(segment_file, "r+") as file:
        file["diverged_at"][1] = 12
        file.attrs["checksum"] = hdf5.checksum(file)
    evaluate.write_metrics(tmp_path / "metrics.h5", PACK, segment_file, SET, sequences_file)
    with hdf5.reading(tmp_path / "metrics.h5", "metrics") as file, h5py.File(segment_file) as segment:
        for name in ("train_loss/sequences_seen", "train_loss/value", "diverged_at"):
            np.testing.assert_array_equal(file[name][()], segment[name][()])
        assert file["diverged_at"][()].tolist() == [-1, 12]


def test_a_segment_without_snapshots_answers_at_its_end(tmp_path, bank, segment_file, sequences_file):
    run = replace(RUN, snapshots=Snapshots(first=4, per_doubling=1, every=1000))
    pack = PackSpec(lanes=tuple(replace(lane, run=run) for lane in PACK.lanes))
    first, second = (tmp_path / layout.segment_name(*ends) for ends in [(0, 16), (16, 20)])
    segments.run_segment(segments.SegmentJob(first, pack, bank, None, 0, 16))
    segments.run_segment(segments.SegmentJob(second, pack, bank, first, 16, 20))
    evaluate.write_metrics(tmp_path / "metrics.h5", pack, second, SET, sequences_file)
    with hdf5.reading(tmp_path / "metrics.h5", "metrics") as file:
        assert file["sequences_seen"][()].tolist() == [20]
        assert {file[name]["mean"].shape for name in DEFAULT_EVALUATORS} == {(1, 2, len(METRICS))}


def change_a_value(path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        file[name][(0,) * file[name].ndim] += 1


def change_a_recipe(path) -> None:
    with h5py.File(path, "r+") as file:
        file["icl"].attrs["recipe"] = "{}"


def cut_in_half(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def draw_with_another_seed(path) -> None:
    write_sequences(path, replace(SET, seed=SET.seed + 1), banks_bank.build(BANK).embeddings)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: change_a_value(path, "icl/examples"), "checksum"),
        (lambda path: change_a_value(path, "icl/labels"), "checksum"),
        (change_a_recipe, "checksum"),
        (cut_in_half, "damaged"),
        (draw_with_another_seed, "identity"),
    ],
    ids=["another example", "another label", "another recipe", "truncated", "another set"],
)
def test_sequences_that_are_not_what_they_were_are_refused_and_nothing_is_written(
    tmp_path, segment_file, sequences_file, spoil, reason
):
    spoil(sequences_file)
    with pytest.raises(hdf5.StoreError, match=reason):
        evaluate.write_metrics(tmp_path / "metrics.h5", PACK, segment_file, SET, sequences_file)
    there = {path.name.removesuffix(".damaged") for path in tmp_path.glob("[!.]*")}
    assert there == {segment_file.name, sequences_file.name}


def test_a_segment_that_is_not_what_it_was_is_refused_and_nothing_is_written(tmp_path, segment_file, sequences_file):
    change_a_value(segment_file, "snapshots/parameters/unembedding.bias")
    with pytest.raises(hdf5.StoreError, match="checksum"):
        evaluate.write_metrics(tmp_path / "metrics.h5", PACK, segment_file, SET, sequences_file)
    assert not (tmp_path / "metrics.h5").exists()
