"""Steps on embedder, norms and positions; and clipping, which needs all gradients."""

import triton
import triton.language as tl

from icl_transience.engines.triton.parts import STATICS, dot, rule_of, update


@triton.jit
def embedder_step(
    dx,
    bank,
    rows,
    at_embedder,
    batch,
    batches,
    lane_stride,
    parameters,
    firsts,
    seconds,
    gradients,
    statics,
    dynamics,
    counter,
    arrays,
    I: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    K: tl.constexpr,
    DT: tl.constexpr,
    PREC: tl.constexpr,
):
    """Step on the embedder's weight [I, D], M rows a program, and on its bias: arrays 0 and 1."""
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    m, d, k = tile * M + tl.arange(0, M), tl.arange(0, D), tl.arange(0, K)
    count = batch * (C + 1)
    rows += (lane * batches + tl.load(counter)) * count
    dx += lane * batch * (2 * C + 1) * D
    rule = rule_of(statics, dynamics, counter, lane, 0, arrays)
    acc, columns = tl.zeros([M, D], tl.float32), tl.zeros([D], tl.float32)
    for start in range(0, count, K):
        item = start + k
        ok = item < count
        row = tl.load(rows + item, mask=ok, other=0).to(tl.int64)
        x = tl.load(bank + (row * I)[None, :] + m[:, None], mask=ok[None, :] & (m < I)[:, None], other=0.0)
        token = (item // (C + 1)) * (2 * C + 1) + 2 * (item % (C + 1))
        dy = tl.load(dx + (token * D)[:, None] + d[None, :], mask=ok[:, None], other=0.0)
        acc = dot(x.to(DT), dy.to(DT), acc, PREC)
        columns += tl.sum(dy, 0)
    base = lane * lane_stride + at_embedder
    at = base + m[:, None] * D + d[None, :]
    update(
        acc, at, (m < I)[:, None] & (d >= 0)[None, :], rule,
        parameters, firsts, seconds, gradients,
    )  # fmt: skip
    update(
        columns, base + I * D + d, (d >= 0) & (tile == 0), rule_of(statics, dynamics, counter, lane, 1, arrays),
        parameters, firsts, seconds, gradients,
    )  # fmt: skip


@triton.jit
def vectors_step(
    dnorms,
    dnorm,
    dx,
    of_sequences,
    losses,
    first,
    block_stride,
    at_norm,
    at_places,
    array,
    block_arrays,
    layers,
    tiles,
    batch,
    lane_stride,
    parameters,
    firsts,
    seconds,
    gradients,
    statics,
    dynamics,
    counter,
    arrays,
    T: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Step on norms and learned positions: sums over the parts [parts, D] of their gradients, CHUNK at a time.

    On the first axis of the grid: scales and biases of each block's norms (dnorms [S, L, tiles, 4, D]), the last norm's
    two (dnorm [S, B, 2, D]), then, where positions are learned, T places (dx [S, B, T, D]). The last norm's bias also
    means of_sequences [S, B] into losses [batches, S]. array: number of the first block's first array.
    """
    job, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    d, i = tl.arange(0, D), tl.arange(0, CHUNK)
    norms: tl.constexpr = 4 if F else 2
    blocks = layers * norms
    # source: the first part's first number; stride from part to part; at, number: the array's place and number.
    layer, which = job // norms, job % norms
    source = dnorms + (lane * layers + layer) * tiles * 4 * D + which * D
    stride, parts = 4 * D, tiles
    at = first + layer * block_stride + which * D
    number = array + layer * block_arrays + which
    if F:
        if which >= 2:  # behind the attention's matrices
            at += 4 * D * D
            number += 2
    if job >= blocks:
        which = job - blocks
        source = dnorm + lane * batch * 2 * D + which * D
        stride, parts = 2 * D, batch
        at = at_norm + which * D
        number = array + layers * block_arrays + which
    if job >= blocks + 2:
        which = job - blocks - 2
        source = dx + lane * batch * T * D + which * D
        stride, parts = T * D, batch
        at = at_places + which * D
        number = array - 1
    total = tl.zeros([D], tl.float32)
    for start in range(0, parts, CHUNK):
        inside = (start + i < parts)[:, None]
        total += tl.sum(tl.load(source + (start + i)[:, None] * stride + d[None, :], mask=inside, other=0.0), 0)
    update(
        total, lane * lane_stride + at + d, d >= 0, rule_of(statics, dynamics, counter, lane, number, arrays),
        parameters, firsts, seconds, gradients,
    )  # fmt: skip
    if job == blocks + 1:
        b = tl.arange(0, B)
        mean = tl.sum(tl.load(of_sequences + lane * B + b), 0) / batch
        tl.store(losses + tl.load(counter) * tl.num_programs(1) + lane, mean)


# Where gradients are clipped, or L2 is unsquared, a step needs all of them: they are stored, and `finish` steps. Arrays
# are cut into chunks of CH numbers; chunks [chunks, 3] int32: array, first number, how many.


@triton.jit
def weigh(parameters, weights, chunks, lane_stride, CH: tl.constexpr):
    """Fill weights [S, chunks] with the sums of the squared weights of the chunks."""
    chunk, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    first, size, i = tl.load(chunks + chunk * 3 + 1), tl.load(chunks + chunk * 3 + 2), tl.arange(0, CH)
    p = tl.load(parameters + lane * lane_stride + first + i, mask=i < size, other=0.0)
    tl.store(weights + lane * tl.num_programs(0) + chunk, tl.sum(p * p, 0))


@triton.jit
def penalize(
    parameters, gradients, weights, sums, chunks, spans, extras, statics, lane_stride, arrays,
    CH: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Add L2's part to stored gradients; fill sums [S, chunks] with the chunks' sums of squares of what moves.

    weights: what `weigh` gave; spans [arrays, 2] int32: an array's first chunk and the one behind its last.
    extras [S, arrays + 2] float32: lambda of unsquared L2 of each array, the largest norm, and
    whether the lane's gradients are stored.
    """
    chunk, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    n, i, s = tl.num_programs(0), tl.arange(0, CH), tl.arange(0, SUM)
    array, first, size = tl.load(chunks + chunk * 3), tl.load(chunks + chunk * 3 + 1), tl.load(chunks + chunk * 3 + 2)
    begin, end = tl.load(spans + array * 2), tl.load(spans + array * 2 + 1)
    total = tl.zeros([SUM], tl.float32)
    for start in range(begin, end, SUM):
        total += tl.load(weights + lane * n + start + s, mask=start + s < end, other=0.0)
    length = tl.sqrt(tl.sum(total, 0))
    lambda_ = tl.load(extras + lane * (arrays + 2) + array)
    decay = tl.load(statics + (lane * arrays + array) * STATICS + 5)
    clock = tl.load(statics + (lane * arrays + array) * STATICS + 7)
    at = lane * lane_stride + first + i
    p = tl.load(parameters + at, mask=i < size, other=0.0)
    # 0 where an array is 0, as in engines/optimizers.py.
    g = (
        tl.load(gradients + at, mask=i < size, other=0.0)
        + decay * p
        + lambda_ * (p / tl.maximum(length, 1.1754944e-38))
    )
    tl.store(gradients + at, g, mask=i < size)
    tl.store(sums + lane * n + chunk, tl.where(clock >= 0, tl.sum(g * g, 0), 0.0))


@triton.jit
def finish(
    sums, chunks, extras, lane_stride, parameters, firsts, seconds, gradients, statics, dynamics, counter, arrays,
    matrices, matrix_stride, blocks_first, blocks_end, CH: tl.constexpr, SUM: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    """Shorten stored gradients to the largest norm, where there is one, and take the step of lanes that have them.

    statics: as of lanes that have no L2 and store nothing. matrices, of all blocks, which are the parameters from
    blocks_first to blocks_end: take the new ones, rounded, if ROUND.
    """
    chunk, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    n, i, s = tl.num_programs(0), tl.arange(0, CH), tl.arange(0, SUM)
    array, first, size = tl.load(chunks + chunk * 3), tl.load(chunks + chunk * 3 + 1), tl.load(chunks + chunk * 3 + 2)
    total = tl.zeros([SUM], tl.float32)
    for start in range(0, n, SUM):
        total += tl.load(sums + lane * n + start + s, mask=start + s < n, other=0.0)
    largest = tl.load(extras + lane * (arrays + 2) + arrays)
    share = tl.where(
        largest > 0,
        tl.minimum(largest / (tl.sqrt(tl.sum(total, 0)) + 1e-6), 1.0, propagate_nan=tl.PropagateNan.ALL),
        1.0,
    )
    stored = tl.load(extras + lane * (arrays + 2) + arrays + 1).to(tl.int32)
    at, mask = lane * lane_stride + first + i, (i < size) & (stored > 0)
    in_blocks = lane * matrix_stride + first - blocks_first + i
    update(
        tl.load(gradients + at, mask=mask, other=0.0) * share, at, mask,
        rule_of(statics, dynamics, counter, lane, array, arrays),
        parameters, firsts, seconds, gradients,
        matrices if ROUND else None, in_blocks, (first >= blocks_first) & (first < blocks_end),
    )  # fmt: skip
