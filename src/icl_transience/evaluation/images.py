"""What a snapshot's image encoders make of the images that sequences have: each is encoded once a snapshot.

Letters for shapes as in model/transformer.py.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from icl_transience.engines import select
from icl_transience.engines.images import images_at
from icl_transience.model.transformer import Parameters
from icl_transience.specs.compute import ENCODED_AT_A_TIME
from icl_transience.specs.runs import Run


class ImageExamples:
    """The images of some sequences, as indices into a bank, to be encoded by one snapshot after another.

    bank: uint8 [base classes, exemplars, P, P, Q]. rows: name of the sequences -> class * exemplars + exemplar, int64
    [N, C+1].
    """

    def __init__(self, run: Run, bank: Tensor, rows: Mapping[str, Tensor], engine: str = "auto"):
        self.run, self.bank = run, bank
        self.encode = select.encoding_for(run, bank.device, ENCODED_AT_A_TIME, engine)
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
        parts = self.used.split(ENCODED_AT_A_TIME)
        table = torch.cat([self.encode(parameters, images_at(self.run, self.bank, part)) for part in parts], dim=1)
        return {name: table[:, place] for name, place in self.places.items()}
