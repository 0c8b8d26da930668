"""The figure of a study's evidence: for and against each claim, after every seed that was read."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from icl_transience.report.figures import layout, style
from icl_transience.store import checksums, tables_file
from icl_transience.store.tables_file import records

# Inches.
_WIDTH, _HEIGHT_OF_PANEL = 7.2, 2.6
_TITLE = "how the evidence for and against each claim grew from seed to seed"
_HOW = (
    "Study {study}. An e-value is 1 before the first seed; it grows with a seed that goes the way claimed (left), or "
    "the other way (right), and shrinks with one that does not. Where that way is no likelier than the other, it ever "
    "reaches 1 / alpha with probability alpha at most, however often one looks. Grey, dotted: what decides {claim}, "
    "1 / alpha{levels}{first}; what once reached it counts. Of a claim with several parts: the smallest of theirs "
    "for it, the mean of theirs against it; what decides it is the smallest of their highest.{fixed}"
)
_FIXED = " Thin: decided by a test of as many seeds as were fixed beforehand; their evidence decides nothing."
_SIDES = {"e_for": "for the claim", "e_against": "against it"}
# Less than that is below the panel: how much less is of no interest.
_LEAST = 0.05
_GREY = "#777777"
_DASHES = ("-", "--", "-.", ":")
_COLOURS = tuple(matplotlib.colormaps["tab10"].colors)  # pyright: ignore[reportAttributeAccessIssue]


def draw_from_tables(study: str, folder: Path, output: Path) -> Path:
    """Draw evidence.svg and .png into `output`; return the former.

    folder: that of the study's verdicts.csv and evidence.csv. Raises StudyError where one is not as it was written.
    """
    names = (tables_file.VERDICTS, tables_file.EVIDENCE)
    checksums.check_checksums(folder, names)
    verdicts, evidence = (tables_file.read_csv(folder / name) for name in names)
    vector = output / "evidence.svg"
    with matplotlib.rc_context(style.STYLE):
        style.save(draw(study, verdicts, evidence), vector, vector.with_suffix(".png"))
    return vector


def draw(study: str, verdicts: pd.DataFrame, evidence: pd.DataFrame) -> Figure:
    """Return the figure: a panel for and a panel against, a line a claim. Claims that were not tested are left out."""
    tested = records(verdicts.loc[verdicts["p_holm"].notna()])
    handles = _lines(tested)
    figure = Figure(figsize=(_WIDTH, _HEIGHT_OF_PANEL), layout="constrained")
    ((left, right),) = layout.with_legend(figure, 1, 2, handles, _HEIGHT_OF_PANEL)
    alphas = sorted({claim["alpha"] for claim in tested})
    for panel, (side, words) in zip((left, right), _SIDES.items(), strict=True):
        _thresholds(panel, alphas, len(tested))
        for claim, line in zip(tested, handles, strict=True):
            name = (evidence["experiment"] == claim["experiment"]) & (evidence["claim"] == claim["claim"])
            # All begin with 1.
            e = [1.0, *evidence.loc[name & evidence["part"].isna(), side]]
            look = {"color": line.get_color(), "ls": line.get_linestyle(), "lw": line.get_linewidth()}
            panel.plot(range(len(e)), e, **look)
            panel.plot(len(e) - 1, e[-1], "o", markersize=3.5, color=line.get_color())
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panel.set_xlim(left=0)
        panel.set(xlabel="seeds read", title=words)
    # One scale for both, so that more on one side is seen.
    lowest, highest = (pick(panel.get_ylim()[end] for panel in (left, right)) for end, pick in ((0, min), (1, max)))
    for panel in (left, right):
        panel.set_ylim(max(lowest, _LEAST), highest)
    left.set_ylabel("evidence (e-value)")
    right.tick_params(labelleft=False)
    return layout.with_text(figure, _TITLE, [_note(study, tested)])


def _lines(tested: Sequence[Mapping[str, Any]]) -> list[Line2D]:
    """Return a line of the legend for each claim, in order of the table."""
    several = len({claim["experiment"] for claim in tested}) > 1
    looks = list(product(_DASHES, _COLOURS))
    handles = []
    for number, claim in enumerate(tested):
        dashes, colour = looks[number % len(looks)]
        name = f"{claim['experiment']}: {claim['claim']}" if several else claim["claim"]
        # Lines that run together are seen beside each other, as later ones are narrower.
        width = 0.7 if claim["evidence"] == "fixed" else 3 - 1.8 * number / len(tested)
        label = f"{name} ({claim['verdict']})"
        handles.append(Line2D([], [], color=colour, linestyle=dashes, linewidth=width, label=label))
    return handles


def _thresholds(panel: Axes, alphas: Iterable[float], n_claims: int) -> None:
    panel.axhline(1, color=_GREY, linewidth=0.5)
    for alpha in alphas:
        panel.axhline(1 / alpha, color=_GREY, linewidth=1, linestyle=":")
        if n_claims > 1:
            panel.axhline(n_claims / alpha, color=_GREY, linewidth=1, linestyle="--")


def _note(study: str, tested: Sequence[Mapping[str, Any]]) -> str:
    levels = ", ".join(f"{1 / alpha:g}" for alpha in sorted({claim["alpha"] for claim in tested}))
    return _HOW.format(
        study=study,
        levels=f" = {levels}" if levels else "",
        claim="the last claim" if len(tested) > 1 else "the claim",
        first=f"; dashed: the first of {len(tested)} claims (Holm)" if len(tested) > 1 else "",
        fixed=_FIXED if any(claim["evidence"] == "fixed" for claim in tested) else "",
    )
