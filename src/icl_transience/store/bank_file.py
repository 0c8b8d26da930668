"""TODO"""

from pathlib import Path

import numpy as np

from icl_transience.specs.banks import BankSpec
from icl_transience.store import hdf5


def load(path: Path, spec: BankSpec) -> np.ndarray:
    """The embeddings in a bank's file, float32 [classes, exemplars, dim], once it has been checked."""
    with hdf5.reading(path, "bank", spec.id) as file:
        return file["embeddings"][()]
