"""A run's data for other people's code: files that the authors' JAX code (github.com/aadityasingh/icl-dynamics) reads.

Two files, since it takes every top-level group of an evaluator file for an evaluator:

{run}.h5, for `--load_eval_data`: a group for each of the run's evaluators, and one of training sequences, each with
    examples float32 [N, C+1, D], labels int32 [N, C+1] and nothing else, the query and its label last
{run}.bank.h5, for `--data_file` with `--data_path_in_file embeddings`: the bank as the pipeline keeps it, float32
    [classes, exemplars, dim], those to train on first

Of a bank of images, an image's pixels in [0, 1] are its D coordinates, all classes are written, each view of a drawing
by itself, and the attribute `image` says which [side, side, channels] the coordinates are.
"""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch

from icl_transience.sequences import draw, views
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import Export, Run
from icl_transience.specs.sources import ImageShape
from icl_transience.store import atomic, hdf5
from icl_transience.store.bank_file import load

# Their code keeps the name `train` for itself.
_NAMES = {"train": "train_eval"}
TRAINING_SEQUENCES = "train_sequences"
_INDICES = ("classes", "exemplars")

# Training sequences embedded at a time.
_CHUNK = 1 << 10


def write_export(path: Path, bank_path: Path, export: Export, bank_file: Path, sequences_file: Path) -> None:
    """Write {run}.h5 to `path` and {run}.bank.h5 to `bank_path`, from the bank's and the evaluators' files."""
    recipe = export.run.recipe
    exemplars, spec = torch.from_numpy(load(bank_file, export.run.bank)), export.run.bank
    with (
        hdf5.reading(sequences_file, "sequences", export.sequence_set.id) as frozen,
        hdf5.writing(path, "export", export.id) as file,
    ):
        file.attrs["spec"] = canonical(identity_values(export))
        file.attrs["arguments"] = list(arguments(export.run, bank_path.name, path.name))
        file.attrs["differences"] = [*differences(recipe), *differences_of_training(export.run)]
        for name in export.sequence_set.evaluators:
            labels = hdf5.array(frozen, f"{name}/labels")
            shape = *labels.shape, spec.shape.width
            group = _group(file, _NAMES.get(name, name), str(frozen[name].attrs["recipe"]), shape)
            hdf5.dataset(group, "labels")[:] = labels
            if spec.images is None:
                hdf5.dataset(group, "examples")[:] = hdf5.array(frozen, f"{name}/examples")
                continue
            for first in range(0, len(labels), _CHUNK):
                here = slice(first, first + _CHUNK)
                chosen = (torch.from_numpy(hdf5.dataset(frozen, f"{name}/{part}")[here]) for part in _INDICES)
                hdf5.dataset(group, "examples")[here] = _pixels(exemplars, spec.images, *chosen)
        shape = export.training_sequences, recipe.context + 1, spec.shape.width
        group = _group(file, TRAINING_SEQUENCES, canonical(identity_values(recipe)), shape)
        count = export.training_sequences
        for first, last in itertools.pairwise(sorted({*range(0, count, _CHUNK), *export.run.changes(0, count), count})):
            positions = torch.arange(first, last)
            source = export.seed.data, draw.TRAINING_STREAM, positions
            recipe = export.run.at(first).recipe
            drawn = draw.draw(recipe, spec.shape, *source)
            here = slice(first, last)
            if spec.images:
                examples = _pixels(exemplars, spec.images, drawn.classes, drawn.exemplars)
            else:
                examples = draw.examples(recipe, exemplars, drawn, *source).numpy()
            hdf5.dataset(group, "examples")[here] = examples
            hdf5.dataset(group, "labels")[here] = drawn.labels.numpy()
    if spec.images:
        _write_images(bank_path, export, exemplars)
        return
    with atomic.replacing(bank_path) as temporary:
        shutil.copyfile(bank_file, temporary)


def _pixels(images: torch.Tensor, shape: ImageShape, classes: torch.Tensor, exemplars: torch.Tensor) -> np.ndarray:
    """Return images [stored classes, exemplars, side, side, channels] at indices [...], float32 [..., D] in [0, 1]."""
    return views.gather(images, shape.views, classes.long(), exemplars.long()).flatten(-3).numpy()


def _write_images(path: Path, export: Export, images: torch.Tensor) -> None:
    """Write a bank of images as an array of all its classes, a class at a time."""
    spec, shape = export.run.bank, export.run.bank.shape
    assert spec.images
    with hdf5.writing(path, "export", f"{export.id}/bank") as file:
        file.attrs["spec"] = canonical(identity_values(spec))
        file.attrs["image"] = (spec.images.side, spec.images.side, spec.images.channels)
        file.attrs["n_train_classes"], file.attrs["n_train_exemplars"] = shape.n_train_classes, shape.n_train_exemplars
        size = shape.n_classes, shape.n_exemplars, shape.width
        # Drawings are mostly paper: compressed they take a tenth.
        array = file.create_dataset("embeddings", size, "float32", chunks=(1, *size[1:]), compression="gzip")
        every = torch.arange(shape.n_exemplars)
        for number in range(shape.n_classes):
            array[number] = _pixels(images, spec.images, torch.full_like(every, number), every)
            file.check_disk()


def _group(file: h5py.File, name: str, recipe: str, shape: tuple[int, ...]) -> h5py.Group:
    """Return a new group for the sequences of an evaluator or of training."""
    group = file.create_group(name)
    group.attrs["recipe"] = recipe
    group.create_dataset("examples", shape, dtype="float32")
    group.create_dataset("labels", shape[:2], dtype="int32")
    return group


def arguments(run: Run, data_file: str, evaluator_file: str) -> Iterator[str]:
    """Yield the authors' command-line arguments for data as close to the run's as theirs can be; see `differences`."""
    shape, recipe = run.bank.shape, run.recipe
    yield from ("--data_type", "file", "--data_file", data_file, "--data_path_in_file", "embeddings")
    yield from ("--class_split", f"{shape.n_train_classes}", f"{shape.n_classes - shape.n_train_classes}", "0")
    yield from ("--exemplar_split", f"{shape.n_train_exemplars}", f"{shape.n_exemplars - shape.n_train_exemplars}", "0")
    yield from ("--load_eval_data", evaluator_file)
    yield from ("--model_output_classes", f"{run.n_labels}", "--train_context_len", f"{recipe.context}")
    kinds = [(share, kind) for share, kind in recipe.kinds() if share]
    for name, value in (
        ("mixing_coeffs", lambda share, kind: f"{share:g}"),
        ("pt_burstiness", lambda share, kind: f"{kind.burstiness}"),
        ("pt_distract", lambda share, kind: f"{kind.distractor:d}"),
        ("pt_no_support", lambda share, kind: f"{kind.support == 'none':d}"),
        ("pt_unique_rest", lambda share, kind: f"{kind.support == 'none':d}"),
    ):
        yield from (f"--{name}", *(value(*part) for part in kinds))
    yield from ("--zipf_alpha", f"{recipe.zipf.alpha:g}", "--noise_scale_train", f"{recipe.input_noise:g}")
    if all(kind.match == 1 for _, kind in kinds):
        yield "--match_query_and_distractors"
    if all(kind.labels == "copied" for _, kind in kinds):
        yield "--assign_query_label_random"
    if all(kind.labels == "relabelled" for _, kind in kinds):
        pairs, held_out = recipe.relabelling.n_pairs, recipe.relabelling.n_holdout_pairs
        yield from ("--fs_relabel", f"{recipe.relabelling.labels}")
        yield from ("--fs_relabel_split", f"{pairs - held_out}", f"{held_out}", "0")


def differences(recipe: Recipe) -> Iterator[str]:
    """Yield in what the authors' own training sequences, drawn by these `arguments`, are not the run's."""
    kinds = [kind for share, kind in recipe.kinds() if share]
    if recipe.zipf.alpha and recipe.zipf.ranks == "permuted":
        yield "zipf: their ranks are the bank's order, the run's are permuted"
    if recipe.labelling.labels:
        yield "labelling: their classes each have a label of their own"
    if recipe.label_noise:
        yield "label_noise: they have none"
    if recipe.pool:
        yield "pool: their stream is endless"
    if any(kind.match for kind in kinds) and not all(kind.match == 1 for kind in kinds):
        yield "match: they match exemplars in all sequences or in none"
    if not all(kind.replacement for kind in kinds):
        yield "replacement: they draw exemplars with replacement"
    relabelled = [kind.labels == "relabelled" for kind in kinds]
    if any(relabelled) and not all(relabelled):
        yield "labels: they relabel in all sequences or in none"
    if all(relabelled) and recipe.relabelling.n_holdout_pairs:
        yield "relabelling: as many pairs of labels are held out, but others: they draw them from a seed of their own"
    if any(kind.labels == "swapped" for kind in kinds):
        yield "labels: they do not swap while training"
    if any(kind.labels == "copied" for kind in kinds) and not all(kind.labels == "copied" for kind in kinds):
        yield "labels: they copy the query's label in all sequences or in none"


def differences_of_training(run: Run) -> Iterator[str]:
    """Yield in what training itself is not what `arguments` ask for."""
    if run.interventions:
        yield f"interventions: theirs is as before the first, at {run.interventions[0].at} sequences seen, to the end"
    if run.forgetting.every:
        yield "forgetting: their label embeddings and unembedding are drawn once"
    if run.activation_interventions:
        yield "activation_interventions: theirs trains without any"
    if run.freeze.parameters:
        yield "freeze: all of their parameters move"
    if run.start_from:
        yield "start_from: theirs begins at random weights"
