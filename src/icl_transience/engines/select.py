"""Engines: ways to compute the same steps and the same answers, at different speeds.

eager: the functions of model/transformer.py and autograd, any device and precision; the reference for the others.
native: kernels in C++, on CPUs, in float32 and bfloat16 (image encoders in float32); without dropout, rotary positions
and interventions on activations.
graph: eager's functions and autograd on all lanes, recorded once as CUDA graphs and replayed, so that a step costs no
launches; for runs whose steps are all alike: without schedules, interventions of either kind, forgetting, noise and
freezing that begins or ends; no image encoders.
triton: kernels in Triton on NVIDIA's GPUs, some 30 a step however many lanes; without dropout, rotary positions, noise,
sgd, biases in attention, interventions on activations and image encoders, and for the sizes that
`specs.compute.engine_problem` says. A
lane's bits do not depend on its pack there; under eager and graph they do, since PyTorch's library of products takes
another one where there are more lanes.

`auto` is the first of `specs.compute.AUTOMATIC` that can compute a run; on a GPU it must pass its self-check, too, when
a job starts (`selfcheck.proven_engine`), or the next one trains.

Numerics, of a run: float32 and float64 throughout (triton takes float32 products in blocks up to width 64 as three of
tensor cores, to some 2^-22 each); tf32: as float32, but the products of NVIDIA's tensor cores round
their operands to 10 bits (a CPU knows no tf32 and computes in float32); bfloat16: matrix products in bfloat16 and the
rest, the weights included, in float32 (all products in eager, under torch.autocast; those with whole weight matrices in
native). triton takes GELU, exponentials and reciprocals by the GPU's own functions, which are off by some 2^-22; in
bfloat16 GELU's tanh by 2^-11; in float32 its softmax is to the last bits.

Letters for shapes as in model/transformer.py. A step makes its batches from counters, given where to begin and to end.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from icl_transience.engines.answers import EagerEncoding, EagerForward, Encoding, Forward
from icl_transience.engines.eager import EagerStep
from icl_transience.engines.graph import GraphStep
from icl_transience.engines.interface import Step
from icl_transience.engines.native import compiler
from icl_transience.engines.native.engine import NativeStep
from icl_transience.engines.native.forward import NativeEncoding, NativeForward
from icl_transience.engines.state import State
from icl_transience.specs.compute import automatic_engines, engine_problem
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import PackSpec, Run


def triton_step(pack: PackSpec, state: State, embeddings: Tensor) -> Step:
    """Return the step of the engine `triton`. Raises StudyError where the package triton is missing."""
    # Only here: training on a CPU does without triton.
    try:
        from icl_transience.engines.triton.engine import TritonStep
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise StudyError(
            "engine: triton needs the package triton, which comes with PyTorch's builds for CUDA: choose auto or eager"
        ) from error
    return TritonStep(pack, state, embeddings)


# Engine -> its step. On a device that is not its own it may be made to be tried, see selfcheck.py, not to train.
STEPS: dict[str, Callable[[PackSpec, State, Tensor], Step]] = {
    "native": NativeStep,
    "triton": triton_step,
    "graph": GraphStep,
    "eager": EagerStep,
}
ENGINES = ("auto", *STEPS)


def step_for(pack: PackSpec, state: State, embeddings: Tensor, engine: str = "auto") -> Step:
    """Return the step of `engine`; for "auto" see the top, without the self-check.

    embeddings [classes, exemplars, I], the bank, on the state's device. Raises StudyError where an engine that is
    named does not work.
    """
    kind = chosen(engine, pack.run, embeddings.device)
    for lane in pack.lanes:
        # What lanes have of their own can be more than the first one's.
        if problem := engine_problem(kind, str(embeddings.device), lane.run):
            raise StudyError(problem)
    return STEPS[kind](pack, state, embeddings)


def forward_for(
    run: Run, device: torch.device, batch_size: int, engine: str = "auto", context: int | None = None
) -> Forward:
    """Return the forward half of `engine`, see step_for, for sequences of `context` items; None: as in training."""
    context = context or run.recipe.context
    # Answers are without what is done while training, so that they are one engine's in all runs.
    run = replace(run, activation_interventions=())
    if chosen(engine, run, device, context) == "native":
        return NativeForward(run, batch_size, context)
    return EagerForward(run.model, context, run.numerics, device)


def encoding_for(run: Run, device: torch.device, most: int, engine: str = "auto") -> Encoding:
    """Return what makes embeddings of up to `most` images, at evaluation, by the encoders of lanes; see step_for."""
    if chosen(engine, replace(run, activation_interventions=()), device) != "native":
        return EagerEncoding(run)
    return NativeEncoding(run, most)


def chosen(engine: str, run: Run, device: torch.device, context: int | None = None) -> str:
    """Return the name of the engine meant by `engine`, for sequences of `context` items; None: as in training.

    Raises StudyError where one that is named does not work.
    """
    if engine not in ENGINES:
        raise StudyError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if problem := engine_problem(engine, str(device), run):
        raise StudyError(problem)
    named = (engine,) if engine != "auto" else automatic_engines(str(device), run)
    if named[0] != "native":
        return named[0]
    try:
        compiler.library(run.model, context or run.recipe.context)
    except compiler.UnavailableError as error:
        if engine == "native":
            raise StudyError(f"engine: native does not work here: {error}: choose auto or eager") from error
        warnings.warn(f"{error}: training and evaluation will be several times slower", RuntimeWarning, stacklevel=2)
        return "eager"
    return "native"
