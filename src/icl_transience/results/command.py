"""Subcommands that take care of results: status, cost, stale, orphans, delete, writers."""

import argparse
import sys
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
        jobs.add_arguments(command(name, action, help), "study", "results")
    delete = command("delete", _delete, "Delete results under both names of their files; lists them and asks first.")
    what = delete.add_argument_group("what to delete, one of").add_mutually_exclusive_group(required=True)
    what.add_argument(
        "names", nargs="*", default=[], metavar="NAME", help="EXPERIMENT, EXPERIMENT/RUN or EXPERIMENT/RUN/SEED"
    )
    for name, help in (
        ("all", "the whole study"),
        ("stale", "packs of the study that other code trained, to train them again"),
        ("orphans", "what no study refers to, as `snakemake orphans` lists it"),
        ("beyond", "segments beyond every horizon, as `snakemake orphans` lists them"),
    ):
        what.add_argument(f"--{name}", action="store_true", help=help)
    jobs.add_arguments(delete, "study", "results")
    delete.add_argument("--shared", action="store_true", help="lanes with their packs, whoever else has lanes there")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    command("writers", _writers, "Fail if a job is at work on results; for `make unlock`.")


def _status(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.results import status

    print(status.table(planned_here(options.study, options.results)))


def _cost(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.results import cost

    print(cost.table(planned_here(options.study, options.results)))


def _stale(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.results import stale

    print(stale.report(planned_here(options.study, options.results)))


def _orphans(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.results import orphans

    print(orphans.listing(planned_here(options.study, options.results)))


def _delete(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import planned_here
    from icl_transience.results import deletion, orphans, removal
    from icl_transience.system.formatting import format_bytes

    plan = planned_here(options.study, options.results)

    def find() -> tuple[deletion.Deletion, list[str]]:
        if options.orphans or options.beyond:
            return deletion.of_orphans(plan, orphans.NOT_NEEDED if options.orphans else (orphans.BEYOND,))
        if options.stale:
            return deletion.of_stale(plan, shared=options.shared), []
        chosen = deletion.whole_study(plan) if options.all else deletion.selected(plan, options.names)
        return deletion.of_selection(plan, chosen, shared=options.shared), []

    try:
        found, left_out = find()
        if not found.parts:
            print(*found.stays, *left_out, f"{plan.paths.root}: nothing to delete", sep="\n")
            return
        total = removal.freed(file for part in found.parts for file in part.files)
        print("to be deleted, under both names:", *removal.lines(found.parts), sep="\n")
        print(f"that frees {format_bytes(total)}", *found.stays, *left_out, *found.again, sep="\n", flush=True)
        if not options.yes and not _confirmed():
            print("nothing was deleted")
            return
        if not options.yes and find()[0] != found:
            raise StudyError("nothing was deleted: studies or results have changed since the list was made: ask again")
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was deleted") from None
    # Half of it would be neither here nor gone: tables without the metrics that they are made from, files of one name.
    with jobs.signals_held():
        print(f"deleted: {format_bytes(removal.remove(Path(plan.paths.root), found.parts))} are free", flush=True)


def _confirmed() -> bool:
    """Ask on the terminal. Raises StudyError where there is none."""
    if not sys.stdin.isatty():
        raise StudyError("nothing was deleted: nobody is there to ask; say --yes")
    try:
        return input("delete? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        return False
    except KeyboardInterrupt:
        print()  # the question's line
        raise


def _writers(options: argparse.Namespace) -> None:
    from icl_transience.planning.plan import config_here, results_folder

    if writers := locks.live_writers(Path(results_folder(config_here().get("results", "results")))):
        raise StudyError("jobs are still at work on " + ", ".join(map(str, writers)) + ": wait for them or stop them")
