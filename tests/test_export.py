"""Files for the authors' code: what it takes from them is what the run is made of."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders import TINY_BANK, TINY_RUN, TINY_SET, changed, tiny_run

from icl_transience.banks import bank as banks_bank
from icl_transience.report import export
from icl_transience.sequences import draw
from icl_transience.sequences.frozen import write_sequences
from icl_transience.specs.identity import from_values
from icl_transience.specs.recipes import Component, Labelling, Recipe, Relabelling, Zipf
from icl_transience.specs.runs import Export, Seed
from icl_transience.specs.training import Forgetting, Intervention
from icl_transience.store import bank_file, hdf5

RUN = changed(TINY_RUN, {"recipe.input_noise": 0.25})
SET = replace(TINY_SET, recipe=RUN.recipe, evaluators=("train", "icl", "icl@2", "ciwl"))
EXPORT = Export(run=RUN, sequence_set=SET, seed=Seed(init=7, data=3), training_sequences=20)


@pytest.fixture
def exported(tmp_path) -> tuple[Path, Path]:
    """({run}.h5, {run}.bank.h5)"""
    banks_bank.save(banks_bank.build(TINY_BANK), tmp_path / "bank.h5", TINY_BANK)
    write_sequences(tmp_path / "set.h5", SET, banks_bank.build(TINY_BANK).embeddings)
    paths = tmp_path / "run.h5", tmp_path / "run.bank.h5"
    export.write_export(*paths, EXPORT, tmp_path / "bank.h5", tmp_path / "set.h5")
    return paths


def option(arguments: list[str], name: str) -> list[str]:
    """The values of an option on a command line."""
    values = arguments[arguments.index(f"--{name}") + 1 :]
    end = next((number for number, value in enumerate(values) if value.startswith("--")), len(values))
    return values[:end]


def test_every_top_level_group_is_an_evaluator_with_examples_and_labels_and_nothing_else(exported):
    data, _ = exported
    with h5py.File(data) as file:
        assert set(file) == {"train_eval", "icl", "icl@2", "ciwl", "train_sequences"}
        for name in file:
            assert set(file[name]) == {"examples", "labels"}
            examples, labels = file[name]["examples"], file[name]["labels"]
            assert (examples.dtype, labels.dtype) == (np.float32, np.int32)
            n, context = (20 if name == "train_sequences" else 16), (2 if name == "icl@2" else 4)
            assert examples.shape == (n, context + 1, 6)
            assert labels.shape == (n, context + 1)


def test_evaluators_are_the_ones_that_the_run_answers(exported):
    data, _ = exported
    with h5py.File(data) as file, h5py.File(data.with_name("set.h5")) as frozen:
        for theirs, ours in (("train_eval", "train"), ("icl", "icl"), ("icl@2", "icl@2"), ("ciwl", "ciwl")):
            for part in ("examples", "labels"):
                np.testing.assert_array_equal(file[theirs][part], frozen[ours][part])


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_training_sequences_are_those_the_run_trains_on_noise_included(tmp_path, exported, chunk, monkeypatch):
    monkeypatch.setattr(export, "_CHUNK", chunk)
    paths = tmp_path / "again.h5", tmp_path / "again.bank.h5"
    export.write_export(*paths, EXPORT, tmp_path / "bank.h5", tmp_path / "set.h5")
    drawn = draw.draw(RUN.recipe, TINY_BANK.shape, 3, "training", torch.arange(20))
    noise = draw.input_noise(RUN.recipe, 6, 3, "training", torch.arange(20)).float().numpy()
    clean = banks_bank.build(TINY_BANK).embeddings[drawn.classes.numpy(), drawn.exemplars.numpy()]
    for path in (paths[0], exported[0]):
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["train_sequences/labels"], drawn.labels)
            np.testing.assert_array_equal(file["train_sequences/examples"], clean + noise)


def test_training_sequences_follow_an_intervention(tmp_path, exported):
    later = replace(RUN.recipe, burstiness=2, labels="relabelled", input_noise=0.0)
    run = replace(RUN, interventions=(Intervention(at=10, recipe=later, optimizer=RUN.optimizer),))
    paths = tmp_path / "changed.h5", tmp_path / "changed.bank.h5"
    export.write_export(*paths, replace(EXPORT, run=run), tmp_path / "bank.h5", tmp_path / "set.h5")
    # In batches of 4 the first that begins at 10 or later begins at 12.
    after = draw.draw(later, TINY_BANK.shape, 3, "training", torch.arange(12, 20))
    clean = banks_bank.build(TINY_BANK).embeddings[after.classes.numpy(), after.exemplars.numpy()]
    with h5py.File(paths[0]) as file, h5py.File(exported[0]) as before:
        for part, expected in (("labels", after.labels), ("examples", clean)):
            found = file[f"train_sequences/{part}"][()]
            np.testing.assert_array_equal(found[:12], before[f"train_sequences/{part}"][:12])
            np.testing.assert_array_equal(found[12:], expected)


def test_the_bank_lies_at_the_path_and_in_the_order_that_the_arguments_name(exported):
    data, bank = exported
    with h5py.File(data) as file:
        arguments = list(file.attrs["arguments"])
    assert option(arguments, "data_file") == [bank.name]
    assert option(arguments, "load_eval_data") == [data.name]
    (path,) = option(arguments, "data_path_in_file")
    with h5py.File(bank) as file:
        found = file[path][()]
    # They refuse a bank whose sizes are not the sums of its splits; their training part comes first.
    assert found.shape[:2] == tuple(sum(map(int, option(arguments, f"{part}_split"))) for part in ("class", "exemplar"))
    assert option(arguments, "class_split") == ["10", "2", "0"]
    assert option(arguments, "exemplar_split") == ["3", "1", "0"]
    np.testing.assert_array_equal(found, banks_bank.build(TINY_BANK).embeddings)
    np.testing.assert_array_equal(found, bank_file.load(bank, TINY_BANK))


def test_an_export_says_what_it_is_made_of_and_is_checked_like_any_file(exported):
    data, _ = exported
    with hdf5.reading(data, "export", EXPORT.id) as file:
        assert from_values(Export, json.loads(file.attrs["spec"])) == EXPORT
        assert from_values(Recipe, json.loads(file["train_sequences"].attrs["recipe"])) == RUN.recipe


def test_other_contents_have_other_identities():
    others = [
        replace(EXPORT, training_sequences=21),
        replace(EXPORT, seed=Seed(init=7, data=4)),
        replace(EXPORT, sequence_set=replace(SET, seed=1)),
        replace(EXPORT, run=TINY_RUN),
    ]
    assert len({one.id for one in [EXPORT, *others]}) == 5


PLAIN = Recipe(context=4, burstiness=1)


def test_a_mixture_is_a_list_of_their_samplers():
    mixed = replace(
        PLAIN,
        input_noise=0.5,
        zipf=Zipf(alpha=1.0, ranks="identity"),
        mixture=(
            Component(share=0.25, burstiness=0, support="none"),
            Component(share=0.25, burstiness=3, distractor=False),
        ),
    )
    arguments = list(export.arguments(changed(TINY_RUN, {"recipe": mixed}), "b", "e"))
    assert option(arguments, "mixing_coeffs") == ["0.5", "0.25", "0.25"]
    assert option(arguments, "pt_burstiness") == ["1", "0", "3"]
    assert option(arguments, "pt_distract") == ["1", "1", "0"]
    assert option(arguments, "pt_no_support") == option(arguments, "pt_unique_rest") == ["0", "1", "0"]
    assert option(arguments, "zipf_alpha") == ["1"]
    assert option(arguments, "noise_scale_train") == ["0.5"]
    assert list(export.differences(mixed)) == []


@pytest.mark.parametrize(
    ("recipe", "flag"),
    [
        (replace(PLAIN, match=1.0), "--match_query_and_distractors"),
        (Recipe(context=4, burstiness=0, support="none", labels="copied"), "--assign_query_label_random"),
    ],
    ids=["match", "copied"],
)
def test_what_they_do_in_all_sequences_is_a_flag(recipe, flag):
    assert flag in export.arguments(changed(TINY_RUN, {"recipe": recipe}), "b", "e")
    assert flag not in export.arguments(TINY_RUN, "b", "e")
    assert list(export.differences(recipe)) == []


def test_relabelling_all_sequences_is_their_number_of_labels_and_split_of_pairs():
    recipe = replace(PLAIN, burstiness=2, labels="relabelled")
    for relabelling, expected in (
        (Relabelling(), ["1", "0", "0"]),
        (Relabelling(labels=5, holdout_share=0.2), ["8", "2", "0"]),
    ):
        run = changed(TINY_RUN, {"recipe": replace(recipe, relabelling=relabelling)})
        arguments = list(export.arguments(run, "b", "e"))
        assert option(arguments, "fs_relabel") == [f"{relabelling.labels}"]
        assert option(arguments, "fs_relabel_split") == expected
    assert "--fs_relabel" not in export.arguments(TINY_RUN, "b", "e")
    assert list(export.differences(recipe)) == []


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"zipf": Zipf(alpha=1.0)}, "zipf"),
        ({"labelling": Labelling(labels=5)}, "labelling"),
        ({"label_noise": 0.1}, "label_noise"),
        ({"pool": 10}, "pool"),
        ({"match": 0.5}, "match"),
        ({"replacement": False}, "replacement"),
        ({"mixture": (Component(share=0.5, burstiness=2, labels="relabelled"),)}, "labels"),
        (
            {"burstiness": 2, "labels": "relabelled", "relabelling": Relabelling(labels=5, holdout_share=0.2)},
            "relabelling",
        ),
        ({"mixture": (Component(share=0.5, burstiness=2, labels="swapped"),)}, "labels"),
        ({"mixture": (Component(share=0.5, burstiness=1, labels="copied"),)}, "labels"),
        ({"mixture": (Component(share=0.5, burstiness=1, match=1.0),)}, "match"),
    ],
    ids=str,
)
def test_what_they_cannot_draw_is_said(changes, key):
    assert [line.split(":")[0] for line in export.differences(replace(PLAIN, **changes))] == [key]


def test_what_changes_in_mid_training_is_a_difference():
    later = Intervention(at=64, recipe=PLAIN, optimizer=TINY_RUN.optimizer)
    assert list(export.differences_of_training(TINY_RUN)) == []
    for changes, key in (
        ({"interventions": (later,)}, "interventions"),
        ({"forgetting": Forgetting(every=9)}, "forgetting"),
    ):
        assert [line.split(":")[0] for line in export.differences_of_training(tiny_run(**changes))] == [key]
