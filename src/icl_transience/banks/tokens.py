"""Token embeddings as classes: clusters of the rows of a language model's input embedding matrix.

k-means (faiss; the paper's LLaMA runs used it) with the bank's seed puts every row into one cluster; clusters with
enough members are classes, in a seeded order. `members` says which rows of a cluster are its exemplars: those
nearest to its centroid, or farthest points: the nearest first, then each time the one farthest from those chosen.
Which of them are held out is drawn, so that held-out exemplars are like the others.

Rows count as they are, or (`rows: unit`) by their direction. Norms of word embeddings follow the words' frequency, and
so do then the clusters: many of one rare word, some of hundreds. By direction they are of more equal sizes.

Sums run in one order, whatever the number of cores. Another build of faiss or BLAS rounds otherwise and may put a
row that lies between two clusters into the other one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import faiss
import numpy as np
import safetensors

from icl_transience.banks import encoders, padding
from icl_transience.banks.bank import Bank, seeded
from icl_transience.specs.banks import BankSpec, Tokens
from icl_transience.specs.errors import StudyError
from icl_transience.store import faults

ITERATIONS = 25
# Squares of numbers beyond these, either way, may not be float32 numbers.
_SMALLEST, _LARGEST = 1e-15, 1e15


def build(spec: BankSpec, files: Sequence[Path], log: TextIO | None = None) -> Bank:
    """Make the bank of `spec` from a safetensors file; `token` in its exemplar_table is the row of every exemplar."""
    tokens, shape = spec.parameters_of(Tokens), spec.shape
    table = read_table(files[0], tokens.tensor)
    rows = table[tokens.skip_rows : len(table) - tokens.skip_last_rows]
    warnings = [*_whole_numbers(rows, tokens.tensor), *padding.repeated(rows, spec, len(table))]
    if tokens.rows == "unit":
        warnings += padding.short(rows, spec, len(table))
        rows = _directions(rows, tokens.skip_rows)
    centroids, assigned = cluster(rows, tokens.clusters, spec.seed)
    sizes = np.bincount(assigned, minlength=tokens.clusters)
    large = np.flatnonzero(sizes >= shape.n_exemplars)
    by_distance = {label: _members(rows, centroids[label], assigned, label) for label in large.tolist()}
    warnings += padding.near_equal(rows, by_distance.values(), spec, len(table))
    if len(large) < shape.n_classes:
        listed = ", ".join(f"{(sizes >= n).sum()} have {n}" for n in _fewer(shape.n_exemplars))
        raise StudyError(
            f"bank.tokens: {len(large)} of {tokens.clusters} clusters have {shape.n_exemplars} members or more "
            f"(exemplars + holdout_exemplars), {shape.n_classes} are asked for (classes + holdout_classes): "
            f"ask for fewer classes or fewer exemplars ({listed}), or try another number of `clusters`"
        )
    classes = seeded(spec.seed, "tokens/classes").permutation(large)[: shape.n_classes]
    choose = {"nearest": nearest, "farthest": farthest}[tokens.members]
    order = seeded(spec.seed, "tokens/exemplars")
    chosen = np.empty((shape.n_classes, shape.n_exemplars), dtype=np.int64)
    for number, label in enumerate(classes):
        members = np.flatnonzero(assigned == label)
        picked = choose(rows[members], centroids[label], shape.n_exemplars)
        chosen[number] = order.permutation(members[picked])
    exemplars = rows[chosen]
    training = exemplars[: shape.n_train_classes, : shape.n_train_exemplars]
    if tokens.encoder == "pca":
        embeddings = encoders.fit_pca(training, tokens.dim)(exemplars)
    else:
        embeddings = encoders.fit_scale(training, tokens.scale)(exemplars)
    return Bank(
        embeddings=embeddings,
        n_train_classes=shape.n_train_classes,
        n_train_exemplars=shape.n_train_exemplars,
        class_table={"cluster_size": sizes[classes]},
        exemplar_table={"token": chosen + tokens.skip_rows},
        warnings=tuple(warnings),
    )


def _members(rows: np.ndarray, centroid: np.ndarray, assigned: np.ndarray, label: int) -> np.ndarray:
    """Return the numbers of the rows in a cluster, nearest to its centroid first."""
    members = np.flatnonzero(assigned == label)
    return members[nearest(rows[members], centroid, len(members))]


def _whole_numbers(rows: np.ndarray, tensor: str) -> list[str]:
    """Return a warning where all entries are whole numbers, as codes are that were written as floats."""
    if not (rows == np.rint(rows)).all():
        return []
    return [
        f"bank.tokens: all {rows.size:,} entries of {tensor} are whole numbers, from {rows.min():g} to {rows.max():g}: "
        "are they codes of a quantised table?"
    ]


def _fewer(n_exemplars: int) -> Iterator[int]:
    """Yield some numbers of exemplars below the one asked for, as suggestions."""
    yield from sorted({max(1, n_exemplars * part // 4) for part in (1, 2, 3)}, reverse=True)


def read_table(path: Path, tensor: str) -> np.ndarray:
    """Read the tensor [tokens, dim] as float32. Raises StudyError where an entry is not a finite number."""
    # PyTorch reads bfloat16, for which NumPy has no type.
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stored = file.get_tensor(tensor)
    except (OSError, safetensors.SafetensorError) as error:
        damaged = StudyError(f"{path}: {tensor} cannot be read ({error}): get the file again")
        raise (faults.unreadable(path, error) or damaged) from error
    table = stored.float().numpy()
    if not_numbers := int(np.isnan(table).sum()):
        row = int(np.isnan(table).any(axis=1).argmax())
        raise StudyError(
            f"{path}: {tensor} has {not_numbers} entries that are not numbers (NaN), the first in row {row}: "
            "get the file again"
        )
    if infinite := int(np.isinf(table).sum()):
        row, dtype = int(np.isinf(table).any(axis=1).argmax()), str(stored.dtype).removeprefix("torch.")
        if not stored.isinf().any():
            raise StudyError(
                f"{path}: {tensor} has {infinite} entries beyond the range of float32, the first in row {row}: "
                f"write it at a smaller scale (it is {dtype})"
            )
        raise StudyError(
            f"{path}: {tensor} has {infinite} infinite entries, the first in row {row}: values beyond the range "
            f"of {dtype} overflowed when it was written: get the file in bfloat16 or float32"
        )
    return table


def _directions(rows: np.ndarray, first: int) -> np.ndarray:
    """Divide each row by its norm. first: the number of the first row, for the message about a row of zeros."""
    if not rows.any(axis=1).all():
        raise StudyError(
            f"bank.tokens.rows is 'unit', but row {first + int(rows.any(axis=1).argmin())} is all zeros and has no "
            "direction: say `rows: raw`, or leave rows out with `skip_rows` or `skip_last_rows`"
        )
    with np.errstate(over="ignore"):  # told apart below
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
    extreme = ~((norms > _SMALLEST) & (norms < _LARGEST))[:, 0]
    if extreme.any():
        # Their size does not matter to their direction.
        rows = rows.copy()
        rows[extreme] /= np.abs(rows[extreme]).max(axis=1, keepdims=True)
        norms[extreme] = np.linalg.norm(rows[extreme], axis=1, keepdims=True)
    return rows / norms


def cluster(rows: np.ndarray, n_clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster float32 [N, dim] by k-means; return centroids [n_clusters, dim] and each row's cluster, int64 [N]."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        kmeans = faiss.Kmeans(
            rows.shape[1],
            n_clusters,
            niter=ITERATIONS,
            seed=int(seeded(seed, "tokens/clusters").integers(2**31)),
            # All rows count, and small clusters are no reason to warn: they are left out later.
            min_points_per_centroid=1,
            max_points_per_centroid=len(rows),
        )
        rows = np.ascontiguousarray(rows)
        kmeans.train(rows)
        _, assigned = kmeans.index.search(rows, 1)
    finally:
        faiss.omp_set_num_threads(threads)
    return np.asarray(kmeans.centroids), assigned[:, 0]


def nearest(rows: np.ndarray, centroid: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` rows nearest to the centroid, nearest first."""
    return _distances(rows, centroid).argsort(kind="stable")[:count]


def farthest(rows: np.ndarray, centroid: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of `count` rows far apart: the nearest to the centroid, then the farthest from all chosen."""
    chosen = [int(_distances(rows, centroid).argmin())]
    gap = _distances(rows, rows[chosen[0]])
    while len(chosen) < count:
        gap[chosen[-1]] = -1.0  # never again, even where rows are equal
        chosen.append(int(gap.argmax()))
        gap = np.minimum(gap, _distances(rows, rows[chosen[-1]]))
    return np.array(chosen)


def _distances(rows: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distances of rows [N, dim] to a point [dim]."""
    return ((rows - point) ** 2).sum(axis=1)
