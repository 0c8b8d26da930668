"""Two ideal predictors of a query's label: one that remembers classes, and one that copies from the context.

Both are Bayes' rule for Gaussian classes. Classes have means m_k ~ N(m, B), and exemplars are x = m_k + e, e ~ N(0, W):

    memoriser   knows the means of the training classes and how often each comes, and reads no context:
                p(k) = softmax over classes of log prior_k - 1/2 (x_q - m_k)' W^-1 (x_q - m_k), summed over the classes
                of each label
    copier      knows no class. One context item, any of them alike, is of the query's class, and says of its mean what
                one exemplar can:  p(i) = softmax over items of -1/2 (x_q - c_i)' V^-1 (x_q - c_i),
                c_i = m + B (B + W)^-1 (x_i - m),  V = W + B - B (B + W)^-1 B, summed over the items of each label

For the bank `gaussian`, in which B = I / (1 + s^2) and W = s^2 I / (1 + s^2) with the bank's noise s, these are the
exponents -(1 + s^2) / (2 s^2) |x_q - m_k|^2 and -(1 + s^2)^2 / (2 s^2 (2 + s^2)) |x_q - x_i / (1 + s^2)|^2 of Wurgaft
et al. (2025). Of any other bank of embeddings means and covariances are those of its training exemplars, as if classes
were Gaussian with one W: what is nearest counts most, in the metric of W. A query that is a training exemplar, as in
every evaluator but `icl_new_exemplar` and those of held-out classes, has had its part, 1 / E, in the mean of its own
class: to it the empirical memoriser is surer, and right more often, than to an exemplar it has not seen.

Where a share of labels is replaced by random ones, that share of either answer is spread over all labels: of the
copier's twice, since the label that it copies may be one of them as well as the target.

Letters: K training classes, E exemplars of each, I coordinates, N sequences, C context items, L labels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from icl_transience import philox
from icl_transience.sequences.classes import class_labels, class_weights
from icl_transience.specs.banks import BankSpec, Gaussian
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.recipes import Recipe

# Variances within classes below this share of the largest count as this: embeddings have the seven digits of float32.
SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Moments:
    """What is known of a bank's classes, float64: means [K, I], their mean [I], within (W) and between (B) [I, I]."""

    means: Tensor
    mean: Tensor
    within: Tensor
    between: Tensor


def exact_moments(bank: BankSpec) -> Moments:
    """Return the moments from which a bank of Gaussian classes was drawn."""
    noise, shape = bank.parameters_of(Gaussian).noise, bank.shape
    # As banks/gaussian.py draws them, whose file has no means.
    draw = np.random.Generator(np.random.Philox(key=[bank.seed, philox.domain("gaussian/centres")]))
    centres = torch.from_numpy(draw.standard_normal((shape.n_classes, shape.width), np.float32)).double()
    one = torch.eye(shape.width, dtype=torch.float64) / (1 + noise**2)
    means = centres[: shape.n_train_classes] / (1 + noise**2) ** 0.5
    return Moments(means, torch.zeros(shape.width, dtype=torch.float64), noise**2 * one, one)


def empirical_moments(exemplars: Tensor) -> Moments:
    """Return the moments of training exemplars [K, E, I], E at least 2.

    The covariance of class means is without what the exemplars' scatter adds to it, W / E. Raises StudyError where the
    exemplars of every class are equal.
    """
    exemplars = exemplars.double()
    n_classes, n_exemplars, _ = exemplars.shape
    means = exemplars.mean(1)
    scatter = (exemplars - means[:, None]).flatten(0, 1)
    if not scatter.any():
        raise StudyError(
            "`evaluation.strategy.predictors` is empirical, but all exemplars of a class are equal: use a bank "
            "whose classes scatter, or leave `strategy` out"
        )
    within = _at_least(scatter.T @ scatter / (n_classes * (n_exemplars - 1)), SMALLEST_VARIANCE)
    between = _at_least(torch.cov(means.T, correction=1).reshape(within.shape) - within / n_exemplars, 0.0)
    return Moments(means, means.mean(0), within, between)


def _at_least(covariance: Tensor, share: float) -> Tensor:
    """Return a covariance whose variances are at least this share of the largest one, which is at least 0."""
    variances, directions = torch.linalg.eigh(covariance)
    return directions * variances.clamp(min=share * float(variances[-1].clamp(min=0))) @ directions.T


@dataclass(frozen=True)
class Predictors:
    """What the two predictors need to know.

    prior [K]: log probability of each class, up to a constant. labels: int64 [K], the label of each. label_noise: the
    probability that a label is replaced by a random one.
    """

    moments: Moments
    prior: Tensor
    labels: Tensor
    n_labels: int
    label_noise: float

    @classmethod
    def of(cls, moments: Moments, recipe: Recipe) -> "Predictors":
        """Return the predictors of classes that come, and are called, as a recipe says."""
        n_classes = len(moments.means)
        return cls(
            moments=moments,
            prior=class_weights(n_classes, recipe.zipf).double().log(),
            labels=class_labels(n_classes, recipe.labelling),
            n_labels=recipe.n_labels(n_classes),
            label_noise=recipe.label_noise,
        )

    def memoriser(self, queries: Tensor) -> Tensor:
        """Return the probability of each label of queries [N, I], float64 [N, L]."""
        distances = _squared_distances(queries.double(), self.moments.means, self.moments.within)
        classes = torch.softmax(self.prior - distances / 2, dim=1)
        answers = classes.new_zeros(len(classes), self.n_labels).index_add_(1, self.labels, classes)
        return self._with_noise(answers)

    def copier(self, examples: Tensor, labels: Tensor) -> Tensor:
        """Return the probability of each label, float64 [N, L].

        examples [N, C+1, I], the query last; labels: the context's, int64 [N, C].
        """
        mean, within, between = self.moments.mean, self.moments.within, self.moments.between
        centred = examples.double() - mean
        # B (B + W)^-1, which is not symmetric.
        known = torch.linalg.solve(between + within, between).T
        spread = within + between - known @ between
        expected = centred[:, :-1] @ known.T
        distances = _squared_distances(centred[:, -1:], expected, (spread + spread.T) / 2).squeeze(1)
        items = torch.softmax(-distances / 2, dim=1)
        answers = items.new_zeros(len(items), self.n_labels).scatter_add_(1, labels, items)
        return self._with_noise(self._with_noise(answers))

    def _with_noise(self, answers: Tensor) -> Tensor:
        return (1 - self.label_noise) * answers + self.label_noise / self.n_labels


def predictors_of(sequence_set: SequenceSet, bank: np.ndarray) -> Predictors:
    """Return the predictors that a set asks for. bank: its exemplars. Raises StudyError as `empirical_moments` does."""
    spec = sequence_set.bank
    if sequence_set.strategy.predictors == "exact":
        moments = exact_moments(spec)
    else:
        exemplars = bank[: spec.shape.n_train_classes, : spec.shape.n_train_exemplars]
        moments = empirical_moments(torch.from_numpy(exemplars))
    return Predictors.of(moments, sequence_set.recipe)


def _squared_distances(rows: Tensor, columns: Tensor, covariance: Tensor) -> Tensor:
    """Return (x - y)' covariance^-1 (x - y) of rows [..., A, I] and columns [..., B, I], [..., A, B]."""
    root = torch.linalg.cholesky(covariance)
    rows, columns = (torch.linalg.solve_triangular(root.mT, part, upper=True, left=False) for part in (rows, columns))
    squares = rows.square().sum(-1, keepdim=True) + columns.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * rows @ columns.mT).clamp(min=0)
