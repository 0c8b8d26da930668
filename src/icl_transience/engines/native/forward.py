"""Answers of snapshots through the native kernels."""

from collections.abc import Callable

import torch
from torch import Tensor

from icl_transience.engines.answers import Answers
from icl_transience.engines.native.program import Recording, program_for
from icl_transience.engines.native.resnet import resnet_for
from icl_transience.model import transformer
from icl_transience.specs.model import component
from icl_transience.specs.runs import Run


class NativeForward:
    """The forward half of a program.Program; see answers.Forward."""

    def __init__(self, run: Run, batch_size: int, context: int):
        """Compile the kernels. Raises compiler.UnavailableError."""
        self.program = program_for(run, batch_size, context)
        # Exemplars come encoded, where there is an image encoder.
        self.shapes = {name: shape for name, shape in run.parameter_shapes.items() if component(name) != "encoder"}
        self.gradients = {name: torch.empty(size) for name, size in self.shapes.items()}
        self.lanes: list[tuple[transformer.Parameters, list[Callable]]] = []

    def load(self, parameters: transformer.Parameters) -> None:
        """Take name -> [S, …], used from now on."""
        lanes = len(next(iter(parameters.values())))
        while len(self.lanes) < lanes:
            own = {name: torch.empty(size) for name, size in self.shapes.items()}
            self.lanes.append((own, Recording(self.program, own, self.gradients, torch.empty(1)).forward))
        del self.lanes[lanes:]
        for lane, (own, _) in enumerate(self.lanes):
            for name, array in own.items():
                array.copy_(parameters[name][lane])

    def __call__(self, exemplars: Tensor, labels: Tensor) -> Answers:
        """Answer exemplars [B, C+1, I], encoded ones [S, B, C+1, D], with labels [B, C+1], the target last."""
        program, used, lanes = self.program, len(labels), len(self.lanes)
        if exemplars.dim() == 3:
            program.exemplars.view(-1, program.columns, exemplars.shape[2])[:, :used] = exemplars.transpose(0, 1)
        program.labels[:, :used] = labels[:, :-1].T
        program.targets[:used] = labels[:, -1]
        context_logits = torch.empty(lanes, len(program.labels), program.columns)
        max_logit, log_sum, target = torch.empty(3, lanes, program.columns)
        max_label = torch.empty(lanes, program.columns, dtype=torch.int64)
        for lane, (_, calls) in enumerate(self.lanes):
            if exemplars.dim() == 4:
                program.encoded[:, :, :used] = exemplars[lane].permute(2, 1, 0)
            for call in calls:
                call()
            program.answers(context_logits[lane], max_logit[lane], max_label[lane], log_sum[lane], target[lane])
        others = (part[:, :used] for part in (max_logit, max_label, log_sum, target))
        return Answers(context_logits.transpose(1, 2)[:, :used], *others)


class NativeEncoding:
    """Encode by the native kernels; see answers.Encoding."""

    def __init__(self, run: Run, most: int):
        self.resnet = resnet_for(run, most)

    def __call__(self, parameters: transformer.Parameters, images: Tensor) -> Tensor:
        """Encode images [U, P, P, Q], [S, U, D]. parameters: name -> [S, …], running statistics among them."""
        lanes, counts = len(next(iter(parameters.values()))), torch.ones(len(images))
        of_lanes = ({name: value[lane] for name, value in parameters.items()} for lane in range(lanes))
        return torch.stack([self.resnet.forward(one, images, counts, training=False)[0].T for one in of_lanes])
