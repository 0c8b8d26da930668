# The frozen sequences of all evaluators of a study on a bank: results/sequences/{set}.h5


rule sequences:
    input:
        bank=lambda wildcards: PLAN.paths.bank(PLAN.sets[wildcards.set].bank.id),
    output:
        f"{PLAN.paths.root}/sequences/{{set}}.h5",
    log:
        f"{PLAN.paths.root}/logs/sequences/{{set}}.log",
    benchmark:
        f"{PLAN.paths.root}/benchmarks/sequences/{{set}}.tsv"
    priority: lambda wildcards: PLAN.order.set(wildcards.set)
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.jobs.sequences(wildcards.set).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.jobs.sequences(wildcards.set).runtime(attempt),
    params:
        spec=lambda wildcards: PLAN.sets[wildcards.set].json,
    shell:
        "python -m icl_transience sequences --spec {params.spec:q} --bank {input.bank:q} --output {output:q} &> {log:q}"
