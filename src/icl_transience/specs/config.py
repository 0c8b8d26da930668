"""The keys of config.yaml: how to execute. None of them changes a number that comes out."""

from dataclasses import dataclass
from typing import Annotated

from icl_transience.specs.keys import Key


@dataclass(frozen=True, kw_only=True)
class Config:
    """How to execute a study: declares keys; rules and jobs get them one by one."""

    study: Annotated[
        str, Key("a file in workflow/studies without its .yaml, or a path to one", default="laptop", shortest=1)
    ]
    results: Annotated[
        str,
        Key(
            "folder for everything that is made; not in its name: braces, which are Snakemake's",
            default="results",
            pattern=r"^[^{}-][^{}]*$",
        ),
    ]
    omniglot: Annotated[
        str | None,
        Key("folder with the public Omniglot zips; null = the environment variable ICL_OMNIGLOT", default=None),
    ]
    images: Annotated[
        str | None,
        Key(
            "folder of images in a folder for each class, of such folders, or of zips of them; null = the environment "
            "variable ICL_IMAGES",
            default=None,
        ),
    ]
    tokens: Annotated[
        str | None,
        Key(
            "folder of a Hugging Face checkpoint or of *.safetensors files; null = the environment "
            "variable ICL_TOKENS. Cards show words where vocab.txt, tokenizer.json or vocab.json lies "
            "beside the table and no brace is in the path",
            default=None,
        ),
    ]
    imported: Annotated[
        str | None,
        Key(
            "folder of files of HDF5 or NumPy with embedded exemplars; null = the environment variable ICL_IMPORTED",
            default=None,
        ),
    ]
    memory: Annotated[
        int | None,
        Key(
            "MB that a job may take; null = what this machine has. A study that needs more is refused "
            "before anything runs, and no retry asks for more",
            default=None,
            unit="MB",
            minimum=1,
        ),
    ]
    device: Annotated[
        str,
        Key(
            "where to train and evaluate: cuda = a GPU that no other job holds; cuda:1 = that one, though on a machine "
            "with several GPUs as many jobs then share it: `CUDA_VISIBLE_DEVICES=1` with cuda gives each job all of it",
            default="cpu",
            pattern=r"^(cpu|cuda(:[0-9]+)?)$",
        ),
    ]
    engine: Annotated[
        str,
        Key(
            "how training and evaluation are computed: native = hand-written steps for CPUs, compiled "
            "once a model shape; eager = plain PyTorch; triton = kernels for GPUs; graph = recorded as CUDA graphs; "
            "auto = native on CPUs, on GPUs triton or else graph where it can and passes its self-check; else eager",
            default="auto",
            choices=("auto", "native", "triton", "graph", "eager"),
        ),
    ]
    packing: Annotated[
        str,
        Key(
            "which lanes may train as one batched model: the seeds of one run, or also runs of equal shape and horizon",
            default="run",
            choices=("run", "shape"),
        ),
    ]
    lanes_per_pack: Annotated[
        int | None,
        Key(
            "at most so many train as one batched model. null = on CPUs one, each on a core of its own, or as many "
            "seeds of a run as train within two minutes together and leave no core of this machine without work; on "
            "CUDA all seeds of a run (with `packing: shape` all runs of a shape and horizon), in packs that half of "
            "`gpu_memory` has room for. Packs that exist stay as they are",
            default=None,
            unit="lanes",
            minimum=1,
        ),
    ]
    gpu_memory: Annotated[
        int, Key("MB of a GPU, for how many lanes train as one model there", default=16000, unit="MB", minimum=1)
    ]
    segment_sequences: Annotated[
        int | None,
        Key(
            "sequences seen between checkpoints; what a killed job loses at most. null = as many as "
            "take 10 to 15 minutes at the engine's measured rate, but at most 24 segments to the horizon; fewer "
            "sequences where `time_limit` asks for it. Segments that a pack has stay as they are, and a longer horizon "
            "adds at most 24",
            default=None,
            unit="sequences seen",
            minimum=1,
        ),
    ]
    segment_minutes: Annotated[
        float | None,
        Key(
            "minutes that a new segment and its evaluation are expected to take at `gflops`, in whole "
            "batches, in place of segment_sequences. null = segment_sequences counts. Segments that a pack has stay as "
            "they are",
            default=None,
            unit="minutes",
            above=0,
        ),
    ]
    time_limit: Annotated[
        int | None,
        Key(
            "minutes that a cluster's queue gives a job: no job, and no segment with its evaluation, "
            "asks for more. null = no limit",
            default=None,
            unit="minutes",
            minimum=1,
        ),
    ]
    gflops: Annotated[
        float | None,
        Key(
            "model GFLOP/s that one training job reaches (docs/performance.md has some; "
            "benchmarks/throughput.py measures them): what time jobs ask a cluster for, how long "
            "segments are, and the hours of `snakemake cost`. null = for what jobs ask 20 on a CPU core; for the "
            "rest, and on a GPU, what was measured, where it was; else on a GPU what a model of it gives",
            default=None,
            unit="GFLOP/s",
            above=0,
        ),
    ]
    tensorboard: Annotated[
        bool,
        Key(
            "running jobs write training loss and metrics to results/tensorboard too, for TensorBoard, whose package "
            "(`pip install tensorboard`) is optional; nothing here reads them",
            default=False,
        ),
    ]
    export_sequences: Annotated[
        int,
        Key(
            "training sequences in an export: the first of the run's first seed",
            default=10000,
            unit="sequences",
            minimum=1,
        ),
    ]
