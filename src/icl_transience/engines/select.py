"""Engines: ways to compute the same steps and the same answers, at different speeds.

eager: the functions of model/transformer.py and autograd, any device and precision; the reference for the others.
native: kernels in C++, on CPUs, in float32 and bfloat16 (image encoders in float32); without dropout, rotary positions
and interventions on activations.
graph: eager's step, recorded once as a CUDA graph and replayed, so that a step costs no launches;
for runs whose steps are all alike: without schedules, interventions of either kind, forgetting, noise and freezing that
begins or ends.

Numerics, of a run: float32 and float64 throughout; tf32: as float32, but the products of NVIDIA's tensor cores round
their operands to 10 bits (a CPU knows no tf32 and computes in float32); bfloat16: matrix products in bfloat16 and the
rest, the weights included, in float32 (all products in eager, under torch.autocast; those with whole weight matrices in
native).

Letters for shapes as in model/transformer.py. A step makes its batches from counters, given where to begin and to end.
"""

import warnings
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
from icl_transience.specs.compute import engine_problem
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import PackSpec, Run

ENGINES = ("auto", "native", "graph", "eager")


def step_for(pack: PackSpec, state: State, embeddings: Tensor, engine: str = "auto") -> Step:
    """Return the step of `engine`; "auto" is native where it works and eager elsewhere.

    embeddings [classes, exemplars, I], the bank, on the state's device. Raises StudyError where an engine that is
    named does not work.
    """
    kind = chosen(engine, pack.run, embeddings.device)
    for lane in pack.lanes:
        # What lanes have of their own can be more than the first one's.
        if problem := engine_problem(kind, str(embeddings.device), lane.run):
            raise StudyError(problem)
    return {"native": NativeStep, "graph": GraphStep, "eager": EagerStep}[kind](pack, state, embeddings)


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
    if engine in ("eager", "graph") or engine_problem("native", str(device), run):
        return "graph" if engine == "graph" else "eager"
    try:
        compiler.library(run.model, context or run.recipe.context)
    except compiler.UnavailableError as error:
        if engine == "native":
            raise StudyError(f"engine: native does not work here: {error}: choose auto or eager") from error
        warnings.warn(f"{error}: training and evaluation will be several times slower", RuntimeWarning, stacklevel=2)
        return "eager"
    return "native"
