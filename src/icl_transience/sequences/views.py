"""Images of a batch, as they are turned and flipped: each drawing is stored once, views are made when it is read."""

import torch
from torch import Tensor


def gather(images: Tensor, views: int, classes: Tensor, exemplars: Tensor) -> Tensor:
    """Return float32 [..., P, P, Q] in [0, 1]. images uint8 [base, E, P, P, Q]; classes, exemplars int64 [...].

    Class k is base class k // views, turned by rotation quarters and then flipped, k % views = rotation * 2 + flip.
    """
    flat_classes, flat_exemplars = classes.flatten(), exemplars.flatten()
    found = images[flat_classes // views, flat_exemplars]
    view = flat_classes % views
    for number in range(1, views):
        chosen = view == number
        turned = torch.rot90(found[chosen], number // 2, (1, 2))
        found[chosen] = turned.flip(2) if number % 2 else turned
    return found.to(torch.float32).div_(255).unflatten(0, classes.shape)
