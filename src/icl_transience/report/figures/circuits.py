"""Figures of what is inside the models of an experiment, drawn from its tables alone.

heads          a heat map a measure: heads down, sequences seen across
head_lines     a panel a measure, a line a head
interventions  accuracies under interventions, and without
attention      mean attention of heads at the start, the peak and the end
composition    how much of what later heads read earlier ones write
"""

from pathlib import Path

from matplotlib.figure import Figure

from icl_transience.report.figures import attention, composition, heads, interventions, style
from icl_transience.report.figures.runs import asked_of
from icl_transience.specs.circuits import FIGURES
from icl_transience.specs.records import ExperimentRecord
from icl_transience.store.tables_file import CircuitsTables, Tables


def draw_circuits(record: ExperimentRecord, tables: Tables, inside: CircuitsTables, folder: Path) -> list[Path]:
    """Draw every figure of an experiment's circuits in the formats that its study asks for, and return their files.

    Figures that are there from before, and are not among them, are removed.
    """
    return style.draw_all(
        lambda name: _figure(name, record, tables, inside),
        record.circuits_figures,
        folder,
        asked_of(record).formats,
        FIGURES,
    )


def _figure(name: str, record: ExperimentRecord, tables: Tables, inside: CircuitsTables) -> Figure:
    if name == "interventions":
        return interventions.draw_interventions(record, tables)
    if name == "attention":
        return attention.draw_attention(record, inside)
    if name == "composition":
        return composition.draw_composition(record, tables, inside)
    return {"heads": heads.draw_heads, "head_lines": heads.draw_head_lines}[name](record, tables, inside)
