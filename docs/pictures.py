"""Draw the pictures of the documentation again, or take the tables that they are drawn from out of a study's results.

    python docs/pictures.py                             docs/*.svg, from the tables in docs/data
    python docs/pictures.py results/studies/laptop      the tables of that study's pictures first, from these results

`make docs-figures` and `make docs-tables` call it. The tables hold of curves.csv what is drawn, so that they are small.
tests/test_docs.py fails where a picture is not what its tables and the code draw.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib

from icl_transience.report.figures import style
from icl_transience.report.figures.experiment import draw_figure
from icl_transience.report.figures.interventions import draw_interventions
from icl_transience.specs.circuits import evaluator_of, is_intervened
from icl_transience.specs.evaluators import TRAINING, default_metric
from icl_transience.specs.records import experiment_from
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


if __name__ == "__main__":
    if sys.argv[1:]:
        take_tables(Path(sys.argv[1]), DOCS / "data")
    print(*draw(DOCS / "data", DOCS), sep="\n")
