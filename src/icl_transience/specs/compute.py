"""What a run takes to compute: which engines can, bytes of its files, FLOP of its model."""

import math
from collections.abc import Iterator
from functools import cache

from icl_transience.specs.circuits import CircuitsSpec
from icl_transience.specs.encoder import encoder_flop
from icl_transience.specs.evaluators import SequenceSet, evaluator_parts
from icl_transience.specs.runs import PackSpec, Run

# Kind of device -> what `engine: auto` tries, the fastest first. Eager computes everything, everywhere.
AUTOMATIC = {"cpu": ("native", "eager"), "cuda": ("triton", "graph", "eager")}


def automatic_engines(device: str, run: Run) -> tuple[str, ...]:
    """Return the engines that `auto` tries for a run on a device, in this order: those that can compute it."""
    names = AUTOMATIC[device.split(":")[0]]
    return tuple(name for name in names if not engine_problem(name, device, run))


def engines_of_pack(device: str, pack: PackSpec) -> list[str]:
    """Return the engines that `auto` tries for a pack on a device, in this order: those that can compute all of it."""
    able = [set(automatic_engines(device, run)) for run in dict.fromkeys(lane.run for lane in pack.lanes)]
    names = [name for name in AUTOMATIC[device.split(":")[0]] if all(name in one for one in able)]
    return [name for name in names if name != "graph" or attention_patterns(pack) <= MOST_PRODUCTS]


def attention_patterns(pack: PackSpec) -> int:
    """Return how many attention patterns a step of a pack has: lanes x batch x heads."""
    return len(pack.lanes) * pack.run.batch_size * pack.run.model.heads


def engine_problem(engine: str, device: str, run: Run) -> str | None:
    """Return why an engine (see engines/select.py) cannot compute the run on the device; None where it may."""
    wanted = {"native": "cpu", "graph": "cuda", "triton": "cuda"}.get(engine)
    if wanted and not device.startswith(wanted):
        return f"engine: {engine} is for device {wanted}, got device {device!r}: choose auto or eager"
    unable = {"native": _not_native, "graph": _not_graph, "triton": _not_triton}
    problem = next(unable[engine](run), None) if engine in unable else None
    return problem and f"engine: {engine} {problem}: choose auto or eager"


def why_not_native(device: str, run: Run) -> str:
    """Return why the engine `auto` is eager for a run though the device is a CPU; "" where it is not, or no CPU."""
    return next(_not_native(run), "") if device.startswith("cpu") else ""


def _not_native(run: Run) -> Iterator[str]:
    if run.numerics == "float64":
        yield "does not compute in float64"
    if run.model.dropout:
        yield "has no dropout"
    if run.model.positions.kind == "rotary":
        yield "has no rotary positions"
    yield from _plain_pass(run)


def _plain_pass(run: Run) -> Iterator[str]:
    if run.activation_interventions:
        yield "trains without activation_interventions"


def _not_graph(run: Run) -> Iterator[str]:
    """Yield what keeps a run from the graph engine: a step is recorded once, so nothing in it may change."""
    if run.recipe.input_noise:
        yield "draws no input noise"
    if run.model.dropout:
        yield "has no dropout"
    if run.interventions or run.forgetting.every or not run.optimizer.schedule.is_flat:
        yield "knows no learning-rate schedules, interventions or forgetting"
    if run.freeze.from_ or run.freeze.until:
        yield "freezes parameters throughout or not at all (freeze.from, freeze.until)"
    yield from _embeddings_alone(run)
    yield from _plain_pass(run)


def _embeddings_alone(run: Run) -> Iterator[str]:
    if run.model.encodes_images:
        yield "encodes no images"


# Width -> the most pairs, and the most sequences, that tiles of the kernels in engines/triton hold.
TRITON_CONTEXTS, TRITON_BATCH = {32: 15, 64: 16, 128: 15}, 64
# Below it Adam's step would be what becomes of numbers under 1e-38, which are 0 to its kernels.
TRITON_EPSILON = 1e-18


def _not_triton(run: Run) -> Iterator[str]:
    model = run.model
    if run.numerics == "float64":
        yield "does not compute in float64"
    if any(recipe.input_noise for recipe in run.recipes):
        yield "draws no input noise"
    if model.dropout:
        yield "has no dropout"
    if model.positions.kind == "rotary":
        yield "knows no rotary positions"
    optimizers = run.optimizer, *(change.optimizer for change in run.interventions)
    if any(one.name == "sgd" for one in optimizers):
        yield "has no sgd"
    if any(one.epsilon < TRITON_EPSILON for one in optimizers):
        yield f"has an epsilon of {TRITON_EPSILON:g} at least"
    if model.attention_bias:
        yield "has no biases in attention"
    if model.width not in TRITON_CONTEXTS:
        yield f"has widths {', '.join(map(str, TRITON_CONTEXTS))}, and not {model.width}"
    elif run.recipe.context > (most := TRITON_CONTEXTS[model.width]):
        yield f"has contexts of {most} pairs at most at width {model.width}, and not {run.recipe.context}"
    if run.batch_size > TRITON_BATCH:
        yield f"has batches of {TRITON_BATCH} sequences at most, and not {run.batch_size}"
    yield from _plain_pass(run)
    yield from _embeddings_alone(run)


# Sequences that evaluation answers at a time, and of which measures of circuits are taken at a time.
EVALUATION_BATCH = 64
# Products of attention, lanes x batch x heads, that CUDA multiplies in one call: its grids have no room for more on
# their last axis.
MOST_PRODUCTS = 65_535
# Lanes of one or several snapshots that a GPU answers for at a time.
_EVALUATED_LANES = 64
MEASURED_AT_A_TIME = 128
# Images that an encoder encodes at a time at evaluation.
ENCODED_AT_A_TIME = 256
# A pass in which places are read or set takes so many times what its FLOP take in training with the fastest engine:
# an estimate from runs of the model of the study `laptop` on a busy CPU.
PASS_SLOWER = 4

STATE_PARTS = ("parameters", "first_moments", "second_moments")


def lane_bytes(run: Run, snapshots: int, segments: int = 1) -> int:
    """Return the bytes that a lane takes of its segments' files. snapshots: in all segments together.

    As many times its parameters as there are snapshots, and three times in each checkpoint. The training loss (12 bytes
    every 1,024 sequences at batch 32) and HDF5's own (a kilobyte or two an array) come on top.
    """
    parameters, statistics = _n_numbers(run)
    files = snapshots + len(STATE_PARTS) * segments
    return (files * parameters + (snapshots + segments) * statistics) * number_bytes(run)


def n_parameters(run: Run) -> int:
    """Return the number of parameters of a lane, running statistics of an image encoder not among them."""
    return _n_numbers(run)[0]


@cache
def _n_numbers(run: Run) -> tuple[int, int]:
    """Return how many numbers (parameters, running statistics) of a lane are."""
    return sum(map(math.prod, run.parameter_shapes.values())), sum(map(math.prod, run.running_shapes.values()))


def context_of(spec: SequenceSet, evaluator: str) -> int:
    """Return the exemplar-label pairs before the query in an evaluator's sequences."""
    return evaluator_parts(evaluator)[1] or spec.recipe.context


def number_bytes(run: Run) -> int:
    """Return the bytes of a parameter."""
    return 8 if run.numerics == "float64" else 4


def predictors_bytes(spec: SequenceSet) -> int:
    """Return the bytes that ideal predictors take to answer a set's sequences, all of it in float64.

    Training exemplars and their differences from the class's mean; of each sequence distances from all classes, their
    probabilities and both answers, each twice while it is computed.
    """
    if spec.strategy.predictors == "none":
        return 0
    shape = spec.bank.shape
    exemplars = 3 * shape.n_train_classes * shape.n_train_exemplars * shape.width
    return 8 * (exemplars + 8 * spec.sequences * shape.n_train_classes)


# FLOP of the model.


def training_flop(run: Run) -> int:
    """Return the FLOP of training on one sequence: forward and backward, three times the forward pass.

    What interventions on activations take from other passes counts too, as if it were done all along.
    """
    return 3 * forward_flop(run) * training_passes(run)


def training_passes(run: Run) -> int:
    """Return through how many forward passes a training batch goes, and its gradient back: one, and those for taps."""
    done = [one.operations for one in run.activation_interventions]
    return 1 + any(one.keep for one in done) + sum(len(one.patch) for one in done)


def evaluation_flop(run: Run, spec: SequenceSet) -> int:
    """Return the FLOP of evaluating a snapshot of a lane on all sequences of a set, on the strategy's twice."""
    again = (spec.strategy.evaluator,) if spec.strategy.predictors != "none" else ()
    return _answers_flop(run, spec, (*spec.evaluators, *again), 1)


def circuits_flop(run: Run, spec: CircuitsSpec, sequence_set: SequenceSet) -> int:
    """Return the FLOP of measuring one snapshot of a lane: of forward passes, the only part that is counted.

    One pass an evaluator for all measures; of each intervention one, and another one for each that it takes activations
    from (see circuits/interventions.py). Passes of all rows are counted as those of the query's are.
    """
    circuits = spec.circuits
    passes = int(bool(circuits.measures)) + sum(
        1 + bool(one.intervention.keep) + len(one.intervention.graft) + len(one.intervention.patch)
        for one in circuits.interventions
    )
    return _answers_flop(run, sequence_set, circuits.evaluators, passes)


def _answers_flop(run: Run, spec: SequenceSet, evaluators: tuple[str, ...], passes: int) -> int:
    """Return the FLOP of so many passes of a snapshot on evaluators' sequences, whose images are encoded once each."""
    flop, exemplars = 0, 0
    for context in (context_of(spec, name) for name in evaluators):
        flop += passes * spec.sequences * forward_flop(run, context)
        exemplars += spec.sequences * (context + 1)
    if run.bank.images is None:
        return flop
    shape, of_image = run.bank.shape, _embedder_flop(run)
    return flop + (min(exemplars, shape.n_classes * shape.n_exemplars) - passes * exemplars) * of_image


def forward_flop(run: Run, context: int | None = None) -> int:
    """Return the FLOP of a forward pass that gives the query's logits: 2 for each multiply-add.

    context: exemplar-label pairs before the query; as in training unless given.

        2 (C+1) I D + (L-1) [T (8 + 4m) D^2 + 2 D T(T+1)] + [4 T D^2 + (4 + 4m) D^2 + 4 D T] + 2 D K

    What the model as written down needs, of which engines save some (the embedder's input gradient; native: keys and
    values of the last block): blocks over all tokens, causal; of the last block keys and values of all tokens, the
    rest for the query's alone. An image encoder's convolutions stand in place of 2 I D.
    """
    model, context = run.model, context or run.recipe.context
    tokens, square = 2 * context + 1, model.width**2
    block = tokens * (8 + 4 * model.mlp_ratio) * square + 2 * model.width * tokens * (tokens + 1)
    last = (4 * tokens + 4 + 4 * model.mlp_ratio) * square + 4 * model.width * tokens
    ends = (context + 1) * _embedder_flop(run) + 2 * model.width * run.n_labels
    return ends + (model.depth - 1) * block + last


def _embedder_flop(run: Run) -> int:
    """Return the FLOP that embed one exemplar."""
    if images := run.bank.images:
        return encoder_flop(run.model.resnet, images.side, images.channels)
    return 2 * run.bank.shape.width * run.model.width


def snapshots_at_a_time(n_lanes: int, device: str) -> int:
    """Return how many snapshots of so many lanes are evaluated as lanes of one model.

    On a GPU, which small models leave idle, some; on a CPU one, whose lanes are computed one after the other in any
    case.
    """
    return 1 if device.startswith("cpu") else max(1, _EVALUATED_LANES // n_lanes)
