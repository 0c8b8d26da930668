"""Before and after the blocks: tokens, and the head, whose logits never stand in memory.

rows, labels: int32 [S, batches, B, C+1], what is drawn; counter: which batch it is, following: which will be next.
A head's tile is KT labels.
"""

import triton
import triton.language as tl

from icl_transience.engines.triton.parts import dot, exp, log, norm, norm_backward, precise_exp, rule_of, update


@triton.jit
def tokens(
    xs,
    bank,
    rows,
    labels,
    counter,
    positions,
    parameters,
    lane_stride,
    at_embedder,
    at_table,
    at_places,
    layers,
    batch,
    batches,
    I: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    KI: tl.constexpr,
    LEARNED: tl.constexpr,
    DT: tl.constexpr,
    PREC: tl.constexpr,
):
    """Fill the first part of xs [S, L+1, B*T, D] with x1 l1 … xC lC xq and their positions.

    bank [exemplars, I] float32; positions [T, D], the fixed ones. at_embedder, at_table, at_places: where the
    embedder, the labels' table and learned positions (LEARNED) begin in a lane's parameters.
    """
    T: tl.constexpr = 2 * C + 1
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    item, d, k = tile * R + tl.arange(0, R), tl.arange(0, D), tl.arange(0, KI)
    count = batch * (C + 1)
    ok = item < count
    at = (lane * batches + tl.load(counter)) * count + item
    row = tl.load(rows + at, mask=ok, other=0).to(tl.int64)
    weights = parameters + lane * lane_stride + at_embedder
    acc = tl.zeros([R, D], tl.float32)
    for start in range(0, I, KI):
        inside = start + k < I
        x = tl.load(bank + row[:, None] * I + (start + k)[None, :], mask=ok[:, None] & inside[None, :], other=0.0)
        w = tl.load(weights + (start + k)[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
        acc = dot(x.to(DT), w.to(DT), acc, PREC)
    acc += tl.load(weights + I * D + d)[None, :]
    token, sequence = 2 * (item % (C + 1)), item // (C + 1)
    to = xs + lane * (layers + 1) * batch * T * D + ((sequence * T + token) * D)[:, None] + d[None, :]
    place = positions + (token * D)[:, None] + d[None, :]
    # A query has no label behind it.
    pair = ok & (token < 2 * C)
    label = tl.load(labels + at, mask=pair, other=0).to(tl.int64)
    table = parameters + lane * lane_stride + at_table
    of_label = tl.load(table + (label * D)[:, None] + d[None, :], mask=pair[:, None], other=0.0)
    acc += tl.load(place, mask=ok[:, None], other=0.0)
    of_label += tl.load(place + D, mask=pair[:, None], other=0.0)
    if LEARNED:
        place = parameters + lane * lane_stride + at_places + (token * D)[:, None] + d[None, :]
        acc += tl.load(place, mask=ok[:, None], other=0.0)
        of_label += tl.load(place + D, mask=pair[:, None], other=0.0)
    tl.store(to, acc, mask=ok[:, None])
    tl.store(to + D, of_label, mask=pair[:, None])


@triton.jit
def _normed_queries(xs, lane, scale, b, d, layers, batch, T: tl.constexpr, D: tl.constexpr, EPS: tl.constexpr):
    """Return the last tokens of sequences `b` behind all blocks, [rows, D], through the norm at `scale`."""
    last = xs + (lane * (layers + 1) + layers) * batch * T * D + ((b * T + T - 1) * D)[:, None] + d[None, :]
    x = tl.load(last, mask=(b < batch)[:, None], other=0.0)
    normed, rstd = norm(x, EPS)
    return normed * tl.load(scale + d)[None, :] + tl.load(scale + D + d)[None, :], normed, rstd


@triton.jit
def head_stats(
    xs,
    stats,
    at_target,
    labels,
    counter,
    parameters,
    lane_stride,
    at_norm,
    at_head,
    n_labels,
    layers,
    batch,
    batches,
    C: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    KT: tl.constexpr,
    EPS: tl.constexpr,
    DT: tl.constexpr,
    PREC: tl.constexpr,
):
    """Fill stats [S, tiles, 2, B]: a tile's largest logit and the sum of exponentials beside it; at_target [S, B].

    B: the batch, rounded up to a power of two. at_norm, at_head: where the last norm and the unembedding begin.
    """
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b, d, k = tl.arange(0, B), tl.arange(0, D), tile * KT + tl.arange(0, KT)
    w = parameters + lane * lane_stride
    x, _, _ = _normed_queries(xs, lane, w + at_norm, b, d, layers, batch, 2 * C + 1, D, EPS)
    w += at_head
    weight = tl.load(w + d[:, None] * n_labels + k[None, :], mask=(k < n_labels)[None, :], other=0.0)
    bias = tl.load(w + D * n_labels + k, mask=k < n_labels, other=float("-inf"))
    logits = dot(x.to(DT), weight.to(DT), None, PREC) + bias[None, :]
    best = tl.max(logits, 1)
    to = stats + (lane * tl.num_programs(0) + tile) * 2 * B + b
    tl.store(to, best)
    tl.store(to + B, tl.sum(exp(logits - best[:, None], DT, PREC), 1))
    at = ((lane * batches + tl.load(counter)) * batch + b) * (C + 1) + C
    target = tl.load(labels + at, mask=b < batch, other=-1)
    hit = target[:, None] == k[None, :]
    here = (target >= tile * KT) & (target < tile * KT + KT)
    tl.store(at_target + lane * B + b, tl.sum(tl.where(hit, logits, 0.0), 1), mask=here)


@triton.jit
def head_sums(
    stats, at_target, log_sums, of_sequences, counter, following, tiles, batch, B: tl.constexpr, CHUNK: tl.constexpr
):
    """Fill log_sums [S, B], of all tiles in their order, and of_sequences [S, B], their losses. Grid (1, S).

    And count the batches: the next step begins with this number, which nothing else of this step reads.
    """
    lane = tl.program_id(1).to(tl.int64)
    if lane == 0:
        tl.store(following, tl.load(counter) + 1)
    b, t = tl.arange(0, B), tl.arange(0, CHUNK)
    best, total = tl.full([B], float("-inf"), tl.float32), tl.zeros([B], tl.float32)
    for start in range(0, tiles, CHUNK):
        inside = (start + t < tiles)[:, None]
        part = stats + (lane * tiles + start + t)[:, None] * 2 * B + b[None, :]
        bests = tl.load(part, mask=inside, other=float("-inf"))
        sums = tl.load(part + B, mask=inside, other=0.0)
        larger = tl.maximum(best, tl.max(bests, 0))
        total = total * precise_exp(best - larger) + tl.sum(sums * precise_exp(bests - larger[None, :]), 0)
        best = larger
    log_sum = best + log(total)
    tl.store(log_sums + lane * B + b, log_sum)
    loss = log_sum - tl.load(at_target + lane * B + b, mask=b < batch, other=0.0)
    tl.store(of_sequences + lane * B + b, tl.where(b < batch, loss, 0.0))


@triton.jit
def _slopes(
    xs,
    log_sums,
    labels,
    counter,
    parameters,
    lane_stride,
    at_norm,
    at_head,
    n_labels,
    layers,
    batch,
    batches,
    C: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    KT: tl.constexpr,
    EPS: tl.constexpr,
    DT: tl.constexpr,
    PREC: tl.constexpr,
):
    """Return (the tile's weights [D, KT] DT, normed queries [B, D] DT, the loss's slope towards logits [B, KT])."""
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b, d, k = tl.arange(0, B), tl.arange(0, D), tile * KT + tl.arange(0, KT)
    w = parameters + lane * lane_stride
    x, _, _ = _normed_queries(xs, lane, w + at_norm, b, d, layers, batch, 2 * C + 1, D, EPS)
    rows = x.to(DT)
    w += at_head
    weight = tl.load(w + d[:, None] * n_labels + k[None, :], mask=(k < n_labels)[None, :], other=0.0).to(DT)
    bias = tl.load(w + D * n_labels + k, mask=k < n_labels, other=float("-inf"))
    logits = dot(rows, weight, None, PREC) + bias[None, :]
    log_sum = tl.load(log_sums + lane * B + b)
    place = ((lane * batches + tl.load(counter)) * batch + b) * (C + 1) + C
    target = tl.load(labels + place, mask=b < batch, other=-1)
    slope = exp(logits - log_sum[:, None], DT, PREC) - (target[:, None] == k[None, :]).to(tl.float32)
    return weight, rows, tl.where((b < batch)[:, None], slope * (1.0 / batch), 0.0)


@triton.jit
def head_backward(
    xs,
    dxs,
    log_sums,
    labels,
    counter,
    parameters,
    lane_stride,
    at_norm,
    at_head,
    n_labels,
    layers,
    batch,
    batches,
    C: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    KT: tl.constexpr,
    EPS: tl.constexpr,
    DT: tl.constexpr,
    PREC: tl.constexpr,
):
    """Fill dxs [S, tiles, B, D], a tile's part of the gradient towards the normed queries."""
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    weight, _, slope = _slopes(
        xs, log_sums, labels, counter, parameters, lane_stride, at_norm, at_head, n_labels, layers, batch, batches,
        C, B, D, KT, EPS, DT, PREC,
    )  # fmt: skip
    b, d = tl.arange(0, B), tl.arange(0, D)
    to = dxs + ((lane * tl.num_programs(0) + tile) * B + b)[:, None] * D + d[None, :]
    tl.store(to, dot(slope.to(DT), tl.trans(weight), None, PREC))


@triton.jit
def head_step(
    xs,
    log_sums,
    labels,
    at_norm,
    at_head,
    n_labels,
    layers,
    batch,
    batches,
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
    C: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    KT: tl.constexpr,
    EPS: tl.constexpr,
    DT: tl.constexpr,
    PREC: tl.constexpr,
):
    """Step on the unembedding, whose slopes are computed again: what steps can run while blocks go backward."""
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    d, k = tl.arange(0, D), tile * KT + tl.arange(0, KT)
    rule = rule_of(statics, dynamics, counter, lane, array, arrays)
    of_bias = rule_of(statics, dynamics, counter, lane, array + 1, arrays)
    _, rows, slope = _slopes(
        xs, log_sums, labels, counter, parameters, lane_stride, at_norm, at_head, n_labels, layers, batch, batches,
        C, B, D, KT, EPS, DT, PREC,
    )  # fmt: skip
    inside = (k < n_labels)[None, :] & (d >= 0)[:, None]
    base = lane * lane_stride + at_head
    at = base + d[:, None] * n_labels + k[None, :]
    at_bias = base + D * n_labels + k
    tl.debug_barrier()  # every thread has read its weights before one is changed
    update(
        dot(tl.trans(rows), slope.to(DT), None, PREC), at, inside, rule,
        parameters, firsts, seconds, gradients,
    )  # fmt: skip
    update(
        tl.sum(slope, 0), at_bias, k < n_labels, of_bias,
        parameters, firsts, seconds, gradients,
    )  # fmt: skip


@triton.jit
def query_backward(
    dx,
    dnorm,
    dxs,
    xs,
    parameters,
    lane_stride,
    at_norm,
    layers,
    batch,
    tiles,
    T: tl.constexpr,
    TP: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    CHUNK: tl.constexpr,
    EPS: tl.constexpr,
):
    """Fill dx [S, B, T, D], towards what the blocks give: 0 but for queries; dnorm [S, B, 2, D]. Grid (B, S)."""
    b, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    one, d, t, token = tl.arange(0, 1), tl.arange(0, D), tl.arange(0, CHUNK), tl.arange(0, TP)
    dy = tl.zeros([D], tl.float32)
    for start in range(0, tiles, CHUNK):
        part = dxs + ((lane * tiles + start + t) * B + b)[:, None] * D + d[None, :]
        dy += tl.sum(tl.load(part, mask=(start + t < tiles)[:, None], other=0.0), 0)
    scale = parameters + lane * lane_stride + at_norm
    _, normed, rstd = _normed_queries(xs, lane, scale, b + one, d, layers, batch, T, D, EPS)
    dy = dy[None, :]
    to = dnorm + (lane * batch + b) * 2 * D + d[None, :] + one[:, None]
    tl.store(to, dy * normed)
    tl.store(to + D, dy)
    dquery = norm_backward(dy * tl.load(scale + d)[None, :], normed, rstd)
    to = dx + (lane * batch + b) * T * D
    tl.store(to + (token * D)[:, None] + d[None, :], tl.zeros([TP, D], tl.float32), mask=(token < T - 1)[:, None])
    tl.store(to + (T - 1) * D + d[None, :] + one[:, None], dquery)
