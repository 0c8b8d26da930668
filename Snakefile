# Entry point. Read on in workflow/rules/, in the order data flows: banks, sequences, training, evaluation, analysis, report;
# then targets that are names alone. The other files of rules are named like the rooms of src/icl_transience/ that they call.
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from icl_transience.planning import limits
from icl_transience.planning.plan import Plan
from icl_transience.report.captions import Captions
from icl_transience.results import kept
from icl_transience.results.running import RunningJobs
from icl_transience.specs import code_digest
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import canonical
from icl_transience.store import faults
from icl_transience.study.sources.files import PUBLIC
from icl_transience.system import interpreter, terminal
from icl_transience.system.board import BOARD

min_version("9.0")


configfile: "config.yaml"


# The whole configuration is checked, and every path known, before a rule is read.
try:
    PLAN = Plan(config, Path(workflow.current_basedir.get_path_or_uri(secret_free=False)))
except StudyError as error:
    raise WorkflowError(str(error)) from None
except OSError as error:
    raise WorkflowError(faults.said(error) or str(error)) from error

interpreter.put_on_path()
terminal.never_fail()

# Said once, not by every job that reads this file.
if workflow.is_main_process:
    for left_out in PLAN.study.left_out_in_words():
        logger.warning(left_out)
    for skipped in PLAN.skipped:
        logger.warning(str(skipped))
    if comes_back := kept.comes_back(Path(PLAN.paths.packs), sys.argv[1:]):
        logger.warning(comes_back)

# What the captions of the report ask (workflow/report/): the configuration is all of a workflow that Snakemake shows
# to each of them.
config["captions"] = Captions(PLAN)


report: "workflow/report/overview.rst"


# These hold for all rules.
wildcard_constraints:
    start=r"\d{12}",
    end=r"\d{12}",
    pack=r"[^/]+",
    set=r"[^/]+",
    circuits=r"[^/]+",
    bank=r"[^/]+",
    file="|".join(map(re.escape, PUBLIC)),
    digest="[0-9a-f]{12}",
    experiment="|".join(PLAN.study.experiments),
    run="|".join(map(re.escape, PLAN.targets.exports)),


rule all:
    default_target: True
    input:
        PLAN.targets.all(),
    localrule: True


include: "workflow/rules/banks.smk"
include: "workflow/rules/sequences.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/report.smk"


if PLAN.study.minimal_model:

    include: "workflow/rules/theory.smk"


include: "workflow/rules/targets.smk"


# What the logger (src/snakemake_logger_plugin_icl) says of jobs, which Snakemake knows by hashes.
jobs_by_name = RunningJobs(PLAN)
BOARD.name, BOARD.latest = jobs_by_name.name, jobs_by_name.latest
BOARD.print_results = print_earlier_results


onstart:
    if not only_reports():
        with user_errors():
            if not workflow.local_exec:
                limits.refuse_cluster(PLAN.config, PLAN.base, sys.executable)
            PLAN.register()


onsuccess:
    BOARD.close(log)
    if not only_reports():
        with user_errors():
            provenance.record(PLAN)
            print_results()
    report_on_study()


onerror:
    BOARD.close(log)
    if not only_reports():
        with user_errors():
            provenance.record(PLAN)
