# Tables and figures of an experiment: results/studies/{study}/{experiment}/; how the claims of a study stand:
# results/studies/{study}/verdicts.csv; what others' code reads of a run: results/exports/{study}/{run}.h5
import re


wildcard_constraints:
    start=r"\d{12}",
    end=r"\d{12}",
    pack=r"[^/]+",
    set=r"[^/]+",
    bank=r"[^/]+",
    file="|".join(map(re.escape, PUBLIC)),
    figure="curves|comparison|summary|plane|grid",
    digest="[0-9a-f]{12}",
    experiment="|".join(PLAN.study.experiments),
    run="|".join(map(re.escape, PLAN.targets.exports)),


STUDY = PLAN.paths.study_folder


# What an experiment's tables are made from, as a file name. Without its records (.snakemake, which may be deleted or left
# behind) Snakemake does not know that a seed is new, but it sees that this file is missing.
rule declare:
    output:
        f"{STUDY}/{{experiment}}/.declared-{{digest}}",
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/{{experiment}}/declared-{{digest}}.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        folder=lambda wildcards: PLAN.paths.experiment_folder(wildcards.experiment),
    shell:
        "(rm -f {params.folder:q}/.declared-* && echo {wildcards.digest} > {output:q}) &> {log:q}"


rule tables:
    input:
        metrics=lambda wildcards: PLAN.targets.metrics(wildcards.experiment),
        declared=lambda wildcards: PLAN.targets.declared(wildcards.experiment),
    output:
        curves=f"{STUDY}/{{experiment}}/curves.csv",
        transience=report(
            f"{STUDY}/{{experiment}}/transience.csv",
            caption="../report/transience.rst",
            category="{experiment}",
            labels={"result": "table of lanes"},
        ),
        runs=report(
            f"{STUDY}/{{experiment}}/runs.csv",
            caption="../report/runs.rst",
            category="{experiment}",
            labels={"result": "table of runs"},
        ),
        checksums=f"{STUDY}/{{experiment}}/SHA256SUMS",
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/{{experiment}}/tables.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        # What the job reads in experiment.json; it stands there because a command line has no room for many runs.
        record=lambda wildcards: PLAN.records.experiment_text(wildcards.experiment, figures=False),
        experiment=lambda wildcards: PLAN.paths.experiment(wildcards.experiment),
        packs=f"{PLAN.paths.root}/packs",
        folder=lambda wildcards: PLAN.paths.experiment_folder(wildcards.experiment),
        code=code_digest.digest("tables"),
    shell:
        "python -m icl_transience tables --experiment {params.experiment:q} --declared {input.declared:q} --packs {params.packs:q}"
        " --folder {params.folder:q} &> {log:q}"


rule verdicts:
    input:
        PLAN.targets.judged_tables(),
    output:
        verdicts=report(
            f"{STUDY}/verdicts.csv",
            caption="../report/verdicts.rst",
            category="claims",
            labels={"result": "table of verdicts"},
        ),
        checksums=f"{STUDY}/SHA256SUMS",
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/verdicts.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        # What the job reads in claims.json. Here alone: another claim makes no table and no figure again.
        claims=lambda wildcards: PLAN.records.claims_text(),
        path=lambda wildcards: PLAN.paths.claims,
        folder=lambda wildcards: PLAN.paths.study_folder,
        code=code_digest.digest("verdicts"),
    shell:
        "python -m icl_transience verdicts --claims {params.path:q} --folder {params.folder:q} &> {log:q}"


rule figures:
    input:
        rules.tables.output,
    output:
        report(
            f"{STUDY}/{{experiment}}/{{figure}}.svg",
            caption="../report/figures.rst",
            category="{experiment}",
            labels={"result": "{figure}"},
        ),
        f"{STUDY}/{{experiment}}/{{figure}}.png",
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/{{experiment}}/{{figure}}.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        record=lambda wildcards: PLAN.records.experiment_text(wildcards.experiment, figures=True),
        experiment=lambda wildcards: PLAN.paths.experiment(wildcards.experiment),
        folder=lambda wildcards: PLAN.paths.experiment_folder(wildcards.experiment),
        code=code_digest.digest("figures"),
    shell:
        "python -m icl_transience figure --experiment {params.experiment:q} --name {wildcards.figure}"
        " --folder {params.folder:q} &> {log:q}"


rule export:
    input:
        bank=lambda wildcards: PLAN.paths.bank(PLAN.targets.exports[wildcards.run].run.bank.id),
        sequences=lambda wildcards: f"{PLAN.paths.root}/sequences/{PLAN.targets.exports[wildcards.run].sequence_set.id}.h5",
    output:
        data=f"{PLAN.paths.root}/exports/{PLAN.study.name}/{{run}}.h5",
        bank=f"{PLAN.paths.root}/exports/{PLAN.study.name}/{{run}}.bank.h5",
    log:
        f"{PLAN.paths.root}/logs/exports/{PLAN.study.name}/{{run}}.log",
    conda:
        "../../envs/environment.yaml"
    params:
        spec=lambda wildcards: PLAN.targets.exports[wildcards.run].json,
    shell:
        "python -m icl_transience export --spec {params.spec:q} --bank {input.bank:q} --sequences {input.sequences:q}"
        " --output {output.data:q} --bank-output {output.bank:q} &> {log:q}"


# `snakemake transience` builds the experiment of that name.
for experiment in PLAN.study.experiments:

    rule:
        name:
            experiment
        input:
            PLAN.targets.experiment(experiment),
        localrule: True


# What an optional experiment lacks is said to those who ask for it.
def refusal(experiment: str):
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
