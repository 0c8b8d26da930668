"""Quality cards: what the numbers are on banks where they are known, and their figure."""

import functools
import json
import math
from dataclasses import replace

import h5py
import matplotlib
import numpy as np
import pytest
from builders import TINY_BANK
from matplotlib.figure import Figure

from icl_transience.banks import bank as banks_bank
from icl_transience.banks import quality
from icl_transience.banks.bank import seeded
from icl_transience.report.figures import bank_card, style
from icl_transience.specs.banks import BankSpec, Gaussian, Tokens
from icl_transience.specs.errors import StudyError
from icl_transience.store import bank_file, hdf5

DRAW = functools.partial(seeded, 0)


def gaussian(noise: float, *, classes: int = 200, exemplars: int = 8, dim: int = 16) -> np.ndarray:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((classes, 1, dim))
    return (centres + noise * generator.standard_normal((classes, exemplars, dim))).astype(np.float32)


def test_classes_that_are_points_are_told_apart_by_everything():
    card = quality.measure(gaussian(1e-3), DRAW)
    for name in ("nearest_exemplar", "nearest_centroid", "linear_fitted", "linear_test_accuracy"):
        assert card[name] == 1, name
    assert card["within_over_between"] < 1e-5


def test_exemplars_that_know_nothing_of_their_class_are_told_apart_by_chance():
    # 200 classes at one point. 4,000 episodes; five standard errors of a half.
    card = quality.measure(gaussian(1.0) - gaussian(0.0)[:, :1], DRAW)
    assert card["nearest_exemplar"] == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(quality.EPISODES))
    assert card["nearest_centroid"] == pytest.approx(1 / 200, abs=5 * math.sqrt(1 / 200 / 1600))
    # 128 exemplars left out, two of each of 64 classes.
    assert card["linear_test_accuracy"] < 1 / 64 + 5 * math.sqrt(1 / 64 / 128)
    # 384 exemplars in 17 dimensions can be fitted a little.
    assert card["linear_fitted"] < 0.5


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_the_variances_are_those_the_exemplars_were_drawn_with(noise):
    card = quality.measure(gaussian(noise, classes=1000), DRAW)
    # As in test_banks.py: within has 1000 * 7 * 16 degrees of freedom, between 999 * 16.
    error = math.hypot(math.sqrt(2 / (7000 * 16)), math.sqrt(2 / (999 * 16)) * (1 + noise**2 / 8))
    assert card["within_over_between"] == pytest.approx(noise**2, rel=5 * error)


def test_numbers_fall_as_noise_grows():
    measured = [quality.measure(gaussian(noise), DRAW) for noise in (0.3, 0.8, 1.5, 3.0)]
    for name in ("nearest_exemplar", "nearest_centroid", "linear_test_accuracy"):
        values = [card[name] for card in measured]
        assert values == sorted(values, reverse=True), name
        assert values[0] > values[-1], name


def test_a_centroid_leaves_its_own_exemplar_out():
    embeddings = gaussian(1.2, classes=30, exemplars=4)
    right = 0
    for label, place in np.ndindex(30, 4):
        centroids = embeddings.mean(axis=1)
        centroids[label] = np.delete(embeddings[label], place, axis=0).mean(axis=0)
        right += np.linalg.norm(embeddings[label, place] - centroids, axis=1).argmin() == label
    assert 0.1 < right / 120 < 0.9
    assert quality.measure(embeddings, DRAW)["nearest_centroid"] == pytest.approx(right / 120)


def test_the_spectrum_is_that_of_the_covariance():
    scales = np.array([4.0, 2.0, 1.0, 0.5])
    drawn = np.random.default_rng(0).standard_normal((500, 8, 4)) * scales
    card = quality.measure((drawn + 7).astype(np.float32), DRAW)
    np.testing.assert_allclose(card["spectrum"], scales**2 / (scales**2).sum(), rtol=0.1)
    assert card["spectrum"].sum() == pytest.approx(1)
    shares = card["spectrum"]
    assert card["effective_dim"] == pytest.approx(1 / (shares**2).sum())


def test_the_effective_dimension_counts_directions_of_equal_variance():
    flat = np.zeros((200, 8, 10), np.float32)
    flat[..., :3] = np.random.default_rng(0).standard_normal((200, 8, 3))
    assert quality.measure(flat, DRAW)["effective_dim"] == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("exemplars", [1, 2, 4])
def test_what_few_exemplars_cannot_say_is_not_a_number(exemplars):
    card = quality.measure(gaussian(0.1, exemplars=exemplars), DRAW)
    assert math.isnan(card["nearest_exemplar"])
    assert math.isnan(card["nearest_centroid"]) == (exemplars == 1)
    assert math.isnan(card["linear_test_accuracy"]) == (exemplars < 4)
    assert card["linear_fitted"] == 1


def test_a_card_in_a_bank_of_an_earlier_version_is_read_under_todays_names(tmp_path):
    with h5py.File(tmp_path / "bank.h5", "w") as file:
        file.attrs["linear_fitted"], file.attrs["linear_others"] = 1.0, 0.25
        assert quality.read_card(file) == {"linear_fitted": 1.0, "linear_test_accuracy": 0.25}


def test_a_card_is_of_training_classes_and_exemplars_alone(tmp_path):
    bank = banks_bank.build(TINY_BANK)
    garbled = bank.embeddings.copy()
    garbled[10:], garbled[:, 3:] = 100, 100
    for name, embeddings in (("one", bank.embeddings), ("other", garbled)):
        banks_bank.save(replace(bank, embeddings=embeddings), tmp_path / f"{name}.h5", TINY_BANK)
    found = []
    for name in ("one", "other"):
        with h5py.File(tmp_path / f"{name}.h5") as file:
            found.append(quality.read_card(file["quality"]))
    assert set(found[0]) == {*quality.NAMES, "spectrum"}
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])
    # A gaussian bank of noise 0.5 in six dimensions.
    assert 0.05 < found[0]["within_over_between"] < 2


def test_a_changed_card_is_a_damaged_bank(tmp_path):
    banks_bank.save(banks_bank.build(TINY_BANK), tmp_path / "bank.h5", TINY_BANK)
    with h5py.File(tmp_path / "bank.h5", "a") as file:
        file["quality"].attrs["nearest_exemplar"] = 1.0
    with pytest.raises(hdf5.StoreError, match="checksum"):
        bank_file.load(tmp_path / "bank.h5", TINY_BANK)


# The figure.


def drawn(bank, vocabulary=None) -> Figure:
    with hdf5.reading(bank, "bank") as file:
        return bank_card._card(spec_of(file), file, bank_card.words_of_rows(vocabulary))


def texts(bank, vocabulary=None) -> str:
    """Everything that a card says in words."""
    figure = drawn(bank, vocabulary)
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return " ".join([figure.get_suptitle(), *found, *(axes.get_title() for axes in figure.axes)])


def spec_of(file: h5py.File) -> BankSpec:
    from icl_transience.specs.identity import from_values

    return from_values(BankSpec, json.loads(file.attrs["spec"]))


@pytest.mark.parametrize("n_components", [4, 64, 1000])
def test_the_ticks_of_a_spectrum_are_plain_numbers(n_components):
    shares = np.arange(1, n_components + 1) ** -1.5
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(2.5, 3.5))
        axes = figure.subplots()
        bank_card._spectrum(axes, shares / shares.sum())
        figure.canvas.draw()
    for axis in (axes.xaxis, axes.yaxis):
        lowest, highest = axis.get_view_interval()
        numbers = [float(label.get_text()) for label in axis.get_ticklabels()]
        assert sum(lowest <= number <= highest for number in numbers) >= 2


def test_a_card_shows_every_number_and_coordinates_where_there_is_nothing_to_see(tmp_path):
    spec = replace(TINY_BANK, parameters=Gaussian(**(vars(TINY_BANK.parameters) | {"exemplars": 6})))
    banks_bank.save(banks_bank.build(spec), tmp_path / "bank.h5", spec)
    bank_card.draw_bank_card(tmp_path / "bank.h5", None, tmp_path / "card.svg", tmp_path / "card.png")
    assert (tmp_path / "card.svg").stat().st_size > 10_000
    assert (tmp_path / "card.png").read_bytes()[1:4] == b"PNG"
    said = texts(tmp_path / "bank.h5")
    with h5py.File(tmp_path / "bank.h5") as file:
        for name in quality.NAMES:
            value = file["quality"].attrs[name]
            assert (f"{value:.2f}" if value < 10 else f"{value:.0f}") in said, name
    assert "gaussian, 10 classes × 6 exemplars, 6-d" in said
    assert "coordinates of exemplars" in said


def test_a_card_shows_the_warnings_of_its_bank(tmp_path):
    bank = replace(banks_bank.build(TINY_BANK), warnings=("3 of 48 exemplars are odd", "and 2 coordinates"))
    banks_bank.save(bank, tmp_path / "bank.h5", TINY_BANK)
    said = texts(tmp_path / "bank.h5")
    assert "3 of 48 exemplars are odd" in said
    assert "and 2 coordinates" in said


def test_equal_banks_have_equal_cards(tmp_path):
    banks_bank.save(banks_bank.build(TINY_BANK), tmp_path / "bank.h5", TINY_BANK)
    for name in ("one", "two"):
        bank_card.draw_bank_card(tmp_path / "bank.h5", None, tmp_path / f"{name}.svg", tmp_path / f"{name}.png")
    for kind in ("svg", "png"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


def tokens_bank(folder):
    """A bank whose exemplars are rows 30, 31, … of a table."""
    section = {"classes": 3, "holdout_classes": 0, "exemplars": 2, "holdout_exemplars": 0, "dim": 4}
    spec = BankSpec(
        seed=0,
        parameters=Tokens(
            **section,
            file="",
            tensor="t",
            skip_rows=0,
            rows="raw",
            clusters=3,
            members="nearest",
            encoder="table",
            scale="raw",
        ),
    )
    embeddings = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    token = np.arange(30, 36).reshape(3, 2)
    bank = banks_bank.Bank(
        embeddings=embeddings, n_train_classes=3, n_train_exemplars=2, exemplar_table={"token": token}
    )
    banks_bank.save(bank, folder / "bank.h5", spec)
    return folder / "bank.h5"


# One is a line separator to Unicode, and a word to its tokenizer.
WORDS = ["\u2028", *(f"word{row}" for row in range(1, 35))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vocab.txt", "\n".join(WORDS) + "\n"),
        (
            "tokenizer.json",
            json.dumps({"model": {"vocab": {word: row for row, word in reversed([*enumerate(WORDS)])}}}),
        ),
        ("tokenizer.json", json.dumps({"model": {"vocab": [[word, -1.0] for word in WORDS]}})),
    ],
)
def test_clusters_of_tokens_are_shown_as_words_where_a_vocabulary_is_at_hand(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    said = texts(tokens_bank(tmp_path), tmp_path / name).split()
    assert {f"word{row}" for row in range(30, 35)} <= set(said)
    assert "35" in said  # beyond the vocabulary's end


def test_without_a_vocabulary_rows_are_shown_by_their_numbers(tmp_path):
    said = texts(tokens_bank(tmp_path))
    assert all(str(row) in said.split() for row in range(30, 36))
    assert "rows of the table" in said


# Rows of a table 0, 1, …, whatever rows a vocabulary leaves out or says elsewhere.
VOCABULARIES = {
    "holes": ({"model": {"vocab": {"a": 3, "b": 7, "word30": 30, "word33": 33}}}, {3: "a", 7: "b", 30: "word30"}),
    "above 0": ({"model": {"vocab": {"a": 100, "b": 101}}}, {100: "a", 101: "b"}),
    "added in front": (
        {"added_tokens": [{"id": 0, "content": "<s>"}], "model": {"vocab": {"a": 1, "b": 2}}},
        {0: "<s>", 1: "a", 2: "b"},
    ),
    "added behind": (
        {"added_tokens": [{"id": 9, "content": "<pad>", "special": True}], "model": {"vocab": {"a": 0}}},
        {0: "a", 9: "<pad>"},
    ),
    "added in place": ({"added_tokens": [{"id": 0, "content": "<s>"}], "model": {"vocab": {"a": 0}}}, {0: "<s>"}),
    "added alone": ({"added_tokens": [{"id": 31, "content": "a"}]}, {31: "a"}),
    "unigram": (
        {"added_tokens": [{"id": 2, "content": "<m>"}], "model": {"vocab": [["a", -1.5], ["b", -2]]}},
        {0: "a", 1: "b", 2: "<m>"},
    ),
    "words alone": ({"a": 5, "model": 6, "added_tokens": 8}, {5: "a", 6: "model", 8: "added_tokens"}),
    "of no order": ({"model": {"vocab": {"b": 1, "c": 2, "a": 0}}}, {0: "a", 1: "b", 2: "c"}),
}


@pytest.mark.parametrize(("document", "expected"), VOCABULARIES.values(), ids=VOCABULARIES)
def test_a_word_belongs_to_the_row_that_its_tokenizer_says(tmp_path, document, expected):
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    words = bank_card.read_vocabulary(tmp_path / "tokenizer.json")
    assert {row: words.get(row) for row in expected} == expected
    assert sorted(words.values()) == sorted(set(words.values()))
    assert not set(words) - set(expected) - {33}


def test_a_row_without_a_word_is_a_row_among_words(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"far": 10_000_000, "here": 33}}}))
    figure = drawn(tokens_bank(tmp_path), tmp_path / "tokenizer.json")
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == ["row 30", "row 31", "row 32", "here", "row 34", "row 35"]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"far": 10_000_000}}}))
    assert "rows of the table" in texts(tokens_bank(tmp_path), tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("café\nß\n".encode("latin-1"), {0: "caf\\xe9", 1: "\\xdf"}),
        ("\ufeffa\nb".encode(), {0: "a", 1: "b"}),
        (b"a\r\nb\r\n\r\n", {0: "a", 1: "b", 2: ""}),
        ("a\n\r\n\x0b\n\x85\n\u2029\nb\n".encode(), {0: "a", 1: "\r", 2: "\x0b", 3: "\x85", 4: "\u2029", 5: "b"}),
        (b"a\n\nb\n", {0: "a", 1: "", 2: "b"}),
    ],
    ids=["Latin-1", "a mark in front", "of Windows", "odd line breaks", "an empty line"],
)
def test_a_line_of_a_vocabulary_is_a_row_in_whatever_encoding(tmp_path, content, expected):
    (tmp_path / "vocab.txt").write_bytes(content)
    assert bank_card.read_vocabulary(tmp_path / "vocab.txt") == expected


def test_a_vocabulary_in_another_encoding_is_named(tmp_path, capsys):
    (tmp_path / "vocab.txt").write_bytes("one\ncafé\n".encode("latin-1"))
    bank_card.read_vocabulary(tmp_path / "vocab.txt")
    assert f"{tmp_path / 'vocab.txt'}: line 2 is not UTF-8" in capsys.readouterr().err


DAMAGED = {
    "empty": b"",
    "no JSON": b'{"model": {"vocab": {"a": 0',
    "no UTF-8": '{"model": {"vocab": {"é": 0}}}'.encode("latin-1"),
    "without end": b"[" * 100_000,
    "an empty object": b"{}",
    "a list": b"[1, 2]",
    "a number": b"3",
    "nothing": b"null",
    "an empty vocabulary": b'{"model": {"vocab": {}}}',
    "a vocabulary of text": b'{"model": {"vocab": "abc"}}',
    "a vocabulary of numbers": b'{"model": {"vocab": [1, 2]}}',
    "a word that is none": b'{"model": {"vocab": [[1, -1.0]]}}',
    "a row of text": b'{"model": {"vocab": {"a": "0"}}}',
    "a row of halves": b'{"model": {"vocab": {"a": 0.5}}}',
    "a row below 0": b'{"model": {"vocab": {"a": -1}}}',
    "a row that is true": b'{"model": {"vocab": {"a": true}}}',
    "an added word without a row": b'{"added_tokens": [{"content": "a"}], "model": {"vocab": {"b": 1}}}',
    "added words of text": b'{"added_tokens": ["a"], "model": {"vocab": {"b": 1}}}',
    "a list of words": b'{"model": {"vocab": ["ab", "cd"]}}',
    "a configuration": b'{"version": "1.0", "model_type": "bert"}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_vocabulary_is_named_and_the_card_shows_rows(tmp_path, content, capsys):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"tokenizer\.json: not a tokenizer with a vocabulary .*put another there"):
        bank_card.read_vocabulary(path)
    assert texts(tokens_bank(tmp_path), path) == texts(tokens_bank(tmp_path))
    assert "rows of the table by their numbers, not by words" in (said := capsys.readouterr().err)
    assert str(path) in said


@pytest.mark.parametrize("row", ["-1", "0.5", '"7"', "null", "true"])
def test_one_bad_row_among_thousands_costs_that_word_alone(tmp_path, row, capsys):
    words = ", ".join(f'"word{number}": {number}' for number in range(2000))
    for name, text in (
        ("vocab.json", f'{{{words}, "bad": {row}}}'),
        (
            "tokenizer.json",
            f'{{"added_tokens": [{{"content": "bad", "id": {row}}}], "model": {{"vocab": {{{words}}}}}}}',
        ),
    ):
        (tmp_path / name).write_text(text)
        assert bank_card.read_vocabulary(tmp_path / name) == {number: f"word{number}" for number in range(2000)}
        assert f"{tmp_path / name}: 1 words have no row and are left out: 'bad' is said" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vocab.txt", "vocab.json"])
def test_a_vocabulary_that_is_no_text_no_file_or_too_large_is_none(tmp_path, name, capsys):
    path = tmp_path / name
    without = texts(tokens_bank(tmp_path))
    assert texts(tokens_bank(tmp_path), path) == without  # it went meanwhile
    path.write_bytes("a\nb\n".encode("utf-16"))
    assert texts(tokens_bank(tmp_path), path) == without
    with path.open("wb") as file:
        file.truncate(10**10)
    assert texts(tokens_bank(tmp_path), path) == without
    assert capsys.readouterr().err.count(str(path)) >= 3
    path.unlink()
    path.mkdir()
    assert texts(tokens_bank(tmp_path), path) == without


@pytest.mark.filterwarnings("ignore:Glyph")
def test_words_of_odd_characters_are_drawn_on_one_line(tmp_path):
    odd = ["$\\frac{$", "a\nb\0\x1b[0m", "\ud83d", "", " \t ", "\u202eשלום𠀀🙂"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: 30 + place for place, word in enumerate(odd)}))
    bank_card.draw_bank_card(
        tokens_bank(tmp_path), tmp_path / "vocab.json", tmp_path / "card.svg", tmp_path / "card.png"
    )
    assert (tmp_path / "card.png").read_bytes()[1:4] == b"PNG"
    said = [text.get_text() for text in drawn(tokens_bank(tmp_path), tmp_path / "vocab.json").axes[0].texts]
    assert said == ["$\\frac{$", "a\\nb\\x00\\x…", "\\ud83d", "''", " \\t ", "\\u202eשלום…"]


def test_a_bank_without_a_card_says_what_to_do(tmp_path):
    with hdf5.writing(tmp_path / "bank.h5", "bank", TINY_BANK.id) as file:
        file.attrs["spec"] = json.dumps({"source": "gaussian", "seed": 0, "gaussian": vars(TINY_BANK.parameters)})
    with pytest.raises(StudyError, match=r"bank\.h5: was made before .* delete it"):
        bank_card.draw_bank_card(tmp_path / "bank.h5", None, tmp_path / "card.svg", tmp_path / "card.png")
