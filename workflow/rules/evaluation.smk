# What every snapshot of a segment answers: results/packs/{pack}/metrics-{set}-{from}-{to}.h5; what is inside it:
# results/packs/{pack}/circuits-{circuits}-{from}-{to}.h5


rule evaluate:
    input:
        segment=f"{PLAN.paths.root}/packs/{{pack}}/segment-{{start}}-{{end}}.h5",
        sequences=f"{PLAN.paths.root}/sequences/{{set}}.h5",
        bank=lambda wildcards: PLAN.images(wildcards.pack),
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
        gpu_percent=lambda wildcards: PLAN.jobs.evaluate(**wildcards).gpu_percent,
        gpu=lambda wildcards: PLAN.jobs.evaluate(**wildcards).gpu,
        device=PLAN.config["device"],
        engine=PLAN.config["engine"],
        tensorboard=int(PLAN.config["tensorboard"]),
    params:
        spec=lambda wildcards: PLAN.packs[wildcards.pack].spec.json,
        set=lambda wildcards: PLAN.sets[wildcards.set].json,
        code=code_digest.digest("metrics"),
    shell:
        "python -m icl_transience evaluate --spec {params.spec:q} --set {params.set:q} --segment {input.segment:q}"
        " --sequences {input.sequences:q} --bank {input.bank:q} --output {output:q} --device {resources.device:q}"
        " --gpu-percent {resources.gpu_percent:q}"
        " --engine {resources.engine:q} --threads {threads} --tensorboard {resources.tensorboard:q} &> {log:q}"


# Interventions that take activations of other snapshots wait for the segments that have these. So they are in no group:
# a group of the first segment would wait for that of the last, which waits for it. A job of a spec that has grown finds in
# the folder what was measured for the smaller one, and measures the rest.
rule grafts:
    input:
        segment=f"{PLAN.paths.root}/packs/{{pack}}/segment-{{start}}-{{end}}.h5",
        sequences=lambda wildcards: PLAN.paths.sequences(PLAN.circuits.specs[wildcards.circuits].set),
        bank=lambda wildcards: PLAN.images(wildcards.pack),
        others=lambda wildcards: PLAN.circuits.other_segments(wildcards.pack, wildcards.circuits),
        peaks=lambda wildcards: PLAN.circuits.peaks(wildcards.pack, wildcards.circuits),
    output:
        f"{PLAN.paths.root}/packs/{{pack}}/circuits-{{circuits}}-{{start}}-{{end}}.h5",
    log:
        f"{PLAN.paths.root}/logs/packs/{{pack}}/circuits-{{circuits}}-{{start}}-{{end}}.log",
    benchmark:
        f"{PLAN.paths.root}/benchmarks/packs/{{pack}}/circuits-{{circuits}}-{{start}}-{{end}}.tsv"
    wildcard_constraints:
        circuits="|".join(map(re.escape, PLAN.circuits.ids(grafts=True))) or "(?!)",
    priority: lambda wildcards: PLAN.order.pack(wildcards.pack)
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.jobs.circuits(**wildcards).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.jobs.circuits(**wildcards).runtime(attempt),
        gpu_percent=lambda wildcards: PLAN.jobs.circuits(**wildcards).gpu_percent,
        gpu=lambda wildcards: PLAN.jobs.circuits(**wildcards).gpu,
        device=PLAN.config["device"],
        # Not read: jobs of one group must agree in a resource that is a text.
        engine=PLAN.config["engine"],
    params:
        spec=lambda wildcards: PLAN.packs[wildcards.pack].spec.json,
        circuits=lambda wildcards: PLAN.circuits.specs[wildcards.circuits].json,
        code=code_digest.digest("circuits"),
    shell:
        "python -m icl_transience circuits --spec {params.spec:q} --circuits {params.circuits:q}"
        " --segment {input.segment:q} --sequences {input.sequences:q} --bank {input.bank:q} --output {output:q}"
        " --others {input.others:q} --peaks {input.peaks:q} --device {resources.device:q}"
        " --gpu-percent {resources.gpu_percent:q} --threads {threads} &> {log:q}"


use rule grafts as circuits with:
    input:
        segment=f"{PLAN.paths.root}/packs/{{pack}}/segment-{{start}}-{{end}}.h5",
        sequences=lambda wildcards: PLAN.paths.sequences(PLAN.circuits.specs[wildcards.circuits].set),
        bank=lambda wildcards: PLAN.images(wildcards.pack),
        others=[],
        peaks=[],
    wildcard_constraints:
        circuits="|".join(map(re.escape, PLAN.circuits.ids(grafts=False))) or "(?!)",
    group:
        "segment_{pack}_{start}"
