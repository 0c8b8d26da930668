"""The file of a bank, as training and sequences read it; banks/bank.py writes it."""

from pathlib import Path

import numpy as np

from icl_transience.specs.banks import BankSpec
from icl_transience.store import hdf5


def load(path: Path, spec: BankSpec, *, aside: bool = True) -> np.ndarray:
    """Load the exemplars of a bank after checking its file.

    Embeddings: float32 [classes, exemplars, dim]. Of a bank of images (`spec.images`): uint8 [stored classes,
    exemplars, side, side, channels], ink or brightness 255, of which sequences/views.py makes the classes.
    aside: as of hdf5.reading.
    """
    with hdf5.reading(path, "bank", spec.id, aside=aside) as file:
        return hdf5.array(file, "images" if spec.images else "embeddings")
