"""Views of stored images: the classes of a bank of images, made by rotations and flips where they are looked at.

A bank of images stores each drawing once, as uint8. Class k of the bank is stored class k // views under view
k % views. View rotation * 2 + flip is `rotation` quarter turns counter-clockwise, then a mirror image if `flip` is 1:
the order of banks/drawings.py's `rotate_and_flip`.
"""

import functools

import torch
from torch import Tensor

# The largest value of a stored pixel, which is 1 in an image that a model sees.
WHITE = 255
# Numbers of images looked up at a time, at most: an index of 8 bytes for each stands in memory meanwhile.
_AT_A_TIME = 1 << 23


def gather(images: Tensor, views: int, classes: Tensor, exemplars: Tensor) -> Tensor:
    """Return the images of classes and exemplars, float32 [..., side, side, channels] in [0, 1].

    images: uint8 [stored classes, exemplars, side, side, channels], as of store/bank_file.py. views: of each stored
    class, 1 or 8. classes, exemplars: int64 [...], numbers in the bank. All on one device, on which the images are
    turned; nothing waits for it.
    """
    _, n_exemplars, side, _, channels = images.shape
    rows, view = (classes // views * n_exemplars + exemplars).flatten(), (classes % views).flatten()
    pixels = images.view(-1, side**2, channels)
    found = torch.empty((len(rows), side**2, channels), dtype=torch.float32, device=images.device)
    at_a_time = max(1, _AT_A_TIME // (side**2 * channels))
    for part, rows_of_part, view_of_part in zip(*(one.split(at_a_time) for one in (found, rows, view)), strict=True):
        chosen = pixels.index_select(0, rows_of_part)
        if views > 1:
            places = _places(side, images.device)[view_of_part]
            chosen = chosen.gather(1, places[..., None].expand(-1, -1, channels))
        torch.div(chosen, WHITE, out=part)
    return found.view(*classes.shape, side, side, channels)


@functools.cache
def _places(side: int, device: torch.device) -> Tensor:
    """Return which pixel of a stored image stands at each place of each of its views, int64 [8, side * side]."""
    pixels = torch.arange(side**2).view(side, side)
    turned = [torch.rot90(pixels, rotation) for rotation in range(4)]
    return torch.stack([view.flatten() for one in turned for view in (one, one.fliplr())]).to(device)
