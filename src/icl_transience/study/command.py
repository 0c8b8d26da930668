"""The subcommand that writes what is made from the keys' declarations."""

import argparse
from pathlib import Path

from icl_transience.system import jobs


def add_commands(command: jobs.AddCommand) -> None:
    """Add this wing's subcommand."""
    command("keys", _keys, "Write the schemas and docs/reference.md from the keys' declarations, in this folder.")


def _keys(options: argparse.Namespace) -> None:
    from icl_transience.study import reference

    for path, text in reference.pages().items():
        Path(path).write_text(text, encoding="utf-8")
