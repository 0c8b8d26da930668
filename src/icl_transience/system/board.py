"""What the logger plugin needs to know of this workflow to show its jobs: names, latest results, how to end.

Snakemake's events name a job by its rule and wildcards, which are hashes here. The Snakefile, which runs in the same
process as the logger, says what they stand for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


def _rule_and_wildcards(rule: str, wildcards: Mapping[str, str]) -> tuple[str, str]:
    return " ".join([rule, *wildcards.values()]), ""


@dataclass
class Board:
    """Functions that the Snakefile fills in, and one, `close`, that the plugin does.

    name: (rule, wildcards) -> the job as a person calls it, "" if it is not worth a line; and how far it goes, "" if
    that says nothing. latest: wildcards -> the last result of what a job trains, as text, "" where it trains nothing.
    print_results: print what the study has found. close: (Snakemake's log files) take the board off the terminal, for
    results to be the last lines.
    """

    name: Callable[[str, Mapping[str, str]], tuple[str, str]] = _rule_and_wildcards
    latest: Callable[[Mapping[str, str]], str] = lambda wildcards: ""
    print_results: Callable[[], None] = lambda: None
    close: Callable[[list[str]], None] = lambda logs: None


BOARD = Board()
