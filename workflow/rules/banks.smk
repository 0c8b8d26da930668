# Exemplars from their source, embedded: results/banks/{bank}.h5


# A public file, where no folder with it is named: results/sources/{file}
rule download:
    output:
        f"{PLAN.results}/sources/{{file}}",
    log:
        f"{PLAN.results}/logs/sources/{{file}}.log",
    # Each goes on where the one before was cut off.
    retries: 3
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        url=lambda wildcards: sources.PUBLIC[wildcards.file].url,
        sha256=lambda wildcards: sources.PUBLIC[wildcards.file].sha256,
    shell:
        "python -m icl_transience download --url {params.url:q} --sha256 {params.sha256:q} --output {output:q}"
        " --log {log:q}"


# The network that an encoder `trained` is, made from the bank's training images: results/encoders/{bank}.h5
rule encoder:
    input:
        downloads=lambda wildcards: PLAN.downloads(wildcards.bank),
    output:
        f"{PLAN.results}/encoders/{{bank}}.h5",
    log:
        f"{PLAN.results}/logs/encoders/{{bank}}.log",
    benchmark:
        f"{PLAN.results}/benchmarks/encoders/{{bank}}.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.encoder_job(wildcards.bank).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.encoder_job(wildcards.bank).runtime(attempt),
        files=lambda wildcards: canonical(PLAN.bank_files(wildcards.bank)),
    params:
        spec=lambda wildcards: PLAN.spec_of(PLAN.banks[wildcards.bank]),
    shell:
        "python -m icl_transience encoder --spec {params.spec:q} --files {resources.files:q} --output {output:q}"
        " --threads {threads} --log {log:q}"


rule bank:
    input:
        downloads=lambda wildcards: PLAN.downloads(wildcards.bank),
        encoder=lambda wildcards: PLAN.encoder_path(wildcards.bank),
    output:
        f"{PLAN.results}/banks/{{bank}}.h5",
    log:
        f"{PLAN.results}/logs/banks/{{bank}}.log",
    benchmark:
        f"{PLAN.results}/benchmarks/banks/{{bank}}.tsv"
    conda:
        "../../envs/environment.yaml"
    # ResNet-18 over thousands of drawings is the one long job here.
    threads: lambda wildcards: PLAN.bank_job(wildcards.bank).cpus
    resources:
        mem_mb=lambda wildcards, attempt: PLAN.bank_job(wildcards.bank).mem_mb(attempt),
        runtime=lambda wildcards, attempt: PLAN.bank_job(wildcards.bank).runtime(attempt),
        # Neither input nor parameter: the SHA-256 of the source files is in the bank's name, so that neither their
        # times nor where they lie can make a bank again.
        files=lambda wildcards: canonical(PLAN.bank_files(wildcards.bank)),
    params:
        spec=lambda wildcards: PLAN.spec_of(PLAN.banks[wildcards.bank]),
    shell:
        "python -m icl_transience bank --spec {params.spec:q} --files {resources.files:q} --encoder {input.encoder:q}"
        " --output {output:q} --threads {threads} --log {log:q}"


# What predicts whether in-context learning can appear on a bank: results/banks/{bank}.svg
rule card:
    input:
        bank=f"{PLAN.results}/banks/{{bank}}.h5",
        vocabulary=lambda wildcards: PLAN.vocabulary(wildcards.bank),
    output:
        vector=report(
            f"{PLAN.results}/banks/{{bank}}.svg",
            caption="../report/cards.rst",
            category="banks",
            labels={"bank": "{bank}"},
        ),
        raster=f"{PLAN.results}/banks/{{bank}}.png",
    log:
        f"{PLAN.results}/logs/banks/{{bank}}-card.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    params:
        code=code.digest("cards"),
    shell:
        "python -m icl_transience card --bank {input.bank:q} --vocabulary {input.vocabulary:q}"
        " --vector {output.vector:q} --raster {output.raster:q} &> {log:q}"


# `snakemake cards` makes the banks of a study and their cards, and trains nothing.
rule cards:
    input:
        PLAN.cards(),
    localrule: True
