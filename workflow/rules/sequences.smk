# The frozen sequences of all evaluators of a study on a bank: results/sequences/{set}.h5


rule sequences:
    input:
        bank=lambda wildcards: PLAN.bank_path(PLAN.sets[wildcards.set].bank.id),
    output:
        f"{PLAN.results}/sequences/{{set}}.h5",
    log:
        f"{PLAN.results}/logs/sequences/{{set}}.log",
    benchmark:
        f"{PLAN.results}/benchmarks/sequences/{{set}}.tsv"
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.sequences_job(wildcards.set).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.sequences_job(wildcards.set).runtime(attempt),
    params:
        spec=lambda wildcards: PLAN.spec_of(PLAN.sets[wildcards.set]),
    shell:
        "python -m icl_transience sequences --spec {params.spec:q} --bank {input.bank:q} --output {output:q} &> {log:q}"
