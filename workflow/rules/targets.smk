# Targets that are names alone. Of experiments: `snakemake transience` builds the experiment of that name. And those that
# report on a study and make nothing of it: what it would cost, how far it is, what older code trained, what is left over, all that is built in one
# page, all curves in one page to choose from, all of it in one file, what the documentation keeps of it. Their work is done by `report_on_study` at the end of the call (the Snakefile's
# `onsuccess`), so that `snakemake all archive` packs what is finished.
from contextlib import contextmanager

from snakemake.io import IOFile

from icl_transience.results import provenance
from icl_transience.system import devices

REPORTING = ("cost", "status", "stale", "orphans", "report", "explore", "archive", "results_page")


def targets_asked() -> set[str]:
    """Return the targets on the command line."""
    return set(workflow.dag_settings.targets)


def only_reports() -> bool:
    """Say whether this call makes nothing: then it registers no packs and leaves provenance alone."""
    return bool(targets_asked()) and targets_asked() <= set(REPORTING)


def leave_locks_alone(wildcards) -> list[str]:
    """Switch off Snakemake's locks where this call makes nothing; return no input.

    Snakemake 9.27 removes all locks of a folder when a call ends, those of another call at work included. This does what
    `--nolock` does, for those who ask how far a study is and think of no locks. It has to be an input function: that is
    the only code of a workflow that runs between the making of `workflow.persistence` and its first lock.
    """
    if only_reports():
        workflow.persistence.lock = workflow.persistence.unlock = workflow.persistence.noop
    return []


def inputs_on_record(path: str) -> list[str] | None:
    """Return what Snakemake has recorded that a file was made from; None where nothing, or it may be made again.

    For input functions of other rules: whether a folder of a source is named makes nothing again that is there.
    """
    asked = workflow.dag_settings
    forced = {*asked.forcerun, *(asked.targets if asked.forcetargets else ())}
    # Names of rules have another workflow's prefix where that one has this one as a module.
    makes = any(name.rpartition("_")[2] in ("download", "encoder", "bank") for name in forced)
    if asked.forceall or makes or path in forced or not Path(path).exists():
        return None
    return workflow.persistence.input(IOFile(path))


@contextmanager
def user_errors():
    """End in a message, not in a traceback, where a user can mend what is wrong."""
    try:
        yield
    except StudyError as error:
        raise WorkflowError(str(error)) from None
    except OSError as error:
        raise WorkflowError(faults.said(error) or str(error)) from error


def look_when_jobs_end() -> None:
    """Have Snakemake choose among waiting jobs when one ends, and not every second besides.

    As it keeps to a rate of submissions, it looks again a second after each look, once more a second for each job that
    has ended (JobScheduler.schedule in 9.27): after hundreds of jobs that takes up a core, which trains here. Jobs of a
    cluster go on to be submitted at that rate, and so do jobs here where a rate was asked for.
    """
    asked = workflow.scheduling_settings.max_jobs_per_timespan
    if workflow.local_exec and asked and (asked.max_jobs, asked.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def jobs_side_by_side() -> int | None:
    """Return how many segments a call like this one trains at a time; None where nothing says so."""
    if not workflow.local_exec:
        return workflow.nodes
    device = PLAN.config["device"]
    return {"cpu": workflow.cores, "cuda": devices.count()}.get(device, 1)


def refuse_missing_device() -> None:
    """Raise StudyError where jobs of this call need a GPU that this machine has not: before any job of the call."""
    elsewhere = not workflow.local_exec or DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    device = PLAN.config["device"]
    if device != "cpu" and not elsewhere:
        # Snakemake has put 0 in place of the GPUs that they ask for where there are none.
        if any(job.resources.get("gpu") is not None for job in workflow.dag.needrun_jobs()):
            devices.refuse_missing(device)


def report_on_study() -> None:
    """Do the work of each target of REPORTING that was asked for."""
    from icl_transience.report import archive, page, results_page
    from icl_transience.report.explorer import page as explorer
    from icl_transience.results import cost, orphans, stale, status

    with user_errors():
        if "cost" in targets_asked():
            print(cost.table(PLAN, jobs_side_by_side()))
        if "status" in targets_asked():
            print(status.table(PLAN))
        if "stale" in targets_asked():
            print(stale.report(PLAN))
        if "orphans" in targets_asked():
            print(orphans.listing(PLAN))
        # Before the report, whose first page leads to it.
        if "explore" in targets_asked():
            print(explorer.explore(PLAN))
        if "report" in targets_asked():
            print(page.make_page(PLAN, Path(workflow.main_snakefile)))
        if "archive" in targets_asked():
            print(f"archive: {archive.write_archive(PLAN, Path(workflow.main_snakefile))}")
        if "results_page" in targets_asked():
            print(f"recorded: {results_page.record(PLAN, CHECKOUT)}")
            print(*(f"written: {written}" for written in results_page.write_pages(CHECKOUT)), sep="\n")


def print_results() -> None:
    """The claims in words, and what each experiment shows, with where its figures are."""
    # Here and not above: parsing need not wait for pandas.
    from icl_transience.analysis import verdicts, words
    from icl_transience.theory import minimal_model_tables

    if PLAN.targets.is_judged():
        print(*verdicts.claims_in_words(Path(PLAN.paths.study_folder)), sep="\n")
    if PLAN.targets.is_minimal_model_finished():
        print(*minimal_model_tables.in_words(Path(PLAN.paths.experiment_folder("minimal_model"))), sep="\n")
    for folder in PLAN.targets.finished():
        print(*words.experiment_in_words(Path(folder)), sep="\n")


def print_earlier_results() -> None:
    """Where there is nothing to do; no rule's failure, so that it is said and no more."""
    try:
        print_results()
    except StudyError as error:
        logger.error(str(error))


for target in REPORTING:

    rule:
        name:
            target
        input:
            leave_locks_alone,
        localrule: True


for experiment in PLAN.study.experiments:

    rule:
        name:
            experiment
        input:
            PLAN.targets.experiment(experiment),
        localrule: True


def refusal(experiment: str):
    """Return an input function that says what an optional experiment lacks, to those who ask for it."""

    def refuse(wildcards) -> list[str]:
        raise StudyError(PLAN.study.left_out[experiment].reason)

    return refuse


for experiment in PLAN.study.left_out:

    rule:
        name:
            experiment
        input:
            refusal(experiment),
        localrule: True
