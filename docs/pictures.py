"""Draw the pictures of the documentation again, or take the tables that they are drawn from out of a study's results.

    python docs/pictures.py                             docs/*.svg, from the tables in docs/data
    python docs/pictures.py results/studies/laptop      the tables of that study's pictures first, from these results

`make docs-figures` and `make docs-tables` call it. The tables hold of curves.csv what is drawn, so that they are small.
tests/test_docs.py fails where a picture is not what its tables and the code draw. Two pictures need no tables:
sequences as the code draws them, and how files are made from each other.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.patches import FancyBboxPatch
from matplotlib.transforms import Affine2D

from icl_transience.report.figures import style
from icl_transience.report.figures.experiment import draw_figure
from icl_transience.report.figures.interventions import draw_interventions
from icl_transience.sequences.draw import draw as draw_sequences
from icl_transience.specs.circuits import evaluator_of, is_intervened
from icl_transience.specs.evaluators import TRAINING, default_metric, evaluator_recipe
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.records import experiment_from
from icl_transience.specs.sources import BankShape
from icl_transience.store import tables_file
from icl_transience.store.atomic import read_planned, write_text
from icl_transience.store.checksums import write_checksums

DOCS = Path(__file__).parent
INTERVENTIONS = "interventions"
_DIGITS = 4


class Picture(NamedTuple):
    """What a picture shows: a figure of an experiment of a study."""

    study: str
    experiment: str
    figure: str


PICTURES = {
    "transience": Picture("laptop", "transience", "curves"),
    "l2": Picture("laptop", "l2", "comparison"),
    "circuits": Picture("circuits", "transience", INTERVENTIONS),
}


# Evaluators in the order in which they are drawn, and where the right answer stands.
SHOWN = {
    "train": "in the context and in the weights",
    "icl": "in the context alone: labels are new",
    "iwl": "in the weights alone",
    "ciwl": "in the weights; the label is in the context",
    "flip": "in the context; the weights say the other",
}
# A colour-blind palette (Okabe and Ito); with the shape it makes a class.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
_SHAPES = ("s", "^", "P", "*", "p", "v", "h", "d", (4, 1, 0), "<", "D", (3, 1, 0))
_GREY = "#666666"

# Of each file: column, row, name, what it holds.
FILES = {
    "study": (0, 0, "study", "workflow/\nstudies/*.yaml"),
    "bank": (1, 0, "bank", "exemplars\n[class, exemplar, dim]"),
    "sequences": (2, 1, "sequences", "frozen,\na group an evaluator"),
    "segment": (2, -1, "segment", "snapshots, loss,\ncheckpoint"),
    "metrics": (3, 0, "metrics", "of lane, snapshot,\nevaluator"),
    "tables": (4, 0, "tables", "curves, transience,\nruns"),
    "figures": (5, 1, "figures", "curves, comparison,\nsummary, plane, grid"),
    "verdicts": (5, -1, "verdicts", "how claims stand,\nand the evidence"),
}
_WIDTH, _HEIGHT = 0.8, 0.98
MADE_FROM = (
    *(("study", "bank"), ("bank", "sequences"), ("bank", "segment"), ("sequences", "metrics"), ("segment", "metrics")),
    *(("metrics", "tables"), ("tables", "figures"), ("tables", "verdicts")),
)


def take_tables(study: Path, data: Path) -> None:
    """Copy from the folder of a study's results what its pictures are drawn from."""
    for picture in PICTURES.values():
        if picture.study != study.name:
            continue
        tables, source, target = tables_file.read_tables(study / picture.experiment), study, data / study.name
        curves = tables.curves
        if picture.figure == INTERVENTIONS:
            shown = {evaluator_of(name) for name in set(curves["evaluator"]) if is_intervened(name)}
            curves = curves.loc[curves["evaluator"].map(evaluator_of).isin(shown)]
        names = set(curves["evaluator"]) - {TRAINING}
        metrics = {name: default_metric(evaluator_of(name)) for name in names} | {TRAINING: "loss"}
        curves = curves.loc[curves["metric"] == curves["evaluator"].replace(metrics)]
        record = (source / picture.experiment / "experiment.json").read_text(encoding="utf-8")
        write_text(target / picture.experiment / "experiment.json", record)
        for name, table in zip(tables_file.TABLES, (curves, tables.lanes, tables.runs), strict=True):
            tables_file.write_csv(target / picture.experiment / name, table, _DIGITS if name == "curves.csv" else 10)
        write_checksums(target / picture.experiment, tables_file.TABLES)


def draw(data: Path, folder: Path) -> list[Path]:
    """Draw every picture into a folder, as SVG, and return the files."""
    drawn = []
    for name, picture in PICTURES.items():
        experiment = data / picture.study / picture.experiment
        record = experiment_from(read_planned(experiment / "experiment.json"))
        tables, path = tables_file.read_tables(experiment), folder / f"{name}.svg"
        if picture.figure == INTERVENTIONS:
            with matplotlib.rc_context(style.STYLE):
                style.save(draw_interventions(record, tables), path)
        else:
            draw_figure(picture.figure, record, tables, path)
        drawn.append(path)
    return drawn


def sequences() -> Figure:
    """Draw a training sequence and one of each main evaluator, 8 pairs of 12 classes, by the code that studies use."""
    training = Recipe(context=8, burstiness=3)
    bank = BankShape(n_classes=12, n_exemplars=6, n_train_classes=12, n_train_exemplars=6, width=1)
    figure = Figure(figsize=(9.6, 4.3))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1.6, 14.6), ylim=(-4.65, 0.9))
    axes.axis("off")
    for x, text in (
        (3.5, "context: exemplars and labels"),
        (8.3, "query"),
        (9.5, "right"),
        (10.2, "where the answer is"),
    ):
        axes.text(x, 0.62, text, color=_GREY, ha="left" if x > 10 else "center", size=8)
    for row, (evaluator, where) in enumerate(SHOWN.items()):
        recipe = evaluator_recipe(evaluator, training)
        drawn = draw_sequences(recipe, bank, 0, evaluator, torch.tensor([0]))
        parts = (part[0].tolist() for part in (drawn.classes, drawn.exemplars, drawn.labels))
        *context, (number, exemplar, answer) = zip(*parts, strict=True)
        axes.text(-1.5, -row, evaluator, weight="bold", va="center")
        for x, (item, angle, label) in enumerate(context):
            _exemplar(axes, x, -row, item, angle)
            axes.text(x, -row - 0.42, str(label), ha="center", va="center")
        _exemplar(axes, 8.3, -row, number, exemplar)
        axes.text(8.3, -row - 0.42, "?", ha="center", va="center")
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": _GREY}
        axes.text(9.5, -row - 0.1, str(answer), ha="center", va="center", weight="bold", bbox=box)
        axes.text(10.2, -row - 0.1, where, va="center", size=8)
    return figure


def _exemplar(axes: Axes, x: float, y: float, number: int, exemplar: int) -> None:
    """Draw an exemplar: colour and shape are its class, the angle which of the class's exemplars it is."""
    marker = MarkerStyle(_SHAPES[number], transform=Affine2D().rotate_deg(10 * exemplar - 25))
    axes.plot([x], [y], marker=marker, markersize=13, color=_COLOURS[number % len(_COLOURS)], markeredgecolor="black")


def flow() -> Figure:
    """Draw which files are made from which."""
    figure = Figure(figsize=(9.6, 2.9))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.55, 5.55), ylim=(-1.95, 1.65))
    axes.axis("off")
    for column, row, name, holds in FILES.values():
        corner = (column - _WIDTH / 2, row - _HEIGHT / 2)
        style_of_box = {"boxstyle": "round,pad=0,rounding_size=0.05", "facecolor": "#F2F6FA", "edgecolor": "#0072B2"}
        axes.add_patch(FancyBboxPatch(corner, _WIDTH, _HEIGHT, **style_of_box))
        axes.text(column, row + 0.28, name, ha="center", va="center", weight="bold", size=9)
        axes.text(column, row - 0.13, holds, ha="center", va="center", size=7)
    arrow = {"arrowstyle": "-|>", "color": _GREY, "shrinkA": 0, "shrinkB": 0}
    for source, target in MADE_FROM:
        (x, y, *_), (to_x, to_y, *_) = FILES[source], FILES[target]
        axes.annotate("", (to_x - _WIDTH / 2, to_y), (x + _WIDTH / 2, y), arrowprops=arrow)
    bottom = -1 - _HEIGHT / 2
    axes.annotate("", (1.75, bottom), (2.25, bottom), arrowprops=arrow | {"connectionstyle": "arc3,rad=-0.6"})
    axes.text(2.3, bottom - 0.14, "next stretch of training", size=7, color=_GREY, va="center")
    return figure


DRAWINGS = {"sequences": sequences, "flow": flow}


def draw_without_tables(folder: Path) -> list[Path]:
    """Draw the pictures that need no tables into a folder, as SVG, and return the files."""
    drawn = []
    for name, drawing in DRAWINGS.items():
        drawn.append(folder / f"{name}.svg")
        with matplotlib.rc_context(style.STYLE):
            style.save(drawing(), drawn[-1])
    return drawn


if __name__ == "__main__":
    if sys.argv[1:]:
        take_tables(Path(sys.argv[1]), DOCS / "data")
    print(*draw(DOCS / "data", DOCS), *draw_without_tables(DOCS), sep="\n")
