"""The command line: one subcommand a rule, each as it can be typed by hand.

python -m icl_transience train --spec "$(jq -c .spec results/packs/PACK/pack.json)" --bank results/banks/BANK.h5 \
    --from 0 --to 640000 --output results/packs/PACK/segment-000000000000-000000640000.h5
"""

import argparse
import signal
import sys
import traceback
from collections.abc import Callable

from icl_transience.analysis import command as analysis
from icl_transience.banks import command as banks
from icl_transience.evaluation import command as evaluation
from icl_transience.report import command as report
from icl_transience.results import command as results
from icl_transience.sequences import command as sequences
from icl_transience.specs.errors import StudyError
from icl_transience.store import faults
from icl_transience.study import command as study
from icl_transience.system import jobs, terminal
from icl_transience.theory import command as theory
from icl_transience.training import command as training


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; return its exit status.

    An error that the user can mend is shown as a message, any other with its traceback. Ctrl-C is said in one line.
    """
    terminal.never_fail()
    options = _parser().parse_args(arguments)
    try:
        with jobs.announced(options):
            options.action(options)
    except StudyError as error:
        jobs.say(options, f"icl_transience {options.command}: {error}")
        return 1
    except OSError as error:
        # A log or a temporary file on a full disk is no fault of the software.
        text = faults.said(error)
        jobs.say(options, f"icl_transience {options.command}: {text}" if text else traceback.format_exc())
        return 1
    except Exception:
        jobs.say(options, traceback.format_exc())
        return 1
    except KeyboardInterrupt as error:
        jobs.say(options, f"icl_transience {options.command}: stopped by Ctrl-C{f': {error}' if str(error) else ''}")
        return 128 + signal.SIGINT
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands, in the order data flows."""
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m icl_transience", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, action: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(action=action)
        return sub

    for room in (banks, sequences, training, evaluation, analysis, theory, report, results, study):
        room.add_commands(command)
    return parser


if __name__ == "__main__":
    # A job that is told to end leaves by an exception, and so removes its temporary files.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
