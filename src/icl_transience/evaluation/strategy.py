"""Where a model stands between two ideal predictors, on the frozen sequences of one evaluator.

With d the mean over the sequences of the symmetrised Kullback-Leibler divergence between two answers (half the sum of
both directions, over all labels, in nats), a model stands between copier A and memoriser B at

    r = (d(model, B) - d(model, A)) / d(A, B), clamped to -1 ... 1        copier_weight = (r + 1) / 2

(Wurgaft et al. 2025): 1 is where the model answers as the copier, 0 where it answers as the memoriser. Means are taken
before the ratio, since on a sequence about which both predictors agree there is nothing between them. The divergence is
no distance: a model far from both can lie outside, and is clamped.

A share `floor` of every answer, the model's and the predictors' alike, is spread over all labels first: the copier
excludes all labels that are not in the context, of which any model's smallest probability would be infinitely far.
The smaller it is, the more the last bits of certainty count; 0, 1/2 (as far from the one as from the other) and 1 mean
the same at every floor.

Letters for shapes as in evaluation/evaluate.py; L labels, N sequences.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import torch
from torch import Tensor

from icl_transience.engines.answers import EagerForward
from icl_transience.evaluation.metrics import mean_and_error
from icl_transience.model.transformer import Parameters
from icl_transience.specs.compute import EVALUATION_BATCH, context_of
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import STRATEGY_METRICS, SequenceSet
from icl_transience.specs.runs import Run
from icl_transience.store import hdf5


def with_share(probabilities: Tensor, share: float) -> Tensor:
    """Return probabilities [..., L] of which a share is spread evenly over all labels."""
    return (1 - share) * probabilities + share / probabilities.shape[-1]


def divergence(one: Tensor, other: Tensor) -> Tensor:
    """Return the symmetrised Kullback-Leibler divergence of probabilities [..., L], all above 0: [...], in nats."""
    return ((one - other) * (one.log() - other.log())).sum(-1) / 2


def copier_weight(from_copier: Tensor, from_memoriser: Tensor, between: Tensor) -> tuple[Tensor, Tensor]:
    """Return copier_weight and its standard error over sequences, [S] each.

    from_copier, from_memoriser: divergences of the model [S, N]. between: of the predictors from each other, [N]. The
    error is that of a ratio of means, to first order; where the weight is clamped, that of the ratio before.
    """
    whole = between.mean()
    ratio = (from_memoriser - from_copier).mean(1) / whole
    residual = (from_memoriser - from_copier - ratio[:, None] * between) / (2 * whole)
    return (ratio.clamp(-1, 1) + 1) / 2, mean_and_error(residual)[1]


@dataclass(frozen=True)
class StrategyEvaluation:
    """The sequences on which models are compared with ideal predictors, what these answer there, and the model.

    copier, memoriser: probabilities of labels, the floor among them, float64 [N, L]. examples [N, C+1, I].
    labels: int64 [N, C+1].
    """

    copier: Tensor
    memoriser: Tensor
    forward: EagerForward
    examples: Tensor
    labels: Tensor
    floor: float

    @classmethod
    def of(
        cls, run: Run, sequence_set: SequenceSet, frozen: h5py.File, sequences: tuple[Tensor, Tensor]
    ) -> "StrategyEvaluation":
        """Return what evaluates the models of a run. sequences: examples and labels as evaluation has them.

        frozen: the set's open file. Raises StoreError where its predictors know other labels than the model, and
        StudyError where they answer alike throughout.
        """
        examples, labels = sequences
        asked, path = sequence_set.strategy, Path(frozen.filename)
        copier, memoriser = (
            torch.from_numpy(hdf5.array(frozen, f"{asked.evaluator}/{name}")).to(labels.device).double()
            for name in ("copier", "memoriser")
        )
        if copier.shape[1] != run.n_labels:
            raise hdf5.unusable(path, f"predictors know {copier.shape[1]} labels, the model {run.n_labels}")
        copier, memoriser = (with_share(answers, asked.floor) for answers in (copier, memoriser))
        if not float(divergence(copier, memoriser).mean()) > 0:
            raise StudyError(
                f"{path}: copier and memoriser answer alike on all sequences of `{asked.evaluator}`, so that nothing "
                "lies between them: choose another `evaluation.strategy.evaluator`"
            )
        # The native kernels give no logits of all labels.
        forward = EagerForward(run.model, context_of(sequence_set, asked.evaluator), run.numerics, labels.device)
        return cls(copier, memoriser, forward, examples, labels, asked.floor)

    @torch.no_grad()
    def evaluate(self, parameters: Parameters) -> Tensor:
        """Return mean and standard error of STRATEGY_METRICS, [S, len(STRATEGY_METRICS), 2].

        parameters: name -> [S, …].
        """
        self.forward.load(parameters)
        parts = []
        for first in range(0, len(self.labels), EVALUATION_BATCH):
            part = slice(first, first + EVALUATION_BATCH)
            logits = self.forward.logits(self.examples[part], self.labels[part, :-1])
            model = with_share(logits.double().softmax(-1), self.floor)
            from_each = divergence(model, self.copier[part]), divergence(model, self.memoriser[part])
            parts.append(torch.stack(from_each, dim=-1))
        return strategy_metrics(torch.cat(parts, dim=1), divergence(self.copier, self.memoriser))


def strategy_metrics(divergences: Tensor, between: Tensor) -> Tensor:
    """Return mean and standard error of STRATEGY_METRICS, [S, len(STRATEGY_METRICS), 2].

    divergences: from copier and memoriser, [S, N, 2]. between: of these from each other, [N].
    """
    from_copier, from_memoriser = divergences.unbind(-1)
    columns = {
        "copier_weight": copier_weight(from_copier, from_memoriser, between),
        "copier_divergence": mean_and_error(from_copier),
        "memoriser_divergence": mean_and_error(from_memoriser),
    }
    return torch.stack([torch.stack(columns[name], dim=-1) for name in STRATEGY_METRICS], dim=1)
