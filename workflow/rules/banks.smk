# Exemplars from their source, embedded: results/banks/{bank}.h5


rule bank:
    input:
        # The files' SHA-256 is in the bank's name; their times say nothing.
        lambda wildcards: ancient(PLAN.bank_files(wildcards.bank)),
    output:
        f"{PLAN.results}/banks/{{bank}}.h5",
    log:
        f"{PLAN.results}/logs/banks/{{bank}}.log",
    benchmark:
        f"{PLAN.results}/benchmarks/banks/{{bank}}.tsv"
    conda:
        "../../envs/environment.yaml"
    params:
        spec=lambda wildcards: PLAN.spec_of(PLAN.banks[wildcards.bank]),
    shell:
        "python -m icl_transience bank --spec {params.spec:q} --files {input:q} --output {output:q} &> {log:q}"
