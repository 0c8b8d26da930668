"""The subcommand that draws the frozen sequences of evaluators."""

import argparse
import json

from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.identity import from_values
from icl_transience.system import jobs


def add_commands(command: jobs.AddCommand) -> None:
    """Add this wing's subcommand."""
    sequences = command("sequences", _sequences, "Draw the frozen sequences of a set's evaluators.")
    jobs.add_arguments(sequences, "spec", "bank", "output")


def _sequences(options: argparse.Namespace) -> None:
    from icl_transience.sequences import frozen
    from icl_transience.store import bank_file

    sequence_set = from_values(SequenceSet, json.loads(options.spec))
    frozen.write_sequences(options.output, sequence_set, bank_file.load(options.bank, sequence_set.bank))
