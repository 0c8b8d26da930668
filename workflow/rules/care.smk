# Targets that make nothing of a study: what it would cost, how far it is, what is left over, all that is built in one
# page, all of it in one file. Their rules are names alone; what they do comes last, in the Snakefile's `onsuccess`, so
# that `snakemake all archive` packs what is finished.
from contextlib import contextmanager

from icl_transience.results import provenance

CARE = ("cost", "status", "orphans", "report", "archive")


def asked() -> set[str]:
    """The targets on the command line."""
    return set(workflow.dag_settings.targets)


def only_care() -> bool:
    """Whether this call makes nothing: it registers no packs and leaves provenance alone."""
    return bool(asked()) and asked() <= set(CARE)


def without_locks(wildcards) -> list[str]:
    """No input; and no lock either, where this call makes nothing.

    Snakemake 9.27 removes all locks of a folder when a call ends, those of another running one included. The first
    moment at which a workflow can keep it from that is when the inputs of its jobs are asked for.
    """
    if only_care():
        workflow.persistence.lock = workflow.persistence.unlock = workflow.persistence.noop
    return []


@contextmanager
def stated():
    """What a user can mend ends in a message, not in a traceback."""
    try:
        yield
    except StudyError as error:
        raise WorkflowError(str(error)) from None


def take_care() -> None:
    """Does what the targets among CARE stand for."""
    from icl_transience.report import archive, page
    from icl_transience.results import cost, orphans, status

    with stated():
        if "cost" in asked():
            print(cost.table(PLAN))
        if "status" in asked():
            print(status.table(PLAN))
        if "orphans" in asked():
            print(orphans.listing(PLAN))
        if "report" in asked():
            print(page.report(PLAN, Path(workflow.main_snakefile)))
        if "archive" in asked():
            print(f"archive: {archive.write(PLAN, Path(workflow.main_snakefile))}")


for target in CARE:

    rule:
        name:
            target
        input:
            without_locks,
        localrule: True
