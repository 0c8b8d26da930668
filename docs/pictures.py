"""Draw the pictures of README.md again, or take the tables that they are drawn from out of a study's results.

    python docs/pictures.py                             docs/*.svg, from the tables in docs/data
    python docs/pictures.py results/studies/laptop      the tables first, from these results

`make docs-figures` and `make docs-tables` call it. The tables hold of curves.csv what is drawn, so that they are small.
tests/test_docs.py fails where a picture is not what its tables and the code draw.
"""

import sys
from pathlib import Path

from icl_transience.report.figures.experiment import draw_figure
from icl_transience.specs.evaluators import TRAINING, default_metric
from icl_transience.specs.records import experiment_from
from icl_transience.store import tables_file
from icl_transience.store.atomic import read_planned, write_text
from icl_transience.store.checksums import write_checksums

DOCS = Path(__file__).parent
# Picture -> experiment and figure.
PICTURES = {"transience": ("transience", "curves"), "l2": ("l2", "comparison")}
_DIGITS = 4


def take_tables(study: Path, data: Path) -> None:
    """Copy from the folder of a study's results what the pictures are drawn from."""
    for experiment in sorted({experiment for experiment, _ in PICTURES.values()}):
        tables, target = tables_file.read_tables(study / experiment), data / experiment
        metrics = {name: default_metric(name) for name in set(tables.curves["evaluator"]) - {TRAINING}}
        drawn = tables.curves["metric"] == tables.curves["evaluator"].replace(metrics | {TRAINING: "loss"})
        write_text(target / "experiment.json", (study / experiment / "experiment.json").read_text(encoding="utf-8"))
        for name, table in zip(tables_file.TABLES, (tables.curves.loc[drawn], tables.lanes, tables.runs), strict=True):
            tables_file.write_csv(target / name, table, _DIGITS if name == "curves.csv" else 10)
        write_checksums(target, tables_file.TABLES)


def draw(data: Path, folder: Path) -> list[Path]:
    """Draw every picture into a folder, as SVG, and return the files."""
    drawn = []
    for picture, (experiment, figure) in PICTURES.items():
        record = experiment_from(read_planned(data / experiment / "experiment.json"))
        drawn.append(folder / f"{picture}.svg")
        draw_figure(figure, record, tables_file.read_tables(data / experiment), drawn[-1])
    return drawn


if __name__ == "__main__":
    if sys.argv[1:]:
        take_tables(Path(sys.argv[1]), DOCS / "data")
    print(*draw(DOCS / "data", DOCS), sep="\n")
