"""The image encoder of one lane in the native engine's step: encode a batch, and take the gradient back.

Letters for shapes as in model/transformer.py and model/encoder.py; B' the batch in whole vectors, see program.Program.
"""

import torch
from torch import Tensor

from icl_transience.engines.interface import autocast
from icl_transience.engines.lanes import images_at
from icl_transience.engines.native.program import Program
from icl_transience.model import encoder
from icl_transience.model.transformer import Parameters
from icl_transience.specs.encoder import ENCODER
from icl_transience.specs.runs import Run


class LaneEncoder:
    """A lane's encoder between a bank of images and a program's `embedded`.

    parameters, gradients, statistics: of the lane, without a lane axis; changed in place.
    """

    def __init__(
        self,
        run: Run,
        program: Program,
        bank: Tensor,
        parameters: Parameters,
        gradients: Parameters,
        statistics: Parameters,
    ):
        self.run, self.program, self.bank, self.statistics = run, program, bank, statistics
        self.leaves = {
            name: value.detach().requires_grad_() for name, value in parameters.items() if name.startswith(ENCODER)
        }
        self.gradients = {name: gradients[name] for name in self.leaves}

    def forward(self, rows: Tensor, frozen: bool) -> None:
        """Encode a batch and move the running statistics; rows of the bank, int64 [C+1, B'].

        frozen: whether it encodes as at evaluation.
        """
        program = self.program
        images = images_at(self.run, self.bank, rows[:, : program.batch_size].flatten())
        with torch.set_grad_enabled(not frozen), autocast(self.run.numerics, images.device):
            self.encoded, statistics = encoder.encode_lane(
                {**self.leaves, **self.statistics}, self.run.model.resnet, images, not frozen
            )
        for name, value in statistics.items():
            encoder.moved(self.statistics[name], value)
        encoded = self.encoded.detach().view(len(rows), program.batch_size, -1)
        program.encoded[:, :, : program.batch_size] = encoded.permute(2, 0, 1)

    def backward(self, frozen: bool) -> None:
        """Write the encoder's gradients, from what the program's backward left in `embedded`."""
        for name, leaf in self.leaves.items():
            leaf.grad = self.gradients[name].zero_()
        if not frozen:
            gradient = self.program.encoded[:, :, : self.program.batch_size].permute(1, 2, 0)
            self.encoded.backward(gradient.reshape(self.encoded.shape))
