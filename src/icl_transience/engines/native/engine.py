"""The native engine's step: a lane at a time through one recorded program, on CPUs."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from icl_transience.engines.lanes import Batch, batches, begin_interval, input_noise, lane_optimizers, select_lane
from icl_transience.engines.native import compiler
from icl_transience.engines.native.encoding import LaneEncoder
from icl_transience.engines.native.program import Recording, program_for
from icl_transience.engines.native.resnet import resnet_for
from icl_transience.engines.optimizers import LaneArrays
from icl_transience.engines.state import State
from icl_transience.model.transformer import Parameters
from icl_transience.specs.runs import PackSpec


class NativeStep:
    """Train lane after lane through one `program.Program`: a lane is computed as if it were alone, to the last bit.

    The state's tensors become views of one array [S, P] a part, so that the optimizer goes over a lane at once.
    """

    settled = True

    def __init__(self, pack: PackSpec, state: State, embeddings: Tensor):
        """Compile the kernels and lay out the state. Raises compiler.UnavailableError."""
        run = pack.run
        self.pack, self.state, self.embeddings = pack, state, embeddings
        self.bank = embeddings.flatten(0, 1)
        self.encoders: list[LaneEncoder] = []
        if run.model.encodes_images:
            resnet = resnet_for(run, run.batch_size * (run.recipe.context + 1))
        self.program = program_for(run, run.batch_size, run.recipe.context)
        spans = flat_spans(state.parameters)
        # One lane's at a time: the optimizer's step follows a lane's backward.
        gradients = {name: torch.zeros_like(tensor[:1]) for name, tensor in state.parameters.items()}
        kinds = (state.parameters, gradients, state.first_moments, state.second_moments)
        flat = [flattened(kind, spans) for kind in kinds]
        self.loss = torch.zeros(len(pack.lanes))
        self.arrays, self.calls = [], []
        for number in range(len(pack.lanes)):
            rows = (number, 0, number, number)
            parameters, of_loss, first, second = (select_lane(kind, row) for kind, row in zip(kinds, rows, strict=True))
            flat_rows = [kind[row] for kind, row in zip(flat, rows, strict=True)]
            self.arrays.append(LaneArrays(parameters, of_loss, first, second, flat_rows, spans))
            if run.model.encodes_images:
                statistics = select_lane(state.statistics, number)
                lane = embeddings, parameters, of_loss, statistics
                self.encoders.append(LaneEncoder(run, self.program, resnet, *lane))
            recording = Recording(self.program, parameters, of_loss, self.loss[number : number + 1])
            self.calls.append([*recording.forward, *recording.backward])
        self.optimizers = lane_optimizers(pack, self.arrays, state.sequences_seen)

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        """See interface.Step."""
        for batch in batches(self.pack, self.embeddings, start, until, self._columns):
            if batch.begins:
                self.optimizers = begin_interval(self.pack, self.state, self.arrays, batch.start)
            yield self.train_step(batch)

    def train_step(self, batch: Batch) -> Tensor:
        """Take one step of every lane; rows and labels [S, C+1, B']. Returns each lane's loss before it, [S]."""
        end = batch.start + self.program.batch_size
        for number, (calls, optimizer) in enumerate(zip(self.calls, self.optimizers, strict=True)):
            self._load(batch, number)
            for call in calls:  # forward and backward; gradients are overwritten
                call()
            if self.encoders and not batch.lanes[number].run.encoder_frozen_at(batch.start):
                self.encoders[number].backward()
            optimizer.add_l2()
            optimizer.clip_gradients()
            optimizer.step(end)
        return self.loss.clone()

    def _load(self, batch: Batch, number: int) -> None:
        """Fill the program's inputs with a lane's exemplars and labels."""
        program, lane = self.program, batch.lanes[number]
        if self.encoders:
            self.encoders[number].forward(batch.rows[number], lane.run.encoder_frozen_at(batch.start))
        else:
            torch.index_select(self.bank, 0, batch.rows[number].view(-1), out=program.exemplars)
        if lane.run.recipe.input_noise:
            items = program.exemplars.view(-1, program.columns, self.bank.shape[1])
            items[:, : program.batch_size] += input_noise(lane, batch.start, self.bank).transpose(0, 1)
        labels = batch.labels[number]
        program.labels.copy_(labels[:-1])
        program.targets.copy_(labels[-1])

    def _columns(self, indices: Tensor, batch_size: int) -> Tensor:
        """int64 [S, n, C+1] -> [batches, S, C+1, B'], B' the batch in whole vectors; see program.Program."""
        columns = indices.unflatten(1, (-1, batch_size)).transpose(2, 3)
        return functional.pad(columns, (0, self.program.columns - batch_size)).contiguous().transpose(0, 1)


def flat_spans(tensors: Parameters) -> dict[str, slice]:
    """Name -> where the tensors [S, …] stand in a flat array [S, P], each from the beginning of a whole vector."""
    spans, start = {}, 0
    for name, tensor in tensors.items():
        end = start + compiler.aligned(tensor[0].numel())
        spans[name], start = slice(start, end), end
    return spans


def flattened(tensors: Parameters, spans: dict[str, slice]) -> Tensor:
    """One array [S, P] that holds all of `tensors` [S, …], which are replaced by views of it.

    What lies between them is 0, and Adam leaves it so.
    """
    lanes = len(next(iter(tensors.values())))
    flat = torch.zeros(lanes, max(span.stop for span in spans.values()))
    for name, tensor in tensors.items():
        view = flat[:, spans[name]][:, : tensor[0].numel()].unflatten(1, tensor.shape[1:])
        tensors[name] = view.copy_(tensor)
    return flat
