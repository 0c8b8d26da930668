"""Views of stored images: the classes of a bank of images, made by rotations and flips where they are looked at.

A bank of images stores each drawing once, as uint8. Class k of the bank is stored class k // views under view
k % views. View rotation * 2 + flip is `rotation` quarter turns counter-clockwise, then a mirror image if `flip` is 1:
the order of banks/drawings.py's `rotate_and_flip`.
"""

import torch
from torch import Tensor

# The largest value of a stored pixel, which is 1 in an image that a model sees.
WHITE = 255


def gather(images: Tensor, views: int, classes: Tensor, exemplars: Tensor) -> Tensor:
    """Return the images of classes and exemplars, float32 [..., side, side, channels] in [0, 1].

    images: uint8 [stored classes, exemplars, side, side, channels], as of store/bank_file.py. views: of each stored
    class, 1 or 8. classes, exemplars: int64 [...], numbers in the bank. All on one device, on which the images are
    turned; nothing waits for it.
    """
    n_exemplars = images.shape[1]
    chosen = images.flatten(0, 1).index_select(0, (classes // views * n_exemplars + exemplars).flatten())
    if views > 1:
        chosen = _viewed(chosen, (classes % views).flatten())
    return (chosen.to(torch.float32) / WHITE).unflatten(0, classes.shape)


def _viewed(images: Tensor, view: Tensor) -> Tensor:
    """Return images [N, side, side, channels] each under its view, int64 [N].

    A quarter turn is a transpose, then a flip of rows; half a turn flips both axes; three quarters are a transpose,
    then a flip of columns.
    """
    rotation, flip = (view // 2)[:, None, None, None], (view % 2)[:, None, None, None]
    images = torch.where(rotation % 2 == 1, images.transpose(1, 2), images)
    images = torch.where((rotation == 1) | (rotation == 2), images.flip(1), images)
    return torch.where((rotation >= 2) ^ (flip == 1), images.flip(2), images)
