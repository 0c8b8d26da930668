"""Subcommands that show results: figures, card, export, words, report, explore, archive, results-page, redraw."""

import argparse
import json
import os
from pathlib import Path

from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import from_values
from icl_transience.specs.records import experiment_from, minimal_model_from
from icl_transience.specs.runs import Export
from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.store.atomic import read_planned
from icl_transience.system import jobs

# Before Matplotlib is imported, which fails where a notebook's shell names a backend that is not installed here, and
# reads the user's own settings. Those of a matplotlibrc in the working folder it reads all the same: see style.STYLE.
os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}


def add_commands(command: jobs.AddCommand) -> None:
    """Add the subcommands of report."""
    export = command("export", _export, "Write a run's bank, evaluators and training sequences for the authors' code.")
    jobs.add_arguments(export, "spec", "bank", "output")
    export.add_argument("--sequences", type=Path, required=True, help="the HDF5 file of the run's evaluator set")
    export.add_argument("--bank-output", type=Path, required=True, help="the bank's file to write")

    figures = command("figures", _figures, "Draw all figures of an experiment from its tables.")
    figures.add_argument("--experiment", type=Path, required=True, help="its experiment.json")
    figures.add_argument("--folder", type=Path, required=True, help="the experiment's folder")

    circuits = command("circuits-figures", _circuits_figures, "Draw all figures of an experiment's circuits.")
    circuits.add_argument("--experiment", type=Path, required=True, help="its experiment.json")
    circuits.add_argument("--folder", type=Path, required=True, help="the experiment's folder")

    minimal_model = command("minimal-model-figure", _minimal_model, "Draw the figure of the minimal model.")
    minimal_model.add_argument("--experiment", type=Path, required=True, help="its minimal_model.json")
    minimal_model.add_argument("--folder", type=Path, required=True, help="the study's folder")

    evidence = command("evidence-figure", _evidence, "Draw the evidence for and against a study's claims.")
    evidence.add_argument("--folder", type=Path, required=True, help="the study's folder")

    card = command("card", _card, "Draw the quality card of a bank.")
    jobs.add_arguments(card, "bank")
    card.add_argument("--vocabulary", type=Path, nargs="?", help="vocab.txt, tokenizer.json or vocab.json of tokens")
    card.add_argument("--vector", type=Path, required=True, help="the SVG to write")
    card.add_argument("--raster", type=Path, required=True, help="the PNG to write")

    for name, action, help in (
        ("words", _words, "Say how a study's claims stand and what its experiments show, the first one last."),
        ("report", _report, "Put all figures and tables that are built into one page, with what they say."),
        ("explore", _explore, "Put all curves that are built into one page, to choose from and to read values."),
        ("archive", _archive, "Put what a finished study says into one file."),
    ):
        jobs.add_arguments(command(name, action, help), "study", "results")

    page = command("results-page", _results_page, "Write docs/results.md and the README's claims from docs/data.")
    page.add_argument("--record", metavar="STUDY", help="copy the tables of this study to docs/data first")
    page.add_argument("--results", help="where they are: as in config.yaml, and instead of what stands there")

    redraw = command("redraw", _redraw, "Draw every figure of an extracted archive again.")
    redraw.add_argument("--archive", type=Path, default=Path(), help="the folder of the extracted archive")
    redraw.add_argument("--folder", type=Path, required=True, help="the folder to draw into")


def _export(options: argparse.Namespace) -> None:
    from icl_transience.report import export

    exported = from_values(Export, json.loads(options.spec))
    export.write_export(options.output, options.bank_output, exported, options.bank, options.sequences)


def _figures(options: argparse.Namespace) -> None:
    from icl_transience.report.figures import experiment
    from icl_transience.store import tables_file

    record = experiment_from(read_planned(options.experiment))
    experiment.draw_experiment(record, tables_file.read_tables(options.folder), options.folder)


def _circuits_figures(options: argparse.Namespace) -> None:
    from icl_transience.report.figures import circuits
    from icl_transience.store import layout, tables_file

    record = experiment_from(read_planned(options.experiment))
    inside = tables_file.read_circuits_tables(options.folder)
    circuits.draw_circuits(record, tables_file.read_tables(options.folder), inside, options.folder / layout.CIRCUITS)


def _minimal_model(options: argparse.Namespace) -> None:
    from icl_transience.report.figures import minimal_model

    record = minimal_model_from(read_planned(options.experiment))
    folder = options.folder / MINIMAL_MODEL
    minimal_model.draw_from_tables(record, folder, options.folder, folder)


def _evidence(options: argparse.Namespace) -> None:
    from icl_transience.report.figures import evidence

    evidence.draw_from_tables(options.folder.name, options.folder, options.folder)


def _card(options: argparse.Namespace) -> None:
    from icl_transience.report.figures import bank_card

    bank_card.draw_bank_card(options.bank, options.vocabulary, options.vector, options.raster)


def _words(options: argparse.Namespace) -> None:
    from icl_transience.analysis import verdicts, words
    from icl_transience.planning.plan import planned_here
    from icl_transience.theory import minimal_model_tables

    plan = planned_here(options.study, options.results)
    if plan.targets.is_judged():
        print(*verdicts.claims_in_words(Path(plan.paths.study_folder)), sep="\n")
    if plan.targets.is_minimal_model_finished():
        print(*minimal_model_tables.in_words(Path(plan.paths.experiment_folder(MINIMAL_MODEL))), sep="\n")
    for folder in reversed(plan.targets.finished()):
        for line in words.experiment_in_words(Path(folder)):
            print(line)


def _report(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.report import page

    print(page.make_page(planned_here(options.study, options.results), Path("Snakefile")))


def _explore(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.report.explorer import page

    print(page.explore(planned_here(options.study, options.results)))


def _archive(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.report import archive

    print(archive.write_archive(planned_here(options.study, options.results), Path("Snakefile")))


def _results_page(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import Plan, config_here
    from icl_transience.report import results_page

    if options.results and options.record is None:
        raise StudyError("--results: names where the tables of --record STUDY are: say which study, or leave both")
    if options.record is not None:
        results = {"results": options.results} if options.results else {}
        plan = Plan(config_here() | {"study": options.record} | results, Path())
        print(f"recorded: {results_page.record(plan, Path())}")
    print(*(f"written: {path}" for path in results_page.write_pages(Path())), sep="\n")


def _redraw(options: argparse.Namespace) -> None:
    from icl_transience.report import archive

    archive.redraw(options.archive, options.folder)
