# Exemplars from their source, embedded: results/banks/{bank}.h5


rule bank:
    output:
        f"{PLAN.results}/banks/{{bank}}.h5",
    log:
        f"{PLAN.results}/logs/banks/{{bank}}.log",
    benchmark:
        f"{PLAN.results}/benchmarks/banks/{{bank}}.tsv"
    conda:
        "../../envs/environment.yaml"
    resources:
        # Neither input nor parameter: the SHA-256 of the source files is in the bank's name, so that neither their
        # times nor where they lie can make a bank again.
        files=lambda wildcards: PLAN.bank_files(wildcards.bank),
    params:
        spec=lambda wildcards: PLAN.spec_of(PLAN.banks[wildcards.bank]),
    shell:
        "python -m icl_transience bank --spec {params.spec:q} --files {resources.files:q}"
        " --output {output:q} &> {log:q}"
