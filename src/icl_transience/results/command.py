"""Subcommands that take care of results: status, cost, orphans, writers."""

import argparse
from pathlib import Path

from icl_transience.specs.errors import StudyError
from icl_transience.store import locks
from icl_transience.system import jobs


def add_commands(command: jobs.AddCommand) -> None:
    """Add the subcommands of this folder."""
    for name, action, help in (
        ("status", _status, "Say how far a study is, a row a lane; writes nothing."),
        ("cost", _cost, "Say what a study would cost, an experiment a row; writes nothing."),
        ("stale", _stale, "List lanes whose training code has changed since, and the commands that train them again."),
        ("orphans", _orphans, "List results that no study refers to, and the command that removes them."),
    ):
        jobs.add_arguments(command(name, action, help), "study")
    command("writers", _writers, "Fail if a job is at work on results; for `make unlock`.")


def _status(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.results import status

    print(status.table(planned_here(options.study)))


def _cost(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.results import cost

    print(cost.table(planned_here(options.study)))


def _stale(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.results import stale

    print(stale.report(planned_here(options.study)))


def _orphans(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.results import orphans

    print(orphans.listing(planned_here(options.study)))


def _writers(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import config_here

    if writers := locks.live_writers(Path(config_here().get("results", "results"))):
        raise StudyError("jobs are still at work on " + ", ".join(map(str, writers)) + ": wait for them or stop them")
