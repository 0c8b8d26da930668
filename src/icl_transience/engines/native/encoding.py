"""The image encoder of one lane in the native engine's step: encode a batch, and take the gradient back.

Letters for shapes as in model/transformer.py and model/encoder.py; B' the batch in whole vectors, see program.Program.
"""

from torch import Tensor

from icl_transience.engines.images import images_at
from icl_transience.engines.native.program import Program
from icl_transience.engines.native.resnet import NativeResNet
from icl_transience.model import encoder
from icl_transience.model.transformer import Parameters
from icl_transience.specs.runs import Run


class LaneEncoder:
    """A lane's encoder between a bank of images and a program's `embedded`; lanes share `resnet`, one at a time.

    Each distinct image of a batch is encoded once. parameters, gradients, statistics: of the lane, without a lane axis;
    changed in place.
    """

    def __init__(
        self,
        run: Run,
        program: Program,
        resnet: NativeResNet,
        bank: Tensor,
        parameters: Parameters,
        gradients: Parameters,
        statistics: Parameters,
    ):
        self.run, self.program, self.resnet, self.bank = run, program, resnet, bank
        self.parameters, self.gradients, self.statistics = parameters, gradients, statistics

    def forward(self, rows: Tensor, frozen: bool) -> None:
        """Encode a batch and move the running statistics; rows of the bank, int64 [C+1, B'].

        frozen: whether it encodes as at evaluation.
        """
        program = self.program
        used = rows[:, : program.batch_size].flatten()
        distinct, self.places, counts = used.unique(return_inverse=True, return_counts=True)
        weights = {**self.parameters, **self.statistics}
        images = images_at(self.run, self.bank, distinct)
        encoded, statistics = self.resnet.forward(weights, images, counts, training=not frozen)
        for name, value in statistics.items():
            encoder.moved(self.statistics[name], value)
        program.encoded[:, :, : program.batch_size] = encoded[:, self.places].unflatten(1, (len(rows), -1))
        # What the lane before left beside the batch may be no number, and 0 times that is none either.
        program.encoded[:, :, program.batch_size :] = 0

    def backward(self) -> None:
        """Write the encoder's gradients, from what the program's backward left in `embedded`."""
        of_places = self.program.encoded[:, :, : self.program.batch_size].flatten(1)
        gradient = of_places.new_zeros(len(of_places), self.resnet.used)
        self.resnet.backward(gradient.index_add_(1, self.places, of_places), self.gradients)
