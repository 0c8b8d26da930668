# What every snapshot of a segment answers: results/packs/{pack}/metrics-{set}-{from}-{to}.h5


rule evaluate:
    input:
        segment=f"{PLAN.results}/packs/{{pack}}/segment-{{start}}-{{end}}.h5",
        sequences=f"{PLAN.results}/sequences/{{set}}.h5",
    output:
        f"{PLAN.results}/packs/{{pack}}/metrics-{{set}}-{{start}}-{{end}}.h5",
    log:
        f"{PLAN.results}/logs/packs/{{pack}}/metrics-{{set}}-{{start}}-{{end}}.log",
    benchmark:
        f"{PLAN.results}/benchmarks/packs/{{pack}}/metrics-{{set}}-{{start}}-{{end}}.tsv"
    group:
        "segment_{pack}_{start}"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.evaluate_job(**wildcards).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.evaluate_job(**wildcards).runtime(attempt),
        gpu=lambda wildcards: PLAN.evaluate_job(**wildcards).gpu,
        device=PLAN.config["device"],
        engine=PLAN.config["engine"],
    params:
        spec=lambda wildcards: PLAN.spec_of(PLAN.packs[wildcards.pack].spec),
        set=lambda wildcards: PLAN.spec_of(PLAN.sets[wildcards.set]),
        code=code.digest("metrics"),
    shell:
        "python -m icl_transience evaluate --spec {params.spec:q} --set {params.set:q} --segment {input.segment:q}"
        " --sequences {input.sequences:q} --output {output:q} --device {resources.device:q} --engine {resources.engine:q}"
        " --threads {threads} &> {log:q}"
