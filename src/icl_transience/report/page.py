"""The page of a study: Snakemake's own report of what is built of a study: {results}/studies/{study}/report.html.

Its words are in workflow/report/ and captions.py; its look, where Snakemake's would hide something, in report.css.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from icl_transience.planning.plan import Plan
from icl_transience.report import captions
from icl_transience.specs.errors import StudyError
from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.store import atomic


def path_of(plan: Plan) -> Path:
    """Return the path of a study's page."""
    return Path(plan.paths.root, "studies", plan.study.name, "report.html")


def make_page(plan: Plan, snakefile: Path) -> str:
    """Write the page of what is built; return a text that says where it is and what is missing."""
    names = captions.built(plan)
    path = write_page(plan, snakefile)
    text = f"report: {path}"
    if missing := [name for name in plan.study.experiments if name not in names]:
        text += f"\nnot in it, for lack of tables or figures: {', '.join(missing)}"
    if jobs := unfinished(plan, snakefile):
        text += f"\nthe study is not finished ({jobs}): `snakemake all report` finishes it first"
    return text


def write_page(plan: Plan, snakefile: Path) -> Path:
    """Write the page of what is built and return its path.

    Raises StudyError where nothing is built, or Snakemake cannot make a report of it.
    """
    path = path_of(plan)
    with tempfile.TemporaryDirectory() as scratch:
        # Snakemake knows by its suffix what to write, and writes it in place.
        page = Path(scratch, path.name)
        # From here: what the checkout's own path may have in it, Snakemake would take for environment variables.
        style = os.path.relpath(plan.base / "workflow/report/report.css")
        snakemake(plan, snakefile, *_targets(plan), "--report", str(page), "--report-stylesheet", style)
        atomic.write_text(path, page.read_text(encoding="utf-8"))
    return path


def _targets(plan: Plan) -> list[str]:
    """Return what is there: Snakemake makes no report in which a file is missing."""
    if all(Path(path).exists() for path in plan.targets.all()):
        return ["all"]
    cards = [path for path in plan.targets.cards() if Path(path).exists()]
    model = [MINIMAL_MODEL] if plan.targets.is_minimal_model_finished() else []
    found = captions.built(plan) + model + cards
    if not found:
        raise StudyError(f"nothing of study {plan.study.name} is built yet: `snakemake all report` builds it first")
    return found


def unfinished(plan: Plan, snakefile: Path) -> str:
    """Return the jobs that a dry run of `all` finds to do, in words; empty where there is none."""
    said = snakemake(plan, snakefile, "--dry-run", "all")
    if "Nothing to be done" in said:
        return ""
    table = said[said.find("Job stats:") :].split("\ntotal")[0]
    jobs = [f"{number} {rule}" for rule, number in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE) if rule != "all"]
    return ", ".join(jobs) or "Snakemake would run jobs"


def snakemake(plan: Plan, snakefile: Path, *arguments: str) -> str:
    """Return what Snakemake says when it is called on the plan's study. The call must make nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as config:
        json.dump(plan.config, config)
        config.flush()
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), *arguments]
        done = subprocess.run(
            [*command, "--configfile", config.name], capture_output=True, text=True, errors="replace", check=False
        )
    said = done.stdout + done.stderr
    if done.returncode:
        raise StudyError(f"`snakemake {' '.join(arguments)}` failed; call it by hand to see more:\n{said.strip()}")
    return said
