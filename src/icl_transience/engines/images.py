"""Images of a bank, by the rows at which engines and evaluation find exemplars."""

from torch import Tensor

from icl_transience.sequences.views import gather
from icl_transience.specs.runs import Run


def images_at(run: Run, bank: Tensor, rows: Tensor) -> Tensor:
    """Gather images as they are turned and flipped, float32 [..., P, P, Q]; bank uint8, rows class * E + exemplar."""
    if run.bank.images is None:
        raise TypeError(f"bank {run.bank.id} holds embeddings, expected images")
    n_exemplars = run.bank.shape.n_exemplars
    return gather(bank, run.bank.images.views, rows // n_exemplars, rows % n_exemplars)
