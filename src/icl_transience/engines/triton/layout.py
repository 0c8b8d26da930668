"""Sizes of the engine `triton`: where arrays stand, which tiles kernels take, what a step reads, writes and computes.

Letters for shapes as in model/transformer.py. Nothing here needs Triton.
"""

import bisect
import math
from dataclasses import dataclass
from functools import cached_property

from icl_transience.specs.model import parameter_shapes
from icl_transience.specs.runs import Run

# Arrays begin at multiples of so many numbers: 64 bytes, so that every load of a tile is of whole vectors.
ALIGNED = 16
# Scores that a program holds at a time.
ATTENTION = 8192
# Numbers that a program takes where all arrays are gone over alike.
CHUNK = 4096


def power_of_two(number: int, least: int = 16) -> int:
    """Return the smallest power of two that is neither below `number` nor below `least`."""
    return max(least, 1 << (number - 1).bit_length())


@dataclass(frozen=True)
class Tile:
    """What a program of a kernel takes at a time, and how it is compiled.

    rows, columns: of a matrix. stages: of loads that are under way at a time. registers: of a thread at most; None: as
    the compiler likes.
    """

    rows: int
    columns: int
    warps: int = 4
    stages: int = 2
    registers: int | None = None

    @property
    def options(self) -> dict[str, int]:
        """Return what the compiler is told."""
        limit = {} if self.registers is None else {"maxnreg": self.registers}
        return {"num_warps": self.warps, "num_stages": self.stages} | limit


# Of kernels that have sizes of their own; of a row of the labels' table, of CHUNK numbers.
PLAIN, ROW, CHUNKS = Tile(0, 0), Tile(1, 0, warps=1), Tile(1, CHUNK, warps=8)


@dataclass(frozen=True)
class Layout:
    """Everything that kernels are told of a run. capability: of the GPU, (9, 0) an H100's."""

    run: Run
    capability: tuple[int, int] = (9, 0)

    @property
    def tokens(self) -> int:
        """Return T."""
        return 2 * self.run.recipe.context + 1

    @property
    def rows(self) -> int:
        """Return N, the tokens of a batch."""
        return self.run.batch_size * self.tokens

    @property
    def hidden(self) -> int:
        """Return F."""
        return self.run.model.mlp_ratio * self.run.model.width

    @property
    def operand_width(self) -> int:
        """Return W, the columns of `operands`; see blocks.py."""
        width = self.run.model.width
        return 8 * width + 2 * self.hidden if self.hidden else 6 * width

    @property
    def batch(self) -> int:
        """Return B rounded up to what a tile can have."""
        return power_of_two(self.run.batch_size)

    @property
    def _small_rows(self) -> int:
        """Return the fewest rows that hold a sequence."""
        return 32 if self.tokens <= 32 else 64

    @property
    def _wide(self) -> bool:
        return self.run.model.width > 64

    @property
    def _hopper(self) -> bool:
        return (9, 0) <= self.capability < (10, 0)

    @property
    def in_three_products(self) -> bool:
        """Say whether tensor cores take products in float32, of operands in two parts; wide ones leave no registers."""
        return self.run.numerics == "float32" and not self._wide

    @cached_property
    def forward(self) -> Tile:
        """Return tokens, and columns of its matrices, that a program of the forward pass takes.

        At width 64 on a Hopper GPU these, and those below, are the fastest of what was measured with 12 blocks on an
        H200: for 1 lane and for 64 together, in bfloat16 for 64. Elsewhere they are those with which the compiler
        spills least; tests/test_triton_compiled.py has bounds. 64 rows and 32 columns are for no forward pass: in
        bfloat16 it read out of range. So `specs.compute.TRITON_CONTEXTS` keeps sequences at width 32 within 32 rows.
        """
        numerics, rows, columns = self.run.numerics, self._small_rows, min(64, self.run.model.width)
        if self._wide:
            return Tile(rows, 16 if numerics == "float32" else 64, warps=8, stages=1)
        if not self._hopper:
            return Tile(rows, columns)
        if numerics == "float32":
            return Tile(rows, columns, stages=1)
        if numerics == "bfloat16" and columns == 64:
            return Tile(64, columns, stages=1, registers=168)
        return Tile(rows, columns, registers=128)

    @cached_property
    def backward(self) -> Tile:
        """Return tokens and columns that a program of a block's backward pass takes; see `forward`."""
        numerics, rows, columns = self.run.numerics, self._small_rows, min(64, self.run.model.width)
        if self._wide:
            return Tile(rows, 16 if numerics == "float32" else 64, warps=8, stages=1)
        if numerics == "float32":
            return Tile(64 if self._hopper else rows, 32, warps=8, stages=1)
        if numerics == "bfloat16" and self._hopper and columns == 64:
            return Tile(64, columns, stages=1, registers=168)
        return Tile(rows, columns, warps=4 if rows == 32 else 8)

    @cached_property
    def matrices(self) -> Tile:
        """Return rows of a gradient's square tiles, tokens that are added up at a time; see `forward`."""
        tokens = 64 if self._hopper or self.run.numerics != "float32" else 32
        return Tile(min(64, self.run.model.width), 128 if self.run.numerics == "bfloat16" else tokens, stages=3)

    @cached_property
    def labels(self) -> Tile:
        """Return labels that a program of the head, or of the table, takes (as rows and as columns)."""
        if self.run.numerics == "float32":
            return Tile(32, 32, warps=8)
        if self._hopper and not self._wide:
            return Tile(64, 64)
        return Tile(32, 32, warps=8 if self._wide else 4)

    @property
    def label_tiles(self) -> int:
        """Return how many such programs a lane has."""
        return -(-self.run.n_labels // self.labels.rows)

    def sequences(self, rows: int) -> int:
        """Return G, how many whole sequences a program of so many rows takes."""
        return rows // self.tokens

    def attended(self, rows: int) -> int:
        """Return NB, of how many pairs of a sequence and a head such a program takes attention at a time."""
        heads = self.run.model.heads
        most = max(1, ATTENTION // power_of_two(self.tokens) ** 2)
        return min(most, heads * power_of_two(self.sequences(rows), 1))

    def attention_steps(self, rows: int) -> int:
        """Return in how many steps it takes them: of some heads of a sequence, or all of several; see blocks.pairs."""
        heads, together = self.run.model.heads, self.attended(rows)
        at_a_time = min(heads, together)
        return -(-self.sequences(rows) // (together // at_a_time)) * (heads // at_a_time)

    @property
    def operand_strides(self) -> tuple[int, int]:
        """Return how far rows, and columns, of `operands` are apart.

        Tensor cores take bfloat16 as it comes. Other operands they want with what is added up side by side: tokens.
        """
        return (self.operand_width, 1) if self.run.numerics == "bfloat16" else (1, self.rows)

    def programs(self, rows: int) -> int:
        """Return how many programs of so many rows a lane has."""
        return -(-self.run.batch_size // self.sequences(rows))

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of a lane's parameters, in forward order."""
        run = self.run
        return parameter_shapes(run.model, run.bank.shape.width, run.n_labels, run.recipe.context)

    @cached_property
    def names(self) -> list[str]:
        """Return the names of the parameters; an array's number is its place here."""
        return list(self.shapes)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Return name -> where it begins in a lane's flat array."""
        offsets, start = {}, 0
        for name, shape in self.shapes.items():
            offsets[name] = start
            start += -(-math.prod(shape) // ALIGNED) * ALIGNED
        return offsets

    @property
    def lane_stride(self) -> int:
        """Return P, the numbers of a lane's flat array."""
        last = self.names[-1]
        return self.offsets[last] + -(-math.prod(self.shapes[last]) // ALIGNED) * ALIGNED

    @property
    def block_stride(self) -> int:
        """Return how far the parameters of two blocks are apart."""
        width, hidden = self.run.model.width, self.hidden
        mlp = 2 * width + 2 * width * hidden + hidden + width if hidden else 0
        return 2 * width + 4 * width * width + mlp

    @property
    def block_arrays(self) -> int:
        """Return how many arrays a block has."""
        return 10 if self.hidden else 4

    @property
    def block_tiles(self) -> int:
        """Return how many programs step on a block's matrices."""
        side, across = self.run.model.width // self.matrices.rows, self.hidden // self.matrices.rows
        return 4 * side * side + 2 * side * across

    @cached_property
    def chunks(self) -> list[tuple[int, int, int]]:
        """Return (array, first number, how many) of parts of CHUNK numbers at most."""
        return [
            (number, self.offsets[name] + start, min(CHUNK, math.prod(self.shapes[name]) - start))
            for number, name in enumerate(self.names)
            for start in range(0, math.prod(self.shapes[name]), CHUNK)
        ]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Return (first chunk, the one behind the last) of each array."""
        numbers = [number for number, _, _ in self.chunks]
        ends = [bisect.bisect_right(numbers, number) for number in range(len(self.names))]
        return list(zip([0, *ends], ends, strict=False))

    @property
    def parameters(self) -> int:
        """Return the parameters of a lane."""
        return sum(map(math.prod, self.shapes.values()))

    @property
    def adam_bytes(self) -> int:
        """Return the bytes that a lane's step moves for Adam: three numbers read and written a parameter, 24 bytes.

        The gradient never stands in memory. At most: rows of the labels' table that a batch does not show move later,
        once for all the steps that they missed.
        """
        return 24 * self.parameters

    @property
    def flop(self) -> int:
        """Return the FLOP of a sequence's products as kernels take them, 2 a multiply-add, padding aside.

        More than specs.compute.training_flop, which counts what the model needs: here all rows leave the last block,
        attention takes future tokens too, and backward computes again what it does not find in memory: the scores,
        the MLP's input, and the logits, these twice.

            forward   2 (C+1) I D + L T [8 D^2 + 4 m D^2 + 4 D T] + 2 D K
            backward  2 (C+1) I D + L T [(16 + 10 m) D^2 + 10 D T] + 8 D K
        """
        model, tokens = self.run.model, self.tokens
        width, ratio, square = model.width, model.mlp_ratio, model.width**2
        embedder = 2 * (self.run.recipe.context + 1) * self.run.bank.shape.width * width
        head = 2 * width * self.run.n_labels
        forward = tokens * ((8 + 4 * ratio) * square + 4 * width * tokens)
        # Towards the input, weight gradients, and what is computed again: u of the MLP, and scores.
        backward = tokens * ((16 + 8 * ratio + 2 * ratio) * square + 10 * width * tokens)
        return 2 * embedder + 5 * head + model.depth * (forward + backward)
