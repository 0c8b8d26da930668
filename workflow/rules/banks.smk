# Exemplars from their source, embedded: results/banks/{bank}.h5


# A public file, where no folder with it is named: results/sources/{file}
rule download:
    output:
        f"{PLAN.paths.root}/sources/{{file}}",
    log:
        f"{PLAN.paths.root}/logs/sources/{{file}}.log",
    # Each goes on where the one before was cut off.
    retries: 3
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        url=lambda wildcards: PUBLIC[wildcards.file].url,
        sha256=lambda wildcards: PUBLIC[wildcards.file].sha256,
    shell:
        "python -m icl_transience download --url {params.url:q} --sha256 {params.sha256:q} --output {output:q}"
        " --log {log:q}"


# The network that an encoder `trained` is, made from the bank's training images: results/encoders/{bank}.h5
rule encoder:
    input:
        downloads=lambda wildcards: PLAN.sources.downloads(
            wildcards.bank, inputs_on_record(PLAN.paths.encoder(wildcards.bank))
        ),
    output:
        f"{PLAN.paths.root}/encoders/{{bank}}.h5",
    log:
        f"{PLAN.paths.root}/logs/encoders/{{bank}}.log",
    benchmark:
        f"{PLAN.paths.root}/benchmarks/encoders/{{bank}}.tsv"
    priority: lambda wildcards: PLAN.order.bank(wildcards.bank)
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.jobs.encoder(wildcards.bank).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.jobs.encoder(wildcards.bank).runtime(attempt),
        files=lambda wildcards: canonical(PLAN.sources.of_bank(wildcards.bank)),
    params:
        spec=lambda wildcards: PLAN.banks[wildcards.bank].json,
    shell:
        "python -m icl_transience encoder --spec {params.spec:q} --files {resources.files:q} --output {output:q}"
        " --threads {threads} --log {log:q}"


rule bank:
    input:
        downloads=lambda wildcards: PLAN.sources.downloads(
            wildcards.bank, inputs_on_record(PLAN.paths.bank(wildcards.bank))
        ),
        encoder=lambda wildcards: PLAN.sources.encoder(wildcards.bank) or [],
    output:
        f"{PLAN.paths.root}/banks/{{bank}}.h5",
    log:
        f"{PLAN.paths.root}/logs/banks/{{bank}}.log",
    benchmark:
        f"{PLAN.paths.root}/benchmarks/banks/{{bank}}.tsv"
    priority: lambda wildcards: PLAN.order.bank(wildcards.bank)
    conda:
        "../../envs/environment.yaml"
    # ResNet-18 over thousands of drawings is the one long job here.
    threads: lambda wildcards: PLAN.jobs.bank(wildcards.bank).cpus
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.jobs.bank(wildcards.bank).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.jobs.bank(wildcards.bank).runtime(attempt),
        # Neither input nor parameter: the SHA-256 of the source files is in the bank's name, so that neither their
        # times nor where they lie can make a bank again.
        files=lambda wildcards: canonical(PLAN.sources.of_bank(wildcards.bank)),
    params:
        spec=lambda wildcards: PLAN.banks[wildcards.bank].json,
    shell:
        "python -m icl_transience bank --spec {params.spec:q} --files {resources.files:q} --encoder {input.encoder:q}"
        " --output {output:q} --threads {threads} --log {log:q}"


# What predicts whether in-context learning can appear on a bank: results/banks/{bank}.svg
rule card:
    input:
        bank=f"{PLAN.paths.root}/banks/{{bank}}.h5",
        vocabulary=lambda wildcards: PLAN.sources.vocabulary(wildcards.bank) or [],
    output:
        vector=report(
            f"{PLAN.paths.root}/banks/{{bank}}.svg",
            caption="../report/cards.rst",
            category="banks",
            labels={"bank": "{bank}"},
        ),
        raster=f"{PLAN.paths.root}/banks/{{bank}}.png",
    log:
        f"{PLAN.paths.root}/logs/banks/{{bank}}-card.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        code=code_digest.digest("cards"),
    shell:
        "python -m icl_transience card --bank {input.bank:q} --vocabulary {input.vocabulary:q}"
        " --vector {output.vector:q} --raster {output.raster:q} &> {log:q}"


# `snakemake cards` makes the banks of a study and their cards, and trains nothing.
rule cards:
    input:
        PLAN.targets.cards(),
    localrule: True
