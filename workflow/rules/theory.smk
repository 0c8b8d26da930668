# The minimal model of coopetition, in studies that have one: results/studies/{study}/minimal_model/. Its rules are
# here, the figure's too, so that other studies have none of them.
MINIMAL_MODEL = f"{STUDY}/minimal_model"


rule minimal_model:
    input:
        PLAN.targets.minimal_model(),
    localrule: True


rule minimal_model_tables:
    input:
        declared=PLAN.targets.minimal_model_declared(),
    output:
        losses=f"{MINIMAL_MODEL}/losses.csv",
        seeds=report(
            f"{MINIMAL_MODEL}/seeds.csv",
            caption="../report/minimal_model.rst",
            category="minimal_model",
            labels={"result": "table of seeds"},
        ),
        checksums=f"{MINIMAL_MODEL}/SHA256SUMS",
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/minimal_model/tables.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        # What the job reads in minimal_model.json.
        record=PLAN.records.minimal_model_text(figures=False),
        path=PLAN.paths.minimal_model,
        folder=lambda wildcards: PLAN.paths.experiment_folder("minimal_model"),
        code=code_digest.digest("minimal_model"),
    shell:
        "python -m icl_transience minimal-model --experiment {params.path:q} --declared {input.declared:q}"
        " --folder {params.folder:q} &> {log:q}"


rule minimal_model_figure:
    input:
        rules.minimal_model_tables.output,
        PLAN.targets.tables_beside_minimal_model(),
    output:
        report(
            f"{MINIMAL_MODEL}/minimal_model.svg",
            caption="../report/minimal_model.rst",
            category="minimal_model",
            labels={"result": "figure"},
        ),
        f"{MINIMAL_MODEL}/minimal_model.png",
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/minimal_model/figure.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        record=PLAN.records.minimal_model_text(figures=True),
        path=PLAN.paths.minimal_model,
        folder=lambda wildcards: PLAN.paths.study_folder,
        code=code_digest.digest("minimal_model_figure"),
    shell:
        "python -m icl_transience minimal-model-figure --experiment {params.path:q} --folder {params.folder:q} &> {log:q}"
