"""The subcommand that computes the minimal model."""

import argparse
from pathlib import Path

from icl_transience.specs.records import minimal_model_from
from icl_transience.store.atomic import read_planned
from icl_transience.system import jobs


def add_commands(command: jobs.AddCommand) -> None:
    """Add the subcommands of theory."""
    tables = command("minimal-model", _tables, "Compute the minimal model of coopetition; write losses.csv, seeds.csv.")
    tables.add_argument("--experiment", type=Path, required=True, help="its minimal_model.json")
    tables.add_argument("--declared", type=Path, help="the file whose name says what tables are to be made from")
    tables.add_argument("--folder", type=Path, required=True, help="the folder to write into")


def _tables(options: argparse.Namespace) -> None:
    from icl_transience.specs import code_digest
    from icl_transience.theory import minimal_model_tables

    record = minimal_model_from(read_planned(options.experiment))
    code_digest.refuse_other_declaration(options.experiment, options.declared, record)
    minimal_model_tables.write_tables(options.folder, record.model)
