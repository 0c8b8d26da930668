"""Estimate what jobs take of a machine: memory, time, GPUs, CPU cores, bytes of files.

Memory: what arrays were measured to take, in MB. Time: model FLOP over the rate that one job is expected to reach
(`gflops` in config.yaml; on a GPU else what was measured or is modelled for the pack, see rates.py, what every batch
costs included), plus, on a CPU, what every batch costs however small it is. An expected time sizes segments; what a
job asks a cluster for is SAFETY times that plus START_MINUTES, since a job that asks for too much waits a little longer
in the queue, and one that asks for too little is killed. A second attempt asks for twice as much, and so on, up to
`memory` and `time_limit` of config.yaml.

Letters of formulas as in model/transformer.py: C context pairs, T = 2C+1 tokens, D width, L blocks, m MLP ratio, I
input width, K labels.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from icl_transience.specs.banks import BankSpec, Images, Manifold, Omniglot, Tokens
from icl_transience.specs.circuits import CircuitsSpec
from icl_transience.specs.compute import (
    EVALUATION_BATCH,
    MEASURED_AT_A_TIME,
    MOST_PRODUCTS,
    PASS_SLOWER,
    circuits_flop,
    context_of,
    evaluation_flop,
    number_bytes,
    predictors_bytes,
    snapshots_at_a_time,
    training_flop,
    training_passes,
)
from icl_transience.specs.encoder import stem
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.model import component
from icl_transience.specs.runs import PackSpec, Run
from icl_transience.specs.training import Snapshots
from icl_transience.study.sources import files

# Model GFLOP/s of one job where none are given. A core of a current CPU does 25 to 80 (docs/performance.md), an old one
# less. Of a GPU they are given: what was measured, or is modelled, see rates.py.
GUESSED_GFLOPS = {"cpu": 20.0, "cuda": 200.0}
# A batch costs so many seconds a block, and as many again, on top of its FLOP: calls and kernel launches. Of a GPU in
# evaluation alone: its rate of training has them. 30 launches a block, of 10 us each.
OVERHEAD_SECONDS = {"cpu": 0.001, "cuda": 0.0003}
SAFETY = 3
# Modules from a network file system, the compiler, the first CUDA call, Snakemake itself.
START_MINUTES = 10
# Of the two Snakemake processes around a cluster job, 125 MB each, and of their shells.
SNAKEMAKE_MB = 300
# Of host memory, for CUDA's libraries. Not measured.
CUDA_MB = 3000
# FLOP of ResNet-18 on 224 x 224 pixels, and of banks/trained.py's network on 28 x 28 with 64 coordinates.
_RESNET18_FLOP = 3.63e9
_TRAINED_FLOP = 5.1e6
_RESNET18_CPUS = 16
_KMEANS_ROUNDS = 30
# Of reading, decoding and resizing an image, measured on photographs of 500 x 500 pixels; and bytes of the largest.
_IMAGE_SECONDS = 0.01
_LARGEST_IMAGE = 600 * 2**20
_MB = 2**20


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one job takes: MB, expected seconds, GPUs, CPU cores. `mem_mb` and `runtime` are what it asks for.

    gpu_percent: of a GPU, which other jobs share; see Pace.percent. memory, time_limit: MB and minutes that no attempt
    may ask for more than, None where there is no limit. others: minutes that jobs ask for which run after or before it
    in one cluster job, and have the limit in common with it. beside: MB of those that run at the same time in it.
    """

    megabytes: int
    seconds: float
    gpu: int = 0
    gpu_percent: int = 0
    cpus: int = 1
    memory: int | None = None
    time_limit: int | None = None
    others: int = 0
    beside: int = 0

    @property
    def minutes(self) -> int:
        """Return the minutes that the first attempt asks for where there is no limit."""
        return START_MINUTES + math.ceil(SAFETY * self.seconds / 60)

    def mem_mb(self, attempt: int = 1) -> int:
        """Return the MB that an attempt asks for; the first is 1."""
        own = self.megabytes + SNAKEMAKE_MB
        # Slurm adds up what runs at the same time: all of it shrinks alike.
        share = own / (own + self.beside)
        return attempt * own if self.memory is None else min(attempt * own, max(1, int(self.memory * share)))

    def runtime(self, attempt: int = 1) -> int:
        """Return the minutes that an attempt asks for; the first is 1."""
        if self.time_limit is None:
            return attempt * self.minutes
        # All jobs in one cluster job shrink alike; rounded down, they stay within the limit together.
        return max(1, math.floor(self.minutes * min(attempt, self.time_limit / (self.minutes + self.others))))


# Banks, encoders, sequences.


def bank(spec: BankSpec, table: int = 0) -> Job:
    """Estimate making a bank. table: numbers in the table of token embeddings that it is taken from."""
    shape, width, cpus = spec.shape, _measured_width(spec), 1
    flop, exemplars = 10 * width**3, shape.n_classes * shape.n_exemplars
    # The spectrum, on at most 20,000 exemplars; the nearest centroid of at most 500 classes.
    flop += 2 * min(20_000, exemplars) * width**2 + 1000 * exemplars * width
    seconds = 0.0
    if pictures := spec.pictures:
        pixels = pictures.image_shape.width
        if spec.uses_resnet18:
            flop, cpus = flop + exemplars * _RESNET18_FLOP, _RESNET18_CPUS
        elif pictures.encoder == "pca":
            flop += 2 * exemplars * pixels**2 + 10 * pixels**3
        elif pictures.trained:
            flop += exemplars * _trained_flop(spec)
    if isinstance(spec.parameters, Images):
        seconds += _IMAGE_SECONDS * spec.parameters.stored_classes * shape.n_exemplars
    if isinstance(spec.parameters, Tokens):
        flop += 2 * _KMEANS_ROUNDS * table * spec.parameters.clusters
    seconds += flop / _flop_per_second("cpu", None) / cpus
    return Job(megabytes=bank_megabytes(spec, table), seconds=seconds, cpus=cpus)


def encoder(spec: BankSpec) -> Job:
    """Estimate training the network of the encoder `trained` on a bank's training images."""
    shape, settings = spec.shape, spec.pictures and spec.pictures.trained
    assert settings
    images = settings.epochs * shape.n_train_classes * shape.n_train_exemplars
    seconds = 3 * images * _trained_flop(spec) / _flop_per_second("cpu", None)
    return Job(megabytes=bank_megabytes(spec), seconds=seconds)


def _trained_flop(spec: BankSpec) -> float:
    """Return the FLOP of the encoder `trained` on one image.

    They grow with the pixels, and in the last convolution with the square of its width.
    """
    assert spec.pictures
    return _TRAINED_FLOP * (spec.pictures.side / 28) ** 2 * max(1.0, spec.pictures.dim / 64) ** 2


def _measured_width(spec: BankSpec) -> int:
    """Return the numbers of an exemplar that a bank's quality is measured on: of an image, small and grey."""
    return spec.images.measured_side**2 if spec.images else spec.shape.width


def bank_megabytes(spec: BankSpec, table: int = 0) -> int:
    """Return about the most MB that making a bank takes. Bytes for each number were measured on large banks."""
    shape, width = spec.shape, _measured_width(spec)
    embeddings = shape.n_classes * shape.n_exemplars * width
    needed = {"gaussian": 16, "manifold": 28, "onehot": 12, "imported": 16}.get(spec.source, 12) * embeddings
    if isinstance(spec.parameters, Manifold):
        # Latents and what is added up for them, and the directions.
        needed += spec.parameters.latent_dim * (12 * shape.n_classes * shape.n_exemplars + 16 * shape.width)
    # The spectrum's eigenvalues, and the exemplars that it is measured on.
    needed += 8 * width * (4 * width + 3 * min(20_000, shape.n_classes * shape.n_exemplars))
    if isinstance(omniglot := spec.parameters, Omniglot):
        # The zips' drawings, one byte a pixel, twice; then these, downsampled, in all orientations.
        characters = sum(files.PUBLIC[name].characters for name in omniglot.zips)
        needed += 2 * characters * 20 * 105**2
    if isinstance(spec.parameters, Images):
        needed += _LARGEST_IMAGE
    if pictures := spec.pictures:
        if spec.images:
            needed += bank_bytes(spec)
        elif not spec.uses_resnet18:
            needed += 16 * shape.n_classes * shape.n_exemplars * pictures.image_shape.width
    needed += 18 * table
    # 400 MB are Python, PyTorch, SciPy and faiss.
    return 400 + needed // _MB


def sequences(spec: SequenceSet) -> Job:
    """Estimate drawing an evaluator set.

    In memory are the bank, twice while it is read, and the exemplars of the largest evaluator, four times; and what
    ideal predictors take.
    """
    largest = max((_numbers(spec, name) for name in spec.evaluators), default=0)
    needed = 2 * bank_bytes(spec.bank) + (0 if spec.bank.images else 16 * largest) + predictors_bytes(spec)
    # Some 10 MB/s, all in all.
    return Job(megabytes=600 + needed // _MB, seconds=sequences_bytes(spec) / 1e7)


def bank_bytes(spec: BankSpec) -> int:
    """Return the bytes of a bank's file, excluding quality card, class names and contact sheet.

    Of a bank of images each is stored once, at a byte a number.
    """
    shape, images = spec.shape, spec.images
    if images:
        return shape.n_classes // images.views * shape.n_exemplars * images.width
    return 4 * shape.n_classes * shape.n_exemplars * shape.width


def sequences_bytes(spec: SequenceSet) -> int:
    """Return the bytes of a set's file.

    Of every exemplar: its coordinates, unless it is an image, class, number and label, in 4 bytes each.
    """
    width = spec.bank.shape.width
    stored = 3 if spec.bank.images else width + 3
    return sum(4 * _numbers(spec, name) * stored // width for name in spec.evaluators)


def _numbers(spec: SequenceSet, evaluator: str) -> int:
    """Return how many coordinates all exemplars of an evaluator's sequences have."""
    return spec.sequences * (context_of(spec, evaluator) + 1) * spec.bank.shape.width


# Training and evaluation.


def train(pack: PackSpec, start: int, end: int, device: str = "cpu", gflops: float | None = None) -> Job:
    """Estimate training a pack from `start` to `end` sequences seen. gflops: of one job; None is a careful guess."""
    batches = (end - start) / pack.run.batch_size
    return _on(device, training_megabytes(pack), batches * _batch_seconds(pack, device, gflops))


def evaluate(
    pack: PackSpec, spec: SequenceSet, start: int, end: int, device: str = "cpu", gflops: float | None = None
) -> Job:
    """Estimate evaluating the snapshots of a segment (start, end], and its end, on a set. gflops: as in `train`."""
    examples = _read(pack, spec, spec.evaluators)
    answers = len(pack.lanes) * snapshots_at_a_time(len(pack.lanes), device) * EVALUATION_BATCH * pack.run.n_labels * 8
    megabytes = training_megabytes(pack) + number_bytes(pack.run) * (2 * examples + answers) // _MB
    seconds = answered(pack.run, start, end, [end]) * _snapshot_seconds(pack, spec, device, gflops)
    return _on(device, megabytes, seconds)


def circuits(
    pack: PackSpec,
    spec: CircuitsSpec,
    sequence_set: SequenceSet,
    start: int,
    end: int,
    device: str = "cpu",
    gflops: float | None = None,
) -> Job:
    """Estimate measuring the snapshots of a segment (start, end], and its end. gflops: as in `train`."""
    examples = _read(pack, sequence_set, spec.circuits.evaluators)
    run, lanes = pack.run, len(pack.lanes)
    # Of each sequence at a time: what every place of the model has, several times over, and patterns in float64.
    tokens = 2 * max(context_of(sequence_set, name) for name in spec.circuits.evaluators) + 1
    numbers = run.model.depth * tokens * (12 * run.model.width + 4 * run.model.heads * tokens) + 4 * run.n_labels
    needed = number_bytes(run) * (2 * examples + lanes * MEASURED_AT_A_TIME * numbers)
    megabytes = training_megabytes(pack) * (1 + len(spec.others)) + needed // _MB
    points = answered(run, start, end, [end])
    flop = lanes * points * circuits_flop(run, spec, sequence_set)
    batches = len(spec.circuits.evaluators) * math.ceil(sequence_set.sequences / EVALUATION_BATCH)
    passes = 1 + 2 * len(spec.circuits.interventions)
    seconds = PASS_SLOWER * flop / _flop_per_second(device, gflops) + points * batches * passes * _overhead(run, device)
    return _on(device, megabytes, seconds)


def _read(pack: PackSpec, spec: SequenceSet, evaluators: Iterable[str]) -> int:
    """Return how many numbers a snapshot's model reads of all exemplars: of images, what each lane's encoder makes."""
    run = pack.run
    if run.bank.images is None:
        return sum(_numbers(spec, name) for name in evaluators)
    exemplars = sum(spec.sequences * (context_of(spec, name) + 1) for name in evaluators)
    return exemplars * len(pack.lanes) * run.model.width


def _on(device: str, megabytes: int, seconds: float) -> Job:
    """Return a job on a device: with the GPU, and the memory for its libraries, that it needs."""
    gpu = int(device.startswith("cuda"))
    return Job(megabytes=megabytes + gpu * CUDA_MB, seconds=seconds, gpu=gpu, gpu_percent=100 * gpu)


def training_megabytes(pack: PackSpec) -> int:
    """Return about the MB that training a pack takes, of the device's memory where that is a GPU."""
    run = pack.run
    weights = run.model.width * (_embedded_width(run) + 2 * run.n_labels)
    weights += run.model.depth * run.model.width**2 * (4 + 2 * run.model.mlp_ratio)
    tokens = run.batch_size * (2 * run.recipe.context + 1)
    activations = tokens * run.model.width * run.model.depth * (12 + 4 * run.model.mlp_ratio)
    # Attention weights of every pair of tokens.
    activations += tokens * run.model.heads * run.model.depth * (2 * run.recipe.context + 1)
    of_lane = (
        _encoder_numbers(run) + 5 * weights + 2 * activations * training_passes(run) + 4 * run.batch_size * run.n_labels
    )
    # Of embeddings a copy as the study's numbers; images stay as they are.
    bank = bank_bytes(run.bank) if run.bank.images else number_bytes(run) * bank_bytes(run.bank) // 4
    needed = number_bytes(run) * len(pack.lanes) * of_lane + 2 * bank
    # The order of a pool's sequences in 8 bytes each, and while one is made, keys and words beside it.
    pools = [max(recipe.pool for recipe in lane.run.recipes) for lane in pack.lanes]
    needed += 8 * (sum(pools) + 24 * max(pools))
    # 600 MB is an idle torch process.
    return 600 + needed // _MB


def _embedded_width(run: Run) -> int:
    """Return about how many parameters the embedder has for each coordinate of the residual stream."""
    if not run.model.encodes_images:
        return run.bank.shape.width
    encoder = sum(math.prod(shape) for name, shape in run.parameter_shapes.items() if component(name) == "encoder")
    return math.ceil(encoder / run.model.width)


def _encoder_numbers(run: Run) -> int:
    """Return about how many numbers an image encoder keeps of a batch: of its stem, six times what it makes."""
    if run.bank.images is None or not run.model.encodes_images:
        return 0
    side = stem(run.model.resnet, run.bank.images.channels).side(run.bank.images.side)
    images = run.batch_size * (run.recipe.context + 1)
    return images * (2 * run.bank.images.width + 6 * run.model.resnet.stem * side**2)


def lanes_on_gpu(lane: PackSpec, megabytes: int) -> int:
    """Return how many lanes alike a pack may have on a GPU with so much memory, at least 1. lane: a pack of one."""
    one = training_megabytes(lane)
    of_lane = max(1, training_megabytes(PackSpec(lanes=lane.lanes * 2)) - one)
    # Half is for what an allocator keeps, and for a job beside it.
    room = 1 + max(0, megabytes // 2 - one) // of_lane
    return max(1, min(room, MOST_PRODUCTS // (lane.run.batch_size * lane.run.model.heads)))


def segment_end(
    pack: PackSpec, sets: Iterable[SequenceSet], start: int, minutes: float, device: str, gflops: float | None
) -> int:
    """Return where a segment from `start` ends that is expected to take `minutes`, in sequences seen.

    Its evaluation on all `sets` is included. In whole batches, at least one.
    """
    batch_size, budget = pack.run.batch_size, 60 * minutes
    of_batch = _batch_seconds(pack, device, gflops)
    of_snapshot = sum(_snapshot_seconds(pack, one, device, gflops) for one in sets)

    def seconds(batches: int) -> float:
        end = start + batches * batch_size
        return batches * of_batch + answered(pack.run, start, end, [end]) * of_snapshot

    batches = bisect_right(range(1, math.ceil(budget / of_batch) + 1), budget, key=seconds)
    return start + max(1, batches) * batch_size


def _batch_seconds(pack: PackSpec, device: str, gflops: float | None) -> float:
    """Return the seconds of one training step of all lanes."""
    run = pack.run
    flop = len(pack.lanes) * run.batch_size * training_flop(run)
    overhead = 0.0 if gflops and device.startswith("cuda") else _overhead(run, device)
    return flop / _flop_per_second(device, gflops) + overhead


def _snapshot_seconds(pack: PackSpec, spec: SequenceSet, device: str, gflops: float | None) -> float:
    """Return the seconds of evaluating one snapshot of all lanes on a set."""
    flop = len(pack.lanes) * evaluation_flop(pack.run, spec)
    batches = len(spec.evaluators) * math.ceil(spec.sequences / EVALUATION_BATCH)
    overhead = batches * _overhead(pack.run, device)
    return flop / _flop_per_second(device, gflops) + overhead / snapshots_at_a_time(len(pack.lanes), device)


def _overhead(run: Run, device: str) -> float:
    """Return the seconds that a batch takes however small it is."""
    return OVERHEAD_SECONDS[device.split(":")[0]] * (1 + run.model.depth)


def _flop_per_second(device: str, gflops: float | None) -> float:
    """Return the model FLOP/s of one job."""
    return 1e9 * (gflops or GUESSED_GFLOPS[device.split(":")[0]])


def snapshots(run: Run, start: int, end: int) -> int:
    """Return the number of snapshots in (start, end], and at 0 if `start` is 0."""
    # Up to a power of two, so that one list serves many segments.
    points = _points(run.snapshots, run.batch_size, 1 << end.bit_length())
    return bisect_right(points, end) - bisect_right(points, start) + (start == 0)


def answered(run: Run, start: int, end: int, ends: Iterable[int]) -> int:
    """Return how many points are evaluated in (start, end], and at 0 from 0: snapshots, and where segments end.

    ends: of the segments, in sequences seen.
    """
    return snapshots(run, start, end) + ends_without_snapshot(run, ends)


def ends_without_snapshot(run: Run, ends: Iterable[int]) -> int:
    """Return at how many of the sequences seen `ends` of segments there is no snapshot; these are evaluated, too."""

    def is_snapshot(end: int) -> bool:
        points = _points(run.snapshots, run.batch_size, 1 << end.bit_length())
        return bisect_right(points, end) > bisect_left(points, end)

    return sum(not is_snapshot(end) for end in ends)


@cache
def _points(snapshots: Snapshots, batch_size: int, until: int) -> list[int]:
    """Return the sequences seen at every snapshot up to `until`; once a schedule."""
    return snapshots.points(batch_size, 0, until)
