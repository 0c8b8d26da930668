"""Count the kernels that a GPU would launch for a piece of work, without one: by tracing it on meta tensors.

What counts as how many was read in PyTorch's sources (2.13): a view is none, most operations are one; a product with a
bias copies the bias first; the fused optimizer goes through lists of arrays in pieces; PyTorch's own gradient of an
embedding sorts where it has many indices. A product may be two launches where cuBLAS splits its inner axis, which only
a device shows.
"""

import math
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from icl_transience.engines.state import State
from icl_transience.specs.model import parameter_shapes
from icl_transience.specs.runs import PackSpec

# fmt: off
VIEWS = {
    "view", "_unsafe_view", "reshape", "expand", "transpose", "permute", "unsqueeze", "squeeze", "slice", "select",
    "detach", "alias", "t", "unbind", "split", "split_with_sizes", "as_strided", "empty", "empty_like", "new_empty",
    "empty_strided", "new_empty_strided", "_reshape_alias", "lift_fresh", "unfold", "unflatten",
}
# fmt: on
# Launches of what is more than one.
SEVERAL = {"baddbmm": 2, "addmm": 2, "slice_backward": 2, "select_backward": 2, "nll_loss_backward": 2, "sort": 2}
# Of builds for CUDA below 13; later ones take seven times as many at a time.
# A launch of the fused optimizer takes so many arrays, and so many pieces of so many numbers, at most.
FUSED_ARRAYS, FUSED_PIECES, PIECE = 36, 320, 65_536
FOREACH_ARRAYS, NORMED_ARRAYS = 110, 400
# A launch that joins arrays takes so many.
JOINED_ARRAYS = 128
# Below so many indices the gradient of an embedding is two launches, above it sorts.
FEW_INDICES = 3072
# What makes the host wait for the device.
WAITS = {"_local_scalar_dense", "nonzero", "_unique2", "is_nonzero", "equal", "masked_select"}


class Launches(TorchDispatchMode):
    """counts: operation -> launches, of those within the block. waits: operation -> how often the host waits."""

    def __init__(self):
        super().__init__()
        self.counts, self.waits = Counter[str](), Counter[str]()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        if name in ("_fused_adam_", "_fused_adamw_", "_fused_sgd_"):
            self.counts[name] += pieces_of(args[0], FUSED_ARRAYS)
            return None
        if name.startswith("_foreach_"):
            self.counts[name] += pieces_of(args[0], FOREACH_ARRAYS)
            if name == "_foreach_norm":  # zeros before, and sums of arrays' pieces after
                self.counts[name] += 1 + math.ceil(len(args[0]) / NORMED_ARRAYS)
            return func(*args, **(kwargs or {}))
        found = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        across = {leaf.device.type for leaf in given + made if leaf.dim()} > {"meta"}
        self.waits[name] += name in WAITS or (name in ("_to_copy", "copy_") and across)
        if name not in VIEWS and any(leaf.is_meta for leaf in made):
            few = name == "embedding_dense_backward" and given[1].numel() <= FEW_INDICES
            many = name == "embedding_dense_backward" and not few
            joined = math.ceil(len(args[0]) / JOINED_ARRAYS) if name in ("cat", "stack") else 1
            self.counts[name] += 2 * few + 14 * many or SEVERAL.get(name, joined)
        return found


def pieces_of(arrays: Iterable[Tensor], most: int) -> int:
    """Launches of an operation that takes `most` arrays at a time, and FUSED_PIECES pieces of them."""
    sizes = [array.numel() for array in arrays]
    pieces = sum(math.ceil(size / PIECE) for size in sizes)
    return max(math.ceil(len(sizes) / most), math.ceil(pieces / FUSED_PIECES))


def meta_state(pack: PackSpec) -> tuple[State, Tensor]:
    """(state, embeddings) of a pack on the meta device: shapes without numbers."""
    run, lanes = pack.run, len(pack.lanes)
    shapes = parameter_shapes(run.model, run.bank.shape.width, run.n_labels, run.recipe.context)

    def part() -> dict[str, Tensor]:
        return {name: torch.empty(lanes, *shape, device="meta") for name, shape in shapes.items()}

    state = State(
        part(), part(), part(), 0, torch.zeros(lanes, device="meta"), torch.zeros(lanes, dtype=torch.int64).to("meta")
    )
    shape = run.bank.shape
    return state, torch.empty(shape.n_classes, shape.n_exemplars, shape.width, device="meta")
