# Figures of an experiment: results/studies/{study}/{experiment}/; a run as other code reads it:
# results/exports/{study}/{run}.h5; the figure of a study's claims: results/studies/{study}/evidence.svg


# A rule for each experiment, since it depends on the experiment which figures there are, and outputs are no functions
# of wildcards. One job draws them all.
for experiment in PLAN.study.experiments:

    rule:
        name:
            f"figures_{experiment}"
        input:
            rules.tables.output,
        output:
            [
                report(
                    f"{STUDY}/{{experiment}}/{shown}",
                    caption=f"../report/{figure}.rst",
                    category="{experiment}",
                    labels={"result": figure},
                )
                for figure, (shown, *_) in PLAN.targets.figures(experiment).items()
            ],
            [
                f"{STUDY}/{{experiment}}/{file}"
                for _, *others in PLAN.targets.figures(experiment).values()
                for file in others
            ],
        log:
            f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/{{experiment}}/figures.log",
        wildcard_constraints:
            experiment=experiment,
        priority: PLAN.order.experiment(experiment)
        localrule: True
        conda:
            "../../envs/environment.yaml"
        params:
            record=lambda wildcards: PLAN.records.experiment_text(wildcards.experiment, figures=True),
            experiment=lambda wildcards: PLAN.paths.experiment(wildcards.experiment),
            folder=lambda wildcards: PLAN.paths.experiment_folder(wildcards.experiment),
            code=code_digest.digest("figures"),
        shell:
            "python -m icl_transience figures --experiment {params.experiment:q} --folder {params.folder:q} &> {log:q}"


# Likewise those of what is inside the models, where a study asks for it.
for experiment in filter(PLAN.targets.circuits_figures, PLAN.study.experiments):

    rule:
        name:
            f"circuits_figures_{experiment}"
        input:
            rules.tables.output,
            rules.circuits_tables.output,
        output:
            [
                report(
                    f"{STUDY}/{{experiment}}/circuits/{shown}",
                    caption=f"../report/circuits/{figure}.rst",
                    category="{experiment}",
                    labels={"result": f"circuits: {figure}"},
                )
                for figure, (shown, *_) in PLAN.targets.circuits_figures(experiment).items()
            ],
            [
                f"{STUDY}/{{experiment}}/circuits/{file}"
                for _, *others in PLAN.targets.circuits_figures(experiment).values()
                for file in others
            ],
        log:
            f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/{{experiment}}/circuits-figures.log",
        wildcard_constraints:
            experiment=experiment,
        priority: PLAN.order.experiment(experiment)
        localrule: True
        conda:
            "../../envs/environment.yaml"
        params:
            record=lambda wildcards: PLAN.records.experiment_text(wildcards.experiment, figures=True),
            experiment=lambda wildcards: PLAN.paths.experiment(wildcards.experiment),
            folder=lambda wildcards: PLAN.paths.experiment_folder(wildcards.experiment),
            code=code_digest.digest("circuits_figures"),
        shell:
            "python -m icl_transience circuits-figures --experiment {params.experiment:q} --folder {params.folder:q}"
            " &> {log:q}"


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


rule evidence:
    input:
        rules.verdicts.output,
    output:
        report(
            f"{STUDY}/evidence.svg",
            caption="../report/evidence.rst",
            category="claims",
            labels={"result": "evidence"},
        ),
        f"{STUDY}/evidence.png",
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/evidence.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        folder=lambda wildcards: PLAN.paths.study_folder,
        code=code_digest.digest("evidence"),
    shell:
        "python -m icl_transience evidence-figure --folder {params.folder:q} &> {log:q}"
