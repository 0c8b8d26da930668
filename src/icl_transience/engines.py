"""Engines: ways to compute the same steps and the same answers, at different speeds.

eager: model.py and autograd, any device and precision; the reference for the others.
native: native.py, on CPUs, in float32 and bfloat16.
graph: eager's step, recorded once as a CUDA graph and replayed, so that a step costs no launches.

Numerics, of a run: float32 and float64 throughout; tf32: as float32, but the products of NVIDIA's tensor cores round
their operands to 10 bits (a CPU knows no tf32 and computes in float32); bfloat16: matrix products in bfloat16 and the
rest, the weights included, in float32 (all products in eager, under torch.autocast; those with whole weight matrices in
native).

Letters for shapes as in model.py. A step makes its batches from counters, given where to begin and to end.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.adam import adam

from icl_transience import model as transformer
from icl_transience import native, sequences
from icl_transience.packs import PackSpec
from icl_transience.spec import L2, Lane, Optimizer, Run, StudyError, engine_problem

if TYPE_CHECKING:
    from icl_transience.training import State

ENGINES = ("auto", "native", "graph", "eager")
# What weights, moments and exemplars are kept in.
DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.float32,
    "float64": torch.float64,
}
# Batches in one drawing of indices.
DRAW_BATCHES = 256


class Step(Protocol):
    """An engine's step. It updates the state's tensors in place, which may move once, when the step is made."""

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        """Steps on every batch from sequence number `start` to `until`; each lane's loss before it, [S]."""


def step_for(pack: PackSpec, state: "State", embeddings: Tensor, engine: str = "auto") -> Step:
    """The step of `engine`; "auto" is native where it works and eager elsewhere.

    embeddings [classes, exemplars, I], the bank, on the state's device. Raises StudyError where an engine that is
    named does not work.
    """
    kind = chosen(engine, pack.run, embeddings.device)
    return {"native": NativeStep, "graph": GraphStep, "eager": EagerStep}[kind](pack, state, embeddings)


@dataclass(frozen=True)
class Answers:
    """What metrics need of the logits at B queries; all [S, B] but `inside`, which is [S, B, C].

    inside: those of the context's labels, one for each place. best_outside, label_outside, log_outside: of all labels
    that do not stand in the context the highest logit, its label, and the logarithm of the sum of exponentials.
    target: the target's logit.
    """

    inside: Tensor
    best_outside: Tensor
    label_outside: Tensor
    log_outside: Tensor
    target: Tensor


class Forward(Protocol):
    """Answers of all lanes to the same sequences."""

    def load(self, parameters: transformer.Parameters) -> None:
        """name -> [S, …], used from now on."""

    def __call__(self, exemplars: Tensor, labels: Tensor) -> Answers:
        """exemplars [B, C+1, I], labels [B, C+1], the target last; B at most what forward_for was told."""


def forward_for(
    run: Run, device: torch.device, batch_size: int, engine: str = "auto", context: int | None = None
) -> Forward:
    """The forward half of `engine`, see step_for; for `context` items, as many as in training where it is not given."""
    context = context or run.recipe.context
    if chosen(engine, run, device, context) == "native":
        return NativeForward(run, batch_size, context)
    return EagerForward(run.model, context, run.numerics, device)


def chosen(engine: str, run: Run, device: torch.device, context: int | None = None) -> str:
    """The engine meant by `engine`, for sequences of `context` items, as many as in training where it is not given.

    Raises StudyError where one that is named does not work.
    """
    if engine not in ENGINES:
        raise StudyError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if problem := engine_problem(engine, str(device), run):
        raise StudyError(problem)
    if engine in ("eager", "graph") or engine_problem("native", str(device), run):
        return "graph" if engine == "graph" else "eager"
    try:
        native.library(run.model, context or run.recipe.context)
    except native.Unavailable as error:
        if engine == "native":
            raise StudyError(f"engine: native does not work here: {error}: choose auto or eager") from error
        warnings.warn(f"{error}: training and evaluation will be several times slower", RuntimeWarning, stacklevel=2)
        return "eager"
    return "native"


def autocast(numerics: str, device: torch.device) -> torch.autocast:
    """Within it matrix products are in bfloat16, if those are the numerics."""
    return torch.autocast(device.type, torch.bfloat16, enabled=numerics == "bfloat16", cache_enabled=False)


@contextmanager
def tensor_cores(numerics: str) -> Iterator[None]:
    """Within it CUDA's float32 products are in tf32, if those are the numerics, and in float32 otherwise."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32" if numerics == "tf32" else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


class EagerStep:
    """Forward by model.py, backward by autograd."""

    def __init__(self, pack: PackSpec, state: "State", embeddings: Tensor):
        self.pack, self.embeddings = pack, embeddings
        self.parameters = state.parameters
        self.geometry = transformer.Geometry(
            pack.run.model, pack.run.recipe.context, embeddings.dtype, embeddings.device
        )
        self.lanes = []
        for number, lane in enumerate(pack.lanes):
            parts = (state.parameters, state.first_moments, state.second_moments)
            tensors = [[tensor[number] for tensor in part.values()] for part in parts]
            counts = [_steps_done(pack, state, embeddings.device) for _ in state.parameters]
            self.lanes.append((lane.run.optimizer, *tensors, counts))

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        return (self.step(*batch) for batch in self.batches(start, until))

    def batches(self, start: int, until: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(exemplars [S, B, C+1, I], labels [S, B, C+1]) of each batch from sequence number `start` on."""
        batch_size, flat = self.pack.run.batch_size, self.embeddings.flatten(0, 1)
        for rows, labels in drawn(self.pack, self.embeddings, start, until):
            for first in range(0, rows.shape[1], batch_size):
                index = rows[:, first : first + batch_size]
                exemplars = flat.index_select(0, index.flatten()).view(*index.shape, -1)
                for number, lane in enumerate(self.pack.lanes):
                    if lane.run.recipe.input_noise:
                        exemplars[number] += noise(lane, start, self.embeddings)
                start += batch_size
                yield exemplars, labels[:, first : first + batch_size]

    def step(self, exemplars: Tensor, labels: Tensor) -> Tensor:
        """exemplars [S, B, C+1, I], labels [S, B, C+1]. Returns [S]."""
        for tensor in self.parameters.values():
            tensor.requires_grad_()
        run = self.pack.run
        with tensor_cores(run.numerics):
            with autocast(run.numerics, exemplars.device):
                loss = query_loss(self.parameters, run.model, self.geometry, exemplars, labels)
            # Lanes share no tensor, so the gradient of the sum is each lane's own.
            gradients = torch.autograd.grad(loss.sum(), list(self.parameters.values()))
        for tensor in self.parameters.values():
            tensor.requires_grad_(False)
        for number, (optimizer, parameters, first_moments, second_moments, counts) in enumerate(self.lanes):
            lane_gradients = [gradient[number] for gradient in gradients]
            add_unsquared_l2(parameters, lane_gradients, optimizer.l2)
            update(optimizer, parameters, lane_gradients, first_moments, second_moments, counts)
        return loss.detach()


class GraphStep(EagerStep):
    """EagerStep on buffers that stay where they are: indices of many batches, and which batch is next.

    Without `capture` the recorded work is done call by call, on any device.
    """

    def __init__(self, pack: PackSpec, state: "State", embeddings: Tensor, capture: bool = True):
        super().__init__(pack, state, embeddings)
        batch_size, context, device = pack.run.batch_size, pack.run.recipe.context, embeddings.device
        shape = len(pack.lanes), batch_size * DRAW_BATCHES, context + 1
        self.rows, self.labels = torch.zeros(2, *shape, dtype=torch.int64, device=device)
        self.next = torch.arange(batch_size, device=device)
        self.loss = torch.zeros(len(pack.lanes), dtype=embeddings.dtype, device=device)
        self.replay: Callable[[], None] = self._capture(state) if capture else self._work

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        batch_size = self.pack.run.batch_size
        for rows, labels in drawn(self.pack, self.embeddings, start, until):
            n = rows.shape[1]
            self.rows[:, :n], self.labels[:, :n] = rows, labels
            self.next.copy_(torch.arange(batch_size))
            for _ in range(n // batch_size):
                self.replay()
                yield self.loss.clone()

    def _work(self) -> None:
        index = self.rows.index_select(1, self.next)
        exemplars = self.embeddings.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, -1)
        self.loss.copy_(self.step(exemplars, self.labels.index_select(1, self.next)))
        self.next += self.pack.run.batch_size

    def _capture(self, state: "State") -> Callable[[], None]:
        """Records `_work`. Warming up, which capture needs, changes the state: it is put back afterwards."""
        changed = [self.next, *(count for *_, counts in self.lanes for count in counts)]
        for part in (state.parameters, state.first_moments, state.second_moments):
            changed += part.values()
        before = [tensor.clone() for tensor in changed]
        device = self.embeddings.device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._work()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # On the stream that warmed up: the default one would be another device's where this is not the first.
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream):
            self._work()
        position = int(self.next[0])
        graph.replay()
        if int(self.next[0]) != position + self.pack.run.batch_size:
            raise RuntimeError("the CUDA graph recorded nothing: choose engine: eager")
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
        return graph.replay


class NativeStep:
    """Lane after lane through one native.Program: a lane is computed as if it were alone, to the last bit.

    The state's tensors become views of one array [S, all parameters] a part, so that Adam goes over a lane at once.
    """

    def __init__(self, pack: PackSpec, state: "State", embeddings: Tensor):
        """Raises native.Unavailable."""
        run = pack.run
        self.pack, self.embeddings = pack, embeddings
        self.program = _program(run, run.batch_size, run.recipe.context)
        flat_parts = [flattened(part) for part in (state.parameters, state.first_moments, state.second_moments)]
        gradients = {name: torch.zeros_like(tensor[:1]) for name, tensor in state.parameters.items()}
        # One lane's at a time: the update follows a lane's backward.
        (flat_gradient,) = flattened(gradients)
        gradients = {name: tensor[0] for name, tensor in gradients.items()}
        self.loss = torch.zeros(len(pack.lanes))
        self.noisy = [bool(lane.run.recipe.input_noise) for lane in pack.lanes]
        self.lanes = []
        for number, lane in enumerate(pack.lanes):
            parameters = {name: tensor[number] for name, tensor in state.parameters.items()}
            optimizer = lane.run.optimizer
            parameter, *moments = (flat[number] for flat in flat_parts)
            recording = native.Recording(self.program, parameters, gradients, self.loss[number : number + 1])
            arguments = list(parameters.values()), list(gradients.values()), optimizer.l2
            penalty = functools.partial(add_unsquared_l2, *arguments)
            count = _steps_done(pack, state, embeddings.device)
            arguments = [parameter], [flat_gradient], *([moment] for moment in moments), [count]
            adam_step = functools.partial(update, optimizer, *arguments)
            self.lanes.append([*recording.forward, *recording.backward, penalty, adam_step])

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        program, bank = self.program, self.embeddings.flatten(0, 1)
        for chunk in drawn(self.pack, self.embeddings, start, until):
            rows, labels = (self._columns(part) for part in chunk)
            for batch in range(rows.shape[1]):
                for lane, calls in enumerate(self.lanes):
                    torch.index_select(bank, 0, rows[lane, batch].view(-1), out=program.exemplars)
                    if self.noisy[lane]:
                        items = program.exemplars.view(-1, program.columns, bank.shape[1])
                        items[:, : program.batch_size] += noise(self.pack.lanes[lane], start, bank).transpose(0, 1)
                    program.labels.copy_(labels[lane, batch, :-1])
                    program.targets.copy_(labels[lane, batch, -1])
                    for call in calls:
                        call()
                start += program.batch_size
                yield self.loss.clone()

    def _columns(self, part: Tensor) -> Tensor:
        """int64 [S, n, C+1] -> [S, batches, C+1, B'], B' the batch in whole vectors; see native.Program."""
        batches = part.unflatten(1, (-1, self.program.batch_size)).transpose(2, 3)
        return functional.pad(batches, (0, self.program.columns - self.program.batch_size)).contiguous()


class EagerForward:
    """See Forward."""

    def __init__(self, model: transformer.Model, context: int, numerics: str, device: torch.device | str = "cpu"):
        self.model, self.numerics, self.device = model, numerics, torch.device(device)
        self.geometry = transformer.Geometry(model, context, DTYPES[numerics], self.device)

    def load(self, parameters: transformer.Parameters) -> None:
        self.parameters = parameters

    def logits(self, exemplars: Tensor, context: Tensor) -> Tensor:
        """exemplars [B, C+1, I], context [B, C] -> [S, B, K]."""
        lanes = len(next(iter(self.parameters.values())))
        shared = (part.expand(lanes, *part.shape) for part in (exemplars, context))
        with tensor_cores(self.numerics), autocast(self.numerics, self.device):
            logits = transformer.query_logits(self.parameters, self.model, self.geometry, *shared)
        return logits.to(exemplars.dtype)

    def __call__(self, exemplars: Tensor, labels: Tensor) -> Answers:
        return answers(self.logits(exemplars, labels[:, :-1]), labels)


def answers(logits: Tensor, labels: Tensor) -> Answers:
    """logits [..., B, K], labels [B, C+1], the target last."""
    context, target = (part.expand(*logits.shape[:-1], -1) for part in (labels[:, :-1], labels[:, -1:]))
    outside = logits.scatter(-1, context, -torch.inf)
    best, label = outside.max(-1)
    target_logit = logits.gather(-1, target).squeeze(-1)
    return Answers(logits.gather(-1, context), best, label, outside.logsumexp(-1), target_logit)


class NativeForward:
    """The forward half of a native.Program; see Forward."""

    def __init__(self, run: Run, batch_size: int, context: int):
        """Raises native.Unavailable."""
        self.program = _program(run, batch_size, context)
        self.shapes = transformer.parameter_shapes(run.model, run.bank.shape.width, run.n_labels)
        self.gradients = {name: torch.empty(size) for name, size in self.shapes.items()}
        self.lanes: list[tuple[transformer.Parameters, list[Callable]]] = []

    def load(self, parameters: transformer.Parameters) -> None:
        lanes = len(next(iter(parameters.values())))
        while len(self.lanes) < lanes:
            own = {name: torch.empty(size) for name, size in self.shapes.items()}
            self.lanes.append((own, native.Recording(self.program, own, self.gradients, torch.empty(1)).forward))
        del self.lanes[lanes:]
        for lane, (own, _) in enumerate(self.lanes):
            for name, tensor in parameters.items():
                own[name].copy_(tensor[lane])

    def __call__(self, exemplars: Tensor, labels: Tensor) -> Answers:
        program, used, lanes = self.program, len(exemplars), len(self.lanes)
        program.exemplars.view(-1, program.columns, exemplars.shape[2])[:, :used] = exemplars.transpose(0, 1)
        program.labels[:, :used] = labels[:, :-1].T
        program.targets[:used] = labels[:, -1]
        inside = torch.empty(lanes, len(program.labels), program.columns)
        best, log_sum, target = torch.empty(3, lanes, program.columns)
        best_label = torch.empty(lanes, program.columns, dtype=torch.int64)
        for lane, (_, calls) in enumerate(self.lanes):
            for call in calls:
                call()
            program.answers(inside[lane], best[lane], best_label[lane], log_sum[lane], target[lane])
        outside = (part[:, :used] for part in (best, best_label, log_sum, target))
        return Answers(inside.transpose(1, 2)[:, :used], *outside)


def _program(run: Run, batch_size: int, context: int) -> native.Program:
    width, half = run.bank.shape.width, run.numerics == "bfloat16"
    return native.Program(run.model, width, run.n_labels, context, batch_size, half)


def drawn(pack: PackSpec, embeddings: Tensor, start: int, until: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows of the flattened bank, labels), int64 [S, n, C+1] each, of the sequences from number `start` on.

    They come for many batches at once, which changes none of them.
    """
    chunk = pack.run.batch_size * DRAW_BATCHES
    for first in range(start, until, chunk):
        positions = torch.arange(first, min(first + chunk, until), device=embeddings.device)
        lanes = [_draw(lane, positions) for lane in pack.lanes]
        rows = torch.stack([lane.classes * embeddings.shape[1] + lane.exemplars for lane in lanes])
        yield rows, torch.stack([lane.labels for lane in lanes])


def _draw(lane: Lane, positions: Tensor) -> sequences.Sequences:
    run = lane.run
    return sequences.draw(run.recipe, run.bank.shape, lane.seed.data, sequences.TRAINING, positions)


def noise(lane: Lane, start: int, embeddings: Tensor) -> Tensor:
    """The input noise of the batch from sequence number `start` on, [B, C+1, I], of the embeddings' kind."""
    run, positions = lane.run, torch.arange(start, start + lane.run.batch_size, device=embeddings.device)
    drawn = sequences.input_noise(run.recipe, embeddings.shape[-1], lane.seed.data, sequences.TRAINING, positions)
    return drawn.to(embeddings.dtype)


def flattened(tensors: dict[str, Tensor]) -> Tensor:
    """One array [S, P] that holds all of `tensors` [S, …], which are replaced by views of it.

    Each begins at a whole vector; what lies between is 0, and Adam leaves it so.
    """
    lanes = len(next(iter(tensors.values())))
    sizes = [native.aligned(tensor[0].numel()) for tensor in tensors.values()]
    flat = torch.zeros(lanes, sum(sizes))
    for (name, tensor), part in zip(tensors.items(), flat.split(sizes, dim=1), strict=True):
        view = part[:, : tensor[0].numel()].unflatten(1, tensor.shape[1:])
        tensors[name] = view.copy_(tensor)
    return flat


def _steps_done(pack: PackSpec, state: "State", device: torch.device) -> Tensor:
    return torch.tensor(float(state.sequences_seen // pack.run.batch_size), device=device)


def query_loss(
    parameters: transformer.Parameters,
    model: transformer.Model,
    geometry: transformer.Geometry,
    exemplars: Tensor,
    labels: Tensor,
) -> Tensor:
    """Mean cross-entropy at the query, [S]. exemplars [S, B, C+1, I]; labels [S, B, C+1], the target last."""
    logits = transformer.query_logits(parameters, model, geometry, exemplars, labels[:, :, :-1])
    targets = labels[:, :, -1]
    loss = functional.cross_entropy(logits.flatten(0, 1).to(exemplars.dtype), targets.flatten(), reduction="none")
    return loss.view(targets.shape).mean(dim=1)


def add_unsquared_l2(parameters: Sequence[Tensor], gradients: Sequence[Tensor], l2: L2) -> None:
    """Adds the gradient of strength * sum over arrays of their Euclidean norm, if `l2` is of that form.

    It is 0 where an array is 0.
    """
    if l2.form != "unsquared" or not l2.strength:
        return
    for parameter, gradient in zip(parameters, gradients, strict=True):
        norm = parameter.norm()
        gradient.add_(parameter / norm.clamp_min(torch.finfo(norm.dtype).tiny), alpha=l2.strength)


def update(
    optimizer: Optimizer,
    parameters: list[Tensor],
    gradients: list[Tensor],
    first_moments: list[Tensor],
    second_moments: list[Tensor],
    counts: list[Tensor],
) -> None:
    """One step of Adam in place; counts holds a tensor with the number of steps done for each parameter."""
    l2 = optimizer.l2
    adam(
        parameters,
        gradients,
        first_moments,
        second_moments,
        [],
        counts,
        fused=True,
        capturable=counts[0].is_cuda,
        amsgrad=False,
        maximize=False,
        lr=optimizer.learning_rate,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        eps=optimizer.epsilon,
        # Adam's weight_decay is added to the gradient: the gradient of strength * sum of squares.
        weight_decay=2 * l2.strength if l2.form == "squared" else 0.0,
    )
