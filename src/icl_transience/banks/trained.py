"""An encoder that the pipeline trains itself: a small ResNet that tells the bank's training classes apart.

It sees training classes and training exemplars only; embeddings are its penultimate layer. So a good embedding needs
no download, and held-out classes are as new to the encoder as to the transformer.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from icl_transience import philox
from icl_transience.banks.resnet import ResNet
from icl_transience.specs.banks import BankSpec
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.specs.image_sources import Trained
from icl_transience.store import hdf5

_BATCH = 1024


def network(channels: int, dim: int, n_classes: int) -> ResNet:
    """Return an untrained network: images [N, channels, side, side] to embeddings [N, dim]."""
    return ResNet(channels, (16, 32, dim), (1, 1, 1), n_classes, small=True)


def train(
    pixels: np.ndarray, dim: int, settings: Trained, seed: int, on_progress: Callable[[int], None] = lambda seen: None
) -> tuple[ResNet, float]:
    """Train a network to classify pixels, float32 [classes, exemplars, side, side, channels].

    on_progress: called with the number of drawings seen.

    Returns the network and its accuracy on the drawings of the last epoch, as they were seen in training.
    """
    n_classes, n_exemplars, *_, channels = pixels.shape
    images = _channels_first(pixels)
    labels = torch.arange(n_classes).repeat_interleave(n_exemplars)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network(channels, dim, n_classes).train()
    order = np.random.Generator(np.random.Philox(key=[seed, philox.domain("trained/order")]))
    steps = settings.epochs * -(-len(images) // settings.batch_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    # Its schedule wants two steps at least.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=max(2, steps))
    seen = 0
    for _ in range(settings.epochs):
        right = 0
        for batch in torch.from_numpy(order.permutation(len(images))).split(settings.batch_size):
            if len(batch) == 1:
                continue  # batch norm has nothing to compare a lone drawing with
            logits = model.fc(model(normalised(images[batch])))
            optimizer.zero_grad()
            functional.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
            schedule.step()
            right += int((logits.argmax(dim=1) == labels[batch]).sum())
            seen += len(batch)
            on_progress(seen)
    return model.eval(), right / len(images)


def normalised(images: Tensor) -> Tensor:
    """Bring shares of ink in [0, 1], most of which are 0, to about zero mean and unit variance."""
    return (images - 0.08) / 0.23


def embed(model: ResNet, pixels: np.ndarray) -> np.ndarray:
    """Embed float32 [..., side, side, channels] as float32 [..., dim]."""
    images = _channels_first(pixels)
    with torch.inference_mode():
        embedded = [model(normalised(batch)) for batch in images.split(_BATCH)]
    return torch.cat(embedded).reshape(*pixels.shape[:-3], -1).numpy()


def _channels_first(pixels: np.ndarray) -> Tensor:
    """Return pixels [..., side, side, channels] as [N, channels, side, side], contiguous."""
    *_, side, _, channels = pixels.shape
    first = np.ascontiguousarray(np.moveaxis(pixels, -1, -3))
    return torch.from_numpy(first.reshape(-1)).view(-1, channels, side, side)


def save(model: ResNet, accuracy: float, path: Path, spec: BankSpec) -> None:
    """Write the encoder's file: every weight under its name, and the training accuracy."""
    with hdf5.writing(path, "encoder", spec.id) as file:
        file.attrs["spec"] = canonical(identity_values(spec))
        file.attrs["training_accuracy"] = accuracy
        for name, value in model.state_dict().items():
            file[f"weights/{name}"] = value.numpy()


def load(path: Path, spec: BankSpec) -> ResNet:
    """Load the network in an encoder's file, after checking the file."""
    pictures = spec.pictures
    assert pictures
    model = network(pictures.image_shape.channels, pictures.dim, spec.shape.n_train_classes)
    with hdf5.reading(path, "encoder", spec.id) as file:
        weights = {name: torch.from_numpy(hdf5.array(file, f"weights/{name}")) for name in model.state_dict()}
    model.load_state_dict(weights)
    return model.eval()
