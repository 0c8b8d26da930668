"""Engines: ways to compute the same steps and the same answers, at different speeds.

eager: model.py and autograd, any device and precision; the reference for the others.
native: native.py, on CPUs, in float32 and bfloat16; without dropout and rotary positions.
graph: eager's step, recorded once as a CUDA graph and replayed, so that a step costs no launches;
for runs whose steps are all alike: without schedules, interventions, forgetting and noise.

Numerics, of a run: float32 and float64 throughout; tf32: as float32, but the products of NVIDIA's tensor cores round
their operands to 10 bits (a CPU knows no tf32 and computes in float32); bfloat16: matrix products in bfloat16 and the
rest, the weights included, in float32 (all products in eager, under torch.autocast; those with whole weight matrices in
native).

Letters for shapes as in model.py. A step makes its batches from counters, given where to begin and to end.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience import model as transformer
from icl_transience import native, optimizers, sequences
from icl_transience.packs import PackSpec
from icl_transience.spec import Lane, Run, StudyError, engine_problem

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
    for lane in pack.lanes:
        # What lanes have of their own can be more than the first one's.
        if problem := engine_problem(kind, str(embeddings.device), lane.run):
            raise StudyError(problem)
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
        self.pack, self.state, self.embeddings = pack, state, embeddings
        self.parameters = state.parameters
        self.geometry = transformer.Geometry(
            pack.run.model, pack.run.recipe.context, embeddings.dtype, embeddings.device
        )
        parts = (state.parameters, state.first_moments, state.second_moments)
        self.arrays = [
            [optimizers.separate(of_lane(part, number)) for part in parts] for number in range(len(pack.lanes))
        ]
        self.updates = updates(pack, state.sequences_seen, self.arrays)

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        for first, last in stretches(self.pack, start, until):
            forget_labels(self.pack, self.state, first)
            self.updates = updates(self.pack, first, self.arrays)
            for exemplars, labels in self.batches(first, last):
                yield self.step(exemplars, labels, first)
                first += self.pack.run.batch_size

    def batches(self, start: int, until: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(exemplars [S, B, C+1, I], labels [S, B, C+1]) of each batch from sequence number `start` on."""
        batch_size, flat = self.pack.run.batch_size, self.embeddings.flatten(0, 1)
        for first, last in stretches(self.pack, start, until):
            lanes = in_force(self.pack, first)
            for rows, labels in drawn(lanes, batch_size, self.embeddings, first, last):
                for place in range(0, rows.shape[1], batch_size):
                    index = rows[:, place : place + batch_size]
                    exemplars = flat.index_select(0, index.flatten()).view(*index.shape, -1)
                    for number, lane in enumerate(lanes):
                        if lane.run.recipe.input_noise:
                            exemplars[number] += noise(lane, first, self.embeddings)
                    first += batch_size
                    yield exemplars, labels[:, place : place + batch_size]

    def step(self, exemplars: Tensor, labels: Tensor, start: int) -> Tensor:
        """exemplars [S, B, C+1, I], labels [S, B, C+1], of the batch from sequence number `start` on. Returns [S]."""
        for tensor in self.parameters.values():
            tensor.requires_grad_()
        run, drop = self.pack.run, transformer.keep_all
        if run.model.dropout:
            seeds = [lane.seed.data for lane in self.pack.lanes]
            drop = transformer.Dropout(run.model.dropout, seeds, start)
        with tensor_cores(run.numerics):
            with autocast(run.numerics, exemplars.device):
                loss = query_loss(self.parameters, run.model, self.geometry, exemplars, labels, drop)
            # Lanes share no tensor, so the gradient of the sum is each lane's own.
            found = torch.autograd.grad(loss.sum(), list(self.parameters.values()))
        for tensor in self.parameters.values():
            tensor.requires_grad_(False)
        gradients = dict(zip(self.parameters, found, strict=True))
        for number, update in enumerate(self.updates):
            of_this = of_lane(gradients, number)
            update(of_this, update.gradients(optimizers.separate(of_this)), start + run.batch_size)
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
        for rows, labels in drawn(self.pack.lanes, batch_size, self.embeddings, start, until):
            n = rows.shape[1]
            self.rows[:, :n], self.labels[:, :n] = rows, labels
            self.next.copy_(torch.arange(batch_size))
            for _ in range(n // batch_size):
                self.replay()
                yield self.loss.clone()

    def _work(self) -> None:
        index = self.rows.index_select(1, self.next)
        exemplars = self.embeddings.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, -1)
        # Nothing in the step depends on when it is taken, or the graph engine were refused.
        self.loss.copy_(self.step(exemplars, self.labels.index_select(1, self.next), 0))
        self.next += self.pack.run.batch_size

    def _capture(self, state: "State") -> Callable[[], None]:
        """Records `_work`. Warming up, which capture needs, changes the state: it is put back afterwards."""
        changed = [self.next, *(count for update in self.updates for count in update.counts)]
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
        self.pack, self.state, self.embeddings = pack, state, embeddings
        self.program = _program(run, run.batch_size, run.recipe.context)
        parts = (state.parameters, state.first_moments, state.second_moments)
        flat_parts = [flattened(part) for part in parts]
        gradients = {name: torch.zeros_like(tensor[:1]) for name, tensor in state.parameters.items()}
        # One lane's at a time: the update follows a lane's backward.
        (flat_gradient,) = flattened(gradients)
        self.gradients = optimizers.joined(flat_gradient, of_lane(gradients, 0))
        self.loss = torch.zeros(len(pack.lanes))
        self.arrays, self.calls = [], []
        for number in range(len(pack.lanes)):
            self.arrays.append(
                [
                    optimizers.joined(flat[number], of_lane(part, number))
                    for flat, part in zip(flat_parts, parts, strict=True)
                ]
            )
            parameters, loss = of_lane(state.parameters, number), self.loss[number : number + 1]
            recording = native.Recording(self.program, parameters, self.gradients.named, loss)
            self.calls.append([*recording.forward, *recording.backward])

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        for first, last in stretches(self.pack, start, until):
            forget_labels(self.pack, self.state, first)
            yield from self._stretch(first, last)

    def _stretch(self, start: int, until: int) -> Iterator[Tensor]:
        """`losses` while nothing changes but the learning rate."""
        program, bank = self.program, self.embeddings.flatten(0, 1)
        lanes, steps = in_force(self.pack, start), []
        for calls, update in zip(self.calls, updates(self.pack, start, self.arrays), strict=True):
            steps.append((calls, update, update.gradients(self.gradients)))
        for chunk in drawn(lanes, program.batch_size, self.embeddings, start, until):
            rows, labels = (self._columns(part) for part in chunk)
            for batch in range(rows.shape[1]):
                after = start + program.batch_size
                for lane, (calls, update, gradients) in enumerate(steps):
                    torch.index_select(bank, 0, rows[lane, batch].view(-1), out=program.exemplars)
                    if lanes[lane].run.recipe.input_noise:
                        items = program.exemplars.view(-1, program.columns, bank.shape[1])
                        items[:, : program.batch_size] += noise(lanes[lane], start, bank).transpose(0, 1)
                    program.labels.copy_(labels[lane, batch, :-1])
                    program.targets.copy_(labels[lane, batch, -1])
                    for call in calls:
                        call()
                    update(self.gradients.named, gradients, after)
                start = after
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
        self.shapes = transformer.parameter_shapes(run.model, run.bank.shape.width, run.n_labels, run.recipe.context)
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


def stretches(pack: PackSpec, start: int, until: int) -> Iterator[tuple[int, int]]:
    """(first, end) of the parts of `start` … `until` within which no lane's recipe, optimizer or labels are changed."""
    changes = set().union(*(lane.run.changes(start, until) for lane in pack.lanes))
    return itertools.pairwise([start, *sorted(changes), until])


def in_force(pack: PackSpec, seen: int) -> list[Lane]:
    """The pack's lanes with the recipe and optimizer that hold for the batch that begins at `seen`."""
    return [replace(lane, run=lane.run.at(seen)) for lane in pack.lanes]


def updates(pack: PackSpec, seen: int, arrays: list[list[optimizers.Arrays]]) -> list[optimizers.Update]:
    """Each lane's, for the batch that begins at `seen`. arrays: of each lane, parameters and both moments."""
    batch_size, found = pack.run.batch_size, []
    for lane, of_this in zip(in_force(pack, seen), arrays, strict=True):
        steps = dict.fromkeys(of_this[0].named, seen // batch_size)
        # An optimizer that has just begun corrects its moments for it.
        steps["label_embedding"] -= lane.run.forgetting.latest(batch_size, seen) // batch_size
        found.append(optimizers.Update(lane.run.optimizer, batch_size, *of_this, steps))
    return found


def forget_labels(pack: PackSpec, state: "State", seen: int) -> None:
    """Draws the label embeddings of the lanes anew that forget them at `seen`, with moments of 0."""
    for number, lane in enumerate(pack.lanes):
        run = lane.run
        times = run.forgetting.times(run.batch_size, seen)
        if times and run.forgetting.latest(run.batch_size, seen) == seen:
            name = "label_embedding"
            sizes = run.bank.shape.width, run.n_labels
            drawn = transformer.initial_parameters(run.model, *sizes, lane.seed.init, run.recipe.context, times)
            state.parameters[name][number].copy_(drawn[name])
            state.first_moments[name][number].zero_()
            state.second_moments[name][number].zero_()


def of_lane(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """name -> the tensor of one lane, without the lane axis."""
    return {name: tensor[number] for name, tensor in tensors.items()}


def drawn(
    lanes: Sequence[Lane], batch_size: int, embeddings: Tensor, start: int, until: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows of the flattened bank, labels), int64 [S, n, C+1] each, of the sequences from number `start` on.

    They come for many batches at once, which changes none of them.
    """
    chunk = batch_size * DRAW_BATCHES
    for first in range(start, until, chunk):
        positions = torch.arange(first, min(first + chunk, until), device=embeddings.device)
        found = [_draw(lane, positions) for lane in lanes]
        rows = torch.stack([lane.classes * embeddings.shape[1] + lane.exemplars for lane in found])
        yield rows, torch.stack([lane.labels for lane in found])


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


def query_loss(
    parameters: transformer.Parameters,
    model: transformer.Model,
    geometry: transformer.Geometry,
    exemplars: Tensor,
    labels: Tensor,
    drop: transformer.Drop = transformer.keep_all,
) -> Tensor:
    """Mean cross-entropy at the query, [S]. exemplars [S, B, C+1, I]; labels [S, B, C+1], the target last."""
    logits = transformer.query_logits(parameters, model, geometry, exemplars, labels[:, :, :-1], drop)
    targets = labels[:, :, -1]
    loss = functional.cross_entropy(logits.flatten(0, 1).to(exemplars.dtype), targets.flatten(), reduction="none")
    return loss.view(targets.shape).mean(dim=1)
