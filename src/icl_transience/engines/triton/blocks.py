"""The blocks: forward through all of them in one kernel, backward a block, and its weight gradients with their step.

A program of the first two is a lane (second axis of the grid) and G whole sequences in R >= G * T rows. It takes
columns of matrices FC at a time. A block's parameters lie one behind another: scale1 bias1 qkv out scale2 bias2 in bin
out bout; F = 0 is a block without MLP.

`operands` [S, N, W] holds what weight gradients of one block are products of, a row a token:
    y1 [D]  dqkv [3D]  mixed [D]  dmid [D]  y2 [D]  du [F]  g [F]  dout [D]     W = 6 D, or 8 D + 2 F with an MLP
"""

import triton
import triton.language as tl

from icl_transience.engines.triton.parts import dot, gelu, gelu_backward, norm, norm_backward, update


@triton.jit
def blocks_forward(
    xs,
    qkv,
    mids,
    parameters,
    lane_stride,
    first,
    block_stride,
    layers,
    batch,
    scale,
    T: tl.constexpr,
    G: tl.constexpr,
    R: tl.constexpr,
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

    mids: what stands between attention and MLP, float32. first: where the first block's parameters begin.
    """
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, d, a, f = tl.arange(0, R), tl.arange(0, D), tl.arange(0, AP), tl.arange(0, FC)
    seq, token = row // T, row % T
    ok = ((row < G * T) & (tile * G + seq < batch))[:, None]
    n = batch * T
    here = tile * (G * T) + row
    at = here[:, None] * D + d[None, :]
    head = a < A
    x = tl.load(xs + lane * (layers + 1) * n * D + at, mask=ok, other=0.0)
    sees = (seq[:, None] == seq[None, :]) & (token[:, None] >= token[None, :])
    for layer in range(layers):
        w = parameters + lane * lane_stride + first + layer * block_stride
        part = qkv + (lane * layers + layer) * n * 3 * D
        normed, _rstd = norm(x, EPS)
        y = (normed * tl.load(w + d)[None, :] + tl.load(w + D + d)[None, :]).to(DT)
        w += 2 * D
        for i in tl.static_range(3 * D // FC):
            weight = tl.load(w + d[:, None] * (3 * D) + i * FC + f[None, :]).to(DT)
            to = part + here[:, None] * (3 * D) + i * FC + f[None, :]
            tl.store(to, dot(y, weight, None, PREC).to(DT), mask=ok)
        w += 3 * D * D
        tl.debug_barrier()  # what other threads of this program stored is read
        for h in range(H):
            rows = part + here[:, None] * (3 * D) + h * A + a[None, :]
            q = tl.load(rows, mask=ok & head[None, :], other=0.0)
            k = tl.load(
                part + here[None, :] * (3 * D) + D + h * A + a[:, None], mask=tl.trans(ok) & head[:, None], other=0.0
            )
            v = tl.load(rows + 2 * D, mask=ok & head[None, :], other=0.0)
            s = tl.where(sees, dot(q, k, None, PREC) * scale, float("-inf"))
            p = tl.exp(s - tl.max(s, 1)[:, None])
            p = p / tl.sum(p, 1)[:, None]
            mixed = dot(p.to(DT), v, None, PREC).to(DT)
            out = tl.load(w + (h * A + a)[:, None] * D + d[None, :], mask=head[:, None], other=0.0).to(DT)
            x = dot(mixed, out, x, PREC)
        w += D * D
        tl.store(mids + (lane * layers + layer) * n * D + at, x, mask=ok)
        if F:
            normed, _rstd = norm(x, EPS)
            y = (normed * tl.load(w + d)[None, :] + tl.load(w + D + d)[None, :]).to(DT)
            w += 2 * D
            for c in range(F // FC):
                into = tl.load(w + d[:, None] * F + c * FC + f[None, :]).to(DT)
                u = dot(y, into, None, PREC) + tl.load(w + D * F + c * FC + f)[None, :]
                g, _tanh = gelu(u)
                back = tl.load(w + D * F + F + (c * FC + f)[:, None] * D + d[None, :]).to(DT)
                x = dot(g.to(DT), back, x, PREC)
            x += tl.load(w + 2 * D * F + F + d)[None, :]
        tl.store(xs + (lane * (layers + 1) + layer + 1) * n * D + at, x, mask=ok)


@triton.jit(do_not_specialize=["layer"])
def block_backward(
    dx,
    xs,
    qkv,
    mids,
    operands,
    dnorms,
    parameters,
    lane_stride,
    first,
    block_stride,
    layer,
    layers,
    batch,
    scale,
    T: tl.constexpr,
    G: tl.constexpr,
    R: tl.constexpr,
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
    bias2. xs, qkv, mids: of the forward pass.
    """
    W: tl.constexpr = 8 * D + 2 * F if F else 6 * D
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, d, a, f = tl.arange(0, R), tl.arange(0, D), tl.arange(0, AP), tl.arange(0, FC)
    seq, token = row // T, row % T
    ok = ((row < G * T) & (tile * G + seq < batch))[:, None]
    n = batch * T
    here = tile * (G * T) + row
    at = here[:, None] * D + d[None, :]
    dnorms += ((lane * layers + layer) * tl.num_programs(0) + tile) * 4 * D
    w = parameters + lane * lane_stride + first + layer * block_stride
    wide = operands + lane * n * W + here[:, None] * W
    dout = tl.load(dx + lane * n * D + at, mask=ok, other=0.0)
    if F:
        mlp = w + 4 * D + 4 * D * D
        mid = tl.load(mids + (lane * layers + layer) * n * D + at, mask=ok, other=0.0)
        normed, rstd = norm(mid, EPS)
        gain = tl.load(mlp - 2 * D + d)[None, :]
        y = (normed * gain + tl.load(mlp - D + d)[None, :]).to(DT)
        tl.store(wide + 6 * D + d[None, :], y, mask=ok)
        dy = tl.zeros([R, D], tl.float32)
        half = dout.to(DT)
        tl.store(wide + 7 * D + 2 * F + d[None, :], half, mask=ok)
        for c in range(F // FC):
            into = tl.load(mlp + d[:, None] * F + c * FC + f[None, :]).to(DT)
            u = dot(y, into, None, PREC) + tl.load(mlp + D * F + c * FC + f)[None, :]
            g, t = gelu(u)
            back = tl.load(mlp + D * F + F + (c * FC + f)[None, :] * D + d[:, None]).to(DT)
            du = (dot(half, back, None, PREC) * gelu_backward(u, t)).to(DT)
            to = wide + 7 * D + c * FC + f[None, :]
            tl.store(to, du, mask=ok)
            tl.store(to + F, g.to(DT), mask=ok)
            dy = dot(du, tl.trans(into), dy, PREC)
        # Rows that stand for no token have a gradient of 0 here: dout was.
        tl.store(dnorms + 2 * D + d, tl.sum(dy * normed, 0))
        tl.store(dnorms + 3 * D + d, tl.sum(dy, 0))
        dout += norm_backward(dy * gain, normed, rstd)
    half = dout.to(DT)
    tl.store(wide + 5 * D + d[None, :], half, mask=ok)
    part = qkv + (lane * layers + layer) * n * 3 * D
    sees = (seq[:, None] == seq[None, :]) & (token[:, None] >= token[None, :])
    head = (a < A)[None, :]
    for h in range(H):
        rows = part + here[:, None] * (3 * D) + h * A + a[None, :]
        to = wide + D + h * A + a[None, :]
        q = tl.load(rows, mask=ok & head, other=0.0)
        k = tl.load(rows + D, mask=ok & head, other=0.0)
        v = tl.load(rows + 2 * D, mask=ok & head, other=0.0)
        s = tl.where(sees, dot(q, tl.trans(k), None, PREC) * scale, float("-inf"))
        p = tl.exp(s - tl.max(s, 1)[:, None])
        p = p / tl.sum(p, 1)[:, None]
        ph = p.to(DT)
        tl.store(to + 3 * D, dot(ph, v, None, PREC).to(DT), mask=ok & head)
        out = tl.load(w + 2 * D + 3 * D * D + (h * A + a)[None, :] * D + d[:, None], mask=head, other=0.0).to(DT)
        do = dot(half, out, None, PREC).to(DT)
        tl.store(to + 2 * D, dot(tl.trans(ph), do, None, PREC).to(DT), mask=ok & head)
        dp = dot(do, tl.trans(v), None, PREC)
        ds = (p * (dp - tl.sum(dp * p, 1)[:, None]) * scale).to(DT)
        tl.store(to, dot(ds, k, None, PREC).to(DT), mask=ok & head)
        tl.store(to + D, dot(tl.trans(ds), q, None, PREC).to(DT), mask=ok & head)
    x = tl.load(xs + (lane * (layers + 1) + layer) * n * D + at, mask=ok, other=0.0)
    normed, rstd = norm(x, EPS)
    gain = tl.load(w + d)[None, :]
    tl.store(wide + d[None, :], (normed * gain + tl.load(w + D + d)[None, :]).to(DT), mask=ok)
    dy = tl.zeros([R, D], tl.float32)
    tl.debug_barrier()  # what other threads of this program stored is read
    for i in tl.static_range(3 * D // FC):
        weight = tl.load(w + 2 * D + d[None, :] * (3 * D) + i * FC + f[:, None]).to(DT)
        of = tl.load(wide + D + i * FC + f[None, :], mask=ok, other=0.0)
        dy = dot(of, weight, dy, PREC)
    tl.store(dnorms + d, tl.sum(dy * normed, 0))
    tl.store(dnorms + D + d, tl.sum(dy, 0))
    tl.store(dx + lane * n * D + at, dout + norm_backward(dy * gain, normed, rstd), mask=ok)


@triton.jit(do_not_specialize=["array"])
def block_step(
    operands,
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
    D: tl.constexpr,
    F: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    PREC: tl.constexpr,
):
    """Step on a block's matrices and biases: each gradient is left' right over all rows, in tiles [M, M].

    Tiles of the four matrices stand behind one another on the first axis of the grid. first, array: where the block's
    parameters begin, and the number of its first array.
    """
    W: tl.constexpr = 8 * D + 2 * F if F else 6 * D
    E: tl.constexpr = D // M
    FE: tl.constexpr = F // M
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
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
    acc, columns = tl.zeros([M, M], tl.float32), tl.zeros([M], tl.float32)
    for start in range(0, n, K):
        inside = start + k < n
        x = tl.load(operands + (start + k)[None, :] * W + left + m[:, None], mask=inside[None, :], other=0.0)
        y = tl.load(operands + (start + k)[:, None] * W + right + m[None, :], mask=inside[:, None], other=0.0)
        acc = dot(x, y, acc, PREC)
        if F:
            columns += tl.sum(y.to(tl.float32), 0)
    base = lane * lane_stride + first + tl.multiple_of(offset, 16)
    at = base + (i * M + m)[:, None] * width + j * M + m[None, :]
    every = (m[:, None] >= 0) & (m[None, :] >= 0)
    update(
        acc, at, every, lane, array + number,
        parameters, firsts, seconds, gradients, statics, dynamics, counter, arrays,
    )  # fmt: skip
    if F:
        at = base + last + j * M + m
        biased = (m >= 0) & (i == 0) & (last > 0)
        update(
            columns, at, biased, lane, array + number + 1,
            parameters, firsts, seconds, gradients, statics, dynamics, counter, arrays,
        )  # fmt: skip
