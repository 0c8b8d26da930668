"""The eager engine's step on all lanes, recorded once as CUDA graphs and replayed: a step then costs no launches.

It has eager's functions and autograd, but for three parts in which eager takes many kernels, or sums in an order that
depends on the pack: sequences of all lanes are drawn in one go, lanes that share an optimizer take its step together
(`optimizers.PackOptimizer`), and gradients of the label embeddings are added up without sorting (`label_gradient`).
`tests/test_graph.py` counts its kernels.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from icl_transience.engines.eager import query_loss
from icl_transience.engines.interface import autocast, tensor_cores
from icl_transience.engines.lanes import DRAW_BATCHES, draw_indices, lane_steps
from icl_transience.engines.optimizers import PackOptimizer
from icl_transience.engines.state import State
from icl_transience.model import transformer
from icl_transience.specs.compute import MOST_PRODUCTS, attention_patterns
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import PackSpec

# Steps that one graph replays: its launch, some 10 us, is then shared by them.
STEPS_A_GRAPH = 16


class GraphStep:
    """All lanes' step on buffers that stay where they are: indices of many batches, and which batch is next.

    Without `capture` the recorded work is done call by call, on any device; None: on those that cannot capture.
    """

    def __init__(self, pack: PackSpec, state: State, embeddings: Tensor, capture: bool | None = None):
        run, device = pack.run, embeddings.device
        if (patterns := attention_patterns(pack)) > MOST_PRODUCTS:
            raise StudyError(
                f"engine: graph multiplies lanes x batch x heads = {len(pack.lanes)} x {run.batch_size} x "
                f"{run.model.heads} = {patterns:,} attention patterns at a time, expected at most {MOST_PRODUCTS:,}: "
                "lower `lanes_per_pack`, or set `engine: eager`"
            )
        self.pack, self.state, self.embeddings, self.settled = pack, state, embeddings, True
        self.geometry = transformer.Geometry(run.model, run.recipe.context, embeddings.dtype, device)
        # The state's own memory, as leaves of autograd. Of the label embeddings it computes no gradient: we do.
        self.parameters = {name: value.detach() for name, value in state.parameters.items()}
        for name, value in self.parameters.items():
            value.requires_grad_(name != "label_embedding")
        self.gradients: dict[str, Tensor] = {}
        steps = lane_steps(pack, state.parameters, state.sequences_seen)
        lanes = list(zip((lane.run.optimizer for lane in pack.lanes), steps, strict=True))
        moments = state.first_moments, state.second_moments
        self.optimizer = PackOptimizer(lanes, run.batch_size, state.parameters, *moments)
        # What is drawn: sequences of DRAW_BATCHES batches from a multiple of as many on. -1: nothing yet.
        self.drawn_from = -1
        shape = len(pack.lanes), run.batch_size * DRAW_BATCHES, run.recipe.context + 1
        self.rows, self.labels = torch.zeros(2, *shape, dtype=torch.int64, device=device)
        self.next = torch.arange(run.batch_size, device=device)
        self.loss = torch.zeros(STEPS_A_GRAPH, len(pack.lanes), dtype=embeddings.dtype, device=device)
        # Steps -> what takes so many. One step is recorded last: `gradients` are where it leaves them.
        self.replay: dict[int, Callable[[], None]] = {STEPS_A_GRAPH: self._work_many, 1: self._work}
        if device.type == "cuda" if capture is None else capture:
            pool = torch.cuda.graph_pool_handle()
            self.replay = {steps: self._capture(work, pool) for steps, work in self.replay.items()}

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        """See interface.Step."""
        batch_size = self.pack.run.batch_size
        snapshots = self.pack.run.snapshots.points(batch_size, start, until)
        chunk = batch_size * DRAW_BATCHES
        chunks = range((start // chunk + 1) * chunk, until, chunk)
        for first, end in pairwise(sorted({start, *snapshots, *chunks, until})):
            self._draw(first)
            while first < end:
                steps = STEPS_A_GRAPH if end - first >= STEPS_A_GRAPH * batch_size else 1
                self.replay[steps]()
                block = self.loss[:steps].clone()
                first += steps * batch_size
                for number, loss in enumerate(block):
                    self.settled = number == steps - 1
                    yield loss

    def _draw(self, start: int) -> None:
        """Have the batch that begins at `start` among what is drawn, and be the next one."""
        batch_size = self.pack.run.batch_size
        chunk = batch_size * DRAW_BATCHES
        begin = start // chunk * chunk
        if begin != self.drawn_from:
            rows, labels = draw_indices(self.pack.lanes, self.embeddings, begin, begin + chunk)
            self.rows.copy_(rows)
            self.labels.copy_(labels)
            self.drawn_from = begin
        torch.arange(start - begin, start - begin + batch_size, out=self.next)

    def _work_many(self) -> None:
        for number in range(STEPS_A_GRAPH):
            self._work(number)

    def _work(self, number: int = 0) -> None:
        """Take the step on the next batch; its loss is `number` of the block."""
        index = self.rows.index_select(1, self.next)
        exemplars = self.embeddings.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, -1)
        loss = self.train_step(exemplars, self.labels.index_select(1, self.next))
        self.loss[number].copy_(loss)
        self.next += self.pack.run.batch_size

    def train_step(self, exemplars: Tensor, labels: Tensor) -> Tensor:
        """Take one step of every lane.

        exemplars [S, B, C+1, I], labels [S, B, C+1]. Returns each lane's loss before the step, [S]. Nothing in it
        depends on when it is taken: engine_problem refuses such runs.
        """
        run, places = self.pack.run, {}

        def tap(place: str, x: Tensor) -> Tensor:
            if place == "embedding":
                places[place] = x
            return x

        with tensor_cores(run.numerics):
            with autocast(run.numerics, exemplars.device):
                loss = query_loss(self.parameters, run.model, self.geometry, exemplars, labels, tap)
            leaves = {name: value for name, value in self.parameters.items() if value.requires_grad}
            # Lanes share no tensor, so the gradient of the sum is each lane's own.
            wanted = [*leaves.values(), places["embedding"]]
            *found, tokens = torch.autograd.grad(loss.sum(), wanted, allow_unused=True, materialize_grads=True)
        self.gradients = {name: one.contiguous() for name, one in zip(leaves, found, strict=True)}
        of_labels = tokens[:, :, 1::2].flatten(1, 2)
        n_labels = self.parameters["label_embedding"].shape[1]
        self.gradients["label_embedding"] = label_gradient(of_labels, labels[:, :, :-1].flatten(1, 2), n_labels)
        self.optimizer.step(self.gradients, run.batch_size)
        return loss.detach()

    def _changed(self) -> list[Tensor]:
        """Return every tensor that a step changes and that the next one reads."""
        state: list[Mapping[str, Tensor]] = [
            self.state.parameters,
            self.state.first_moments,
            self.state.second_moments,
        ]
        return [self.next, *self.optimizer.counts, *(value for part in state for value in part.values())]

    def _capture(self, work: Callable[[], None], pool: Any) -> Callable[[], None]:
        """Record `work`. Warming up, which capture needs, changes the state: it is put back afterwards.

        pool: memory that the graphs share, since one is replayed at a time.
        """
        changed, device = self._changed(), self.embeddings.device
        before = [tensor.clone() for tensor in changed]
        stream = _capture_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._work()
        torch.cuda.current_stream(device).wait_stream(stream)
        self.next.copy_(before[0])
        graph = torch.cuda.CUDAGraph()
        # On the stream that warmed up: the default one would be another device's where this is not the first.
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, pool=pool):
            work()
        position = int(self.next[0])
        graph.replay()
        if int(self.next[0]) == position:
            raise RuntimeError("the CUDA graph recorded nothing: choose engine: eager")
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
        return graph.replay


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream of a device on which graphs are recorded: cuBLAS keeps 32 MiB or more for each."""
    return torch.cuda.Stream(device)


def label_gradient(rows: Tensor, labels: Tensor, n_labels: int) -> Tensor:
    """Add up gradients by label: rows [S, N, D], labels int64 [S, N] -> [S, K, D].

    Every place gets the sum over all places of its label, in a product with which places are alike; then places of
    one label write the same numbers to its row. Nothing is sorted or added atomically, so equal calls give equal bits,
    and autograd's own sum changes its algorithm where a pack has more than 3,072 places. Float32 throughout, or wider:
    tf32 would round the gradients.
    """
    alike = (labels[:, :, None] == labels[:, None, :]).to(rows.dtype)
    with tensor_cores("float32"):
        sums = torch.bmm(alike, rows)
    # All places of a label take the sum of its first, should the product round equal rows differently.
    first = alike.argmax(dim=2, keepdim=True).expand_as(sums)
    found = rows.new_zeros(len(rows), n_labels, rows.shape[2])
    return found.scatter_(1, labels[:, :, None].expand_as(sums), sums.gather(1, first))
