# Tables of an experiment: results/studies/{study}/{experiment}/; how the claims of a study stand:
# results/studies/{study}/verdicts.csv, and how they came to stand so: evidence.csv
STUDY = PLAN.paths.study_folder


# What an experiment's tables are made from, as a file name. Without its records (.snakemake, which may be deleted or left
# behind) Snakemake does not know that a seed is new, but it sees that this file is missing.
rule declare:
    output:
        f"{STUDY}/{{experiment}}/.declared-{{digest}}",
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/{{experiment}}/declared-{{digest}}.log",
    wildcard_constraints:
        experiment="|".join([*PLAN.study.experiments, "minimal_model"]),
    priority: lambda wildcards: PLAN.order.experiment(wildcards.experiment)
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
        circuits=lambda wildcards: PLAN.circuits.files(wildcards.experiment),
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
    priority: lambda wildcards: PLAN.order.experiment(wildcards.experiment)
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


# In how many lanes in-context learning emerges along an axis, and when, where a study asks for it.
rule acquisition:
    input:
        lanes=f"{STUDY}/{{experiment}}/transience.csv",
        checksums=f"{STUDY}/{{experiment}}/SHA256SUMS",
    output:
        survival=f"{STUDY}/{{experiment}}/survival.csv",
        threshold=report(
            f"{STUDY}/{{experiment}}/threshold.csv",
            caption="../report/survival.rst",
            category="{experiment}",
            labels={"result": "table of the threshold"},
        ),
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/{{experiment}}/acquisition.log",
    wildcard_constraints:
        experiment=PLAN.targets.with_files(PLAN.targets.acquisition),
    priority: lambda wildcards: PLAN.order.experiment(wildcards.experiment)
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        record=lambda wildcards: PLAN.records.experiment_text(wildcards.experiment, figures=False),
        experiment=lambda wildcards: PLAN.paths.experiment(wildcards.experiment),
        folder=lambda wildcards: PLAN.paths.experiment_folder(wildcards.experiment),
        code=code_digest.digest("acquisition"),
    shell:
        "python -m icl_transience acquisition --experiment {params.experiment:q} --folder {params.folder:q} &> {log:q}"


# Of experiments whose models are compared with ideal predictors: whether the copier's weight forecasts flip.
rule forecast:
    input:
        rules.tables.output,
    output:
        report(
            f"{STUDY}/{{experiment}}/forecast.csv",
            caption="../report/forecast.rst",
            category="{experiment}",
            labels={"result": "table of forecasts"},
        ),
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/{{experiment}}/forecast.log",
    wildcard_constraints:
        experiment=PLAN.targets.with_files(PLAN.targets.forecast),
    priority: lambda wildcards: PLAN.order.experiment(wildcards.experiment)
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        folder=lambda wildcards: PLAN.paths.experiment_folder(wildcards.experiment),
        code=code_digest.digest("forecast"),
    shell:
        "python -m icl_transience forecast --folder {params.folder:q} &> {log:q}"


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
        evidence=f"{STUDY}/evidence.csv",
        checksums=f"{STUDY}/SHA256SUMS",
        # As of rule declare.
        declared=PLAN.targets.claims_declared(),
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
        "(rm -f {params.folder:q}/.declared-* && "
        "python -m icl_transience verdicts --claims {params.path:q} --folder {params.folder:q} && touch {output.declared:q})"
        " &> {log:q}"


# Where lanes have their peaks, for interventions that graft from there.
rule peaks:
    input:
        lambda wildcards: PLAN.circuits.metrics_before_peak(wildcards.pack, wildcards.circuits),
    output:
        f"{PLAN.paths.root}/packs/{{pack}}/peaks-{{circuits}}.json",
    log:
        f"{PLAN.paths.root}/logs/packs/{{pack}}/peaks-{{circuits}}.log",
    priority: lambda wildcards: PLAN.order.pack(wildcards.pack)
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        spec=lambda wildcards: PLAN.packs[wildcards.pack].spec.json,
        circuits=lambda wildcards: PLAN.circuits.specs[wildcards.circuits].json,
        boundaries=lambda wildcards: PLAN.circuits.boundaries(wildcards.pack, wildcards.circuits),
        code=code_digest.digest("peaks"),
    shell:
        "python -m icl_transience peaks --spec {params.spec:q} --circuits {params.circuits:q}"
        " --boundaries {params.boundaries:q} --output {output:q} &> {log:q}"


rule circuits_tables:
    input:
        circuits=lambda wildcards: PLAN.circuits.files(wildcards.experiment),
        lanes=f"{STUDY}/{{experiment}}/transience.csv",
        checksums=f"{STUDY}/{{experiment}}/SHA256SUMS",
    output:
        heads=f"{STUDY}/{{experiment}}/circuits/heads.csv",
        composition=f"{STUDY}/{{experiment}}/circuits/composition.csv",
        attention=f"{STUDY}/{{experiment}}/circuits/attention.csv",
        checksums=f"{STUDY}/{{experiment}}/circuits/SHA256SUMS",
    log:
        f"{PLAN.paths.root}/logs/studies/{PLAN.study.name}/{{experiment}}/circuits-tables.log",
    wildcard_constraints:
        experiment=PLAN.targets.with_files(PLAN.targets.circuits_tables),
    priority: lambda wildcards: PLAN.order.experiment(wildcards.experiment)
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        record=lambda wildcards: PLAN.records.experiment_text(wildcards.experiment, figures=False),
        experiment=lambda wildcards: PLAN.paths.experiment(wildcards.experiment),
        packs=f"{PLAN.paths.root}/packs",
        folder=lambda wildcards: PLAN.paths.experiment_folder(wildcards.experiment),
        code=code_digest.digest("circuits_tables"),
    shell:
        "python -m icl_transience circuits-tables --experiment {params.experiment:q} --packs {params.packs:q}"
        " --folder {params.folder:q} &> {log:q}"
