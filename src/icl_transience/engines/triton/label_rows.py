"""The labels' table: a step reads and writes the rows alone that the batch shows.

Every other row's gradient is 0 then, and its step depends on nothing else: `replay` takes the steps that a row has
missed, one by one as they would have been taken, before it is read, and before the state is. last [S, K] int32: of
how many batches, of those drawn together, a row has had the steps. Lanes whose gradients are stored miss none.
"""

import triton
import triton.language as tl

from icl_transience.engines.triton.parts import adam, dot, of_array, of_batch, rule_of, update


@triton.jit
def shown(labels, lane, number, item, batch, batches, C: tl.constexpr, BC: tl.constexpr):
    """Return (label of a batch's item, whether no item before it has the same). BC: items, or a few more."""
    i = tl.arange(0, BC)
    at = (lane * batches + number) * batch * (C + 1) + (i // C) * (C + 1) + i % C
    label = tl.load(labels + at, mask=i < batch * C, other=-1)
    mine = tl.sum(tl.where(i == item, label, 0), 0)
    return mine, tl.min(tl.where(label == mine, i, BC), 0) == item


@triton.jit(do_not_specialize=["whole"])
def replay(
    labels,
    last,
    whole,
    at_table,
    n_labels,
    batch,
    batches,
    array,
    lane_stride,
    parameters,
    firsts,
    seconds,
    statics,
    dynamics,
    following,
    counter,
    arrays,
    C: tl.constexpr,
    D: tl.constexpr,
    BC: tl.constexpr,
):
    """Take the steps that rows have missed, a row a program: rows that the batch shows or, if whole is 1, all.

    The batch is `following`, which is the counter from here on.
    """
    item, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    d, number = tl.arange(0, D), tl.load(following)
    if (item == 0) & (lane == 0):
        tl.store(counter, number)
    row, due = item, item >= 0
    if whole == 0:
        row, due = shown(labels, lane, number, item, batch, batches, C, BC)
    constants, clock, stores = of_array(statics, lane, array, arrays)
    last += lane * n_labels + row
    missed = tl.load(last)
    # Every thread has read what one of them writes at the end.
    tl.debug_barrier()
    if due & (missed < number) & (stores == 0):
        at = lane * lane_stride + at_table + row * D + d
        p, m, v = tl.load(parameters + at), tl.load(firsts + at), tl.load(seconds + at)
        nothing = tl.zeros([D], tl.float32)
        # Of an array that stands still no step is missed.
        for other in range(tl.where(clock < 0, number, missed), number):
            now = of_batch(dynamics, other, lane, tl.num_programs(1), clock)
            p, m, v = adam(p, m, v, nothing, constants, now)
        tl.store(parameters + at, p)
        tl.store(firsts + at, m)
        tl.store(seconds + at, v)
        tl.store(last, number)


@triton.jit
def rows_step(
    dx,
    labels,
    last,
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
    BC: tl.constexpr,
    N: tl.constexpr,
):
    """Step on the rows that the batch shows: a row's gradient is the sum of dx over the tokens that show it.

    An item of the batch a program; N tokens at a time, in their order and without atomics. dx [S, B, T, D].
    """
    item, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    d, i, number = tl.arange(0, D), tl.arange(0, N), tl.load(counter)
    row, first = shown(labels, lane, number, item, batch, batches, C, BC)
    _, _, stores = of_array(statics, lane, array, arrays)
    if first & (stores == 0):
        labels += (lane * batches + number) * batch * (C + 1)
        dx += lane * batch * (2 * C + 1) * D
        total = tl.zeros([D], tl.float32)
        for start in range(0, batch * C, N):
            sequence, pair = (start + i) // C, (start + i) % C
            label = tl.load(labels + sequence * (C + 1) + pair, mask=start + i < batch * C, other=-1)
            here = label == row
            if tl.sum(here.to(tl.int32), 0) > 0:
                token = (sequence * (2 * C + 1) + 2 * pair + 1) * D
                total += tl.sum(tl.load(dx + token[:, None] + d[None, :], mask=here[:, None], other=0.0), 0)
        update(
            total, lane * lane_stride + at_table + row * D + d, d >= 0,
            rule_of(statics, dynamics, counter, lane, array, arrays),
            parameters, firsts, seconds, gradients,
        )  # fmt: skip
        tl.store(last + lane * n_labels + row, number + 1)


@triton.jit
def rows_stored(
    dx,
    labels,
    at_table,
    n_labels,
    batch,
    batches,
    array,
    lane_stride,
    gradients,
    statics,
    counter,
    arrays,
    C: tl.constexpr,
    D: tl.constexpr,
    KT: tl.constexpr,
    N: tl.constexpr,
):
    """Store the gradient of every row, KT a program, of lanes that step on stored gradients: see tails.py."""
    tile, lane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    k, d, i = tile * KT + tl.arange(0, KT), tl.arange(0, D), tl.arange(0, N)
    _, _, stores = of_array(statics, lane, array, arrays)
    if stores > 0:
        labels += (lane * batches + tl.load(counter)) * batch * (C + 1)
        dx += lane * batch * (2 * C + 1) * D
        total = tl.zeros([KT, D], tl.float32)
        for start in range(0, batch * C, N):
            sequence, pair = (start + i) // C, (start + i) % C
            label = tl.load(labels + sequence * (C + 1) + pair, mask=start + i < batch * C, other=-1)
            here = (label >= tile * KT) & (label < tile * KT + KT)
            if tl.sum(here.to(tl.int32), 0) > 0:
                token = (sequence * (2 * C + 1) + 2 * pair + 1) * D
                of_token = tl.load(dx + token[:, None] + d[None, :], mask=here[:, None], other=0.0)
                # Products with 0 and 1 in full float32: a sum, whatever the run's numerics.
                total = dot((k[:, None] == label[None, :]).to(tl.float32), of_token, total, "ieee")
        inside = (k < n_labels)[:, None] & (d >= 0)[None, :]
        tl.store(gradients + lane * lane_stride + at_table + k[:, None] * D + d[None, :], total, mask=inside)
