"""What a snapshot's image encoders make of the images that sequences have: each is encoded once a snapshot.

Letters for shapes as in model/transformer.py.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from icl_transience.engines.interface import DTYPES, autocast, tensor_cores
from icl_transience.engines.lanes import images_at
from icl_transience.model import encoder
from icl_transience.model.transformer import Parameters
from icl_transience.specs.compute import ENCODED_AT_A_TIME
from icl_transience.specs.runs import Run


class ImageExamples:
    """The images of some sequences, as indices into a bank, to be encoded by one snapshot after another.

    bank: uint8 [base classes, exemplars, P, P, Q]. rows: name of the sequences -> class * exemplars + exemplar, int64
    [N, C+1].
    """

    def __init__(self, run: Run, bank: Tensor, rows: Mapping[str, Tensor]):
        self.run, self.bank = run, bank
        self.used, places = torch.cat([part.flatten() for part in rows.values()]).unique(return_inverse=True)
        sizes = [part.numel() for part in rows.values()]
        self.places = {
            name: place.view(part.shape) for (name, part), place in zip(rows.items(), places.split(sizes), strict=True)
        }

    @torch.no_grad()
    def of(self, parameters: Parameters) -> dict[str, Tensor]:
        """Return name -> what each lane's encoder makes of the sequences' exemplars, [S, N, C+1, D].

        parameters: name -> [S, …], running statistics among them.
        """
        dtype, device = DTYPES[self.run.numerics], self.bank.device
        parts = []
        with tensor_cores(self.run.numerics), autocast(self.run.numerics, device):
            for used in self.used.split(ENCODED_AT_A_TIME):
                images = images_at(self.run, self.bank, used).to(dtype)
                lanes = len(next(iter(parameters.values())))
                of_lanes = images.expand(lanes, *images.shape)
                parts.append(encoder.encode(parameters, self.run.model.resnet, of_lanes, training=False)[0])
        table = torch.cat(parts, dim=1)
        return {name: table[:, place] for name, place in self.places.items()}
