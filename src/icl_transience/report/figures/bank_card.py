"""The figure of a bank's quality card: exemplars, spectrum, and the numbers that banks/quality.py measures."""

import codecs
import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from icl_transience.banks import bank as banks_bank
from icl_transience.banks import quality
from icl_transience.report.figures import style
from icl_transience.specs.banks import BankSpec, Omniglot
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import from_values
from icl_transience.store import hdf5

_WORD_LENGTH = 11
_COORDINATES = 64
# The tokenizers of large language models have some tens of megabytes.
_LARGEST_VOCABULARY = 1 << 27
# A file of which so large a share of words has no row is no vocabulary.
_WRONG_WORDS = 0.01


def draw_bank_card(bank: Path, vocabulary: Path | None, vector: Path, raster: Path) -> None:
    """Draw the card of the bank in `bank` as SVG and PNG. vocabulary: what the rows of a table of tokens are."""
    with hdf5.reading(bank, "bank") as file:
        spec = from_values(BankSpec, json.loads(str(file.attrs["spec"])))
        with matplotlib.rc_context(style.STYLE):
            style.save(_card(spec, file, words_of_rows(vocabulary)), vector, raster)


def words_of_rows(vocabulary: Path | None) -> dict[int, str]:
    """Read a vocabulary as `read_vocabulary` does; where that fails say so on stderr and return none."""
    if vocabulary is None:
        return {}
    try:
        return read_vocabulary(vocabulary)
    except StudyError as error:
        print(f"the card shows rows of the table by their numbers, not by words: {error}", file=sys.stderr)
        return {}


def read_vocabulary(path: Path) -> dict[int, str]:
    """Read row -> word from vocab.txt (a word a line), vocab.json (word -> row) or tokenizer.json (Hugging Face's).

    Raises StudyError where there is no such vocabulary in the file.
    """
    try:
        if (size := path.stat().st_size) > _LARGEST_VOCABULARY:
            raise ValueError(f"it has {size:,} bytes, at most {_LARGEST_VOCABULARY:,} are read")
        content = path.read_bytes()
        return _lines(path, content) if path.suffix == ".txt" else _entries(path, json.loads(content))
    # RecursionError: JSON that is nested without end.
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StudyError(
            f"{path}: not a tokenizer with a vocabulary ({error!r}): put another there, or none"
        ) from error


def _lines(path: Path, content: bytes) -> dict[int, str]:
    """Return row -> word, of a word a line. Bytes that are no UTF-8 are shown as what they are, and move no line."""
    if b"\0" in content:
        raise ValueError("it is not text in UTF-8")
    # splitlines() would cut words of odd characters.
    lines = content.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").split(b"\n")
    if all(line.endswith(b"\r") for line in lines[:-1]):  # written on Windows
        lines = [line.removesuffix(b"\r") for line in lines]
    words = {row: line.decode("utf-8", "backslashreplace") for row, line in enumerate(lines)}
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n")
        print(f"{path}: line {row + 1} is not UTF-8: {words[row]!r} has its bytes for characters", file=sys.stderr)
    return words


def _entries(path: Path, document: Any) -> dict[int, str]:
    """Return row -> word, of what tokenizer.json or vocab.json holds, without the few words whose row is none."""
    if not isinstance(document, dict):
        raise TypeError("it is no JSON object")
    model, added = document.get("model"), document.get("added_tokens")
    if isinstance(model, dict) or isinstance(added, list):
        # Some words stand beside the model's own, and some in place of them.
        vocabulary, beside = (model or {}).get("vocab") or {}, [(one["content"], one.get("id")) for one in added or []]
    else:
        vocabulary, beside = document, []
    # Words with their rows, or (Unigram) with their log probabilities, in the order of rows.
    own = (
        vocabulary.items()
        if isinstance(vocabulary, dict)
        else [(_word_of_pair(pair), row) for row, pair in enumerate(vocabulary)]
    )
    words, wrong = {}, []
    for word, row in [*own, *beside]:
        if type(word) is not str or type(row) is not int or row < 0:
            wrong.append(f"{word!r} is said to be row {row!r}"[:200])
        else:
            words[row] = word
    if len(wrong) > _WRONG_WORDS * (len(words) + len(wrong)):
        raise TypeError(f"{len(wrong):,} of {len(words) + len(wrong):,} words have no row: {wrong[0]}")
    if wrong:
        print(f"{path}: {len(wrong):,} words have no row and are left out: {wrong[0]}", file=sys.stderr)
    if not words:
        raise ValueError("no word in it")
    return words


def _word_of_pair(pair: Any) -> str:
    """Return the word of a pair of a word and its log probability. Raises TypeError where it is none."""
    if not isinstance(pair, list) or len(pair) != 2:
        raise TypeError(f"{pair!r} in the vocabulary is no pair of a word and its log probability"[:200])
    return pair[0]


def _card(spec: BankSpec, file: h5py.File, words: Mapping[int, str]) -> Figure:
    if not isinstance(group := file.get("quality"), h5py.Group):
        raise StudyError(f"{file.filename}: was made before banks had quality cards: delete it and make it again")
    card = quality.read_card(group)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    sheet, spectrum, numbers = figure.subplots(1, 3, width_ratios=[5, 3, 4])
    _sheet(sheet, spec, file, words)
    _spectrum(spectrum, card["spectrum"])
    _numbers(numbers, card)
    figure.suptitle(describe(spec), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def describe(spec: BankSpec) -> str:
    """Return a bank in a line."""
    shape, encoder = spec.shape, getattr(spec.parameters, "encoder", None)
    text = f"{spec.source}, {shape.n_train_classes:,} classes × {shape.n_train_exemplars} exemplars, "
    if images := spec.images:
        return text + f"{images.side} × {images.side} × {images.channels} pixels, seed {spec.seed}"
    return text + f"{shape.width}-d" + (f", encoder {encoder}" if encoder else "") + f", seed {spec.seed}"


def _sheet(axes: Axes, spec: BankSpec, file: h5py.File, words: Mapping[int, str]) -> None:
    """Draw exemplars, a row a class: images, words, or coordinates as colours."""
    classes, exemplars = banks_bank.contact_sheet(spec.shape)
    axes.set(xticks=[], ylabel="class")
    if "contact" in file:
        images = hdf5.array(file, "contact")
        images = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2), *((0, 0),) * (images.ndim - 4)), constant_values=64)
        rows, columns, side, _, *channels = images.shape
        sheet = images.swapaxes(1, 2).reshape(rows * side, columns * side, *channels)
        # Of drawings the ink is bright, which is dark on paper.
        colours = "gray_r" if isinstance(spec.parameters, Omniglot) else "gray"
        axes.imshow(sheet, cmap=colours, vmin=0, vmax=255, aspect="auto")
        ticks, title = side * (np.arange(rows) + 0.5), "exemplars"
    elif "exemplars/token" in file:
        tokens = hdf5.array(file, "exemplars/token")[np.ix_(classes, exemplars)]
        named = any(token in words for token in tokens.flat)
        for (row, column), token in np.ndenumerate(tokens):
            word = _shown(words[token]) if token in words else f"row {token}" if named else str(token)
            axes.text(column, row, word, fontsize=6, ha="center", va="center")
        axes.set(xlim=(-0.5, len(exemplars) - 0.5), ylim=(len(classes) - 0.5, -0.5))
        ticks, title = np.arange(len(classes)), "exemplars" if named else "exemplars: rows of the table"
    else:
        values = hdf5.dataset(file, "embeddings")[:, : len(exemplars)][classes][..., :_COORDINATES]
        limit = np.abs(values).max() or 1
        axes.imshow(
            values.reshape(-1, values.shape[-1]),
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            aspect="auto",
            interpolation="none",
        )
        for row in range(1, len(classes)):
            axes.axhline(row * len(exemplars) - 0.5, color="black", linewidth=0.5)
        ticks, title = len(exemplars) * (np.arange(len(classes)) + 0.5) - 0.5, "coordinates of exemplars"
    axes.set_yticks(ticks, [str(number) for number in classes], fontsize=7)
    axes.set_title(title)


def _shown(word: str) -> str:
    """Return a word that fits its cell, on one line; characters that the figure's font lacks are boxes all the same."""
    if not word.strip(" "):
        return repr(word[:_WORD_LENGTH])
    # What no font has, line breaks and halves of characters among it, by its number.
    parts = [one if one.isprintable() else one.encode("unicode_escape").decode() for one in word[: _WORD_LENGTH + 1]]
    word = "".join(parts)
    return word if len(word) <= _WORD_LENGTH else word[: _WORD_LENGTH - 1] + "…"


def _spectrum(axes: Axes, shares: np.ndarray) -> None:
    axes.plot(np.arange(1, len(shares) + 1), shares, color="#0072B2", marker="." if len(shares) < 100 else "")
    axes.set(xscale="log", yscale="log", xlabel="principal component", ylabel="share of the variance", title="spectrum")
    for axis in (axes.xaxis, axes.yaxis):
        # Between decades names have room below a hundred components.
        subs = (1,) if axis is axes.xaxis and len(shares) > 100 else (1, 2, 5)
        axis.set_major_locator(LogLocator(subs=subs, numticks=9))
        # The usual ones write formulas, which are plain text here (see style.STYLE).
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    # Rounding makes tiny shares of what is nothing.
    shown = shares[shares > 1e-6 * shares[0]]
    axes.set_ylim(shown.min() / 2, shown.max() * 2)


def _plain(value: float) -> str:
    """Format with two decimals, as far as they say anything."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _numbers(axes: Axes, card: dict[str, Any]) -> None:
    axes.axis("off")
    axes.set_title("training classes and exemplars")
    height = 0.97
    for name, meaning in quality.NAMES.items():
        value = "–" if np.isnan(card[name]) else _plain(card[name])
        lines = textwrap.wrap(meaning, 42)
        axes.text(0, height, value, fontsize=12, fontweight="bold", va="top", transform=axes.transAxes)
        axes.text(0.24, height, "\n".join(lines), fontsize=8, va="top", transform=axes.transAxes)
        height -= 0.065 * len(lines) + 0.05
    for warning in filter(None, card.get("warnings", "").split("\n")):
        lines = textwrap.wrap(warning, 54)
        axes.text(0, height, "\n".join(lines), fontsize=7, va="top", color="#D55E00", transform=axes.transAxes)
        height -= 0.055 * len(lines) + 0.03
