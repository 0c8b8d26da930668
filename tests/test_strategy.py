"""Where a model stands between two ideal predictors: the predictors, the place, and the curve that it makes."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from builders import TINY_BANK, TINY_RUN, TINY_SET, changed, lane, pack, tiny_run
from finished_study import finish, plan_of
from pipeline import ROOT
from torch import Tensor

from icl_transience.banks import bank as banks_bank
from icl_transience.evaluation import evaluate
from icl_transience.evaluation.strategy import StrategyEvaluation, divergence, strategy_metrics, with_share
from icl_transience.planning.plan import Plan
from icl_transience.report.figures.experiment import draw_experiment
from icl_transience.sequences.classes import class_labels, class_weights
from icl_transience.sequences.frozen import write_sequences
from icl_transience.sequences.predictors import Predictors, empirical_moments, exact_moments
from icl_transience.specs.banks import BankSpec
from icl_transience.specs.compute import predictors_bytes
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import METRICS, STRATEGY, STRATEGY_METRICS, SequenceSet, Strategy
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import PackSpec
from icl_transience.store import hdf5, metrics_file, tables_file
from icl_transience.training.segments import SegmentJob, run_segment

SPREAD = 0.6


def embeddings_of(spec: BankSpec) -> Tensor:
    built = banks_bank.build(spec)
    assert isinstance(built, banks_bank.Bank)
    return torch.from_numpy(built.embeddings)


def gaussian(**changes) -> BankSpec:
    return changed(TINY_BANK, {f"gaussian.{name}": value for name, value in changes.items()})


# The predictors.


def by_sampling(query: Tensor, items: Tensor, samples: int = 2_000_000) -> Tensor:
    """Bayes for the copier, from draws of the class mean alone: the probability of each item's class.

    x = (m + s e) / sqrt(1 + s^2) with m and e standard normal: p(query, item) is a mean over means that are drawn.
    """
    means = torch.randn(samples, query.shape[0], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale, width = math.sqrt(1 + SPREAD**2), SPREAD / math.sqrt(1 + SPREAD**2)

    def likelihood(x: Tensor) -> Tensor:
        return (-((x - means / scale) ** 2).sum(1) / (2 * width**2)).exp()

    of_query = likelihood(query)
    joint = torch.stack([(of_query * (of_item := likelihood(item))).mean() / of_item.mean() for item in items])
    return joint / joint.sum()


def test_the_copier_is_bayes_rule_over_which_item_shares_the_querys_class():
    examples = torch.tensor([[[0.9, -0.2], [-0.5, 0.4], [0.1, 1.1], [0.7, 0.1]]], dtype=torch.float64)
    spec = gaussian(dim=2, noise=SPREAD)
    known = Predictors.of(exact_moments(spec), Recipe(context=3, burstiness=1))
    labels = torch.tensor([[4, 7, 4]])
    expected = by_sampling(examples[0, -1], examples[0, :-1])
    found = known.copier(examples, labels)[0]
    # Two million draws of a likelihood that varies by its own size: about a thousandth.
    assert found[[4, 7]].tolist() == pytest.approx([float(expected[0] + expected[2]), float(expected[1])], abs=3e-3)
    assert float(found.sum()) == pytest.approx(1)


def test_both_predictors_have_the_exponents_of_the_paper():
    """Its coordinates are ours over the root of their number."""
    spec = gaussian(dim=6, noise=SPREAD)
    moments, n_classes, dim = exact_moments(spec), 10, 6
    x = embeddings_of(spec).double()
    examples = torch.stack([x[0, 0], x[3, 1], x[5, 2], x[0, 1]])[None]
    labels = torch.tensor([[0, 3, 5]])
    known = Predictors.of(moments, Recipe(context=3, burstiness=1))
    theirs, means = examples[0] / dim**0.5, moments.means * (1 + SPREAD**2) ** 0.5 / dim**0.5
    of_classes = [
        -dim / (2 * SPREAD**2) * float((((1 + SPREAD**2) ** 0.5 * theirs[-1] - means[k]) ** 2).sum())
        for k in range(n_classes)
    ]
    factor = -dim * (1 + SPREAD**2) ** 2 / (2 * SPREAD**2 * (2 + SPREAD**2))
    of_items = [factor * float(((theirs[-1] - item / (1 + SPREAD**2)) ** 2).sum()) for item in theirs[:-1]]
    expected = torch.tensor(of_classes, dtype=torch.float64).softmax(0)
    assert torch.allclose(known.memoriser(examples[:, -1])[0], expected, rtol=1e-9)
    expected = torch.zeros(n_classes, dtype=torch.float64)
    expected[[0, 3, 5]] = torch.tensor(of_items, dtype=torch.float64).softmax(0)
    assert torch.allclose(known.copier(examples, labels)[0], expected, rtol=1e-9)


def test_the_memoriser_is_bayes_rule_over_classes_that_come_as_often_and_are_called_as_the_recipe_says():
    recipe = changed(Recipe(context=4, burstiness=1), {"zipf.alpha": 1.0, "labelling.labels": 3})
    spec = gaussian(noise=SPREAD)
    x = embeddings_of(spec).double()[:10]
    moments = exact_moments(spec)
    found = Predictors.of(moments, recipe).memoriser(x[:, 0])
    weights, labels = class_weights(10, recipe.zipf).tolist(), class_labels(10, recipe.labelling).tolist()
    width = SPREAD**2 / (1 + SPREAD**2)
    for query, answer in zip(x[:, 0], found, strict=True):
        joint = [
            weight * math.exp(-float(((query - mean) ** 2).sum()) / (2 * width))
            for weight, mean in zip(weights, moments.means, strict=True)
        ]
        expected = [sum(p for p, own in zip(joint, labels, strict=True) if own == label) for label in range(3)]
        assert answer.tolist() == pytest.approx([p / sum(joint) for p in expected])


def test_the_means_of_the_exact_predictors_are_those_about_which_the_bank_scatters():
    spec = gaussian(noise=1e-6)
    expected = exact_moments(spec).means[:, None].expand(-1, 3, -1)
    assert torch.allclose(embeddings_of(spec).double()[:10, :3], expected, atol=1e-5)


def test_label_noise_is_what_a_predictor_expects_of_the_target_and_a_copier_of_context_labels_too():
    clean, noisy = (
        Predictors.of(exact_moments(gaussian()), Recipe(context=2, burstiness=1, label_noise=share))
        for share in (0, 0.3)
    )
    examples, labels = torch.randn(5, 3, 6), torch.tensor([[0, 1]] * 5)
    assert torch.allclose(noisy.memoriser(examples[:, -1]), with_share(clean.memoriser(examples[:, -1]), 0.3))
    # A label is right with probability 0.7 + 0.3 / 10, and so is the target.
    copied = clean.copier(examples, labels)
    assert torch.allclose(noisy.copier(examples, labels), 0.49 * copied + 0.51 / 10)


def test_the_empirical_predictors_become_the_exact_ones_as_classes_and_exemplars_grow_in_number():
    errors = []
    for classes, exemplars in ((300, 4), (300, 400)):
        spec = gaussian(classes=classes, exemplars=exemplars, holdout_exemplars=0, holdout_classes=0, dim=3)
        embeddings = embeddings_of(spec)
        recipe = Recipe(context=4, burstiness=2)
        both = [Predictors.of(moments, recipe) for moments in (exact_moments(spec), empirical_moments(embeddings))]
        numbers = torch.arange(200) % classes
        examples = torch.stack([embeddings[(numbers + shift) % classes, shift % 4] for shift in (0, 7, 0, 7, 0)], dim=1)
        labels = torch.stack([(numbers + shift) % classes for shift in (0, 7, 0, 7)], dim=1)
        exact, empirical = (torch.cat([one.copier(examples, labels), one.memoriser(examples[:, -1])]) for one in both)
        errors.append(float((exact - empirical).abs().sum(1).mean()))
    # An estimated mean is off by the root of the number of exemplars: a tenth as much.
    assert errors[1] < 0.2 * errors[0]
    assert errors[1] < 0.05


def test_the_metric_of_the_empirical_predictors_is_the_scatter_within_classes():
    """A coordinate that scatters a hundred times as much tells classes apart as badly."""
    spec = gaussian(classes=500, exemplars=20, holdout_classes=0, dim=4)
    embeddings = embeddings_of(spec)[:, :20]
    turned = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    scaled = embeddings * torch.tensor([100.0, 1.0, 0.1, 1.0]) @ turned + 5
    labels = torch.stack([torch.arange(500), (torch.arange(500) + 1) % 500], dim=1)
    answers = []
    for x in (embeddings, scaled):
        known = Predictors.of(empirical_moments(x), Recipe(context=2, burstiness=1))
        examples = torch.stack([x[:, 1], x[:, 2].roll(-1, 0), x[:, 0]], dim=1)
        answers.append((known.memoriser(x[:, 0]), known.copier(examples, labels)))
    # Single precision of the embeddings, and variances a million times apart.
    for plain, other in zip(*answers, strict=True):
        assert torch.allclose(plain, other, atol=2e-2)


def test_a_bank_whose_classes_do_not_scatter_has_no_empirical_predictors():
    with pytest.raises(StudyError, match=r"all exemplars of a class are equal: use a bank whose classes scatter"):
        empirical_moments(torch.ones(5, 3, 2))


def test_a_coordinate_that_never_varies_does_not_break_them():
    exemplars = torch.randn(50, 5, 3) + torch.randn(50, 1, 3)
    exemplars[..., 1] = 2.0
    answers = Predictors.of(empirical_moments(exemplars), Recipe(context=2, burstiness=1)).memoriser(exemplars[:, 0])
    assert answers.isfinite().all()


# The place.


def answers_of(n: int = 40, labels: int = 12, floor: float = 0.001) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    both = torch.randn(2, n, labels, generator=random, dtype=torch.float64) * 4
    copier, memoriser = with_share(both.softmax(-1), floor)
    return copier, memoriser


def weight_of(model: Tensor, copier: Tensor, memoriser: Tensor) -> float:
    divergences = torch.stack([divergence(model, copier), divergence(model, memoriser)], dim=-1)[None]
    return float(strategy_metrics(divergences, divergence(copier, memoriser))[0, 0, 0])


def test_the_copier_has_weight_1_and_the_memoriser_0():
    copier, memoriser = answers_of()
    assert weight_of(copier, copier, memoriser) == 1
    assert weight_of(memoriser, copier, memoriser) == 0


def test_the_more_of_the_copier_is_in_a_blend_the_larger_its_weight():
    copier, memoriser = answers_of()
    weights = [
        weight_of(share * copier + (1 - share) * memoriser, copier, memoriser) for share in np.linspace(0, 1, 21)
    ]
    assert all(earlier < later for earlier, later in itertools.pairwise(weights))
    assert 0.2 < weights[10] < 0.8


def test_the_divergence_is_half_the_sum_of_both_kullback_leibler_divergences():
    one, other = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.6])
    expected = sum(
        sum(float(p * (p / q).log()) for p, q in zip(a, b, strict=True)) for a, b in ((one, other), (other, one))
    )
    assert float(divergence(one, other)) == pytest.approx(expected / 2)


def test_a_model_beyond_either_end_is_clamped():
    copier, memoriser = answers_of()
    far = with_share(((copier / memoriser) ** 2 * copier).clamp(min=1e-9).softmax(-1), 0.001)
    sharper = copier**3 / (copier**3).sum(-1, keepdim=True) + 1e-12
    for model in (far, sharper):
        assert 0 <= weight_of(model, copier, memoriser) <= 1


def test_means_are_taken_before_the_ratio():
    """Where both predictors agree a sequence has no say, whatever the model does there."""
    copier, memoriser = answers_of()
    same = torch.cat([copier, copier[:20]]), torch.cat([memoriser, copier[:20]])
    model = 0.5 * copier + 0.5 * memoriser
    with_more = torch.cat([model, with_share(torch.eye(12, dtype=torch.float64).repeat(2, 1)[:20], 0.001)])
    assert weight_of(with_more, *same) == pytest.approx(weight_of(model, copier, memoriser))


def test_the_standard_error_is_that_between_sets_of_sequences():
    """Half of the sequences say nothing, so that the ratio's denominator varies too, and the model is no middle one."""
    copier, memoriser = answers_of(40_000)
    memoriser[::2] = copier[::2]
    random = 0.3 * torch.rand(40_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shuffled = torch.randperm(40_000, generator=torch.Generator().manual_seed(1))
    model = (random * copier + (1 - random) * memoriser)[shuffled]
    copier, memoriser = copier[shuffled], memoriser[shuffled]
    divergences = torch.stack([divergence(model, copier), divergence(model, memoriser)], dim=-1)
    between = divergence(copier, memoriser)
    parts = [
        strategy_metrics(part[None], own)[0, 0]
        for part, own in zip(divergences.split(200), between.split(200), strict=True)
    ]
    weights, errors = torch.stack(parts).unbind(-1)
    # 200 sets tell a standard deviation to a twentieth.
    assert float(errors.mean()) == pytest.approx(float(weights.std()), rel=0.15)


# Models on the frozen sequences of a set.


class Answering:
    """A model that gives these probabilities, of sequences in the order in which they are asked for."""

    def __init__(self, probabilities: Tensor):
        self.probabilities, self.answered = probabilities, 0

    def load(self, parameters) -> None:
        self.answered = 0

    def logits(self, exemplars: Tensor, context: Tensor) -> Tensor:
        part = self.probabilities[self.answered : self.answered + len(context)]
        self.answered += len(context)
        return part.log()[None]


EXACT = replace(TINY_SET, evaluators=("train", "icl", "flip"), sequences=150, strategy=Strategy(predictors="exact"))
EMPIRICAL = replace(EXACT, strategy=Strategy(predictors="empirical", evaluator="icl"))


@pytest.fixture
def embeddings() -> np.ndarray:
    return embeddings_of(TINY_BANK).numpy()


def frozen(folder: Path, sequence_set: SequenceSet, embeddings: np.ndarray) -> Path:
    path = folder / f"{sequence_set.id}.h5"
    if not path.exists():
        write_sequences(path, sequence_set, embeddings)
    return path


@pytest.mark.parametrize("sequence_set", [EXACT, EMPIRICAL])
def test_models_that_are_the_predictors_are_placed_there(tmp_path, embeddings, sequence_set):
    path, name = frozen(tmp_path, sequence_set, embeddings), sequence_set.strategy.evaluator
    with h5py.File(path) as file:
        sequences = evaluate.read_sequences(file, name, pack(), "cpu")
        of_strategy = StrategyEvaluation.of(TINY_RUN, sequence_set, file, sequences)
        # A logit of 0 probability is an infinite one.
        copier, memoriser = (
            torch.from_numpy(hdf5.array(file, f"{name}/{which}")).double().clamp(min=1e-300)
            for which in ("copier", "memoriser")
        )
    weights = []
    for model in (memoriser, (copier + memoriser) / 2, copier):
        found = replace(of_strategy, forward=Answering(model)).evaluate({})  # pyright: ignore[reportArgumentType]
        weights.append(float(found[0, 0, 0]))
    assert weights[0] == pytest.approx(0, abs=1e-6)
    assert 0.1 < weights[1] < 0.9
    assert weights[2] == pytest.approx(1, abs=1e-6)


def trained(folder: Path, spec: PackSpec, embeddings: np.ndarray) -> Path:
    path = folder / f"{spec.id}-segment.h5"
    run_segment(SegmentJob(path, spec, embeddings, None, 0, 64))
    return path


def metrics_of(folder: Path, spec: PackSpec, sequence_set: SequenceSet, embeddings: np.ndarray):
    segment = trained(folder, spec, embeddings)
    path, sequences = folder / f"{spec.id}-metrics.h5", frozen(folder, sequence_set, embeddings)
    evaluate.write_metrics(path, spec, segment, sequence_set, sequences)
    return metrics_file.read_metrics(path, str(hdf5.read_attribute(path, "identity")))


@pytest.mark.parametrize("sequence_set", [EXACT, EMPIRICAL])
def test_a_lane_of_a_pack_is_placed_as_it_is_alone(tmp_path, embeddings, sequence_set):
    run = tiny_run(numerics="float64")
    together = metrics_of(tmp_path, pack(run, run), sequence_set, embeddings).values[STRATEGY]
    for place in range(2):
        alone = metrics_of(tmp_path, PackSpec(lanes=(lane(run, place),)), sequence_set, embeddings).values[STRATEGY]
        for one, other in zip(together, alone, strict=True):
            assert one.shape[2] == len(STRATEGY_METRICS)
            np.testing.assert_allclose(one[:, place], other[:, 0], rtol=1e-9)
    assert (together[0][..., 0] > 0).all()
    assert (together[0][..., 0] < 1).all()


def test_a_diverged_lane_has_no_place(tmp_path, embeddings):
    run = changed(TINY_RUN, {"optimizer.learning_rate": 1e30})
    found = metrics_of(tmp_path, PackSpec(lanes=(lane(run),)), EXACT, embeddings)
    assert np.isnan(found.values[STRATEGY][0][-1]).all()
    assert np.isfinite(found.values[STRATEGY][0][0]).all()


def test_predictors_of_other_labels_than_the_models_are_refused(tmp_path, embeddings):
    path, run = frozen(tmp_path, EXACT, embeddings), changed(TINY_RUN, {"recipe.labelling.labels": 4})
    with h5py.File(path) as file, pytest.raises(hdf5.StoreError, match="predictors know 10 labels, the model 4"):
        StrategyEvaluation.of(run, EXACT, file, evaluate.read_sequences(file, "flip", pack(), "cpu"))


# Identities and plans.


def test_a_set_without_predictors_is_what_it_was():
    assert "strategy" not in TINY_SET.json
    assert replace(TINY_SET, strategy=Strategy()).id == TINY_SET.id
    assert len({TINY_SET.id, EXACT.id, replace(EXACT, strategy=Strategy()).id, EMPIRICAL.id}) == 4


def test_keys_of_a_strategy_without_predictors_enter_no_identity(tmp_path):
    sets = []
    for said in ("", "evaluation: {strategy: {evaluator: icl, floor: 0.01}}, "):
        (tmp_path / "mine.yaml").write_text(f"experiments: {{a: {{{said}question: why}}}}")
        plan = Plan({"study": str(tmp_path / "mine.yaml"), "results": str(tmp_path / "results")}, ROOT)
        sets.append(list(plan.sets))
        assert "strategy" not in plan.targets.figures("a")
        assert plan.targets.forecast("a") == []
    assert sets[0] == sets[1]


def test_memory_is_asked_for_where_predictors_are():
    assert predictors_bytes(TINY_SET) == 0
    assert predictors_bytes(EXACT) > 0


REFUSED = {
    "a bank without scatter": (
        "bank: {source: gaussian, gaussian: {noise: 0}}, evaluation: {strategy: {predictors: exact}}",
        "needs classes that scatter, but `bank.gaussian.noise` is 0: make it larger",
    ),
    "one exemplar a class": (
        "bank: {source: onehot}, evaluation: {evaluators: [icl, flip], strategy: {predictors: empirical}}",
        "`bank.onehot` has one exemplar a class",
    ),
    "classes that are not Gaussian": (
        "bank: {source: manifold}, evaluation: {strategy: {predictors: exact}}",
        "`evaluation.strategy.predictors` is exact, but `bank.source` is manifold, whose classes are not Gaussian: say "
        "`empirical`",
    ),
    "an evaluator that is not evaluated": (
        "evaluation: {evaluators: [icl], strategy: {predictors: empirical}}",
        "`evaluation.strategy.evaluator` is flip, which is not among `evaluation.evaluators` (icl): add it there",
    ),
    "an evaluator without the query's class in the context": (
        "evaluation: {strategy: {predictors: empirical, evaluator: iwl}}",
        "`experiments.a.evaluation.strategy.evaluator` is 'iwl' (did you mean `icl`?), expected one of train, icl,",
    ),
    "training sequences without labels to copy": (
        "recipe: {mixture: {alone: {share: 0.5, support: none}}}, "
        "evaluation: {strategy: {predictors: empirical, evaluator: train}}",
        "`evaluation.strategy.evaluator` is train, but sequences with `support: none` are trained on, whose context "
        "has no label to copy",
    ),
    "training sequences that are not bursty": (
        "recipe: {burstiness: 0}, evaluation: {strategy: {predictors: empirical, evaluator: train}}",
        "`evaluation.strategy.evaluator` is train, but sequences with `burstiness: 0` are trained on",
    ),
    "noisy exemplars": (
        "recipe: {input_noise: 0.1}, evaluation: {strategy: {predictors: empirical}}",
        "`recipe.input_noise` is 0.1: leave one of them out",
    ),
    "context items that are the query": (
        "recipe: {match: 0.5}, evaluation: {strategy: {predictors: empirical}}",
        "`evaluation.strategy.predictors` is empirical, which takes the context's exemplars for independent draws, but "
        "`recipe.match` is 0.5, expected 0: leave one of them out",
    ),
    "context items that are the query in some sequences": (
        "recipe: {mixture: {same: {share: 0.5, match: 1}}}, evaluation: {strategy: {predictors: empirical}}",
        "`recipe.match` is 1, expected 0",
    ),
    "no floor": (
        "evaluation: {strategy: {predictors: empirical, floor: 0}}",
        "`experiments.a.evaluation.strategy.floor` is 0, expected above 0",
    ),
}


@pytest.mark.parametrize(("settings", "expected"), REFUSED.values(), ids=REFUSED)
def test_predictors_that_do_not_fit_are_refused_before_any_job(tmp_path, settings, expected):
    (tmp_path / "mine.yaml").write_text(f"experiments: {{a: {{{settings}}}}}")
    with pytest.raises(StudyError) as error:
        Plan({"study": str(tmp_path / "mine.yaml"), "results": str(tmp_path / "results")}, ROOT)
    assert expected in str(error.value)


# From metrics to tables, claims and figures.

STUDY = """
defaults:
  bank: {source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2, dim: 4}}
  snapshots: {first: 256, every: 256}
  evaluation: {evaluators: [train, icl, flip], sequences: 100, strategy: {predictors: PREDICTORS}}
  horizon: 1536
  seeds: [0, 1, 2, 3]
experiments:
  transience:
    claims:
      falls:
        text: the weight of the copier falls after the peak
        all_of:
          - {kind: threshold, of: final_copier_weight, minus: at_peak_copier_weight, direction: below, value: 0}
          - {kind: threshold, of: final_copier_weight, direction: below, value: 0.9}
"""


@pytest.fixture(scope="module", params=["exact", "empirical"])
def finished(request, tmp_path_factory) -> Plan:
    folder = tmp_path_factory.mktemp(request.param)
    plan = plan_of(folder, STUDY.replace("PREDICTORS", request.param))
    finish(plan)
    return plan


def test_the_weight_is_a_curve_beside_the_evaluators_and_has_columns_that_claims_name(finished):
    folder = Path(finished.paths.experiment_folder("transience"))
    tables = tables_file.read_tables(folder)
    rows = tables.curves.loc[tables.curves["evaluator"] == STRATEGY]
    assert rows["metric"].unique().tolist() == list(STRATEGY_METRICS)
    of_flip = tables.curves.loc[tables.curves["evaluator"] == "flip"]
    assert len(rows) / len(STRATEGY_METRICS) == len(of_flip) / len(METRICS) >= 4 * 7
    assert set(of_flip["metric"]) == set(METRICS)
    weights = rows.loc[rows["metric"] == "copier_weight"]
    assert weights["value"].between(0, 1).all()
    assert (weights["standard_error"] > 0).all()
    ends = weights.loc[weights["sequences_seen"] == 1536, "value"].to_numpy()
    assert tables.lanes["final_copier_weight"].to_numpy() == pytest.approx(ends, rel=1e-6)
    assert "at_peak_copier_weight" in tables.lanes
    assert "final_copier_weight" in tables.runs
    verdicts = pd.read_csv(Path(finished.paths.study_folder) / "verdicts.csv")
    assert "final_copier_weight" in verdicts["of"][0]


def test_its_figure_and_its_forecasts_are_among_the_files_of_the_experiment(finished):
    files = [Path(path).name for path in finished.targets.experiment("transience")]
    assert {"strategy.svg", "strategy.png", "forecast.csv"} <= set(files)
    record = finished.records.experiment("transience", figures=True)
    (run,) = record.runs
    (own,) = (one.strategy for one in finished.sets.values())
    assert f"{own.predictors} predictors on sequences of flip, floor 0.001" in (run.caption or ())
    folder = Path(finished.paths.experiment_folder("transience"))
    drawn = draw_experiment(record, tables_file.read_tables(folder), folder)
    assert folder / "strategy.svg" in drawn
    assert (folder / "strategy.png").read_bytes().startswith(b"\x89PNG")
