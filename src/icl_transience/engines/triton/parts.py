"""What kernels are built from: products, norms, GELU, and the optimizer's step at the end of a gradient.

Letters for shapes as in model/transformer.py. DT is the type of operands of products, float32 or bfloat16; PREC how
float32 products are taken: "ieee" or "tf32". They add up in float32 always.
"""

import os

import triton
import triton.language as tl
from triton.language.extra import libdevice

from icl_transience.engines.triton import tables

# The interpreter multiplies the bit patterns of bfloat16 (3.7.1); their float32 products are the same numbers.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
# Columns of the tables by which `update` knows what to do: see tables.py.
BFLOAT16, FLOAT32 = tl.bfloat16, tl.float32
STATICS, CLOCKS = tl.constexpr(tables.STATICS), tl.constexpr(tables.CLOCKS)


@triton.jit
def dot(a, b, acc, PREC: tl.constexpr):
    """Return acc + a @ b in float32; acc None is 0."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PREC)


@triton.jit
def exp(x, PREC: tl.constexpr):
    """Return e^x: to the last bits, but in tf32 by the GPU's own function.

    That one is off by 2^-22 and by a rounding of x log2(e).
    """
    if INTERPRETED or PREC == "tf32":
        return tl.exp(x)
    return libdevice.exp(x)


@triton.jit
def log(x):
    """Return the natural logarithm to the last bits.

    The GPU's own is off by 2^-22, and so would be everything that a softmax gives.
    """
    if INTERPRETED:
        return tl.log(x)
    return libdevice.log(x)


@triton.jit
def norm(x, EPS: tl.constexpr):
    """Return (LayerNorm of the rows of x before scale and bias, 1 / standard deviation [rows])."""
    width: tl.constexpr = x.shape[1]
    centred = x - (tl.sum(x, 1) / width)[:, None]
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / width + EPS)
    return centred * rstd[:, None], rstd


@triton.jit
def norm_backward(dn, n, rstd):
    """Return the gradient towards the input of `norm`, whose results are n and rstd; dn: that towards n."""
    width: tl.constexpr = n.shape[1]
    return rstd[:, None] * (dn - (tl.sum(dn, 1) / width)[:, None] - n * (tl.sum(dn * n, 1) / width)[:, None])


@triton.jit
def gelu(u):
    """Return (GELU of u in its tanh form, the tanh in it)."""
    t = 2 * tl.sigmoid(2 * (0.7978845608028654 * (u + 0.044715 * u * u * u))) - 1
    return 0.5 * u * (1 + t), t


@triton.jit
def gelu_backward(u, t):
    """Return the slope of GELU at u, whose tanh is t."""
    return 0.5 * (1 + t) + 0.5 * u * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * u * u)


@triton.jit
def update(
    gradient,
    at,
    mask,
    lane,
    array,
    parameters,
    firsts,
    seconds,
    gradients,
    statics,
    dynamics,
    counter,
    arrays,
):
    """Take Adam's step on the numbers at `at` of the lane's array, or keep their gradient for `finish`, as statics say.

    at: from the beginning of the flat arrays [S, P]; statics [S, arrays, STATICS], dynamics [batches, S, CLOCKS, 3]
    float32: see tables.py. lane, array: numbers. counter: which batch it is.
    """
    statics += (lane * arrays + array) * STATICS
    # A branch of one kernel, not another kernel: or a lane's bits would depend on what its pack needs.
    if tl.load(statics + 8).to(tl.int32) > 0:
        tl.store(gradients + at, gradient, mask=mask)
    else:
        beta1, beta2, eps = tl.load(statics), tl.load(statics + 2), tl.load(statics + 4)
        # 1 - beta as numbers of their own: taken here in float32, 1 - beta2 would be wrong by 1.3e-5.
        new1, new2 = tl.load(statics + 1), tl.load(statics + 3)
        decay, shrink, clock = tl.load(statics + 5), tl.load(statics + 6), tl.load(statics + 7).to(tl.int32)
        # A clock below 0 stands still: the array is frozen.
        mask = mask & (clock >= 0)
        dynamics += ((tl.load(counter) * tl.num_programs(1) + lane) * CLOCKS + tl.maximum(clock, 0)) * 3
        rate, correction1, correction2 = tl.load(dynamics), tl.load(dynamics + 1), tl.load(dynamics + 2)
        p = tl.load(parameters + at, mask=mask, other=0.0)
        m = tl.load(firsts + at, mask=mask, other=0.0)
        v = tl.load(seconds + at, mask=mask, other=0.0)
        gradient += decay * p
        m = beta1 * m + new1 * gradient
        v = beta2 * v + new2 * gradient * gradient
        p -= rate * shrink * p
        tl.store(parameters + at, p - rate / correction1 * m / (tl.sqrt(v / correction2) + eps), mask=mask)
        tl.store(firsts + at, m, mask=mask)
        tl.store(seconds + at, v, mask=mask)
