"""Clusters of token embeddings as classes, and what is refused."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import yaml
from pipeline import ROOT

from icl_transience.banks import bank as banks_bank
from icl_transience.banks import tokens
from icl_transience.banks.bank import Bank, equal_rows
from icl_transience.planning.plan import Plan
from icl_transience.specs.banks import BankSpec, Tokens
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.store import checksums, safetensors_file
from icl_transience.study.sources import resolve as sources_resolve
from icl_transience.study.sources.tokens import FLOATS, INDEX, _checkpoint_file, _listed_beside

NAME = "model.embed_tokens.weight"
# Six blobs far apart, of these sizes, after three rows that are no tokens.
SIZES, SKIPPED = (30, 20, 12, 12, 9, 3), 3
SECTION = Tokens(
    file="",
    tensor=NAME,
    skip_rows=SKIPPED,
    rows="raw",
    clusters=6,
    classes=3,
    holdout_classes=1,
    exemplars=7,
    holdout_exemplars=3,
    members="nearest",
    encoder="table",
    scale="raw",
    dim=8,
)


def blobs(seed: int = 0) -> np.ndarray:
    """Rows [tokens, 8] in a mixed order."""
    generator = np.random.default_rng(seed)
    blob = generator.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    centres = 10 * np.eye(8)[: len(SIZES)]
    rows = centres[blob] + 0.3 * generator.standard_normal((len(blob), 8))
    first = np.full((SKIPPED, 8), 1e4)
    return np.concatenate([first, rows]).astype(np.float32)


def write(path: Path, tensors: dict[str, np.ndarray | torch.Tensor]) -> Path:
    safetensors.torch.save_file({name: torch.as_tensor(value) for name, value in tensors.items()}, path)
    return path


@pytest.fixture
def table(tmp_path) -> Path:
    return write(tmp_path / "model.safetensors", {NAME: blobs()})


def clusters(seed: int = 0) -> np.ndarray:
    """Cluster of each row of the table, -1 for those left out."""
    return np.concatenate([np.full(SKIPPED, -1), tokens.cluster(blobs()[SKIPPED:], 6, seed)[1]])


def build(path: Path, seed: int = 0, **changes) -> Bank:
    return banks_bank.build(BankSpec(seed=seed, parameters=replace(SECTION, **changes)), [path])


# Classes and exemplars.


def test_a_class_is_a_cluster_and_its_exemplars_are_the_rows_that_the_table_says(table):
    bank, rows = build(table), blobs()
    token = bank.exemplar_table["token"]
    assert bank.embeddings.shape == (4, 10, 8)
    np.testing.assert_array_equal(bank.embeddings, rows[token])
    of_class = clusters()[token]
    assert (of_class == of_class[:, :1]).all()
    assert len(set(of_class[:, 0].tolist())) == 4
    assert all(len(set(row.tolist())) == 10 for row in token)


def test_clusters_with_fewer_members_than_exemplars_are_no_classes(table):
    sizes = np.bincount(clusters()[SKIPPED:], minlength=6)
    assert 1 <= (sizes < 10).sum() <= 2
    used = clusters()[build(table).exemplar_table["token"][:, 0]]
    assert (sizes[used] >= 10).all()
    np.testing.assert_array_equal(build(table).class_table["cluster_size"], sizes[used])


def test_leading_rows_are_left_out(table):
    assert build(table).exemplar_table["token"].min() >= SKIPPED


def test_the_nearest_members_are_those_nearest_to_the_centroid(table):
    rows, of_row = blobs(), clusters()
    for token in build(table).exemplar_table["token"]:
        members = np.flatnonzero(of_row == of_row[token[0]])
        far = np.linalg.norm(rows[members] - rows[members].mean(axis=0), axis=1)
        assert set(token.tolist()) == set(members[far.argsort()[:10]].tolist())


def test_rows_by_direction_are_of_norm_1_and_clustered_as_such(table):
    bank, rows = build(table, rows="unit"), blobs()
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    token = bank.exemplar_table["token"]
    np.testing.assert_allclose(bank.embeddings, directions[token], rtol=1e-6)
    assigned = tokens.cluster(directions[SKIPPED:], 6, 0)[1][token - SKIPPED]
    assert (assigned == assigned[:, :1]).all()


def test_a_row_of_zeros_has_no_direction(tmp_path):
    rows = blobs()
    rows[7] = 0
    with pytest.raises(StudyError, match="row 7 is all zeros"):
        build(write(tmp_path / "m.safetensors", {NAME: rows}), rows="unit")


def test_farthest_points_begin_at_the_centre_and_leave_no_gap_larger_than_those_they_fill():
    rows = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    chosen = tokens.farthest(rows, np.zeros(2, dtype=np.float32), 12)
    assert chosen[0] == np.linalg.norm(rows, axis=1).argmin()
    assert len(set(chosen.tolist())) == 12
    for number in range(1, 12):
        gaps = np.linalg.norm(rows[:, None] - rows[chosen[:number]], axis=2).min(axis=1)
        assert gaps[chosen[number]] == pytest.approx(gaps.max())


def test_farthest_points_of_equal_rows_are_different_rows():
    chosen = tokens.farthest(np.zeros((5, 3), dtype=np.float32), np.zeros(3, dtype=np.float32), 5)
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4]


def test_held_out_members_are_not_the_farthest_ones(table):
    # Nearest-first order would put them last; here they stand anywhere.
    orders = []
    for seed in range(8):
        for class_rows in build(table, seed).embeddings:
            far = np.linalg.norm(class_rows - class_rows.mean(axis=0), axis=1)
            orders.append(far.argsort().argsort()[-3:].mean())
    # Ranks 0 to 9: the mean of three is 4.5 +- 1.5 by chance, 8 if the farthest were held out.
    assert np.mean(orders) == pytest.approx(4.5, abs=5 * 1.5 / np.sqrt(len(orders)))


def test_the_seed_clusters_and_orders(table):
    one, again, other = build(table, 1), build(table, 1), build(table, 2)
    np.testing.assert_array_equal(one.embeddings, again.embeddings)
    assert not np.array_equal(one.exemplar_table["token"], other.exemplar_table["token"])


def test_clusters_are_those_of_least_distance_to_their_centroids(table):
    rows = blobs()[SKIPPED:]
    centroids, assigned = tokens.cluster(rows, 6, 0)
    distances = np.linalg.norm(rows[:, None] - centroids, axis=2)
    np.testing.assert_array_equal(assigned, distances.argmin(axis=1))
    # A centroid is the mean of its members: what k-means has converged to.
    for label in np.unique(assigned):
        np.testing.assert_allclose(centroids[label], rows[assigned == label].mean(axis=0), atol=1e-4)


def test_the_standard_scale_centres_the_training_exemplars_and_gives_them_mean_square_1(table):
    raw, standard = (build(table, scale=scale).embeddings.astype(np.float64) for scale in ("raw", "standard"))
    trained = standard[:3, :7].reshape(-1, 8)
    np.testing.assert_allclose(trained.mean(axis=0), 0, atol=1e-5)
    assert np.mean(trained**2) == pytest.approx(1, rel=1e-5)
    distances = [np.linalg.norm(x.reshape(-1, 8) - x[0, 0], axis=1)[1:] for x in (raw, standard)]
    np.testing.assert_allclose(distances[1] / distances[0], (distances[1] / distances[0])[0], rtol=1e-4)


def test_principal_components_are_those_of_the_training_exemplars(table):
    embeddings = build(table, encoder="pca", dim=5).embeddings
    assert embeddings.shape == (4, 10, 5)
    covariance = np.cov(embeddings[:3, :7].reshape(-1, 5).astype(np.float64).T)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_number_format_of_a_checkpoint_is_read(tmp_path, dtype):
    values = torch.as_tensor(blobs()[SKIPPED:]).to(dtype)
    path = write(tmp_path / "m.safetensors", {NAME: values})
    read = tokens.read_table(path, NAME)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.to(torch.float32).numpy())


# What is refused in the bank's job.


def test_fewer_clusters_than_classes_asked_for_says_how_many_there_are(table):
    sizes = np.bincount(clusters()[SKIPPED:], minlength=6)
    large, smaller = (sizes >= 10).sum(), (sizes >= 7).sum()
    with pytest.raises(StudyError) as error:
        build(table, classes=6, holdout_classes=1)
    assert f"{large} of 6 clusters have 10 members or more" in str(error.value)
    assert "7 are asked for" in str(error.value)
    assert f"{smaller} have 7" in str(error.value)


def test_no_cluster_at_all_is_refused(table):
    with pytest.raises(StudyError, match="0 of 6 clusters have 40 members or more"):
        build(table, exemplars=37)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (float("nan"), torch.float32, r"not numbers \(NaN\), the first in row 5"),
        (1e6, torch.float16, "infinite entries, the first in row 5: values beyond the range of float16"),
        (1e200, torch.float64, "1 entries beyond the range of float32, the first in row 5: write it at a smaller"),
    ],
)
def test_a_table_with_a_hole_is_refused_with_its_row(tmp_path, value, dtype, expected):
    rows = torch.as_tensor(blobs()).double()
    rows[:SKIPPED] = 0
    rows[5, 2] = value
    path = write(tmp_path / "m.safetensors", {NAME: rows.to(dtype)})
    with pytest.raises(StudyError, match=expected):
        build(path)


# Which file, which tensor.


def resolve(folder: Path, **changes) -> tuple[str, list[Path]]:
    parameters = {key: getattr(SECTION, key) for key in SECTION.__dataclass_fields__} | {"tensor": ""} | changes
    found, paths = sources_resolve.resolve("tokens", parameters, folder)
    return found["tensor"], paths


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "embeddings.word_embeddings.weight",
        "bert.embeddings.word_embeddings.weight",
        "wte.weight",
        "transformer.wte.weight",
        "gpt_neox.embed_in.weight",
        "shared.weight",
        "tok_embeddings.weight",
    ],
)
def test_an_embedding_matrix_is_found_by_its_usual_names(tmp_path, name):
    path = write(tmp_path / "any.safetensors", {name: blobs(), "lm_head.weight": np.zeros((9, 9), np.float32)})
    assert resolve(tmp_path) == (name, [path])


def test_another_tensor_can_be_named(tmp_path):
    path = write(tmp_path / "m.safetensors", {NAME: np.zeros((2, 2), np.float32), "lm_head.weight": blobs()})
    assert resolve(tmp_path, tensor="lm_head.weight") == ("lm_head.weight", [path])


def test_of_a_sharded_checkpoint_the_shard_with_the_matrix_alone_is_read(tmp_path):
    shard = write(tmp_path / "model-00002-of-00002.safetensors", {NAME: blobs()})
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors", NAME: shard.name}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert resolve(tmp_path) == (NAME, [shard])
    assert resolve(tmp_path.parent, file=tmp_path.name) == (NAME, [shard])
    assert resolve(tmp_path, file=INDEX) == (NAME, [shard])


def test_a_checkpoint_in_a_folder_within_is_named_by_that_folder(tmp_path):
    (tmp_path / "7B").mkdir()
    path = write(tmp_path / "7B/model.safetensors", {NAME: blobs()})
    assert resolve(tmp_path, file="7B") == resolve(tmp_path, file="7B/model.safetensors") == (NAME, [path])


REFUSED = {
    "no usual name": ({"weights": (99, 8)}, {}, ["no embedding matrix of a usual name", "candidates: weights [99, 8]"]),
    "several": (
        {"a.wte.weight": (99, 8), "b.wte.weight": (98, 8)},
        {},
        ["several embedding matrices (a.wte.weight, b.wte.weight)", "bank.tokens.tensor"],
    ),
    "a missing tensor": (
        {NAME: (99, 8), "bias": (8,)},
        {"tensor": "model.embed_token.weight"},
        [
            "`bank.tokens.tensor` is 'model.embed_token.weight'",
            f"did you mean `{NAME}`",
            f"candidates: {NAME} [99, 8])",
        ],
    ),
    "no table": ({"bias": (8,)}, {"tensor": "bias"}, ["bias is [8], expected [tokens, dim]"]),
    "another width": ({NAME: (99, 6)}, {}, ["`bank.tokens.dim` is 8", "have 6 coordinates: say 6"]),
    "too many components": ({NAME: (99, 6)}, {"encoder": "pca"}, ["at most 6 components"]),
    "more clusters than rows": ({NAME: (99, 8)}, {"clusters": 97}, ["clusters` is 97", "has 96 rows", "first 3"]),
    "more exemplars than rows": ({NAME: (42, 8)}, {}, ["are 40", "has 39 rows"]),
    "a file that is not there": ({NAME: (99, 8)}, {"file": "modl.safetensors"}, ["did you mean `model.safetensors`"]),
}


@pytest.mark.parametrize(("tensors", "changes", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_table_that_cannot_feed_the_bank_is_refused_before_anything_runs(tmp_path, tensors, changes, expected):
    write(tmp_path / "model.safetensors", {name: np.zeros(shape, np.float32) for name, shape in tensors.items()})
    with pytest.raises(StudyError) as error:
        resolve(tmp_path, **changes)
    for fragment in expected:
        assert fragment in str(error.value)


def test_a_folder_with_several_files_wants_one_named(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.safetensors", {NAME: blobs()})
    with pytest.raises(StudyError, match=r"not exactly one .*\(a\.safetensors, b\.safetensors\): name the file"):
        resolve(tmp_path)


def test_a_shard_that_is_missing_is_named(tmp_path):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {NAME: "model-1.safetensors"}}))
    with pytest.raises(StudyError, match=r"model-1\.safetensors, which is not there"):
        resolve(tmp_path)


def write_header(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Path:
    """A safetensors file of zeros; types that PyTorch lacks among its tensors."""
    entries, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        n_bytes = int(np.prod(shape)) * safetensors_file._BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + n_bytes]}
    return write_raw(path, entries, end)


def write_raw(path: Path, entries: dict, n_bytes: int) -> Path:
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(n_bytes))
    return path


CODES = ("U32", "U8", "I8", "I64", "BOOL", "C64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3")


@pytest.mark.parametrize("dtype", CODES)
def test_only_floating_point_values_are_a_table(tmp_path, dtype):
    path = write_header(tmp_path / "m.safetensors", {NAME: (dtype, (99, 8))})
    for tensor in ("", NAME):  # found by its usual name, or named
        with pytest.raises(StudyError) as error:
            resolve(tmp_path, tensor=tensor)
        for fragment in (f"{path}: {NAME} is {dtype};", "expected F64, F32, F16 or BF16", "dequantise", "save_file("):
            assert fragment in str(error.value)


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_floating_point_type_that_holds_values_is_one(tmp_path, dtype):
    path = write_header(tmp_path / "m.safetensors", {NAME: (dtype, (99, 8)), "model.norm.weight": ("U8", (8,))})
    assert resolve(tmp_path) == (NAME, [path])


LAYER = NAME.removesuffix(".weight")
BESIDE = [
    *("scales", "biases", "qzeros", "zeros", "g_idx", "SCB", "scale", "weight_scale", "weight_scale_inv"),
    *("weight_packed", "weight_zero_point", "weight.absmax", "weight.quant_map", "weight._data"),
    *("weight.quant_state.bitsandbytes__nf4", "weight.nested_absmax", "absmax"),
    *("weight_scale_2", "weight_global_scale", "scales_and_zeros", "zero", "weight.q_scale", "input_scale"),
    *("weight:_data", "weight:scale", "_weight_qdata", "weight_quantizer._scale", "weight_quantizer._amax"),
    *("weight.tensor_impl.scale", "parametrizations.weight.0.scale", "weight.state.absmax", "weight_scb", "lut"),
    *("codes", "Qidxs", "W_q", "qscale", "dequant_scale"),
]


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("dtype", ["F16", "U32"])
def test_a_table_with_scales_beside_it_is_quantised_whatever_its_type(tmp_path, dtype, beside):
    write_header(tmp_path / "m.safetensors", {NAME: (dtype, (99, 8)), f"{LAYER}.{beside}": ("F16", (99, 1))})
    with pytest.raises(StudyError, match=rf"{NAME} is {dtype} and has {LAYER}\.{beside} beside it, .*dequantise"):
        resolve(tmp_path)


def test_scales_may_lie_in_another_shard(tmp_path):
    shard = write_header(tmp_path / "model-2.safetensors", {NAME: ("F16", (99, 8))})
    index = {"weight_map": {f"{LAYER}.scales": "model-1.safetensors", NAME: shard.name}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(StudyError, match=r"embed_tokens\.scales beside it"):
        resolve(tmp_path)


@pytest.mark.parametrize("index", [INDEX, "mine.safetensors.index.json"])
def test_scales_in_another_shard_count_where_the_shard_itself_is_named(tmp_path, index):
    shard = write_header(tmp_path / "model-2.safetensors", {NAME: ("F16", (99, 8))})
    listed = {f"{LAYER}.scales": "model-1.safetensors", NAME: shard.name}
    (tmp_path / index).write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(StudyError, match=r"embed_tokens\.scales beside it"):
        resolve(tmp_path, file=shard.name)
    # An index of other files says nothing of this one.
    (tmp_path / index).write_text(json.dumps({"weight_map": dict.fromkeys(listed, "model-1.safetensors")}))
    assert resolve(tmp_path, file=shard.name) == (NAME, [shard])


def test_a_matrix_that_is_there_in_packed_words_alone_is_said_to_be_quantised(tmp_path):
    tensors = {f"{LAYER}.qweight": ("I32", (99, 8)), f"{LAYER}.qzeros": ("I32", (9, 8))}
    write_header(tmp_path / "m.safetensors", tensors)
    with pytest.raises(StudyError, match=r"embed_tokens\.qweight is I32 and has .*qzeros beside it"):
        resolve(tmp_path)


def test_what_other_layers_have_beside_them_does_not_count(tmp_path):
    others = ["lm_head.scales", "model.layers.0.q_proj.weight_scale", f"{LAYER}_norm.weight", f"{LAYER}.bias"]
    # Gemma's factor on embeddings; a part of another layer; a module that has a weight of its own.
    others += [f"{LAYER}.embed_scale", f"{LAYER}_per_layer.weight_scale", f"{LAYER}.scale.weight"]
    path = write_header(tmp_path / "m.safetensors", {NAME: ("F16", (99, 8)), **dict.fromkeys(others, ("F16", (9,)))})
    assert resolve(tmp_path) == (NAME, [path])


@pytest.mark.parametrize("named", [True, False])
def test_a_checkpoint_of_pytorchs_is_refused_with_the_lines_that_convert_it(tmp_path, named, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = torch.as_tensor(blobs())
    torch.save({NAME: rows, "lm_head.weight": rows}, tmp_path / "pytorch_model.bin")
    with pytest.raises(StudyError, match=r"pytorch_model\.bin: a file of PyTorch's is a pickle") as error:
        resolve(tmp_path, file="pytorch_model.bin" if named else "")
    _, *lines = str(error.value).split("\n")
    assert len(lines) == 3
    exec("\n".join(lines))
    assert resolve(tmp_path) == (NAME, [tmp_path / "model.safetensors"])
    np.testing.assert_array_equal(tokens.read_table(tmp_path / "model.safetensors", NAME), rows.numpy())


# Rows that pad the vocabulary.


def padded(folder: Path, rows: np.ndarray) -> Path:
    return write(folder / "padded.safetensors", {NAME: np.concatenate([blobs(), rows.astype(np.float32)])})


def test_trailing_rows_are_left_out(table, tmp_path):
    path = padded(tmp_path, np.full((12, 8), 30))
    whole, without = build(table), build(path, skip_last_rows=12)
    np.testing.assert_array_equal(whole.embeddings, without.embeddings)
    np.testing.assert_array_equal(whole.exemplar_table["token"], without.exemplar_table["token"])


@pytest.mark.parametrize("value", [0, 0.25])
def test_as_many_equal_rows_as_make_a_class_are_refused_with_the_key_that_leaves_them_out(tmp_path, value):
    last = len(blobs())
    path = padded(tmp_path, np.full((12, 8), value))
    for rows in ("raw", "unit"):
        with pytest.raises(StudyError) as error:
            build(path, rows=rows)
        assert f"12 are {'equal' if value else 'all zeros'}, rows {last} to {last + 11}" in str(error.value)
        assert "say `bank.tokens.skip_last_rows: 12`" in str(error.value)
    with pytest.raises(StudyError, match="skip_last_rows: 12`"):  # the number for the whole table
        build(path, skip_last_rows=1)
    leading = write(tmp_path / "leading.safetensors", {NAME: np.concatenate([np.full((12, 8), value), blobs()[3:]])})
    with pytest.raises(StudyError, match=r"say `bank\.tokens\.skip_rows: 12`"):
        build(leading.rename(tmp_path / "l.safetensors"), skip_rows=0)


def test_a_table_that_repeats_its_rows_is_refused(tmp_path):
    path = padded(tmp_path, blobs()[SKIPPED:])  # each row twice, fewer times than a class has exemplars
    with pytest.raises(StudyError, match=r"172 of 172 rows of .* are equal to another one"):
        build(path)


def test_a_few_equal_rows_in_a_large_table_are_warned_of(tmp_path):
    rows = np.tile(blobs()[SKIPPED:], (12, 1))
    rows += 0.05 * np.random.default_rng(1).standard_normal(rows.shape).astype(np.float32)
    rows[-2:] = 40
    path = write(tmp_path / "m.safetensors", {NAME: rows})
    (warning,) = build(path, skip_rows=0).warnings
    assert f"2 of 1,032 rows of {NAME} are equal to another one; of these 2 are equal, rows 1030 to 1031" in warning
    assert "skip_last_rows: 2" in warning
    # Ten are as many as a class has exemplars, though fewer than a hundredth of all.
    rows[-10:] = 40
    with pytest.raises(StudyError, match=r"10 are equal, rows 1022 to 1031.*skip_last_rows: 10`"):
        build(write(tmp_path / "ten.safetensors", {NAME: rows}), skip_rows=0)


def many_blobs() -> np.ndarray:
    """Rows [400, 8] in 20 blobs, by turns, so that a blob's rows stand apart."""
    generator = np.random.default_rng(3)
    centres = 3 * generator.standard_normal((20, 8))
    return (np.tile(centres, (20, 1)) + 0.5 * generator.standard_normal((400, 8))).astype(np.float32)


NEARLY_EQUAL = {
    # As transformers' resize_token_embeddings draws them.
    "like the mean": lambda rows, draw: draw.multivariate_normal(rows.mean(0), 1e-9 * np.cov(rows.T), 64),
    "the weakest case seen": lambda rows, draw: rows[7] + 0.0035 / 0.5 * rows.std() * draw.standard_normal((64, 8)),
    "tiny": lambda rows, draw: 1e-5 * draw.standard_normal((64, 8)),
    "multiples of one vector": lambda rows, draw: draw.uniform(0.5, 2, (64, 1)) * rows[7],
}
FAR_APART = {("multiples of one vector", "raw")}


@pytest.mark.parametrize("rows", ["raw", "unit"])
@pytest.mark.parametrize("kind", NEARLY_EQUAL)
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_that_pad_a_vocabulary_and_are_nearly_equal_are_refused_where_they_are_clustered(
    tmp_path, kind, rows, seed
):
    real = many_blobs()
    section = {"skip_rows": 0, "rows": rows, "clusters": 20, "classes": 10, "exemplars": 7, "holdout_exemplars": 1}
    assert build(write(tmp_path / "real.safetensors", {NAME: real}), seed, **section).warnings == ()
    more = NEARLY_EQUAL[kind](real, np.random.default_rng(seed)).astype(np.float32)
    last = write(tmp_path / "last.safetensors", {NAME: np.concatenate([real, more])})
    first = write(tmp_path / "first.safetensors", {NAME: np.concatenate([more, real])})
    if (kind, rows) in FAR_APART:
        assert build(last, seed, **section).warnings == ()
        return
    with pytest.raises(StudyError, match=r"rows 400 to 463.*say `bank\.tokens\.skip_last_rows: 64` to leave them out"):
        build(last, seed, **section)
    with pytest.raises(StudyError, match=r"rows 0 to 63.*say `bank\.tokens\.skip_rows: 64` to leave them out"):
        build(first, seed, **section)
    assert build(last, seed, **section | {"skip_last_rows": 64}).warnings == ()


def test_nearly_equal_rows_that_stand_apart_are_warned_of(tmp_path):
    rows = many_blobs()
    rows[::20] = rows[0] + 0.001 * np.random.default_rng(0).standard_normal((20, 8))
    path = write(tmp_path / "m.safetensors", {NAME: rows})
    section = {"skip_rows": 0, "clusters": 20, "classes": 10, "exemplars": 7, "holdout_exemplars": 1}
    (warning,) = build(path, **section).warnings
    assert f"20 of 400 rows of {NAME} differ from each other by less than 1% of the variance" in warning
    assert "row 0, row 20, row 40, row 60, row 80, …: are they words?" in warning


def test_rows_too_small_or_too_large_for_float32_squares_have_directions(tmp_path):
    rows = many_blobs()
    expected = tokens._directions(rows, 0)
    for factor in (1e-30, 1e-23, 1e23):
        np.testing.assert_allclose(tokens._directions(rows * np.float32(factor), 0), expected, rtol=1e-6)


def test_a_table_of_whole_numbers_is_warned_of(tmp_path):
    path = write(tmp_path / "m.safetensors", {NAME: np.rint(20 * many_blobs())})
    section = {"skip_rows": 0, "clusters": 20, "classes": 10, "exemplars": 7, "holdout_exemplars": 1}
    (warning,) = build(path, **section).warnings
    assert f"all 3,200 entries of {NAME} are whole numbers, from " in warning
    assert "are they codes of a quantised table?" in warning


def test_rows_left_out_at_the_end_count_as_missing(tmp_path):
    write(tmp_path / "model.safetensors", {NAME: np.zeros((99, 8), np.float32)})
    with pytest.raises(StudyError, match="has 36 rows after the first 3 and before the last 60: ask for fewer"):
        resolve(tmp_path, skip_last_rows=60)


def test_the_key_for_trailing_rows_changes_no_bank_that_has_none():
    spec = BankSpec(seed=0, parameters=SECTION)
    assert "skip_last_rows" not in canonical(identity_values(spec))
    assert replace(spec, parameters=replace(SECTION, skip_last_rows=1)).id != spec.id


@pytest.mark.parametrize("content", ["[]", '{"weight_map": 3}', "no json"])
def test_an_index_that_is_none_is_refused(tmp_path, content):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(StudyError, match="not the index of a sharded checkpoint"):
        resolve(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x08\0\0\0\0\0\0\0no json!"])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(StudyError, match=r"m\.safetensors: not a safetensors file"):
        resolve(tmp_path)


def test_a_file_cut_short_is_refused(table):
    table.write_bytes(table.read_bytes()[:-100])
    with pytest.raises(StudyError, match=r"is cut short, .* bytes"):
        resolve(table.parent)


F32 = {"dtype": "F32", "shape": [2, 2]}
BROKEN = {
    "bytes behind the last": ({NAME: F32 | {"data_offsets": [0, 16]}}, 17, "goes on behind its last tensor, "),
    "a gap": (
        {NAME: F32 | {"data_offsets": [0, 16]}, "b": F32 | {"data_offsets": [20, 36]}},
        36,
        "b has bytes 20 to 36, expected from 16",
    ),
    "offsets the wrong way round": (
        {NAME: F32 | {"data_offsets": [16, 0]}},
        16,
        f"{NAME} has bytes 16 to 0, expected from 0",
    ),
    "bytes for another shape": (
        {NAME: F32 | {"data_offsets": [0, 12]}},
        12,
        rf"{NAME}, F32 \[2, 2\], has 12 bytes, expected 16",
    ),
    "another tensor of a type that is none": (
        {NAME: F32 | {"data_offsets": [0, 16]}, "b": {"dtype": "NF4", "shape": [4], "data_offsets": [16, 18]}},
        18,
        "b is NF4, with which no tensor of the file can be read",
    ),
    "metadata of numbers": (
        {"__metadata__": {"step": 3}, NAME: F32 | {"data_offsets": [0, 16]}},
        16,
        "`__metadata__` of the header is no map of texts",
    ),
}


@pytest.mark.parametrize(("entries", "n_bytes", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_the_library_would_not_read_is_refused_before_anything_runs(tmp_path, entries, n_bytes, expected):
    path = write_raw(tmp_path / "m.safetensors", entries, n_bytes)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.safe_open(path, framework="pt")
    with pytest.raises(StudyError, match=expected):
        resolve(tmp_path)
    with pytest.raises(StudyError, match=r"m\.safetensors: .* cannot be read .*: get the file again"):
        tokens.read_table(path, NAME)


def test_the_types_that_can_be_read_are_those_of_the_library(tmp_path):
    path = write_raw(tmp_path / "m.safetensors", {NAME: F32 | {"dtype": "none", "data_offsets": [0, 16]}}, 16)
    with pytest.raises(safetensors.SafetensorError) as error:
        safetensors.safe_open(path, framework="pt")
    _, *types = re.findall("`(\\w+)`", str(error.value))
    assert set(types) == set(safetensors_file._BITS)


# What it costs.


def test_faiss_and_safetensors_are_loaded_in_the_banks_job_alone():
    code = (
        "import sys; from icl_transience import __main__; from icl_transience.analysis import curves;"
        "from icl_transience.evaluation import evaluate; from icl_transience.planning import plan;"
        "from icl_transience.training import segments;"
        "print([name for name in ('faiss', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_large_file_is_not_hashed_again_while_its_time_is_what_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "_REMEMBERED_BYTES", 10)
    path = tmp_path / "large"
    path.write_bytes(b"0123456789")
    first = checksums.file_digest(path)
    monkeypatch.setattr(checksums, "sha256", lambda path: "hashed again")
    checksums.file_digest.cache_clear()
    assert checksums.file_digest(path) == first
    path.write_bytes(b"0123456789a")
    checksums.file_digest.cache_clear()
    assert checksums.file_digest(path) == "hashed again"
    checksums.file_digest.cache_clear()


# The real table.


def test_the_real_table_makes_classes_of_words_near_each_other(tokens_folder):
    tensor, (path,) = resolve(tokens_folder, skip_rows=999, clusters=1000, encoder="pca", dim=64)
    assert tensor == "embeddings.word_embeddings.weight"
    rows = tokens.read_table(path, tensor)
    assert len(np.unique(equal_rows(rows))) == len(rows)
    section = {"tensor": tensor, "skip_rows": 999, "clusters": 1000, "classes": 300, "holdout_classes": 30}
    bank = build(path, **section, exemplars=8, holdout_exemplars=2, encoder="pca", dim=64)
    assert bank.warnings == ()
    assert bank.embeddings.shape == (330, 10, 64)
    trained = bank.embeddings[:300, :8].astype(np.float64)
    assert np.mean(trained**2) == pytest.approx(1, rel=1e-5)
    # Of rows put together at random, eight a class, the variance within would be 7/8 of all.
    assert trained.var(axis=1).mean() < 0.75 * trained.var(axis=(0, 1)).mean()


@pytest.mark.parametrize(
    ("place", "names", "expected"),
    [
        ('my "tokens"', ["vocab.json", "tokenizer.json", "vocab.txt"], "vocab.txt"),
        ("tokens", ["vocab.json", "tokenizer.json"], "tokenizer.json"),
        ("tokens", ["vocab.json"], "vocab.json"),
        ("tokens", [], None),
        ("{tokens}", ["vocab.txt"], None),  # no rule can have it as its input
    ],
)
def test_the_vocabulary_beside_a_table_is_an_input_of_its_card(tmp_path, place, names, expected):
    folder = tmp_path / place
    folder.mkdir()
    write(folder / "model.safetensors", {"wte.weight": np.zeros((600, 8), dtype=np.float32)})
    for name in names:
        (folder / name).write_text("{}")
    section = {"clusters": 20, "classes": 12, "exemplars": 5, "holdout_classes": 2, "dim": 8}
    study = {"experiments": {"a": {"bank": {"source": "tokens", "tokens": section}}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    plan = Plan({"study": str(tmp_path / "mine.yaml"), "tokens": str(folder)}, ROOT)
    (bank_id,) = plan.banks
    assert plan.sources.vocabulary(bank_id) == (str(folder / expected) if expected else None)


def test_what_macos_puts_beside_a_checkpoint_is_none(tmp_path):
    path = write(tmp_path / "model.safetensors", {NAME: blobs()})
    for name in ("._model.safetensors", "._pytorch_model.bin", "._model.safetensors.index.json"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    assert _checkpoint_file(tmp_path, "") == path
    assert _listed_beside(path) == set()
