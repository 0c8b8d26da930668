"""The eager engine's step, recorded once as a CUDA graph and replayed: a step then costs no launches."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from icl_transience.engines.eager import EagerStep
from icl_transience.engines.lanes import DRAW_BATCHES, index_chunks
from icl_transience.engines.state import State
from icl_transience.specs.runs import PackSpec


class GraphStep(EagerStep):
    """EagerStep on buffers that stay where they are: indices of many batches, and which batch is next.

    Without `capture` the recorded work is done call by call, on any device.
    """

    def __init__(self, pack: PackSpec, state: State, embeddings: Tensor, capture: bool = True):
        super().__init__(pack, state, embeddings)
        batch_size, context, device = pack.run.batch_size, pack.run.recipe.context, embeddings.device
        shape = len(pack.lanes), batch_size * DRAW_BATCHES, context + 1
        self.rows, self.labels = torch.zeros(2, *shape, dtype=torch.int64, device=device)
        self.next = torch.arange(batch_size, device=device)
        self.loss = torch.zeros(len(pack.lanes), dtype=embeddings.dtype, device=device)
        self.replay: Callable[[], None] = self._capture(state) if capture else self._work

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        """Step on every batch from sequence number `start` to `until`; yield each lane's loss before it, [S]."""
        batch_size = self.pack.run.batch_size
        for rows, labels in index_chunks(self.pack.lanes, batch_size, self.embeddings, start, until):
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
        self.loss.copy_(self.train_step(exemplars, self.labels.index_select(1, self.next), 0))
        self.next += self.pack.run.batch_size

    def _capture(self, state: State) -> Callable[[], None]:
        """Record `_work`. Warming up, which capture needs, changes the state: it is put back afterwards."""
        changed = [self.next, *(count for optimizer in self.optimizers for count in optimizer.counts)]
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
