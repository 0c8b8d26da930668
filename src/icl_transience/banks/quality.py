"""A bank's quality card: numbers that predict, before any training, whether in-context learning can appear on it.

Where the exemplars of a class are as far apart as those of two classes, there is little to copy by similarity; where
classes are points far apart, they are memorised at once and in-context learning never appears. All numbers are of
training classes and exemplars, a seeded sample of them where there are many.
"""

from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

# Returns the generator for a named quantity.
GeneratorFor = Callable[[str], np.random.Generator]

EPISODES = 4000
SHOTS = 4
# Sizes of samples; a sample is all there is where there is less.
CENTROID_CLASSES = 500
LINEAR_CLASSES = 64
SPECTRUM_EXEMPLARS = 20_000

NAMES = {
    "nearest_exemplar": f"nearest-exemplar accuracy, 2 classes x {SHOTS} exemplars (chance 0.5)",
    "nearest_centroid": "nearest-centroid accuracy among all classes, own exemplar left out",
    "linear_fitted": f"linear classifier of {LINEAR_CLASSES} classes at most, on exemplars it was fitted to",
    "linear_test_accuracy": "the same on exemplars it was not fitted to",
    "within_over_between": "variance within classes over variance between",
    "effective_dim": "effective number of dimensions, (sum of variances)^2 / sum of squares",
}
# Names that banks made by earlier versions have in their files.
_FORMER_NAMES = {"linear_others": "linear_test_accuracy"}


def measure(embeddings: np.ndarray, generator_for: GeneratorFor) -> dict[str, Any]:
    """Measure the quality card of training exemplars, float32 [classes, exemplars, dim].

    generator_for: returns the generator that draws a sample, by the sample's name.

    Returns a number for every name in NAMES, NaN where a bank has too few exemplars for it, and `spectrum`: float64
    [dim], the share of each principal component in the variance, descending.
    """
    spectrum = _spectrum(embeddings, generator_for)
    fitted, others = _linear(embeddings, generator_for)
    return {
        "nearest_exemplar": _nearest_exemplar(embeddings, generator_for),
        "nearest_centroid": _nearest_centroid(embeddings, generator_for),
        "linear_fitted": fitted,
        "linear_test_accuracy": others,
        "within_over_between": _within_over_between(embeddings),
        "effective_dim": float(1 / (spectrum**2).sum()),
        "spectrum": spectrum,
    }


def _nearest_exemplar(embeddings: np.ndarray, generator_for: GeneratorFor) -> float:
    """Return how often, of SHOTS exemplars of a query's class and SHOTS of another, one of its class is nearest."""
    n_classes, n_exemplars, _ = embeddings.shape
    if n_exemplars <= SHOTS:
        return float("nan")
    generator = generator_for("quality/episodes")
    right = 0
    for _ in range(EPISODES):
        own, other = generator.choice(n_classes, 2, replace=False)
        query, *shots = generator.choice(n_exemplars, SHOTS + 1, replace=False)
        others = generator.choice(n_exemplars, SHOTS, replace=False)
        point = embeddings[own, query]
        near, far = (((x - point) ** 2).sum(axis=1).min() for x in (embeddings[own, shots], embeddings[other, others]))
        right += (near < far) + (near == far) / 2
    return float(right / EPISODES)


def _nearest_centroid(embeddings: np.ndarray, generator_for: GeneratorFor) -> float:
    """Return the share of (a sample of) exemplars whose own class's mean, without them, is the nearest of all means."""
    n_classes, n_exemplars, _ = embeddings.shape
    if n_exemplars < 2:
        return float("nan")
    centroids = embeddings.mean(axis=1)
    norms = (centroids**2).sum(axis=1)
    sample = generator_for("quality/centroids").permutation(n_classes)[:CENTROID_CLASSES]
    right = 0
    for number in sample:
        exemplars = embeddings[number]
        distances = norms - 2 * exemplars @ centroids.T  # and the exemplar's own square, the same for all
        # Without the exemplar, its class's mean lies n / (n - 1) times as far from it.
        own = ((exemplars - centroids[number]) ** 2).sum(axis=1) * (n_exemplars / (n_exemplars - 1)) ** 2
        distances[:, number] = own - (exemplars**2).sum(axis=1)
        right += (distances.argmin(axis=1) == number).sum()
    return float(right / (len(sample) * n_exemplars))


def _linear(embeddings: np.ndarray, generator_for: GeneratorFor) -> tuple[float, float]:
    """Fit a multinomial logistic regression to sampled classes; return accuracy on fitted and on held-out exemplars.

    A quarter of the exemplars of each class is held out. The second accuracy is NaN where that is none.
    """
    n_classes, n_exemplars, dim = embeddings.shape
    chosen = generator_for("quality/classes").permutation(n_classes)[:LINEAR_CLASSES]
    n_others = n_exemplars // 4
    x = embeddings[chosen].astype(np.float64)
    x = (x - x.mean(axis=(0, 1))) / max(x.std(), np.finfo(np.float64).tiny)
    x = np.concatenate([x, np.ones((*x.shape[:2], 1))], axis=2)
    fitted, others = x[:, n_others:].reshape(-1, dim + 1), x[:, :n_others].reshape(-1, dim + 1)
    labels, other_labels = (np.repeat(np.arange(len(chosen)), n) for n in (n_exemplars - n_others, n_others))
    rows = np.arange(len(labels))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(dim + 1, -1)
        logits = fitted @ weights
        log_probabilities = logits - logsumexp(logits, axis=1, keepdims=True)
        gradient = np.exp(log_probabilities)
        gradient[rows, labels] -= 1
        # The penalty keeps the weights of separable classes finite.
        value = -log_probabilities[rows, labels].mean() + 1e-4 * (weights**2).sum() / 2
        return value, (fitted.T @ gradient / len(rows) + 1e-4 * weights).ravel()

    weights = minimize(loss, np.zeros((dim + 1) * len(chosen)), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    weights = weights.x.reshape(dim + 1, -1)
    accuracies = [
        float(((part @ weights).argmax(axis=1) == truth).mean()) if len(truth) else float("nan")
        for part, truth in ((fitted, labels), (others, other_labels))
    ]
    return accuracies[0], accuracies[1]


def _within_over_between(embeddings: np.ndarray) -> float:
    """Return the variance within classes over the variance of class means, the latter without what sampling adds."""
    n_exemplars = embeddings.shape[1]
    if n_exemplars < 2:
        return float("nan")
    within = embeddings.var(axis=1, ddof=1, dtype=np.float64).mean()
    between = embeddings.mean(axis=1, dtype=np.float64).var(axis=0, ddof=1).mean() - within / n_exemplars
    return float(within / between) if between > 0 else float("inf")


def _spectrum(embeddings: np.ndarray, generator_for: GeneratorFor) -> np.ndarray:
    """Return the share of each principal component in the variance of (a sample of) the exemplars, descending."""
    flat = embeddings.reshape(-1, embeddings.shape[-1])
    if len(flat) > SPECTRUM_EXEMPLARS:
        flat = flat[generator_for("quality/spectrum").permutation(len(flat))[:SPECTRUM_EXEMPLARS]]
    centred = flat.astype(np.float64) - flat.mean(axis=0, dtype=np.float64)
    values = np.linalg.eigvalsh(centred.T @ centred)[::-1].clip(min=0)
    return values / values.sum() if values.sum() > 0 else np.full(len(values), 1 / len(values))


def write_card(card: Mapping[str, Any], group: h5py.Group) -> None:
    """Write the card as attributes of a group of the bank's file; `warnings`, if there are any, a line each."""
    for name, value in card.items():
        group.attrs[name] = value


def read_card(group: h5py.Group) -> dict[str, Any]:
    """Read the card that `write_card` wrote, in a bank made by this version or an earlier one."""
    return {_FORMER_NAMES.get(name, name): group.attrs[name] for name in map(str, group.attrs)}
