# So that `snakemake` finds the workflow in this folder, with its config.yaml and profiles/: see workflow/Snakefile.
include: "workflow/Snakefile"


# The default target of what is included does not count: without this `snakemake` would make nothing. As a module of
# another workflow this one leaves the choice to that one.
if workflow.modifier.is_main_snakefile():
    workflow.default_target = "all"
