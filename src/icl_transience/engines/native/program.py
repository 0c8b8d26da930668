"""The training step on CPUs, at the machine's limit: one lane at a time, forward and backward by hand.

At these sizes (17 tokens, width 64, batch 32) autograd and general operations spend more time on dispatch, copies
and tiny products than on arithmetic. Here a lane's step is a recorded list of calls on buffers that are allocated
once: PyTorch's matrix products, and between them the kernels of kernels.cpp, compiled for the model's shape with the
machine's own C++ compiler (under a second) and kept for the next job. Layout is feature-major, [features, T * B].

It computes what `model.transformer.query_logits` and `engines.eager.query_loss` compute, and is tested against them in
float64. The last block works on the query's row alone, with keys and values absorbed: q.(W_k y) = (W_k' q).y, so
neither is made.

In bfloat16 the products with whole weight matrices take operands and give results in bfloat16, summed in float32.
Everything else stays float32, the weights included, and attention, where torch.autocast would round too: in the last
block that is the query's, key's and value's products as well.
"""

import ctypes
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from icl_transience.engines.native.compiler import aligned, library
from icl_transience.model.transformer import Geometry, Parameters
from icl_transience.specs.model import Model
from icl_transience.specs.runs import Run


class KernelCall(functools.partial):
    """A kernel on fixed addresses; `arguments` keeps the tensors alive to which these belong."""

    arguments: tuple[Tensor | int | float, ...] = ()


class Program:
    """Forward and backward of lanes on batches of one size, as calls on fixed buffers.

    exemplars [(C+1) * B', I], labels [C, B'] and targets [B'] int64 are the caller's to fill, B' (`columns`) being
    the batch size rounded up to whole vectors; a column past the batch size must hold valid numbers and counts for
    nothing. A lane's forward leaves `logits` [K, B']; its backward turns them into gradients and its loss.
    """

    def __init__(
        self, model: Model, input_width: int, n_labels: int, context: int, batch_size: int, bfloat16: bool = False
    ):
        """Compile the kernels. Raises compiler.UnavailableError."""
        self.model, self.batch_size, self.bfloat16 = model, batch_size, bfloat16
        self.columns = aligned(batch_size)
        self.n_tokens = 2 * context + 1
        self.library = library(model, context)
        self.positions = Geometry(model, context, torch.float32).positions
        self.exemplars = torch.zeros((context + 1) * self.columns, input_width)
        self.labels = torch.zeros(context, self.columns, dtype=torch.int64)
        self.targets = torch.zeros(self.columns, dtype=torch.int64)
        self.logits = torch.zeros(n_labels, self.columns)
        self._buffers: dict[str, Tensor] = {}
        # [D, (C+1) * B'], of exemplars: where an image encoder is the embedder, the caller's to fill in their place; a
        # lane's backward leaves the gradient there.
        self.embedded = self.buffer("embedded", model.width, (context + 1) * self.columns)

    def answers(
        self, context_logits: Tensor, max_logit: Tensor, max_label: Tensor, log_sum: Tensor, target: Tensor
    ) -> None:
        """Write what answers.Answers holds; `logits` lose the context's: see kernels.cpp.

        context_logits [C, B'], max_label [B'] int64, the others [B'].
        """
        outputs = context_logits, max_logit, max_label, log_sum, target
        sizes = len(self.labels), *self.logits.shape
        self.kernel("answers", *outputs, self.logits, self.labels, self.targets, *sizes)()

    @property
    def encoded(self) -> Tensor:
        """`embedded` as [D, C+1, B']."""
        return self.embedded.view(len(self.embedded), -1, self.columns)

    def kernel(self, name: str, *arguments: Tensor | int | float) -> "KernelCall":
        """Return a call of a kernel of kernels.cpp on contiguous tensors and numbers, converted once."""
        function = getattr(self.library, name)
        function.restype = None
        call = KernelCall(function, *map(_converted, arguments))
        call.arguments = arguments
        return call

    def buffer(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the working array of that name, shape and type, which all lanes share."""
        key = f"{name} {shape} {dtype}"
        if key not in self._buffers:
            self._buffers[key] = torch.zeros(shape, dtype=dtype)
        return self._buffers[key]


class Recording:
    """A lane's calls, to make in order: `forward`, and `backward` after it; on tensors that must stay where they are.

    parameters, gradients: name -> contiguous float32 tensor, without a lane axis. loss: [1].
    While they are written down `backward` fills from its end, so that each part stands beside its forward.
    """

    def __init__(self, program: Program, parameters: Parameters, gradients: Parameters, loss: Tensor):
        self.program, self.model, self.buffer = program, program.model, program.buffer
        self.parameters, self.gradients, self.loss = parameters, gradients, loss
        self.forward: list[Callable] = []
        self.backward: list[Callable] = []
        self.width, self.tokens, self.batch = self.model.width, program.n_tokens, program.columns
        self.scale = (self.model.width // self.model.heads) ** -0.5
        # The gradient of the residual stream: of all tokens, and in the last block of the query's alone.
        self.dx = self.buffer("dx", self.width, self.tokens * self.batch)
        self.drow = self.buffer("drow", self.width, self.batch)
        x = self.embed()
        for layer in range(self.model.depth - 1):
            x = self.block(f"blocks.{layer}", x)
        row = self.last_block(f"blocks.{self.model.depth - 1}", x)
        self.head(row)
        self.backward.reverse()

    def embed(self) -> Tensor:
        """X [D, T * B] from the program's exemplars and labels."""
        program = self.program
        embedded = program.embedded
        dtable = self.gradients["label_embedding"]
        x = self.buffer("x", self.width, self.tokens * self.batch)
        positions = program.positions
        if "positions" in self.parameters:
            # Shorter sequences than those of training have its first places, and no backward.
            positions = self.parameters["positions"][: self.tokens]
            self.call(self.backward, "positions_backward", self.gradients["positions"], self.dx, self.batch)
        if self.model.encodes_images:
            bias, dbias = self.buffer("no bias", self.width), self.buffer("its gradient", self.width)
        else:
            bias, dbias = self.parameters["embedder.bias"], self.gradients["embedder.bias"]
            self.linear("embedder.weight", embedded, program.exemplars.T, embedded, None)
        self.call(
            self.forward,
            "embed",
            x,
            embedded,
            bias,
            self.parameters["label_embedding"],
            program.labels,
            positions,
            self.batch,
        )
        self.call(
            self.backward,
            "embed_backward",
            embedded,
            dbias,
            dtable,
            self.dx,
            program.labels,
            self.batch,
        )
        self.backward.append(dtable.zero_)
        return x

    def block(self, name: str, x: Tensor) -> Tensor:
        """Record a block over all tokens, x [D, T * B] -> x."""
        n_pairs = self.tokens * (self.tokens + 1) // 2
        qkv = self.buffer(f"{name}.qkv", 3 * self.width, x.shape[1])
        weights = self.buffer(f"{name}.weights", self.model.heads, n_pairs, self.batch)
        mixed, dmixed = self.buffer(f"{name}.mixed", *x.shape), self.buffer("dmixed", *x.shape)
        dqkv, after = self.buffer("dqkv", *qkv.shape), self.buffer(f"{name}.after", *x.shape)
        sizes = self.batch, self.scale
        y, dy = self.norm(f"{name}.norm1", x, self.dx)
        self.linear(f"{name}.attention.qkv", qkv, y, dqkv, dy)
        self.add_bias(f"{name}.attention.qkv.bias", slice(None), qkv, dqkv)
        self.call(self.forward, "attention", mixed, weights, qkv, *sizes)
        self.call(self.backward, "attention_backward", dqkv, dmixed, weights, qkv, *sizes)
        self.linear(f"{name}.attention.out", after, mixed, self.dx, dmixed, onto=x)
        self.add_bias(f"{name}.attention.out.bias", slice(None), after, self.dx)
        return self.mlp(name, after, self.dx) if self.model.mlp_ratio else after

    def last_block(self, name: str, x: Tensor) -> Tensor:
        """Record the query's row of the last block: x [D, T * B] -> [D, B]."""
        width, heads, batch = self.width, self.model.heads, self.batch
        sizes = batch, self.scale
        weight, dweight = self.parameters[f"{name}.attention.qkv"], self.gradients[f"{name}.attention.qkv"]
        y, dy = self.norm(f"{name}.norm1", x, self.dx)
        x_row, dx_row, y_row, dy_row = (self.query_row(tensor) for tensor in (x, self.dx, y, dy))
        row, after = self.buffer("row", width, batch), self.buffer("after", width, batch)
        query, dquery, mixed, dmixed = (
            self.buffer(which, width, batch) for which in ("query", "dquery", "mixed", "dmixed")
        )
        lookup, dlookup, found, dfound = (
            self.buffer(which, heads, width, batch) for which in ("lookup", "dlookup", "found", "dfound")
        )
        weights, dscores = (self.buffer(which, heads, self.tokens, batch) for which in ("weights", "dscores"))
        _, to_key, to_value = (self.by_head(part) for part in weight.split(width, dim=1))
        dto_query, dto_key, dto_value = dweight.split(width, dim=1)

        self.mm(self.forward, query, weight[:, :width].T, y_row)
        self.backward += [
            functools.partial(dy_row.addmm_, weight[:, :width], dquery),
            functools.partial(torch.mm, y_row, dquery.T, out=dto_query),
        ]
        # A bias of the keys moves all scores of a query alike, which softmax does not see; one of the values comes
        # through whole, since a pattern sums to 1.
        of_query, of_key, of_value = (slice(part * width, (part + 1) * width) for part in range(3))
        self.add_bias(f"{name}.attention.qkv.bias", of_query, query, dquery)
        if self.model.attention_bias:
            self.backward.append(self.gradients[f"{name}.attention.qkv.bias"][of_key].zero_)
        self.bmm(self.forward, lookup, to_key, self.heads_of(query))
        self.bmm(self.backward, self.heads_of(dquery), to_key.transpose(1, 2), dlookup)
        self.weight_of_heads(dto_key, dlookup, self.heads_of(query))
        self.call(self.forward, "last_attention", found, weights, lookup, y, *sizes)
        self.call(self.backward, "last_attention_backward", dlookup, dy, dscores, dfound, weights, lookup, y, *sizes)
        self.bmm(self.forward, self.heads_of(mixed), to_value.transpose(1, 2), found)
        self.add_bias(f"{name}.attention.qkv.bias", of_value, mixed, dmixed)
        self.bmm(self.backward, dfound, to_value, self.heads_of(dmixed))
        self.weight_of_heads(dto_value, found, self.heads_of(dmixed))
        self.forward.append(functools.partial(row.copy_, x_row))
        self.backward += [functools.partial(dx_row.copy_, self.drow), self.dx.zero_]
        self.linear(f"{name}.attention.out", after, mixed, self.drow, dmixed, onto=row)
        self.add_bias(f"{name}.attention.out.bias", slice(None), after, self.drow)
        return self.mlp(name, after, self.drow) if self.model.mlp_ratio else after

    def add_bias(self, name: str, part: slice, x: Tensor, dx: Tensor) -> None:
        """Record x [R, N] += that part [R] of an attention's bias, which is none where the model has none."""
        if self.model.attention_bias:
            self.call(self.forward, "add_bias", x, self.parameters[name][part], *x.shape)
            self.call(self.backward, "bias_backward", self.gradients[name][part], dx, *x.shape)

    def head(self, row: Tensor) -> None:
        """Record the final norm and the logits of row [D, B], and the loss with its gradient."""
        program, dbias = self.program, self.gradients["unembedding.bias"]
        y, dy = self.norm("norm", row, self.drow)
        self.backward.append(self.drow.zero_)
        self.linear("unembedding.weight", program.logits, y, program.logits, dy)
        self.call(self.forward, "add_bias", program.logits, self.parameters["unembedding.bias"], *program.logits.shape)
        self.call(
            self.backward,
            "cross_entropy",
            self.loss,
            program.logits,
            dbias,
            program.targets,
            *program.logits.shape,
            program.batch_size,
        )

    def mlp(self, name: str, x: Tensor, dx: Tensor) -> Tensor:
        """Record the second half of a block, x [D, N] -> x."""
        sizes = self.model.mlp_ratio * self.width, x.shape[1]
        hidden, slope, dhidden = (
            self.buffer(which, *sizes) for which in (f"{name}.mlp.hidden", f"{name}.mlp.slope", "dhidden")
        )
        after = self.buffer(f"{name}.mlp.after", *x.shape)
        y, dy = self.norm(f"{name}.norm2", x, dx)
        self.linear(f"{name}.mlp.in.weight", hidden, y, dhidden, dy)
        self.call(self.forward, "gelu", hidden, slope, self.parameters[f"{name}.mlp.in.bias"], *sizes)
        self.call(self.backward, "gelu_backward", dhidden, self.gradients[f"{name}.mlp.in.bias"], slope, *sizes)
        self.linear(f"{name}.mlp.out.weight", after, hidden, dx, dhidden, onto=x)
        self.call(self.forward, "add_bias", after, self.parameters[f"{name}.mlp.out.bias"], *x.shape)
        self.call(self.backward, "bias_backward", self.gradients[f"{name}.mlp.out.bias"], dx, *x.shape)
        return after

    def norm(self, name: str, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
        """(y, dy) [D, N]; backward adds to dx what comes through dy."""
        columns = x.shape[1]
        y, dy = self.buffer(f"{name}.y", *x.shape), self.buffer("dy", *x.shape)
        mean, inverse = self.buffer(f"{name}.mean", columns), self.buffer(f"{name}.inverse", columns)
        scale, bias = self.parameters[f"{name}.scale"], self.parameters[f"{name}.bias"]
        dscale, dbias = self.gradients[f"{name}.scale"], self.gradients[f"{name}.bias"]
        self.call(self.forward, "norm", y, mean, inverse, x, scale, bias, columns)
        self.call(self.backward, "norm_backward", dx, dscale, dbias, dy, x, mean, inverse, scale, columns)
        return y, dy

    def linear(
        self, name: str, out: Tensor, x: Tensor, dout: Tensor, dx: Tensor | None, onto: Tensor | None = None
    ) -> None:
        """Out = W' x (+ onto), all [features, N], W [in, out]; backward: dW = x dout', and dx = W dout if asked for."""
        weight, dweight = self.parameters[name], self.gradients[name]
        if self.program.bfloat16:
            weight, x, half_out = self.half(weight, name), self.half(x, f"{name} of"), self.half_buffer("out", out)
            half_dout, half_dweight = self.half_buffer("dout", dout), self.half_buffer("dweight", dweight)
            self.mm(self.forward, half_out, weight.T, x)
            if onto is None:
                self.forward.append(functools.partial(out.copy_, half_out))
            else:
                self.forward.append(functools.partial(torch.add, onto, half_out, out=out))
            self.backward.append(functools.partial(dweight.copy_, half_dweight))
            self.mm(self.backward, half_dweight, x, half_dout.T)
            if dx is not None:
                half_dx = self.half_buffer("dx", dx)
                self.backward.append(functools.partial(dx.copy_, half_dx))
                self.mm(self.backward, half_dx, weight, half_dout)
            self.backward.append(functools.partial(half_dout.copy_, dout))
            return
        if onto is None:
            self.mm(self.forward, out, weight.T, x)
        else:
            self.forward.append(functools.partial(torch.addmm, onto, weight.T, x, out=out))
        if dx is not None:
            self.mm(self.backward, dx, weight, dout)
        self.mm(self.backward, dweight, x, dout.T)

    def half(self, tensor: Tensor, name: str) -> Tensor:
        """Return the bfloat16 copy of `tensor`, made in forward and kept for backward."""
        copy = self.half_buffer(name, tensor)
        self.forward.append(functools.partial(copy.copy_, tensor))
        return copy

    def half_buffer(self, name: str, like: Tensor) -> Tensor:
        """Return a working array in bfloat16, laid out as `like` is."""
        if not like.is_contiguous():  # exemplars, whose transpose is
            return self.half_buffer(name, like.T).T
        return self.buffer(f"half {name}", *like.shape, dtype=torch.bfloat16)

    def weight_of_heads(self, gradient: Tensor, of_tokens: Tensor, of_heads: Tensor) -> None:
        """Gradient [D, D], heads side by side, = of_tokens [H, D, B] @ of_heads [H, A, B]' head by head."""
        product = self.buffer("product", self.model.heads, self.width, of_heads.shape[1])
        # Back to front, as everything here: bmm cannot write into `gradient`, whose heads are strided.
        self.backward.append(functools.partial(self.by_head(gradient).copy_, product))
        self.bmm(self.backward, product, of_tokens, of_heads.transpose(1, 2))

    def by_head(self, weight: Tensor) -> Tensor:
        """[D, D] -> [H, D, A]: each head's columns."""
        return weight.view(self.width, self.model.heads, -1).transpose(0, 1)

    def heads_of(self, rows: Tensor) -> Tensor:
        """[D, B] -> [H, A, B]: each head's rows."""
        return rows.view(self.model.heads, -1, self.batch)

    def query_row(self, x: Tensor) -> Tensor:
        """[D, T * B] -> [D, B], the last token's."""
        return x.view(self.width, self.tokens, self.batch)[:, -1]

    def mm(self, calls: list[Callable], out: Tensor, a: Tensor, b: Tensor) -> None:
        """Record out = a b, of matrices."""
        calls.append(functools.partial(torch.mm, a, b, out=out))

    def bmm(self, calls: list[Callable], out: Tensor, a: Tensor, b: Tensor) -> None:
        """Record out = a b, of batches of matrices."""
        calls.append(functools.partial(torch.bmm, a, b, out=out))

    def call(self, calls: list[Callable], kernel: str, *arguments: Tensor | int | float) -> None:
        """Record a call of a kernel."""
        calls.append(self.program.kernel(kernel, *arguments))


def _converted(argument: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_long | ctypes.c_float:
    if isinstance(argument, Tensor):
        if not argument.is_contiguous():
            raise ValueError(f"a kernel's array must be contiguous, got strides {argument.stride()}")
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_float(argument)


def program_for(run: Run, batch_size: int, context: int) -> Program:
    """Return a program for a run's model. Raises compiler.UnavailableError."""
    half = run.numerics == "bfloat16"
    # What an image encoder makes goes around the embedder's weight, which there is none.
    width = 1 if run.model.encodes_images else run.bank.shape.width
    return Program(run.model, width, run.n_labels, context, batch_size, half)
