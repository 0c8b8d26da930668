"""Subcommands from metrics to tables, and from tables to verdicts."""

import argparse
from pathlib import Path

from icl_transience.specs.records import claims_from, experiment_from
from icl_transience.store.atomic import read_planned
from icl_transience.system import jobs


def add_commands(command: jobs.AddCommand) -> None:
    """Add the subcommands of analysis."""
    tables = command("tables", _tables, "Write an experiment's curves.csv, transience.csv and runs.csv.")
    tables.add_argument("--experiment", type=Path, required=True, help="its experiment.json")
    tables.add_argument("--declared", type=Path, help="the file whose name says what tables are to be made from")
    tables.add_argument("--packs", type=Path, required=True, help="the folder results/packs")
    tables.add_argument("--folder", type=Path, required=True, help="the experiment's folder")

    acquisition = command("acquisition", _acquisition, "Write an experiment's survival.csv and threshold.csv.")
    acquisition.add_argument("--experiment", type=Path, required=True, help="its experiment.json")
    acquisition.add_argument("--folder", type=Path, required=True, help="the experiment's folder")

    circuits = command("circuits-tables", _circuits_tables, "Write heads.csv, composition.csv and attention.csv.")
    circuits.add_argument("--experiment", type=Path, required=True, help="its experiment.json")
    circuits.add_argument("--packs", type=Path, required=True, help="the folder results/packs")
    circuits.add_argument("--folder", type=Path, required=True, help="the experiment's folder")

    forecast = command("forecast", _forecast, "Write forecast.csv: whether the copier's weight forecasts flip.")
    forecast.add_argument("--folder", type=Path, required=True, help="the experiment's folder")

    peaks = command("peaks", _peaks, "Write where the lanes of a pack have their peaks.")
    jobs.add_arguments(peaks, "spec", "output")
    peaks.add_argument("--circuits", required=True, help="canonical JSON of what asks for them")
    peaks.add_argument("--boundaries", type=int, nargs="+", required=True, help="sequences seen at which segments meet")

    verdicts = command("verdicts", _verdicts, "Judge the claims of a study from the tables of its experiments.")
    verdicts.add_argument("--claims", type=Path, required=True, help="the study's claims.json")
    verdicts.add_argument("--folder", type=Path, required=True, help="the study's folder")


def _tables(options: argparse.Namespace) -> None:
    from icl_transience.analysis import curves
    from icl_transience.specs import code_digest

    experiment = experiment_from(read_planned(options.experiment))
    code_digest.refuse_other_declaration(options.experiment, options.declared, experiment)
    curves.write_tables(options.folder, experiment, options.packs)


def _acquisition(options: argparse.Namespace) -> None:
    from icl_transience.analysis import acquisition
    from icl_transience.store import tables_file

    experiment = experiment_from(read_planned(options.experiment))
    (axis,) = experiment.axes
    lanes = tables_file.read_lanes(options.folder)
    acquisition.write_tables(options.folder, lanes, axis, experiment.statistics.confidence)


def _circuits_tables(options: argparse.Namespace) -> None:
    from icl_transience.analysis import heads
    from icl_transience.store import layout, tables_file

    experiment = experiment_from(read_planned(options.experiment))
    lanes = tables_file.read_lanes(options.folder)
    heads.write_circuits_tables(options.folder / layout.CIRCUITS, experiment, options.packs, lanes)


def _forecast(options: argparse.Namespace) -> None:
    from icl_transience.analysis import forecast

    forecast.write_forecast(options.folder)


def _peaks(options: argparse.Namespace) -> None:
    import json

    from icl_transience.analysis import peaks
    from icl_transience.specs.circuits import CircuitsSpec
    from icl_transience.specs.identity import from_values
    from icl_transience.specs.runs import PackSpec

    spec = from_values(CircuitsSpec, json.loads(options.circuits))
    peaks.write_peaks(options.output, PackSpec.from_json(options.spec), spec, options.boundaries)


def _verdicts(options: argparse.Namespace) -> None:
    from icl_transience.analysis import verdicts

    verdicts.write_verdicts(options.folder, claims_from(read_planned(options.claims)))
