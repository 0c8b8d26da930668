"""The blocks: forward through all of them in one kernel, backward a block, and its weight gradients with their step.

A program of the first two is a lane (second axis of the grid) and G whole sequences in R >= G * T rows. It takes
columns of matrices FC at a time, and attention in STEPS steps: of NB pairs of a sequence and a head, each in TP >= T
rows. What it needs again in other tiles goes through memory of its own. A block's parameters lie one behind another:
scale1 bias1 qkv out scale2 bias2 in bin out bout; F = 0 is a block without MLP.

`operands` [S, N, W], or [S, W, N] as their strides say, holds what weight gradients of one block are products of, a row
a token:
    y1 [D]  dqkv [3D]  mixed [D]  dmid [D]  y2 [D]  du [F]  g [F]  dout [D]     W = 6 D, or 8 D + 2 F with an MLP
"""

import triton
import triton.language as tl

from icl_transience.engines.triton.parts import (
    LOG2_E,
    dot,
    exp2,
    gelu,
    gelu_backward,
    inverse,
    norm,
    norm_backward,
    precise_exp,
    rule_of,
    update,
)  # fmt: skip


@triton.jit
def pairs(i, H: tl.constexpr, NB: tl.constexpr):
    """Return (sequence of the program [NB], head [NB]) of the i-th NB pairs of a sequence and a head."""
    HB: tl.constexpr = H if H < NB else NB
    j = tl.arange(0, NB)
    return (i // (H // HB)) * (NB // HB) + j // HB, (i % (H // HB)) * HB + j % HB


@triton.jit
def pattern(q, k, scale, TP: tl.constexpr, PREC: tl.constexpr):
    """Return attention [NB, TP, TP] of queries and keys [NB, TP, AP] in their order: each token sees those before."""
    t = tl.arange(0, TP)
    sees = (t[:, None] >= t[None, :])[None, :, :]
    scores = dot(q, tl.permute(k, 0, 2, 1), None, PREC)
    if PREC == "tf32" or q.dtype == tl.bfloat16:
        s = tl.where(sees, scores * (scale * LOG2_E), float("-inf"))
        p = exp2(s - tl.max(s, 2)[:, :, None])
        return p * inverse(tl.sum(p, 2))[:, :, None]
    s = tl.where(sees, scores * scale, float("-inf"))
    p = precise_exp(s - tl.max(s, 2)[:, :, None])
    return p / tl.sum(p, 2)[:, :, None]


@triton.jit
def blocks_forward(
    xs,
    qkv,
    mixed,
    mids,
    parameters,
    matrices,
    lane_stride,
    matrix_stride,
    first,
    block_stride,
    layers,
    batch,
    scale,
    T: tl.constexpr,
    TP: tl.constexpr,
    G: tl.constexpr,
    R: tl.constexpr,
    NB: tl.constexpr,
    STEPS: tl.constexpr,
    D: tl.constexpr,
    H: tl.constexpr,
    A: tl.constexpr,
    AP: tl.constexpr,
    F: tl.constexpr,
    FC: tl.constexpr,
    EPS: tl.constexpr,
    DT: tl.constexpr,
    PREC: tl.constexpr,
):
    """Fill xs [S, L+1, N, D] float32 but its first part, which is given; qkv [S, L, N, 3D] DT; mids [S, L, N, D].

    mids: what stands between attention and MLP, float32. mixed [S, L, N, D] DT: what heads mix of the values. first:
    where the first block's parameters begin. matrices DT: the blocks' parameters, lanes matrix_stride apart.
    """
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, d, f = tl.arange(0, R), tl.arange(0, D), tl.arange(0, FC)
    t, a = tl.arange(0, TP)[None, :, None], tl.arange(0, AP)[None, None, :]
    seq = row // T
    ok = ((row < G * T) & (tile * G + seq < batch))[:, None]
    n = batch * T
    here = tile * (G * T) + row
    at = here[:, None] * D + d[None, :]
    x = tl.load(xs + lane * (layers + 1) * n * D + at, mask=ok, other=0.0)
    for layer in range(layers):
        w = parameters + lane * lane_stride + first + layer * block_stride
        m = matrices + lane * matrix_stride + layer * block_stride
        part = qkv + (lane * layers + layer) * n * 3 * D
        into = mixed + (lane * layers + layer) * n * D
        normed, _rstd = norm(x, EPS)
        y = (normed * tl.load(w + d)[None, :] + tl.load(w + D + d)[None, :]).to(DT)
        for i in tl.static_range(3 * D // FC):
            weight = tl.load(m + 2 * D + d[:, None] * (3 * D) + i * FC + f[None, :]).to(DT)
            to = part + here[:, None] * (3 * D) + i * FC + f[None, :]
            tl.store(to, dot(y, weight, None, PREC).to(DT), mask=ok)
        tl.debug_barrier()  # what other threads of this program stored is read
        for i in range(STEPS):
            sequence, head = pairs(i, H, NB)
            inside = ((sequence < G) & (tile * G + sequence < batch))[:, None, None] & (t < T) & (a < A)
            rows, head = ((tile * G + sequence) * T)[:, None, None] + t, (head * A)[:, None, None]
            q = tl.load(part + rows * (3 * D) + head + a, mask=inside, other=0.0)
            k = tl.load(part + rows * (3 * D) + head + D + a, mask=inside, other=0.0)
            v = tl.load(part + rows * (3 * D) + head + 2 * D + a, mask=inside, other=0.0)
            p = pattern(q, k, scale, TP, PREC).to(DT)
            tl.store(into + rows * D + head + a, dot(p, v, None, PREC).to(DT), mask=inside)
        tl.debug_barrier()  # and once more
        for c in range(D // FC):
            of_heads = tl.load(into + here[:, None] * D + c * FC + f[None, :], mask=ok, other=0.0)
            out = tl.load(m + 2 * D + 3 * D * D + (c * FC + f)[:, None] * D + d[None, :]).to(DT)
            x = dot(of_heads, out, x, PREC)
        tl.store(mids + (lane * layers + layer) * n * D + at, x, mask=ok)
        if F:
            normed, _rstd = norm(x, EPS)
            mlp = 4 * D + 4 * D * D
            y = (normed * tl.load(w + mlp - 2 * D + d)[None, :] + tl.load(w + mlp - D + d)[None, :]).to(DT)
            for c in range(F // FC):
                into_mlp = tl.load(m + mlp + d[:, None] * F + c * FC + f[None, :]).to(DT)
                u = dot(y, into_mlp, None, PREC) + tl.load(w + mlp + D * F + c * FC + f)[None, :]
                g, _tanh = gelu(u, DT)
                back = tl.load(m + mlp + D * F + F + (c * FC + f)[:, None] * D + d[None, :]).to(DT)
                x = dot(g.to(DT), back, x, PREC)
            x += tl.load(w + mlp + 2 * D * F + F + d)[None, :]
        tl.store(xs + (lane * (layers + 1) + layer + 1) * n * D + at, x, mask=ok)


@triton.jit(do_not_specialize=["layer"])
def block_backward(
    dx,
    xs,
    qkv,
    mixed,
    mids,
    operands,
    row_stride,
    column_stride,
    dnorms,
    parameters,
    matrices,
    lane_stride,
    matrix_stride,
    first,
    block_stride,
    layer,
    layers,
    batch,
    scale,
    T: tl.constexpr,
    TP: tl.constexpr,
    G: tl.constexpr,
    R: tl.constexpr,
    NB: tl.constexpr,
    STEPS: tl.constexpr,
    D: tl.constexpr,
    H: tl.constexpr,
    A: tl.constexpr,
    AP: tl.constexpr,
    F: tl.constexpr,
    FC: tl.constexpr,
    EPS: tl.constexpr,
    DT: tl.constexpr,
    PREC: tl.constexpr,
):
    """Turn dx [S, N, D] float32, towards the block's result, into that towards its input.

    Fills operands, and dnorms [S, L, tiles, 4, D] float32: the tile's part of the gradients of scale1 bias1 scale2
    bias2. xs, qkv, mixed, mids: of the forward pass.
    """
    W: tl.constexpr = 8 * D + 2 * F if F else 6 * D
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, d, f = tl.arange(0, R), tl.arange(0, D), tl.arange(0, FC)
    t, a = tl.arange(0, TP)[None, :, None], tl.arange(0, AP)[None, None, :]
    seq = row // T
    ok = ((row < G * T) & (tile * G + seq < batch))[:, None]
    n = batch * T
    here = tile * (G * T) + row
    at = here[:, None] * D + d[None, :]
    dnorms += ((lane * layers + layer) * tl.num_programs(0) + tile) * 4 * D
    w = parameters + lane * lane_stride + first + layer * block_stride
    m = matrices + lane * matrix_stride + layer * block_stride
    operands += lane * n * W
    # Of the first columns, and of the first FC; others stand so many columns behind.
    wide = operands + here[:, None] * row_stride + d[None, :] * column_stride
    part_of_wide = operands + here[:, None] * row_stride + f[None, :] * column_stride
    dout = tl.load(dx + lane * n * D + at, mask=ok, other=0.0)
    if F:
        mlp = 4 * D + 4 * D * D
        mid = tl.load(mids + (lane * layers + layer) * n * D + at, mask=ok, other=0.0)
        normed, rstd = norm(mid, EPS)
        gain = tl.load(w + mlp - 2 * D + d)[None, :]
        y = (normed * gain + tl.load(w + mlp - D + d)[None, :]).to(DT)
        tl.store(wide + 6 * D * column_stride, y, mask=ok)
        dy = tl.zeros([R, D], tl.float32)
        half = dout.to(DT)
        tl.store(wide + (7 * D + 2 * F) * column_stride, half, mask=ok)
        for c in range(F // FC):
            into = tl.load(m + mlp + d[:, None] * F + c * FC + f[None, :]).to(DT)
            u = dot(y, into, None, PREC) + tl.load(w + mlp + D * F + c * FC + f)[None, :]
            g, tanh = gelu(u, DT)
            back = tl.load(m + mlp + D * F + F + (c * FC + f)[None, :] * D + d[:, None]).to(DT)
            du = (dot(half, back, None, PREC) * gelu_backward(u, tanh)).to(DT)
            to = part_of_wide + (7 * D + c * FC) * column_stride
            tl.store(to, du, mask=ok)
            tl.store(to + F * column_stride, g.to(DT), mask=ok)
            dy = dot(du, tl.trans(into), dy, PREC)
        # Read once more, so that registers are free for the products.
        normed, rstd = norm(tl.load(mids + (lane * layers + layer) * n * D + at, mask=ok, other=0.0), EPS)
        dout = tl.load(dx + lane * n * D + at, mask=ok, other=0.0)
        # Rows that stand for no token have a gradient of 0 here: dout was.
        tl.store(dnorms + 2 * D + d, tl.sum(dy * normed, 0))
        tl.store(dnorms + 3 * D + d, tl.sum(dy, 0))
        dout += norm_backward(dy * gain, normed, rstd)
    half = dout.to(DT)
    tl.store(wide + 5 * D * column_stride, half, mask=ok)
    of_heads = tl.load(mixed + (lane * layers + layer) * n * D + at, mask=ok, other=0.0)
    tl.store(wide + 4 * D * column_stride, of_heads, mask=ok)
    for c in range(D // FC):
        # Towards what heads mix; it stands where y1 is to be.
        out = tl.load(m + 2 * D + 3 * D * D + (c * FC + f)[None, :] * D + d[:, None]).to(DT)
        tl.store(part_of_wide + c * FC * column_stride, dot(half, out, None, PREC).to(DT), mask=ok)
    part = qkv + (lane * layers + layer) * n * 3 * D
    tl.debug_barrier()  # what other threads of this program stored is read
    for i in range(STEPS):
        sequence, head = pairs(i, H, NB)
        inside = ((sequence < G) & (tile * G + sequence < batch))[:, None, None] & (t < T) & (a < A)
        rows, column = ((tile * G + sequence) * T)[:, None, None] + t, (head * A)[:, None, None] + a
        q = tl.load(part + rows * (3 * D) + column, mask=inside, other=0.0)
        k = tl.load(part + rows * (3 * D) + D + column, mask=inside, other=0.0)
        v = tl.load(part + rows * (3 * D) + 2 * D + column, mask=inside, other=0.0)
        to = operands + rows * row_stride + column * column_stride
        do = tl.load(to, mask=inside, other=0.0)
        p = pattern(q, k, scale, TP, PREC)
        dv = dot(tl.permute(p.to(DT), 0, 2, 1), do, None, PREC).to(DT)
        tl.store(to + 3 * D * column_stride, dv, mask=inside)
        dp = dot(do, tl.permute(v, 0, 2, 1), None, PREC)
        ds = (p * (dp - tl.sum(dp * p, 2)[:, :, None]) * scale).to(DT)
        tl.store(to + D * column_stride, dot(ds, k, None, PREC).to(DT), mask=inside)
        dk = dot(tl.permute(ds, 0, 2, 1), q, None, PREC).to(DT)
        tl.store(to + 2 * D * column_stride, dk, mask=inside)
    x = tl.load(xs + (lane * (layers + 1) + layer) * n * D + at, mask=ok, other=0.0)
    normed, rstd = norm(x, EPS)
    gain = tl.load(w + d)[None, :]
    dy = tl.zeros([R, D], tl.float32)
    tl.debug_barrier()  # once more; and every thread has read what y1 overwrites
    tl.store(wide, (normed * gain + tl.load(w + D + d)[None, :]).to(DT), mask=ok)
    for i in range(3 * D // FC):
        weight = tl.load(m + 2 * D + d[None, :] * (3 * D) + i * FC + f[:, None]).to(DT)
        of = tl.load(part_of_wide + (D + i * FC) * column_stride, mask=ok, other=0.0)
        dy = dot(of, weight, dy, PREC)
    tl.store(dnorms + d, tl.sum(dy * normed, 0))
    tl.store(dnorms + D + d, tl.sum(dy, 0))
    tl.store(dx + lane * n * D + at, dout + norm_backward(dy * gain, normed, rstd), mask=ok)


@triton.jit(do_not_specialize=["array"])
def block_step(
    operands,
    row_stride,
    column_stride,
    n,
    first,
    array,
    lane_stride,
    parameters,
    firsts,
    seconds,
    gradients,
    statics,
    dynamics,
    counter,
    arrays,
    matrices,
    matrix_stride,
    blocks_first,
    D: tl.constexpr,
    F: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    PREC: tl.constexpr,
    ROUND: tl.constexpr,
):
    """Step on a block's matrices and biases: each gradient is left' right over all rows, in tiles [M, M].

    Tiles of the four matrices stand behind one another on the first axis of the grid. first, array: where the block's
    parameters begin, and the number of its first array. matrices, of all blocks, which begin at blocks_first among
    the parameters: take the new ones, rounded, if ROUND.
    """
    W: tl.constexpr = 8 * D + 2 * F if F else 6 * D
    E: tl.constexpr = D // M
    FE: tl.constexpr = F // M
    # The last lanes first: what block_backward wrote last is in the cache yet.
    tile, lane = tl.program_id(0), (tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64)
    # qkv, out, in and out of the MLP: columns of left and right, width of right, offset of the matrix.
    left, right, width, offset, number, tiles = 0, D, 3 * D, 2 * D, 2, 0
    last = 0
    if tile >= 3 * E * E:
        left, right, width, offset, number, tiles = 4 * D, 5 * D, D, 2 * D + 3 * D * D, 3, 3 * E * E
    if F:
        if tile >= 4 * E * E:
            left, right, width, offset, number, tiles = 6 * D, 7 * D, F, 4 * D + 4 * D * D, 6, 4 * E * E
            last = D * F
        if tile >= 4 * E * E + E * FE:
            left, right, width, number, tiles = 7 * D + F, 7 * D + 2 * F, D, 8, 4 * E * E + E * FE
            offset = 4 * D + 4 * D * D + D * F + F
            last = F * D
    across = width // M
    i, j = (tile - tiles) // across, (tile - tiles) % across
    m, k = tl.arange(0, M), tl.arange(0, K)
    left = tl.multiple_of(left + i * M, 16)
    right = tl.multiple_of(right + j * M, 16)
    operands += lane * n * W
    rule = rule_of(statics, dynamics, counter, lane, array + number, arrays)
    acc, columns = tl.zeros([M, M], tl.float32), tl.zeros([M], tl.float32)
    for start in range(0, n, K):
        inside = start + k < n
        at_x = (start + k)[None, :] * row_stride + (left + m)[:, None] * column_stride
        at_y = (start + k)[:, None] * row_stride + (right + m)[None, :] * column_stride
        x = tl.load(operands + at_x, mask=inside[None, :], other=0.0)
        y = tl.load(operands + at_y, mask=inside[:, None], other=0.0)
        acc = dot(x, y, acc, PREC)
        if F:
            columns += tl.sum(y.to(tl.float32), 0)
    base = lane * lane_stride + first + tl.multiple_of(offset, 16)
    within = (i * M + m)[:, None] * width + j * M + m[None, :]
    at = base + within
    # Said to be in rows of 4, as float32 is loaded: of 8, the compiler would move all of Adam's numbers for one store.
    in_matrices = lane * matrix_stride + first - blocks_first + tl.multiple_of(offset, 16)
    every = (m[:, None] >= 0) & (m[None, :] >= 0)
    update(
        acc, at, every, rule,
        parameters, firsts, seconds, gradients,
        matrices if ROUND else None, tl.max_contiguous(in_matrices + within, (1, 4)),
    )  # fmt: skip
    if F:
        at = base + last + j * M + m
        biased = (m >= 0) & (i == 0) & (last > 0)
        update(
            columns, at, biased, rule_of(statics, dynamics, counter, lane, array + number + 1, arrays),
            parameters, firsts, seconds, gradients,
        )  # fmt: skip
