"""Refuse plans that no machine could carry out, before anything runs."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_transience.planning import resources
from icl_transience.planning.jobs import Jobs
from icl_transience.specs.compute import engine_problem
from icl_transience.specs.errors import StudyError
from icl_transience.store.cache import compiler_words
from icl_transience.study.experiments import Study
from icl_transience.system import memory

# Linux takes no longer word than 131,072 bytes in a command line, and the whole line is one word to Snakemake's shell.
MOST_CHARACTERS = 100_000


def refuse_engine(config: Mapping[str, Any], study: Study) -> None:
    """Raise StudyError where the configured engine cannot compute a run on the configured device."""
    for experiment in study.experiments.values():
        for named in experiment.runs:
            if problem := engine_problem(config["engine"], config["device"], named.run):
                raise StudyError(f"config: {problem} ({experiment.name}: {named.name})")


def cost_of_no_compiler(config: Mapping[str, Any]) -> str:
    """Say what it costs that kernels for CPUs cannot be compiled here; "" where they can be, or are not wanted."""
    if config["engine"] != "auto" or config["device"] != "cpu" or shutil.which(compiler_words()[0]):
        return ""
    return (
        "no C++ compiler (c++, or what CXX names) was found: training and evaluation are right without, but take three "
        "times as long, on the engine `eager`. Install one (Debian: g++; macOS: xcode-select --install), or say "
        "`engine: eager` in config.yaml to read this no more"
    )


def refuse_memory(config: Mapping[str, Any], jobs: Jobs) -> None:
    """Raise StudyError where a bank, sequences on it or training on it take more memory than a job may."""
    limit = config["memory"] or memory.for_jobs()
    fewer = "fewer classes or exemplars"
    of_bank = ("making it takes", fewer)
    of_sets = ("evaluators' sequences on it take", f"fewer `evaluation.sequences`, {fewer}")
    of_packs = ("training on it takes", f"{fewer}, a smaller model or batch, a lower `lanes_per_pack`")
    needed: dict[tuple[str, tuple[str, str]], int]
    needed = {(bank_id, of_bank): jobs.bank(bank_id).megabytes for bank_id in jobs.banks}
    for named in jobs.sets.values():
        job = (named.bank.id, of_sets)
        needed[job] = max(needed.get(job, 0), resources.sequences(named).megabytes)
    for pack in jobs.packs.values():
        job = (pack.spec.run.bank.id, of_packs)
        needed[job] = max(needed.get(job, 0), resources.training_megabytes(pack.spec))
    problems = [
        f"bank {bank_id}: {shape.n_classes:,} classes x {shape.n_exemplars} exemplars x {shape.width:,} "
        f"coordinates: {what} about {megabytes:,} MB, but a job may take {limit:,} MB (this machine's memory, or "
        f"`memory` in config.yaml): ask for {remedy}, or use a larger machine"
        for ((bank_id, (what, remedy)), megabytes) in needed.items()
        if megabytes > limit and (shape := jobs.banks[bank_id].shape)
    ]
    if problems:
        raise StudyError("\n".join(problems))


def refuse_long_commands(config: Mapping[str, Any], jobs: Jobs) -> None:
    """Raise StudyError where a pack has more lanes than can be said in the command that trains it."""
    for pack in jobs.packs.values():
        if len(pack.spec.lanes) > 16 and (length := len(pack.spec.json)) > MOST_CHARACTERS:
            given = "null" if config["lanes_per_pack"] is None else config["lanes_per_pack"]
            raise StudyError(
                f"config: `lanes_per_pack` is {given}: the {len(pack.spec.lanes)} lanes of a pack take {length:,} "
                f"characters to say, expected at most {MOST_CHARACTERS:,}: lower it"
            )


def refuse_braces(base: Path) -> None:
    """Raise StudyError where the checkout lies in a folder whose name Snakemake would fill in."""
    if {"{", "}"} & set(str(base)):
        raise StudyError(f"{base}: has braces in its path, which Snakemake fills in: move it, or rename it")


def refuse_cluster(config: Mapping[str, Any], base: Path, interpreter: str) -> None:
    """Raise StudyError where a path would not reach a cluster's jobs as it is.

    Their command lines name the interpreter without quotes, and stand in double quotes when they are submitted.
    """
    words = {key: value for key, value in config.items() if isinstance(value, str)}
    checked = [("the Python that runs Snakemake", interpreter, r"[^\w/.,+=@%:-]")]
    checked += [("this folder", str(base.absolute()), r"[$`\\]")]
    checked += [(f"`{key}`", value, r"[$`\\]") for key, value in words.items()]
    for what, text, special in checked:
        if match := re.search(special, text):
            raise StudyError(
                f"{what} is {text}: a shell on the way to a cluster's jobs reads the {match[0]!r} in it as "
                "something else: rename or move it (for the environment's Python: this folder)"
            )
