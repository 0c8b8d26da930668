"""The figure of a bank's quality card: exemplars, spectrum, and the numbers that banks/quality.py measures."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from icl_transience import drawing, store
from icl_transience.banks import bank as banks
from icl_transience.banks import quality
from icl_transience.spec import BankSpec, StudyError, from_values

_WORD_LENGTH = 11
_COORDINATES = 64


def draw(bank: Path, vocabulary: Path | None, vector: Path, raster: Path) -> None:
    """Draws the card of the bank in `bank` as SVG and PNG. vocabulary: what the rows of a table of tokens are."""
    with store.reading(bank, "bank") as file:
        spec = from_values(BankSpec, json.loads(file.attrs["spec"]))
        with matplotlib.rc_context(drawing.STYLE):
            drawing.save(_card(spec, file, read_vocabulary(vocabulary) if vocabulary else None), vector, raster)


def read_vocabulary(path: Path) -> list[str]:
    """Row -> word, from vocab.txt (a word a line) or tokenizer.json (Hugging Face's)."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return text.removesuffix("\n").split("\n")  # splitlines() would cut words of odd characters
    try:
        words = json.loads(text)["model"]["vocab"]
        if isinstance(words, dict):
            return [word for word, _ in sorted(words.items(), key=lambda item: item[1])]
        return [word for word, _ in words]
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"{path}: not a tokenizer with a vocabulary ({error!r}): put another there, or none"
        ) from error


def _card(spec: BankSpec, file: h5py.File, words: Sequence[str] | None) -> Figure:
    if "quality" not in file:
        raise StudyError(f"{file.filename}: was made before banks had quality cards: delete it and make it again")
    card = quality.read(file["quality"])
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    sheet, spectrum, numbers = figure.subplots(1, 3, width_ratios=[5, 3, 4])
    _sheet(sheet, spec, file, words)
    _spectrum(spectrum, card["spectrum"])
    _numbers(numbers, card)
    figure.suptitle(describe(spec), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def describe(spec: BankSpec) -> str:
    """A bank in a line."""
    shape, encoder = spec.shape, getattr(spec.parameters, "encoder", None)
    text = f"{spec.source}, {shape.n_train_classes:,} classes × {shape.n_train_exemplars} exemplars, {shape.width}-d"
    return text + (f", encoder {encoder}" if encoder else "") + f", seed {spec.seed}"


def _sheet(axes: Axes, spec: BankSpec, file: h5py.File, words: Sequence[str] | None) -> None:
    """Exemplars, a row a class: images, words, or coordinates as colours."""
    classes, exemplars = banks.contact_sheet(spec.shape)
    axes.set(xticks=[], ylabel="class")
    if "contact" in file:
        images = np.pad(file["contact"][()], ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=64)
        rows, columns, side, _ = images.shape
        axes.imshow(images.transpose(0, 2, 1, 3).reshape(rows * side, columns * side), cmap="gray_r", aspect="auto")
        ticks, title = side * (np.arange(rows) + 0.5), "exemplars"
    elif "exemplars/token" in file:
        tokens = file["exemplars/token"][()][np.ix_(classes, exemplars)]
        for (row, column), token in np.ndenumerate(tokens):
            word = _shown(words[token]) if words and token < len(words) else str(token)
            axes.text(column, row, word, fontsize=6, ha="center", va="center")
        axes.set(xlim=(-0.5, len(exemplars) - 0.5), ylim=(len(classes) - 0.5, -0.5))
        ticks, title = np.arange(len(classes)), "exemplars" if words else "exemplars: rows of the table"
    else:
        values = file["embeddings"][:, : len(exemplars)][classes][..., :_COORDINATES]
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
    """A word that fits its cell; characters that the figure's font lacks would be boxes all the same."""
    return word if len(word) <= _WORD_LENGTH else word[: _WORD_LENGTH - 1] + "…"


def _spectrum(axes: Axes, shares: np.ndarray) -> None:
    axes.plot(np.arange(1, len(shares) + 1), shares, color="#0072B2", marker="." if len(shares) < 100 else "")
    axes.set(xscale="log", yscale="log", xlabel="principal component", ylabel="share of the variance", title="spectrum")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        # The usual ones write formulas, which are plain text here (see drawing.STYLE).
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    # Rounding makes tiny shares of what is nothing.
    shown = shares[shares > 1e-6 * shares[0]]
    axes.set_ylim(shown.min() / 2, shown.max() * 2)


def _plain(value: float) -> str:
    """Two decimals, as far as they say anything."""
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
