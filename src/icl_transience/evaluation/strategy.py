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
import numpy as np
import torch
from torch import Tensor

from icl_transience.engines.answers import EagerForward
from icl_transience.evaluation import predictors
from icl_transience.evaluation.metrics import mean_and_error
from icl_transience.evaluation.predictors import Predictors
from icl_transience.model.transformer import Parameters
from icl_transience.specs.compute import EVALUATION_BATCH, context_of
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import STRATEGY_METRICS, SequenceSet
from icl_transience.specs.runs import Run
from icl_transience.store import hdf5


@dataclass(frozen=True)
class IdealAnswers:
    """What both predictors answer, the floor among it: probabilities float64 [N, L]."""

    copier: Tensor
    memoriser: Tensor


def ideal_answers(sequence_set: SequenceSet, frozen: h5py.File, bank: np.ndarray | None) -> IdealAnswers:
    """Return what both predictors answer on the sequences that a set names for them.

    frozen: the set's open file. bank: its exemplars, which the empirical predictors need. Raises StudyError where they
    are not given, or where both predictors answer alike throughout.
    """
    strategy, spec = sequence_set.strategy, sequence_set.bank
    if strategy.predictors == "exact":
        moments = predictors.exact_moments(spec)
    elif bank is None:
        raise StudyError(f"{sequence_set.id}: empirical predictors are of bank {spec.id}: give its file as --bank")
    else:
        exemplars = bank[: spec.shape.n_train_classes, : spec.shape.n_train_exemplars]
        moments = predictors.empirical_moments(torch.from_numpy(exemplars))
    known = Predictors.of(moments, sequence_set.recipe)
    examples = torch.from_numpy(hdf5.array(frozen, f"{strategy.evaluator}/examples"))
    labels = torch.from_numpy(hdf5.array(frozen, f"{strategy.evaluator}/labels")).long()
    answers = known.copier(examples, labels[:, :-1]), known.memoriser(examples[:, -1])
    found = IdealAnswers(*(predictors.with_share(one, strategy.floor) for one in answers))
    if not float(divergence(found.copier, found.memoriser).mean()) > 0:
        raise StudyError(
            f"{sequence_set.id}: copier and memoriser answer alike on all sequences of `{strategy.evaluator}`, so that "
            "nothing lies between them: choose another `evaluation.strategy.evaluator`"
        )
    return found


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

    examples [N, C+1, I], or of each lane [S, N, C+1, D]; labels int64 [N, C+1].
    """

    answers: IdealAnswers
    forward: EagerForward
    examples: Tensor
    labels: Tensor
    floor: float

    @classmethod
    def of(
        cls,
        run: Run,
        sequence_set: SequenceSet,
        frozen: h5py.File,
        sequences: tuple[Tensor, Tensor],
        bank: np.ndarray | None,
    ) -> "StrategyEvaluation":
        """Return what evaluates the models of a run. sequences: examples and labels as evaluation has them."""
        examples, labels = sequences
        context = context_of(sequence_set, sequence_set.strategy.evaluator)
        answers = ideal_answers(sequence_set, frozen, bank)
        if answers.copier.shape[1] != run.n_labels:
            raise hdf5.unusable(Path(frozen.filename), f"labels are not the {run.n_labels} of the model")
        on_device = IdealAnswers(answers.copier.to(labels.device), answers.memoriser.to(labels.device))
        # The native kernels give no logits of all labels.
        forward = EagerForward(run.model, context, run.numerics, labels.device)
        return cls(on_device, forward, examples, labels, sequence_set.strategy.floor)

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
            model = predictors.with_share(logits.double().softmax(-1), self.floor)
            ideal = self.answers.copier[part], self.answers.memoriser[part]
            parts.append(torch.stack([divergence(model, one) for one in ideal], dim=-1))
        return strategy_metrics(torch.cat(parts, dim=1), divergence(self.answers.copier, self.answers.memoriser))


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
