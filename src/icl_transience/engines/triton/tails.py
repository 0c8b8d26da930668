"""Steps on what is no matrix of a block: table, embedder, norms, positions; and clipping, which needs all gradients."""

import triton
import triton.language as tl

from icl_transience.engines.triton.parts import STATICS, dot, update


@triton.jit
def table_step(
    dx,
    labels,
    at_table,
    n_labels,
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
    D: tl.constexpr,
    KT: tl.constexpr,
    N: tl.constexpr,
    BC: tl.constexpr,
    FEW: tl.constexpr,
):
    """Step on KT rows of the labels' table a program: a row's gradient is the sum of dx over the tokens that show it.

    In the order of the tokens, without atomics: where few show one of the tile's rows (FEW), one by one, else N tokens
    at a time. BC: the batch's tokens of labels, rounded up to a power of two. dx [S, B, T, D], towards the tokens.
    """
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    k, d, i = tile * KT + tl.arange(0, KT), tl.arange(0, D), tl.arange(0, N)
    count = batch * C
    of_batch = (lane * batches + tl.load(counter)) * batch * (C + 1)
    dx += lane * batch * (2 * C + 1) * D
    acc = tl.zeros([KT, D], tl.float32)
    if FEW:
        item = tl.arange(0, BC)
        at_label = labels + of_batch + (item // C) * (C + 1) + item % C
        label = tl.load(at_label, mask=item < count, other=-1)
        left = tl.where((label >= tile * KT) & (label < tile * KT + KT), item, BC)
        found = tl.min(left, 0)
        while found < BC:
            of_label = tl.sum(tl.where(item == found, label, 0), 0)
            token = ((found // C) * (2 * C + 1) + 2 * (found % C) + 1) * D
            acc += tl.where((k == of_label)[:, None], tl.load(dx + token + d)[None, :], 0.0)
            left = tl.where(item == found, BC, left)
            found = tl.min(left, 0)
    else:
        for start in range(0, count, N):
            item = start + i
            sequence, pair = item // C, item % C
            label = tl.load(labels + of_batch + sequence * (C + 1) + pair, mask=item < count, other=-1)
            here = (label >= tile * KT) & (label < tile * KT + KT)
            if tl.sum(here.to(tl.int32), 0) > 0:
                token = (sequence * (2 * C + 1) + 2 * pair + 1) * D
                of_token = tl.load(dx + token[:, None] + d[None, :], mask=here[:, None], other=0.0)
                # Products with 0 and 1 in full float32: a sum, whatever the run's numerics.
                acc = dot((k[:, None] == label[None, :]).to(tl.float32), of_token, acc, "ieee")
    inside = (k < n_labels)[:, None] & (d >= 0)[None, :]
    at = lane * lane_stride + at_table + k[:, None] * D + d[None, :]
    update(
        acc, at, inside, lane, array,
        parameters, firsts, seconds, gradients, statics, dynamics, counter, arrays,
    )  # fmt: skip


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
        acc, at, (m < I)[:, None] & (d >= 0)[None, :], lane, 0,
        parameters, firsts, seconds, gradients, statics, dynamics, counter, arrays,
    )  # fmt: skip
    update(
        columns, base + I * D + d, (d >= 0) & (tile == 0), lane, 1,
        parameters, firsts, seconds, gradients, statics, dynamics, counter, arrays,
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
        total, lane * lane_stride + at + d, d >= 0, lane, number,
        parameters, firsts, seconds, gradients, statics, dynamics, counter, arrays,
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
    CH: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Shorten stored gradients to the largest norm, where there is one, and take the step of lanes that have them.

    statics: as of lanes that have no L2 and store nothing.
    """
    chunk, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    n, i, s = tl.num_programs(0), tl.arange(0, CH), tl.arange(0, SUM)
    array, first, size = tl.load(chunks + chunk * 3), tl.load(chunks + chunk * 3 + 1), tl.load(chunks + chunk * 3 + 2)
    total = tl.zeros([SUM], tl.float32)
    for start in range(0, n, SUM):
        total += tl.load(sums + lane * n + start + s, mask=start + s < n, other=0.0)
    largest = tl.load(extras + lane * (arrays + 2) + arrays)
    share = tl.where(largest > 0, tl.minimum(largest / (tl.sqrt(tl.sum(total, 0)) + 1e-6), 1.0), 1.0)
    stored = tl.load(extras + lane * (arrays + 2) + arrays + 1).to(tl.int32)
    at, mask = lane * lane_stride + first + i, (i < size) & (stored > 0)
    update(
        tl.load(gradients + at, mask=mask, other=0.0) * share, at, mask, lane, array,
        parameters, firsts, seconds, gradients, statics, dynamics, counter, arrays,
    )  # fmt: skip
