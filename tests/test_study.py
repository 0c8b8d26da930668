"""A study file becomes runs and lanes, or an error that says what to change."""

import dataclasses
import itertools
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy
import yaml

from icl_transience.analysis.eprocess import e_value
from icl_transience.analysis.paired_tests import min_attainable_p
from icl_transience.specs.errors import StudyError
from icl_transience.specs.model import Positions
from icl_transience.specs.recipes import Component, Labelling, Recipe, Relabelling, Zipf
from icl_transience.specs.runs import Lane, PackSpec, Run, Seed
from icl_transience.specs.training import L2, Forgetting, Intervention, Optimizer, Schedule
from icl_transience.store.checksums import file_digest
from icl_transience.study import load as study_load
from icl_transience.study import schema
from icl_transience.study.document import read_yaml
from icl_transience.study.experiments import Study
from icl_transience.study.load import RUN_SECTIONS
from icl_transience.study.sources import resolve

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "workflow/schemas/study.schema.yaml"
ZIPS = ("images_background_small1.zip", "images_background_small2.zip")


def load(folder: Path, text: str, omniglot: Path | None = None, **folders: Path) -> Study:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return study_load.load(path, {"omniglot": omniglot} | folders)


def zips(folder: Path, content: bytes = b"drawing", characters: int = 242, drawings: int = 20) -> Path:
    """Zips that list as many characters as the real ones do."""
    folder.mkdir(exist_ok=True)
    for name in ZIPS:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for number, drawing in itertools.product(range(1, characters + 1), range(1, drawings + 1)):
                entry = zipfile.ZipInfo(f"images/Greek/character{number:02d}/{number:04d}_{drawing:02d}.png")
                archive.writestr(entry, content)
    return folder


def test_a_study_is_named_after_its_file(tmp_path):
    assert load(tmp_path, "experiments: {transience: {}}").name == "mine"


def test_an_experiment_without_axes_is_one_run_with_every_default(tmp_path):
    experiment = load(tmp_path, "experiments: {transience: {}}").experiments["transience"]
    (named,) = experiment.runs
    assert (named.name, named.axes) == ("baseline", {})
    assert (named.run.recipe.context, named.run.recipe.burstiness, named.run.batch_size) == (8, 3, 32)
    assert named.run.model.positions.base == 30
    assert experiment.seeds == tuple(Seed(init=n, data=n) for n in (0, 1, 2))


def test_defaults_of_the_study_hold_unless_an_experiment_says_otherwise(tmp_path):
    text = """
    defaults: {model: {depth: 3, width: 32}, horizon: 10000}
    experiments: {shallow: {model: {depth: 1}}, usual: {}}
    """
    experiments = load(tmp_path, text).experiments
    assert [experiments[name].runs[0].run.model.depth for name in ("shallow", "usual")] == [1, 3]
    assert experiments["shallow"].runs[0].run.model.width == 32


def test_every_combination_of_the_axes_is_a_run_and_knows_its_place(tmp_path):
    text = """
    experiments:
      grid:
        axes: {optimizer.l2.strength: [0, 1e-5], model.depth: [1, 2]}
    """
    experiment = load(tmp_path, text).experiments["grid"]
    assert experiment.axes == ("optimizer.l2.strength", "model.depth")
    assert [named.name for named in experiment.runs] == [
        "l2.strength=0,model.depth=1",
        "l2.strength=0,model.depth=2",
        "l2.strength=1e-05,model.depth=1",
        "l2.strength=1e-05,model.depth=2",
    ]
    last = experiment.runs[-1]
    assert last.axes == {"optimizer.l2.strength": 1e-5, "model.depth": 2}
    assert (last.run.optimizer.l2.strength, last.run.model.depth) == (1e-5, 2)


def test_named_runs_differ_along_the_keys_they_set(tmp_path):
    text = """
    experiments:
      l2:
        runs:
          without: {}
          unsquared: {optimizer: {l2: {strength: 1e-4, form: unsquared}}}
    """
    experiment = load(tmp_path, text).experiments["l2"]
    assert experiment.runs[0].axes == {"optimizer.l2.strength": 0, "optimizer.l2.form": "squared"}
    assert experiment.runs[1].axes == {"optimizer.l2.strength": 1e-4, "optimizer.l2.form": "unsquared"}


def test_experiments_that_name_the_same_configuration_share_its_lanes(tmp_path):
    text = """
    experiments:
      transience: {}
      l2: {axes: {optimizer.l2.strength: [0.0, 1.0e-5]}}
    """
    experiments = load(tmp_path, text).experiments
    assert set(experiments["transience"].lanes()) < set(experiments["l2"].lanes())


def test_a_default_written_out_changes_nothing(tmp_path):
    plain = load(tmp_path, "experiments: {transience: {}}").experiments["transience"].runs[0]
    written = load(
        tmp_path,
        "experiments: {transience: {model: {positions: {base: 30.0}}, optimizer: {l2: {strength: 0}}, horizon: 8192}}",
    )
    assert written.experiments["transience"].runs[0].run.id == plain.run.id


def test_only_the_section_of_the_banks_own_source_shapes_its_identity(tmp_path):
    texts = ["{gaussian: {dim: 5}}", "{gaussian: {dim: 5}, omniglot: {dim: 3}}"]
    first, second = (
        load(tmp_path, f"experiments: {{a: {{bank: {bank}}}}}").experiments["a"].runs[0].run for bank in texts
    )
    assert first.bank.id == second.bank.id


def test_source_files_enter_identities_by_content_and_never_by_path(tmp_path):
    text = "experiments: {a: {bank: {source: omniglot}}}"
    ids = [
        load(tmp_path, text, zips(tmp_path / name, content)).experiments["a"].runs[0].run.bank.id
        for name, content in (("here", b"1"), ("there", b"1"), ("else", b"2"))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_evaluators_in_another_order_are_the_same_set(tmp_path):
    ids = [
        load(tmp_path, f"experiments: {{a: {{evaluation: {{evaluators: {names}}}}}}}")
        .experiments["a"]
        .runs[0]
        .sequence_set.id
        for names in ("[icl, iwl]", "[iwl, icl]")
    ]
    assert ids[0] == ids[1]


def test_evaluators_without_replacement_are_another_set_and_train_is_the_recipes(tmp_path):
    text = "experiments: {{a: {{evaluation: {{replacement: {}, evaluators: [train, icl, icl_holdout, flip]}}}}}}"
    plain, other = (load(tmp_path, text.format(said)).experiments["a"].runs[0] for said in ("true", "false"))
    assert plain.run == other.run
    assert plain.sequence_set.id != other.sequence_set.id
    assert plain.sequence_set == dataclasses.replace(other.sequence_set, replacement=True)
    before = load(tmp_path, text.replace("replacement: {}, ", "").format()).experiments["a"].runs[0]
    assert before.sequence_set.id == plain.sequence_set.id


def test_seeds_may_differ_for_weights_and_data(tmp_path):
    experiment = load(tmp_path, "experiments: {a: {seeds: [3, {init: 3, data: 4}]}}").experiments["a"]
    assert [seed.label for seed in experiment.seeds] == ["3", "init3-data4"]


def test_a_count_in_exponent_notation_is_a_count(tmp_path):
    plain, written = (
        load(tmp_path, in_a(f"horizon: {horizon}, evaluation: {{sequences: {sequences}}}")).experiments["a"]
        for horizon, sequences in (("1_280_000", "1000"), ("1.28e6", "1e3"))
    )
    assert plain == written
    assert isinstance(written.horizon, int)


def test_values_on_an_axis_are_those_of_the_run_however_they_are_written(tmp_path):
    first, second = (
        load(tmp_path, in_a(f"axes: {{optimizer.l2.strength: [{values}]}}")).experiments["a"]
        for values in ("0, 1e-5", "0.0, 0.00001")
    )
    assert first == second


def test_a_list_on_an_axis_is_one_cell_of_a_table(tmp_path):
    bank = "bank: {source: omniglot, omniglot: {characters: 9}}"
    text = in_a(f"{bank}, axes: {{bank.omniglot.zips: [[{ZIPS[0]}], [{ZIPS[1]}]]}}")
    runs = load(tmp_path, text, zips(tmp_path / "zips")).experiments["a"].runs
    assert [named.axes["bank.omniglot.zips"] for named in runs] == list(ZIPS)


def test_horizons_are_rounded_up_to_whole_batches(tmp_path):
    assert load(tmp_path, "experiments: {a: {horizon: 5001}}").experiments["a"].horizon == 5024


def recipe_of(folder: Path, text: str) -> Recipe:
    """The one run's recipe of a study with this `recipe` section."""
    return load(folder, in_a(f"recipe: {{{text}}}")).experiments["a"].runs[0].run.recipe


def test_every_key_of_a_recipe_reaches_it(tmp_path):
    text = """
        context: 6, burstiness: 2, distractor: false, match: 0.25, label_noise: 0.1, input_noise: 0.2, pool: 1000,
        zipf: {alpha: 1, seed: 3}, labelling: {labels: 100, seed: 4},
        relabelling: {labels: 5, holdout_share: 0.25, seed: 6},
        mixture: {alone: {share: 0.125, support: none}, pairs: {share: 0.5, burstiness: 3, distractor: true},
          chan: {share: 0.25, distractor: true, match: 0, replacement: false, distinct: false, separate_free: true}}
    """
    assert recipe_of(tmp_path, text) == Recipe(
        context=6,
        burstiness=2,
        distractor=False,
        match=0.25,
        label_noise=0.1,
        input_noise=0.2,
        pool=1000,
        zipf=Zipf(alpha=1.0, seed=3),
        labelling=Labelling(labels=100, seed=4),
        relabelling=Relabelling(labels=5, holdout_share=0.25, seed=6),
        mixture=(
            Component(share=0.125, burstiness=0, support="none"),
            Component(share=0.25, burstiness=2, replacement=False, distinct=False, separate_free=True),
            Component(share=0.5, burstiness=3, match=0.25),
        ),
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "support: bursty, labels: classes, distractor: true, match: 0, replacement: true, mixture: {}"),
        ("", "label_noise: 0, input_noise: 0.0, pool: 0, zipf: {alpha: 0.0, seed: 7}, labelling: {seed: 7}"),
        ("", "relabelling: {labels: 2, holdout_share: 0.0, seed: 7}"),
        ("relabelling: {labels: 5}", "relabelling: {labels: 5, seed: 7}"),
        ("support: none", "support: none, burstiness: 1, distractor: false, match: 1, replacement: false"),
        ("burstiness: 0", "burstiness: 0, match: 0.5, distinct: false"),
        ("burstiness: 0, replacement: false", "burstiness: 0, replacement: false, separate_free: true"),
        ("distractor: false", "distractor: false, distinct: false, separate_free: true"),
        ("zipf: {alpha: 1, ranks: identity}", "zipf: {alpha: 1.0, ranks: identity, seed: 9}"),
        ("", "mixture: {gone: {share: 0, support: none}}"),
        (
            "mixture: {a: {share: 0.1, support: none}, b: {share: 0.2, match: 1}}",
            "mixture: {y: {share: 0.2, match: 1}, x: {share: 0.1, support: none, burstiness: 2}}",
        ),
    ],
    ids=str,
)
def test_keys_that_change_no_sequence_change_no_identity(one, other, tmp_path):
    assert recipe_of(tmp_path, one) == recipe_of(tmp_path, other)


def test_a_recipe_of_before_has_the_identity_it_had(tmp_path):
    # Recorded: results on disk bear these names.
    (named,) = load(tmp_path, "experiments: {transience: {}}").experiments["transience"].runs
    assert (named.run.id, named.sequence_set.id) == ("fb9ea3a7660e", "gaussian-1200x20-900d57bc635f")


# What `laptop` was in 0.1.0.
LAPTOP_BEFORE = """
defaults:
  bank:
    source: manifold
    manifold: {classes: 1600, holdout_classes: 100, exemplars: 16, holdout_exemplars: 4, latent_dim: 6, noise: 0.5}
  model: {mlp_ratio: 1}
  optimizer: {learning_rate: 0.002}
experiments:
  transience: {}
  l2: {axes: {optimizer.l2.strength: [0, 1.0e-4]}}
"""


def test_the_studies_of_before_have_the_identities_they_had(tmp_path, monkeypatch):
    # Recorded before keys of training were added, with zips of one drawing a character: run, evaluator set, pack.
    recorded_with = zips(tmp_path / "recorded", drawings=1)
    monkeypatch.setattr(resolve, "digest", lambda path: file_digest(recorded_with / path.name))
    before = {"laptop": tmp_path / "laptop.yaml", "omniglot": ROOT / "workflow/studies/omniglot.yaml"}
    before["laptop"].write_text(LAPTOP_BEFORE)
    recorded = {
        ("laptop", "baseline"): "29a1ce3e7af6 manifold-1600x16-60d42ad3e6ec manifold-1600x16-2x64-7b029e29aabb",
        ("laptop", "l2.strength=0.0001"): (
            "f33ba2087f49 manifold-1600x16-60d42ad3e6ec manifold-1600x16-2x64-ed43c428b3b1"
        ),
        ("omniglot", "baseline"): "f31f03e5bd91 omniglot-1600x16-ff12dc0cae0f omniglot-1600x16-2x64-0fd5c3dce372",
        ("omniglot", "l2.strength=0.0001"): (
            "9dc1296e305f omniglot-1600x16-ff12dc0cae0f omniglot-1600x16-2x64-f31c19607058"
        ),
    }
    for (name, run_name), ids in recorded.items():
        folders = {"omniglot": zips(tmp_path / "zips")}
        experiments = study_load.load(before[name], folders).experiments
        ((experiment, named),) = [
            (experiment, named)
            for experiment in experiments.values()
            for named in experiment.runs
            if named.name == run_name
        ]
        pack = PackSpec(lanes=tuple(Lane(run=named.run, seed=seed) for seed in experiment.seeds))
        assert f"{named.run.id} {named.sequence_set.id} {pack.id}" == ids


@pytest.mark.parametrize("path", sorted((ROOT / "workflow/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_shipped_study_makes_a_claim_that_its_seeds_cannot_decide(path):
    document = read_yaml(path)
    for name, section in document["experiments"].items():
        if section.get("claims"):
            seeds = section.get("seeds") or document["defaults"].get("seeds") or [0, 1, 2]
            evidence = (section.get("statistics") or document["defaults"].get("statistics") or {}).get("evidence")
            if evidence == "fixed":
                assert min_attainable_p(len(seeds)) <= 0.05, name
            else:
                assert e_value(np.array([len(seeds)]), np.array([0])).item() >= 1 / 0.05, name


def run_of(folder: Path, text: str) -> Run:
    """The one run of a study with these settings."""
    (named,) = load(folder, in_a(text)).experiments["a"].runs
    return named.run


def test_every_key_of_training_reaches_it(tmp_path):
    text = """
        model: {positions: {kind: rotary, base: 100}, dropout: 0.1},
        optimizer: {name: adamw, weight_decay: 1, clip: 2, learning_rate: 1, beta1: 0.5, beta2: 0.5, epsilon: 1,
          schedule: {kind: cosine, warmup: 32, length: 64, final: 0.5},
          l2: {strength: 1, embedder: 2, attention: 0, mlp: 3, norm: 4, unembedding: 5}},
        forgetting: {every: 100, until: 1000},
        interventions: {later: {at: 96, optimizer: {clip: 0}}, first: {at: 64, recipe: {pool: 9}}}
    """
    run = run_of(tmp_path, text)
    assert run.model.positions == Positions(kind="rotary", base=100.0)
    assert run.model.dropout == 0.1
    assert run.optimizer == Optimizer(
        name="adamw",
        learning_rate=1.0,
        beta1=0.5,
        beta2=0.5,
        epsilon=1.0,
        weight_decay=1.0,
        clip=2.0,
        schedule=Schedule(kind="cosine", warmup=32, length=64, final=0.5),
        l2=L2(strength=1.0, embedder=2.0, attention=0.0, mlp=3.0, norm=4.0, unembedding=5.0),
    )
    assert run.forgetting == Forgetting(every=100, until=1000)
    pool = dataclasses.replace(run.recipe, pool=9)
    # Each lasts; a later one changes what the earlier ones left.
    assert run.interventions == (
        Intervention(at=64, recipe=pool, optimizer=run.optimizer),
        Intervention(at=96, recipe=pool, optimizer=dataclasses.replace(run.optimizer, clip=0.0)),
    )


def test_momentum_is_of_sgd(tmp_path):
    optimizer = run_of(tmp_path, "optimizer: {name: sgd, momentum: 0.5, beta1: 0.3, epsilon: 1}").optimizer
    assert optimizer == Optimizer(name="sgd", learning_rate=0.001, momentum=0.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "optimizer: {momentum: 0, weight_decay: 0.0, clip: 0, schedule: {length: 9, final: 1}}"),
        ("", "model: {dropout: 0, positions: {kind: sinusoid}}, forgetting: {every: 0, until: 9}"),
        ("model: {positions: {kind: learned}}", "model: {positions: {kind: learned, base: 9}}"),
        ("optimizer: {l2: {strength: 1}}", "optimizer: {l2: {strength: 1, mlp: 1.0, norm: null}}"),
        ("", "interventions: {}"),
        ("", "interventions: {none: {at: 64, optimizer: {clip: 0}, recipe: {burstiness: 3}}}"),
        (
            "interventions: {a: {at: 64, optimizer: {clip: 1}}, b: {at: 96, recipe: {pool: 9}}}",
            "interventions: {b: {at: 64, optimizer: {clip: 1.0}}, a: {at: 96, recipe: {pool: 9}}, c: {at: 70}}",
        ),
    ],
    ids=str,
)
def test_keys_that_change_no_training_change_no_identity(one, other, tmp_path):
    assert run_of(tmp_path, one) == run_of(tmp_path, other)


def test_an_intervention_leaves_evaluators_and_the_beginning_as_they_are(tmp_path):
    text = """
    experiments:
      a: {runs: {without: {}, with: {interventions: {late: {at: 5000, recipe: {burstiness: 4, labels: relabelled}}}}}}
    """
    without, late = load(tmp_path, text).experiments["a"].runs
    assert late.sequence_set == without.sequence_set
    assert late.run.at(0) == without.run
    assert late.run.id != without.run.id


def test_when_an_intervention_comes_and_what_it_does_are_axes(tmp_path):
    text = """
    defaults: {interventions: {late: {at: 5000, optimizer: {l2: {strength: 0}}}}}
    experiments:
      when: {axes: {interventions.late.at: [5000, 6000], interventions.late.optimizer.l2.strength: [0, 1]}}
      plain: {interventions: {late: {optimizer: {l2: {strength: 0}}}}}
    """
    with pytest.raises(StudyError, match="are the same configuration"):
        load(tmp_path, text)
    experiments = load(tmp_path, text.replace("[0, 1]", "[1, 2.5]")).experiments
    assert [named.axes for named in experiments["when"].runs] == [
        {"interventions.late.at": at, "interventions.late.optimizer.l2.strength": strength}
        for at in (5000, 6000)
        for strength in (1.0, 2.5)
    ]
    assert experiments["when"].runs[0].name == "late.at=5000,l2.strength=1"
    assert experiments["plain"].runs[0].run.interventions == ()


def test_named_runs_show_their_interventions(tmp_path):
    text = in_a("runs: {plain: {}, late: {interventions: {stop: {at: 5000, optimizer: {learning_rate: 1}}}}}")
    plain, late = load(tmp_path, text).experiments["a"].runs
    assert plain.axes == {"interventions.stop.at": None, "interventions.stop.optimizer.learning_rate": None}
    assert late.axes == {"interventions.stop.at": 5000, "interventions.stop.optimizer.learning_rate": 1.0}


def test_the_l2_of_a_component_that_says_nothing_is_that_of_all(tmp_path):
    text = in_a("optimizer: {l2: {strength: 0.5}}, axes: {optimizer.l2.mlp: [0, 0.5, null]}")
    with pytest.raises(StudyError, match="are the same configuration"):
        load(tmp_path, text)
    found = load(tmp_path, text.replace(", null", "")).experiments["a"].runs
    assert [named.axes for named in found] == [{"optimizer.l2.mlp": 0.0}, {"optimizer.l2.mlp": 0.5}]
    assert found[1].run.optimizer.l2 == L2(strength=0.5)


def test_the_share_of_a_mixture_is_an_axis(tmp_path):
    text = """
    defaults: {recipe: {mixture: {alone: {share: 0, support: none}}}}
    experiments:
      mixed: {axes: {recipe.mixture.alone.share: [0, 0.5]}}
      plain: {recipe: {mixture: {}}}
    """
    experiments = load(tmp_path, text).experiments
    without, half = experiments["mixed"].runs
    assert [run.name for run in (without, half)] == ["alone.share=0", "alone.share=0.5"]
    assert [run.axes for run in (without, half)] == [{"recipe.mixture.alone.share": share} for share in (0.0, 0.5)]
    assert without.run == experiments["plain"].runs[0].run
    assert [share for share, _ in half.run.recipe.kinds()] == [0.5, 0.5]


def test_named_runs_show_what_they_mix_in(tmp_path):
    text = in_a("runs: {plain: {}, mixed: {recipe: {mixture: {alone: {share: 0.1, support: none}}}}}")
    plain, mixed = load(tmp_path, text).experiments["a"].runs
    assert plain.axes == {"recipe.mixture.alone.share": 0.0, "recipe.mixture.alone.support": None}
    assert mixed.axes == {"recipe.mixture.alone.share": 0.1, "recipe.mixture.alone.support": "none"}


def test_evaluators_at_other_contexts_stand_beside_their_own(tmp_path):
    text = in_a("evaluation: {evaluators: [ciwl, icl, train], contexts: {icl: [16, 4], ciwl: [2]}}")
    (named,) = load(tmp_path, text).experiments["a"].runs
    assert named.sequence_set.evaluators == ("train", "icl", "icl@4", "icl@16", "ciwl", "ciwl@2")


def in_a(settings: str) -> str:
    return f"experiments: {{a: {{{settings}}}}}"


BAD_OMNIGLOT = {
    "more characters than the zips hold": ("characters: 240, holdout_characters: 3", ["is 243, but", "hold 242"]),
    "too many drawings": ("exemplars: 15, holdout_exemplars: 10", ["is 25: a character has 20 drawings"]),
    "more components than pixels": ("side: 4, dim: 64", ["at most 16 components"]),
    "a zip that is not there": ("zips: [images_evaluation.zip]", ["images_evaluation.zip, which is not in"]),
}


@pytest.mark.parametrize(("values", "expected"), BAD_OMNIGLOT.values(), ids=BAD_OMNIGLOT)
def test_a_bad_omniglot_bank_is_refused(tmp_path, values, expected):
    with pytest.raises(StudyError) as error:
        load(tmp_path, in_a(f"bank: {{source: omniglot, omniglot: {{{values}}}}}"), zips(tmp_path / "zips"))
    for fragment in expected:
        assert fragment in str(error.value)


TOKENS = "source: tokens, tokens: {clusters: 30, classes: 10, holdout_classes: 2, exemplars: 2, holdout_exemplars: 1"


def checkpoint(folder: Path, rows: int = 99, width: int = 64, name: str = "model.safetensors") -> Path:
    """The folder of a checkpoint with a table of zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({"wte.weight": np.zeros((rows, width), np.float32)}, folder / name)
    return folder


def test_the_tensor_that_is_found_is_that_of_the_bank(tmp_path):
    tokens = checkpoint(tmp_path / "tokens")
    texts = [in_a(f"bank: {{{TOKENS}{more}}}}}") for more in ("", ", tensor: wte.weight")]
    first, second = (load(tmp_path, text, tokens=tokens).experiments["a"].runs[0].run.bank for text in texts)
    assert first.parameters.tensor == "wte.weight"
    assert first.id == second.id


def test_a_checkpoint_enters_identities_by_content_and_never_by_path(tmp_path):
    text = in_a(f"bank: {{{TOKENS}}}}}")
    folders = [checkpoint(tmp_path / name, rows) for name, rows in (("here", 99), ("there", 99), ("else", 98))]
    ids = [load(tmp_path, text, tokens=folder).experiments["a"].runs[0].run.bank.id for folder in folders]
    assert ids[0] == ids[1] != ids[2]


def test_a_study_on_a_table_that_is_too_narrow_says_which_run(tmp_path):
    tokens = checkpoint(tmp_path / "tokens", width=32)
    with pytest.raises(StudyError, match=r"experiments\.a \(run baseline\): `bank\.tokens\.dim` is 64"):
        load(tmp_path, in_a(f"bank: {{{TOKENS}}}}}"), tokens=tokens)


OPTIONAL = """
experiments:
  drawn: {}
  words:
    optional: true
    bank: {source: tokens, tokens: {file: large, clusters: 20, classes: 9, holdout_classes: 2, exemplars: 4, dim: 4}}
    claims: {there: {text: it is there, kind: threshold, of: peak, direction: above, value: 0.6}}
"""


def test_an_optional_experiment_is_left_out_where_its_files_are_not_at_hand(tmp_path):
    (tmp_path / "empty/large").mkdir(parents=True)
    for loaded, why in (
        (load(tmp_path, OPTIONAL), "ICL_TOKENS"),
        (load(tmp_path, OPTIONAL, tokens=tmp_path / "unmounted"), "is no folder"),
        (load(tmp_path, OPTIONAL, tokens=tmp_path / "empty"), "no model.safetensors.index.json and not exactly one"),
        (
            load(tmp_path, OPTIONAL, tokens=checkpoint(tmp_path / "small")),
            "`bank.tokens.file` names large, which is not",
        ),
    ):
        assert list(loaded.experiments) == ["drawn"]
        assert why in loaded.left_out["words"].reason
        assert [(claim.name, claim.value) for claim in loaded.left_out["words"].claims] == [("there", 0.6)]
    checkpoint(tmp_path / "there/large")
    there = load(tmp_path, OPTIONAL, tokens=tmp_path / "there")
    assert list(there.experiments) == ["drawn", "words"]
    assert not there.left_out


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (OPTIONAL.replace("optional: true", "optional: false"), "ICL_TOKENS"),
        (OPTIONAL.replace("  drawn: {}\n", ""), "ICL_TOKENS"),
        (OPTIONAL.replace("optional: true", "optional: true\n    model: {heads: 5}"), "`model.heads` is 5"),
        (OPTIONAL.replace("of: peak", "of: peek"), "`experiments.words.claims.there.of` is 'peek'"),
    ],
    ids=["not optional", "nothing is left", "wrong besides", "a wrong claim"],
)
def test_nothing_else_is_left_out(text, problem, tmp_path):
    with pytest.raises(StudyError, match=problem):
        load(tmp_path, text)


def test_principal_components_have_a_scale_of_their_own(tmp_path):
    tokens = checkpoint(tmp_path / "tokens")
    with pytest.raises(StudyError, match=r"`bank\.tokens\.scale` is 'raw', but"):
        load(tmp_path, in_a(f"bank: {{{TOKENS}, scale: raw}}}}"), tokens=tokens)


def test_every_problem_of_a_study_is_listed_at_once(tmp_path):
    with pytest.raises(StudyError) as error:
        load(tmp_path, "experiments: {a: {model: {heads: 7}}, b: {recipe: {context: 7}}, train: {}}")
    assert len(str(error.value).splitlines()) >= 3


def test_numbers_in_exponent_notation_are_numbers(tmp_path):
    path = tmp_path / "numbers.yaml"
    path.write_text("[1e-5, 1E5, -2e+3, 1.5e-3, 1e-5x]")
    assert read_yaml(path) == [1e-5, 1e5, -2000.0, 1.5e-3, "1e-5x"]


def test_the_schema_gives_every_leaf_a_meaning_and_a_default():
    document = yaml.safe_load(SCHEMA.read_text())

    def leaves(part, path):
        if "$ref" in part:
            return
        if "properties" in part and "default" not in part:
            for key, value in part["properties"].items():
                yield from leaves(value, f"{path}.{key}")
        else:
            yield path, part

    found = dict(leaf for section in RUN_SECTIONS for leaf in leaves(document["$defs"][section], section))
    assert len(found) > 25
    assert not [path for path, part in found.items() if "description" not in part]
    # Whose exemplars others made: a study says whether their scale stays.
    assert [path for path, part in found.items() if "default" not in part] == ["bank.imported.scale"]


def test_the_schemas_defaults_are_a_valid_study():
    document = yaml.safe_load(SCHEMA.read_text())
    settings = schema.defaults(document["$defs"]["settings"], document)
    schema.check({"defaults": settings, "experiments": {"a": {}}}, document, "defaults")


def test_the_study_of_recipes_uses_every_key_of_a_recipe_and_of_other_contexts(tmp_path):
    shipped = study_load.load(ROOT / "workflow/studies/recipes.yaml", {})
    plain = Recipe(context=8, burstiness=3)
    runs = [named for experiment in shipped.experiments.values() for named in experiment.runs]
    recipes = [kind for named in runs for _, kind in named.run.recipe.kinds()] + [named.run.recipe for named in runs]
    unused = [f.name for f in dataclasses.fields(Recipe) if len({getattr(recipe, f.name) for recipe in recipes}) == 1]
    # Evaluators alone draw from held-out parts; how long a context is, they are asked below.
    # relabelling has a study of its own.
    assert unused == ["context", "classes", "exemplars", "label_pairs", "relabelling"]
    for section in ("zipf", "labelling"):
        values = [getattr(recipe, section) for recipe in recipes]
        assert all(len({getattr(value, f.name) for value in values}) > 1 for f in dataclasses.fields(values[0]))
    assert {recipe.labels for recipe in recipes} == {"classes", "relabelled", "swapped", "copied"}
    assert any("@" in evaluator for named in runs for evaluator in named.sequence_set.evaluators)
    assert plain in recipes


def test_the_study_of_training_uses_every_key_of_it():
    shipped = study_load.load(ROOT / "workflow/studies/training.yaml", {})
    runs = [named.run for experiment in shipped.experiments.values() for named in experiment.runs]
    optimizers = [run.optimizer for run in runs]
    for values, untouched in (
        (optimizers, {"beta1", "beta2", "epsilon"}),
        ([optimizer.schedule for optimizer in optimizers], set()),
        # That of an image encoder is joint's and paper's.
        ([optimizer.l2 for optimizer in optimizers], {"strength", "form", "encoder"}),
        ([run.forgetting for run in runs], set()),
    ):
        unused = {
            f.name for f in dataclasses.fields(values[0]) if len({getattr(value, f.name) for value in values}) == 1
        }
        assert unused == untouched
    schema_of = yaml.safe_load(SCHEMA.read_text())["$defs"]
    kinds = schema_of["model"]["properties"]["positions"]["properties"]["kind"]["enum"]
    assert {run.model.positions.kind for run in runs} == set(kinds)
    assert {run.model.dropout for run in runs} == {0.0, 0.1}
    changes = [change for run in runs for change in run.interventions]
    assert any(change.recipe != runs[0].recipe for change in changes)
    assert any(change.optimizer != runs[0].optimizer for change in changes)


@pytest.mark.parametrize("path", sorted((ROOT / "workflow/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_that_ships_is_valid(path, tmp_path):
    tokens = checkpoint(tmp_path / "tokens", rows=30_522, width=384, name="minilm_l6_v2_word_embeddings.safetensors")
    with h5py.File(tmp_path / "transience-baseline.bank.h5", "w") as file:
        file["embeddings"] = np.zeros((1936, 20, 64), dtype="float32")
    # The large zips are to be downloaded.
    omniglot = None if path.stem == "paper" else zips(tmp_path / "zips")
    folders = {"omniglot": omniglot, "tokens": tokens, "imported": tmp_path}
    assert study_load.load(path, folders).experiments


# Claims.

SWEEP = """
experiments:
  sweep:
    axes: {optimizer.l2.strength: [1.0e-3, 0, 1.0e-4], model.depth: [1, 2]}
    claims:
      falls:
        text: "with L2,\\n the index falls"
        kind: trend
        of: index
        direction: falls
        axis: optimizer.l2.strength
        up_to: 1.0e-4
        at: {model.depth: 2}
      kept: {text: it is high everywhere, kind: threshold, of: final_icl@4, direction: above, value: 1}
    evaluation: {contexts: {icl: [4]}}
    statistics: {claims_alpha: 0.01}
"""


def test_a_trend_takes_its_runs_in_order_of_their_levels_at_one_level_of_the_other_axis(tmp_path):
    experiment = load(tmp_path, SWEEP).experiments["sweep"]
    falls, kept = experiment.claims
    assert falls.levels == (0, 1e-4)
    assert falls.runs == ("l2.strength=0,model.depth=2", "l2.strength=0.0001,model.depth=2")
    assert (falls.text, falls.source) == ("with L2, the index falls", "")
    assert kept.runs == tuple(named.name for named in experiment.runs)
    assert experiment.claims_alpha == 0.01


def test_claims_change_nothing_that_is_trained_or_tabulated(tmp_path):
    one = load(tmp_path, SWEEP).experiments["sweep"]
    document = yaml.safe_load(SWEEP)
    for key in ("claims", "statistics"):
        del document["experiments"]["sweep"][key]
    other = load(tmp_path, yaml.safe_dump(document, sort_keys=False)).experiments["sweep"]
    assert other.claims == ()
    assert one.lanes() == other.lanes()
    assert one.statistics == other.statistics


def test_levels_are_those_along_which_runs_differ(tmp_path):
    study = load(tmp_path, SWEEP.replace("model.depth: [1, 2]}", "model.depth: [2]}"))
    assert study.experiments["sweep"].levels() == {"optimizer.l2.strength": [0, 1e-4, 1e-3]}
