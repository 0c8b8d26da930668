# A stretch of a pack's training, from one checkpoint to the next: results/packs/{pack}/segment-{from}-{to}.h5


rule train:
    input:
        bank=lambda wildcards: PLAN.paths.bank(PLAN.packs[wildcards.pack].spec.run.bank.id),
        previous=lambda wildcards: PLAN.targets.previous_segment(wildcards.pack, int(wildcards.start)) or [],
        # Segments of other packs, from whose snapshots lanes start.
        sources=lambda wildcards: PLAN.targets.source_segments(wildcards.pack, int(wildcards.start)),
    output:
        f"{PLAN.paths.root}/packs/{{pack}}/segment-{{start}}-{{end}}.h5",
    log:
        f"{PLAN.paths.root}/logs/packs/{{pack}}/segment-{{start}}-{{end}}.log",
    benchmark:
        f"{PLAN.paths.root}/benchmarks/packs/{{pack}}/segment-{{start}}-{{end}}.tsv"
    # Experiments in the order in which they stand, so that the first one's figures come first.
    priority: lambda wildcards: PLAN.order.pack(wildcards.pack)
    # One cluster job a segment, its evaluation included. The name has the segment in it: a constant one would
    # fuse the whole chain.
    group:
        "segment_{pack}_{start}"
    conda:
        "../../envs/environment.yaml"
    # A job keeps one core busy; jobs side by side use the machine better than threads do.
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.jobs.train(**wildcards).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.jobs.train(**wildcards).runtime(attempt),
        gpu_percent=lambda wildcards: PLAN.jobs.train(**wildcards).gpu_percent,
        gpu=lambda wildcards: PLAN.jobs.train(**wildcards).gpu,
        # Resources and not parameters: changing them must rerun nothing.
        device=PLAN.config["device"],
        engine=PLAN.config["engine"],
        tensorboard=int(PLAN.config["tensorboard"]),
    params:
        spec=lambda wildcards: PLAN.packs[wildcards.pack].spec.json,
    # `exec`, so that no shell stands between: it would die of the SIGTERM that a queue sends to all processes of a
    # job, and Snakemake would take the job for ended while training still saves what it has.
    shell:
        "exec python -m icl_transience train --spec {params.spec:q} --bank {input.bank:q} --previous {input.previous:q}"
        " --sources {input.sources:q}"
        " --from {wildcards.start} --to {wildcards.end} --output {output:q}"
        " --device {resources.device:q} --gpu-percent {resources.gpu_percent:q} --engine {resources.engine:q}"
        " --threads {threads} --tensorboard {resources.tensorboard:q} --log {log:q}"
