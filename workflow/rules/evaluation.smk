# What every snapshot of a segment answers: results/packs/{pack}/metrics-{set}-{from}-{to}.h5


rule evaluate:
    input:
        segment=f"{PLAN.paths.root}/packs/{{pack}}/segment-{{start}}-{{end}}.h5",
        sequences=f"{PLAN.paths.root}/sequences/{{set}}.h5",
    output:
        f"{PLAN.paths.root}/packs/{{pack}}/metrics-{{set}}-{{start}}-{{end}}.h5",
    log:
        f"{PLAN.paths.root}/logs/packs/{{pack}}/metrics-{{set}}-{{start}}-{{end}}.log",
    benchmark:
        f"{PLAN.paths.root}/benchmarks/packs/{{pack}}/metrics-{{set}}-{{start}}-{{end}}.tsv"
    priority: lambda wildcards: PLAN.order.pack(wildcards.pack)
    group:
        "segment_{pack}_{start}"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.jobs.evaluate(**wildcards).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.jobs.evaluate(**wildcards).runtime(attempt),
        gpu=lambda wildcards: PLAN.jobs.evaluate(**wildcards).gpu,
        device=PLAN.config["device"],
        engine=PLAN.config["engine"],
    params:
        spec=lambda wildcards: PLAN.packs[wildcards.pack].spec.json,
        set=lambda wildcards: PLAN.sets[wildcards.set].json,
        code=code_digest.digest("metrics"),
    shell:
        "python -m icl_transience evaluate --spec {params.spec:q} --set {params.set:q} --segment {input.segment:q}"
        " --sequences {input.sequences:q} --output {output:q} --device {resources.device:q} --engine {resources.engine:q}"
        " --threads {threads} &> {log:q}"
