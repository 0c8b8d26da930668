"""The file of a bank, as training and sequences read it; banks/bank.py writes it."""

from pathlib import Path

import numpy as np

from icl_transience.specs.banks import BankSpec
from icl_transience.store import hdf5


def load(path: Path, spec: BankSpec, *, aside: bool = True) -> np.ndarray:
    """Load the embeddings of a bank, float32 [classes, exemplars, dim], after checking its file.

    aside: as of hdf5.reading.
    """
    with hdf5.reading(path, "bank", spec.id, aside=aside) as file:
        return hdf5.array(file, "embeddings")
