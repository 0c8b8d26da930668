"""The engine of Triton kernels: a step is some 30 launches however many lanes, captured as a CUDA graph on a GPU.

forward   replay, tokens, blocks_forward, head_stats, head_sums
backward  head_backward, query_backward; a block: block_backward, block_step; head_step, rows_step, embedder_step,
          vectors_step
On a GPU head_step and each block_step run beside what follows them, until the main stream waits for them.
Adam, its L2 and weight decay stand at the end of each gradient. Where a lane's gradient is clipped, or its L2
unsquared, gradients are stored first, those of labels by rows_stored, and weigh, penalize and finish step.

Nothing is added up by atomics, and no sum depends on the number of lanes: a lane's bits do not depend on its pack.
Sequences are drawn by sequences/draw.py, for many batches at a time, on the device.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from icl_transience.engines.lanes import (
    DRAW_BATCHES,
    constant_intervals,
    index_chunks,
    lanes_at,
    reset_label_embeddings,
)
from icl_transience.engines.state import State
from icl_transience.engines.triton import blocks, ends, label_rows, launching, tails
from icl_transience.engines.triton.launching import Launch
from icl_transience.engines.triton.layout import CHUNK, CHUNKS, PLAIN, ROW, Layout, Tile, power_of_two
from icl_transience.engines.triton.parts import BFLOAT16, FLOAT32
from icl_transience.engines.triton.tables import CLOCKS, STATICS, dynamics, extras, statics, stores
from icl_transience.model import transformer
from icl_transience.specs.runs import PackSpec


class TritonStep:
    """Train all lanes of a pack by Triton's kernels; on CPU tensors by Triton's interpreter alone.

    The state's tensors become views of one array [S, P] a part.
    """

    def __init__(self, pack: PackSpec, state: State, embeddings: Tensor, layout: Layout | None = None):
        """Lay out the state and all buffers. Nothing is compiled before the first step.

        layout: sizes of tiles; those for the device unless given.
        """
        self.pack, self.state, self.embeddings, self.settled = pack, state, embeddings, True
        device, lanes = embeddings.device, len(pack.lanes)
        self.layout = layout = layout or Layout(pack.run, *capability_of(device))
        parts = (state.parameters, state.first_moments, state.second_moments)
        self.parameters, self.firsts, self.seconds = (flattened(part, layout) for part in parts)
        run, model = pack.run, pack.run.model
        n, width, depth = layout.rows, model.width, model.depth
        self.operand_type = torch.bfloat16 if run.numerics == "bfloat16" else torch.float32

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(lanes, *shape, dtype=dtype, device=device)

        # All that one kernel hands to another. Nothing here is read before it is written in the same step.
        self.buffers = {
            "xs": empty(depth + 1, n, width),
            "qkv": empty(depth, n, 3 * width, dtype=self.operand_type),
            "mixed": empty(depth, n, width, dtype=self.operand_type),
            "mids": empty(depth, n, width),
            "stats": empty(layout.label_tiles, 2, layout.batch),
            "at_target": empty(layout.batch),
            "log_sums": empty(layout.batch),
            "of_sequences": empty(layout.batch),
            "dxs": empty(layout.label_tiles, layout.batch, width),
            "dx": empty(n, width),
            "dnorm": empty(run.batch_size, 2, width),
            "dnorms": empty(depth, layout.programs(layout.backward.rows), 4, width),
            "weights": empty(len(layout.chunks)),
            "sums": empty(len(layout.chunks)),
        }
        # A block's are read while those of the next one are written.
        shape = n, layout.operand_width
        self.operands = [empty(*shape, dtype=self.operand_type) for _ in range(min(2, depth))]
        # The matrices of blocks as products take them: the parameters, or these rounded, by the kernel that steps on
        # them. Vectors stand between them that nothing reads.
        first, blocks_end = layout.offsets["blocks.0.norm1.scale"], layout.offsets["norm.scale"]
        self.blocks = self.parameters[:, first:blocks_end]
        self.rounds = self.operand_type != torch.float32
        self.matrices = empty(blocks_end - first, dtype=self.operand_type) if self.rounds else self.blocks
        self.gradients: Tensor | None = None
        indices = lanes, DRAW_BATCHES, run.batch_size, run.recipe.context + 1
        self.rows, self.labels = torch.zeros(2, *indices, dtype=torch.int32, device=device)
        self.losses_ = torch.empty(DRAW_BATCHES, lanes, device=device)
        # The number of the batch among those drawn together, and of the next one.
        self.counter, self.following = (torch.zeros(1, dtype=torch.int32, device=device) for _ in range(2))
        self.last = torch.zeros(lanes, run.n_labels, dtype=torch.int32, device=device)
        arrays = len(layout.names)
        self.statics, self.finishing = (torch.zeros(lanes, arrays, STATICS, device=device) for _ in range(2))
        self.dynamics = torch.zeros(DRAW_BATCHES, lanes, CLOCKS, 3, device=device)
        self.extras = torch.zeros(lanes, arrays + 2, device=device)
        self.chunks = torch.tensor(layout.chunks, dtype=torch.int32, device=device)
        self.spans = torch.tensor(layout.spans, dtype=torch.int32, device=device)
        geometry = transformer.Geometry(model, run.recipe.context, torch.float32, device)
        self.positions = geometry.positions.contiguous()
        self.bank = embeddings.flatten(0, 1).contiguous()
        self.replays: dict[bool, Callable[[], None]] = {}
        # Of all rows of the labels' table the steps that they missed, by the kernel that takes those of a batch's rows.
        replay = self.launches(store=False)[0]
        self.make_up = replay._replace(programs=run.n_labels, arguments=replay.arguments | {"whole": 1})

    def losses(self, start: int, until: int) -> Iterator[Tensor]:
        """See interface.Step."""
        if not self.settled:  # left off within a chunk
            self._settle()
        batch_size = self.pack.run.batch_size
        snapshots = set(self.pack.run.snapshots.points(batch_size, start, until))
        for first, last in constant_intervals(self.pack, start, until):
            lanes = lanes_at(self.pack, first)
            reset_label_embeddings(self.pack, self.state, first)
            replay = self._begin(first)
            for rows, labels in index_chunks(lanes, batch_size, self.embeddings, first, last):
                batches = rows.shape[1] // batch_size
                self.rows[:, :batches].flatten(1, 2).copy_(rows)
                self.labels[:, :batches].flatten(1, 2).copy_(labels)
                self.dynamics[:batches].copy_(dynamics(self.pack, first, batches))
                self.following.zero_()
                self.last.zero_()
                for number in range(batches):
                    replay()
                    first += batch_size
                    self.settled = False
                    if number + 1 == batches or first in snapshots:
                        self._settle()
                    yield self.losses_[number].clone()

    def _settle(self) -> None:
        """Take the steps that rows of the labels' table have missed."""
        with self._on_device():
            self.make_up(len(self.pack.lanes))
        self.settled = True

    def _on_device(self) -> AbstractContextManager:
        """Return a context in which kernels are launched where the state is; Triton takes the current device."""
        device = self.embeddings.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def _begin(self, seen: int) -> Callable[[], None]:
        """Put in force what holds from `seen` on, and return what takes a step."""
        table = statics(self.pack, self.layout.names, seen)
        self.statics.copy_(table)
        # L2 is in the gradient already, and nothing is stored again.
        table[:, :, [5, 8]] = 0.0
        self.finishing.copy_(table)
        self.extras.copy_(extras(self.pack, self.layout.names, seen))
        if self.rounds:
            self.matrices.copy_(self.blocks)
        store = any(stores(lane.run.optimizer) for lane in lanes_at(self.pack, seen))
        if store not in self.replays:
            self.replays[store] = self._captured(store) if self.embeddings.is_cuda else self._work(store)
        return self.replays[store]

    def _work(self, store: bool) -> Callable[[], None]:
        """Return what takes a step launch by launch."""
        launches, lanes, device = self.launches(store), len(self.pack.lanes), self.embeddings.device
        if device.type != "cuda":
            return launching.one_after_the_other(launches, lanes)
        with self._on_device():
            launching.compile_all(launches, lanes)
        return launching.in_streams(launches, lanes, device)

    def _captured(self, store: bool) -> Callable[[], None]:
        """Record a step as a CUDA graph. The step that is taken before changes the state: it is put back."""
        work, device = self._work(store), self.embeddings.device
        changed = [self.parameters, self.firsts, self.seconds, self.following, self.matrices, self.last]
        before = [tensor.clone() for tensor in changed]
        stream, graph = torch.cuda.Stream(device, priority=-1), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream(device))
        try:
            with self._on_device(), torch.cuda.stream(stream):
                # Any valid batch; the next ones are drawn after this.
                for tensor in (self.rows, self.labels, self.following):
                    tensor.zero_()
                work()
            torch.cuda.current_stream(device).wait_stream(stream)
            with self._on_device(), torch.cuda.graph(graph, stream=stream):
                work()
        finally:
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        return graph.replay

    def launches(self, store: bool) -> list[Launch]:
        """Return the launches of a step in their order. store: whether some lane's gradients are stored."""
        layout, run, model, buffers = self.layout, self.pack.run, self.pack.run.model, self.buffers
        if store and self.gradients is None:
            self.gradients = torch.zeros_like(self.parameters)
        width, depth, context = model.width, model.depth, run.recipe.context
        offsets, arrays = layout.offsets, len(layout.names)
        heads = width // model.heads
        learned = model.positions.kind == "learned"
        first_block = layout.names.index("blocks.0.norm1.scale")
        numerics = {
            "DT": BFLOAT16 if run.numerics == "bfloat16" else FLOAT32,
            "PREC": "tf32" if run.numerics == "tf32" else "ieee",
        }
        # Float32 as three products of tensor cores: of operands in two parts of 11 bits each, all but the product of
        # the smaller ones. Each is off by some 2^-22, a gradient by 7e-7 of its size, as measured on an H200.
        in_blocks = numerics | ({"PREC": "tf32x3"} if layout.in_three_products else {})
        epsilon = {"EPS": transformer.LAYER_NORM_EPSILON}
        common = {"batch": run.batch_size, "layers": depth, "lane_stride": layout.lane_stride}
        drawn = {"labels": self.labels, "counter": self.counter, "batches": DRAW_BATCHES, "batch": run.batch_size}
        step = {
            "lane_stride": layout.lane_stride,
            "parameters": self.parameters,
            "firsts": self.firsts,
            "seconds": self.seconds,
            # Where none are stored nothing is written there.
            "gradients": self.gradients if store else self.parameters,
            "statics": self.statics,
            "dynamics": self.dynamics,
            "counter": self.counter,
            "arrays": arrays,
        }
        rows = {"at_table": offsets["label_embedding"], "n_labels": run.n_labels, "last": self.last} | {
            "array": layout.names.index("label_embedding")
        }
        items = {"C": context, "D": width, "BC": power_of_two(layout.batch * context)}
        block = {
            "T": layout.tokens, "TP": power_of_two(layout.tokens), "D": width, "H": model.heads, "A": heads,
            "AP": power_of_two(heads), "F": layout.hidden, **epsilon, **in_blocks,
        }  # fmt: skip
        row_stride, column_stride = layout.operand_strides
        strides = {"row_stride": row_stride, "column_stride": column_stride}
        blocks_first = offsets["blocks.0.norm1.scale"]
        blocks_at = {"first": blocks_first, "block_stride": layout.block_stride}
        in_products = {
            "parameters": self.parameters, "scale": heads**-0.5,
            "matrices": self.matrices, "matrix_stride": self.matrices.stride(0),
        }  # fmt: skip
        head = {"C": context, "B": layout.batch, "D": width, "KT": layout.labels.rows, **epsilon, **numerics}
        head_at = {
            "at_norm": offsets["norm.scale"], "at_head": offsets["unembedding.weight"], "n_labels": run.n_labels,
        }  # fmt: skip
        label_tiles = layout.label_tiles
        found: list[Launch] = []

        def launch(
            kernel: Any, programs: int, arguments: dict, constants: dict, tile: Tile = PLAIN, **order: Any
        ) -> None:
            names = kernel.arg_names
            given = {name: value for name, value in (buffers | arguments).items() if name in names}
            found.append(Launch(kernel, programs, given, constants, tile.options, **order))

        def block_of(tile: Tile) -> dict[str, Any]:
            return block | {
                "G": layout.sequences(tile.rows), "R": tile.rows, "NB": layout.attended(tile.rows),
                "STEPS": layout.attention_steps(tile.rows), "FC": tile.columns,
            }  # fmt: skip

        counting = {"counter": self.counter, "following": self.following}
        launch(label_rows.replay, run.batch_size * context, drawn | step | rows | counting | {"whole": 0}, items, ROW)
        input_width = run.bank.shape.width
        launch(
            ends.tokens,
            -(-run.batch_size * (context + 1) // 32),
            common | drawn | {
                "bank": self.bank, "rows": self.rows, "positions": self.positions, "parameters": self.parameters,
                "at_embedder": 0, "at_table": offsets["label_embedding"], "at_places": offsets.get("positions", 0),
            },
            {"I": input_width, "C": context, "D": width, "R": 32, "KI": 32, "LEARNED": learned, **numerics},
        )  # fmt: skip
        launch(
            blocks.blocks_forward,
            layout.programs(layout.forward.rows),
            common | blocks_at | in_products,
            block_of(layout.forward),
            layout.forward,
        )
        launch(
            ends.head_stats,
            label_tiles,
            common | drawn | head_at | {"parameters": self.parameters},
            head,
            layout.labels,
        )
        sizes = {"tiles": label_tiles, "batch": run.batch_size}
        launch(ends.head_sums, 1, counting | sizes, {"B": layout.batch, "CHUNK": 32})
        launch(
            ends.head_backward,
            label_tiles,
            common | drawn | head_at | {"parameters": self.parameters},
            head,
            layout.labels,
        )
        head_step = len(found)
        launch(
            ends.head_step,
            label_tiles,
            common | drawn | head_at | step | {"array": layout.names.index("unembedding.weight")},
            head,
            layout.labels,
            beside="head",
        )
        launch(
            ends.query_backward,
            run.batch_size,
            common | {"parameters": self.parameters, "at_norm": offsets["norm.scale"], "tiles": label_tiles},
            {
                "T": layout.tokens, "TP": power_of_two(layout.tokens), "B": layout.batch, "D": width, "CHUNK": 32,
                **epsilon,
            },
        )  # fmt: skip
        programs = layout.programs(layout.backward.rows)
        block_steps, turns = list[int](), len(self.operands)
        for layer in reversed(range(depth)):
            handed = {"operands": self.operands[layer % turns]}
            launch(
                blocks.block_backward,
                programs,
                common | blocks_at | in_products | strides | handed | {"layer": layer},
                block_of(layout.backward),
                layout.backward,
                after=(block_steps[-turns],) if len(block_steps) >= turns else (),  # it reads what is overwritten
            )
            block_steps.append(len(found))
            name = f"blocks.{layer}.norm1.scale"
            launch(
                blocks.block_step,
                layout.block_tiles,
                step | strides | in_products | handed | {
                    "n": layout.rows, "first": offsets[name], "array": layout.names.index(name),
                    "blocks_first": blocks_first,
                },
                {
                    "D": width, "F": layout.hidden, "M": layout.matrices.rows, "K": layout.matrices.columns,
                    "PREC": in_blocks["PREC"], "ROUND": self.rounds,
                },
                layout.matrices,
                beside="blocks",
            )  # fmt: skip
        launch(label_rows.rows_step, run.batch_size * context, drawn | step | rows, items | {"N": 32}, ROW)
        if store:
            tiles = {"C": context, "D": width, "KT": layout.labels.rows, "N": 16}
            launch(label_rows.rows_stored, label_tiles, drawn | step | rows, tiles)
        side = min(32 if width > 64 else 64, power_of_two(input_width))
        launch(
            tails.embedder_step,
            -(-input_width // side),
            drawn | step | {"bank": self.bank, "rows": self.rows, "at_embedder": 0},
            {"I": input_width, "C": context, "D": width, "M": side, "K": 32, **numerics},
            Tile(side, width, stages=3),
        )
        vectors = depth * (4 if layout.hidden else 2) + 2 + (layout.tokens if learned else 0)
        launch(
            tails.vectors_step,
            vectors,
            common | blocks_at | step | {
                "losses": self.losses_, "at_norm": offsets["norm.scale"], "at_places": offsets.get("positions", 0),
                "array": first_block, "block_arrays": layout.block_arrays, "tiles": programs,
            },
            {"T": layout.tokens, "B": layout.batch, "D": width, "F": layout.hidden, "CHUNK": 16},
            after=(head_step,),  # which reads the last norm
        )  # fmt: skip
        if store:
            chunks = {"chunks": self.chunks, "spans": self.spans, "extras": self.extras}
            sizes = {"CH": CHUNK, "SUM": 256}
            count = len(layout.chunks)
            launch(tails.weigh, count, step | chunks, {"CH": CHUNK}, CHUNKS, after=(block_steps[-1],))
            launch(tails.penalize, count, step | chunks, sizes, CHUNKS)
            launch(
                tails.finish,
                count,
                step | chunks | in_products | {
                    "statics": self.finishing, "blocks_first": blocks_first, "blocks_end": offsets["norm.scale"],
                },
                sizes | {"ROUND": self.rounds},
                CHUNKS,
            )  # fmt: skip
        return found


def capability_of(device: torch.device) -> list[tuple[int, int]]:
    """Return the compute capability of a GPU, as the only entry; nothing for another device."""
    return [torch.cuda.get_device_capability(device)] if device.type == "cuda" else []


def flattened(tensors: transformer.Parameters, layout: Layout) -> Tensor:
    """Return one array [S, P] that holds all of `tensors` [S, …], which are replaced by views of it; 0 between them."""
    like = next(iter(tensors.values()))
    flat = torch.zeros(len(like), layout.lane_stride, dtype=like.dtype, device=like.device)
    for name, tensor in tensors.items():
        start = layout.offsets[name]
        view = flat[:, start : start + tensor[0].numel()].unflatten(1, tensor.shape[1:])
        tensors[name] = view.copy_(tensor)
    return flat
