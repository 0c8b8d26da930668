"""The frozen sequences of an evaluator set, and their file."""

from pathlib import Path

import numpy as np
import torch

from icl_transience.sequences import draw, predictors
from icl_transience.specs.evaluators import STRATEGY, SequenceSet, evaluator_recipe
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.store import hdf5


def write_sequences(path: Path, sequence_set: SequenceSet, bank: np.ndarray) -> None:
    """Draw every evaluator's sequences and write them: a top-level group an evaluator.

    labels int32 [N, C+1] (the target last), classes and exemplars int32 [N, C+1], and examples float32 [N, C+1, I],
    embedded. Of a bank of images there are no examples, which would take more room than the bank: readers look
    images up, by sequences/views.py. Where models are compared with ideal predictors, copier and memoriser, in the
    group of the evaluator on whose sequences, are their probabilities of all labels, float32 [N, labels].
    """
    with hdf5.writing(path, "sequences", sequence_set.id) as file:
        file.attrs["spec"] = canonical(identity_values(sequence_set))
        for name in sequence_set.evaluators:
            recipe = evaluator_recipe(name, sequence_set.recipe, sequence_set.replacement)
            numbers = torch.arange(sequence_set.sequences)
            source = sequence_set.seed, f"evaluator/{name}", numbers
            drawn = draw.draw(recipe, sequence_set.bank.shape, *source)
            group = file.create_group(name)
            group.attrs["recipe"] = canonical(identity_values(recipe))
            for part in ("classes", "exemplars", "labels"):
                group[part] = getattr(drawn, part).numpy().astype(np.int32)
            if sequence_set.bank.images is None:
                group["examples"] = draw.examples(recipe, torch.from_numpy(bank), drawn, *source).numpy()
        if STRATEGY in sequence_set.curves:
            known = predictors.predictors_of(sequence_set, bank)
            name = sequence_set.strategy.evaluator
            examples = torch.from_numpy(hdf5.array(file, f"{name}/examples"))
            labels = torch.from_numpy(hdf5.array(file, f"{name}/labels")).long()
            file[f"{name}/copier"] = known.copier(examples, labels[:, :-1]).float().numpy()
            file[f"{name}/memoriser"] = known.memoriser(examples[:, -1]).float().numpy()
