"""What kernels are built from: products, norms, GELU, and the optimizer's step at the end of a gradient.

Letters for shapes as in model/transformer.py. DT is the type of operands of products, float32 or bfloat16; PREC how
float32 products are taken: "ieee", "tf32", or "tf32x3", three products of tf32. They add up in float32 always.
"""

import os

import triton
import triton.language as tl
from triton.language.extra import libdevice

from icl_transience.engines.triton import tables

# The interpreter multiplies the bit patterns of bfloat16 (3.7.1); their float32 products are the same numbers.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
BFLOAT16, FLOAT32 = tl.bfloat16, tl.float32
LOG2_E = tl.constexpr(1.4426950408889634)
# Columns of the tables by which `update` knows what to do: see tables.py.
STATICS, CLOCKS = tl.constexpr(tables.STATICS), tl.constexpr(tables.CLOCKS)


@triton.jit
def dot(a, b, acc, PREC: tl.constexpr):
    """Return acc + a @ b in float32; acc None is 0."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PREC)


@triton.jit
def exp2(x):
    """Return 2^x by the GPU's own function, off by 2^-22; less than 1e-38 is 0."""
    if INTERPRETED:
        return tl.exp2(x)
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def inverse(x):
    """Return 1 / x by the GPU's own function, off by 2^-23."""
    if INTERPRETED:
        return 1.0 / x
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def root(x):
    """Return the square root of x by the GPU's own function, off by 2^-23; that of less than 1e-38 is 0."""
    if INTERPRETED:
        return tl.sqrt(x)
    return tl.inline_asm_elementwise("sqrt.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def precise_exp(x):
    """Return e^x to the last bits. The GPU's own is off by 2^-22 and by a rounding of x log2(e)."""
    if INTERPRETED:
        return tl.exp(x)
    return libdevice.exp(x)


@triton.jit
def exp(x, DT: tl.constexpr, PREC: tl.constexpr):
    """Return e^x: to the last bits where products are in float32, else by the GPU's own function."""
    if PREC == "tf32" or DT == BFLOAT16:
        return exp2(x * LOG2_E)
    return precise_exp(x)


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
def gelu(u, DT: tl.constexpr):
    """Return (GELU of u in its tanh form, the tanh in it); for products in bfloat16 by the GPU's tanh, off by 2^-11."""
    inner = u * (0.7978845608028654 + 0.035677408136300125 * (u * u))
    if INTERPRETED or DT != BFLOAT16:
        t = 1 - 2 * inverse(1 + exp2(inner * (2 * LOG2_E)))
    else:
        t = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [inner], dtype=tl.float32, is_pure=True, pack=1
        )
    half = 0.5 * u
    return half + half * t, t


@triton.jit
def gelu_backward(u, t):
    """Return the slope of GELU at u, whose tanh is t."""
    inner = 0.7978845608028654 + 3 * 0.035677408136300125 * (u * u)
    return 0.5 + 0.5 * t + (0.5 * u * inner) * (1 - t * t)


@triton.jit
def of_array(statics, lane, array, arrays):
    """Return what `statics` [S, arrays, STATICS] says of a lane's array: see tables.py.

    (beta1, 1 - beta1, beta2, 1 - beta2, epsilon, L2, weight decay), the clock, whether gradients are stored. The
    second and fourth are numbers of their own: taken here in float32, 1 - beta2 would be wrong by 1.3e-5.
    """
    statics += (lane * arrays + array) * STATICS
    beta1, new1, beta2, new2 = tl.load(statics), tl.load(statics + 1), tl.load(statics + 2), tl.load(statics + 3)
    constants = beta1, new1, beta2, new2, tl.load(statics + 4), tl.load(statics + 5), tl.load(statics + 6)
    return constants, tl.load(statics + 7).to(tl.int32), tl.load(statics + 8).to(tl.int32)


@triton.jit
def of_batch(dynamics, number, lane, lanes, clock):
    """Return what `dynamics` [batches, S, CLOCKS, 3] says of a batch: learning rate, size of the step, 1 / correction.

    clock: see tables.py; below 0 it stands still, and what is returned is for nothing.
    """
    dynamics += ((number * lanes + lane) * CLOCKS + tl.maximum(clock, 0)) * 3
    return tl.load(dynamics), tl.load(dynamics + 1), tl.load(dynamics + 2)


@triton.jit
def adam(p, m, v, gradient, constants, now):
    """Return (p, m, v) after a step on the gradient. constants, now: of `of_array` and `of_batch`."""
    beta1, new1, beta2, new2, eps, decay, shrink = constants
    rate, size, corrected = now
    gradient += decay * p
    m = beta1 * m + new1 * gradient
    v = beta2 * v + new2 * gradient * gradient
    p -= rate * shrink * p
    return p - size * m * inverse(root(v * corrected) + eps), m, v


@triton.jit
def rule_of(statics, dynamics, counter, lane, array, arrays):
    """Return what a lane's array is stepped on by, for `update`."""
    constants, clock, stores = of_array(statics, lane, array, arrays)
    return constants, of_batch(dynamics, tl.load(counter), lane, tl.num_programs(1), clock), clock, stores


@triton.jit
def update(
    gradient,
    at,
    mask,
    rule,
    parameters,
    firsts,
    seconds,
    gradients,
    rounded=None,
    at_rounded=None,
    rounds=True,
):
    """Take Adam's step on the numbers at `at` of the flat arrays [S, P], or keep their gradient for `finish`.

    rule: of `rule_of`. rounded: where given, takes the new numbers at `at_rounded`, if `rounds`, which is one for all
    of them: with one for each, the compiler would store them one by one.
    """
    constants, now, clock, stores = rule
    # A branch of one kernel, not another kernel: or a lane's bits would depend on what its pack needs.
    if stores > 0:
        tl.store(gradients + at, gradient, mask=mask)
    else:
        # A clock below 0 stands still: the array is frozen.
        mask = mask & (clock >= 0)
        p = tl.load(parameters + at, mask=mask, other=0.0)
        m = tl.load(firsts + at, mask=mask, other=0.0)
        v = tl.load(seconds + at, mask=mask, other=0.0)
        p, m, v = adam(p, m, v, gradient, constants, now)
        tl.store(parameters + at, p, mask=mask)
        tl.store(firsts + at, m, mask=mask)
        tl.store(seconds + at, v, mask=mask)
        if rounded is not None:
            tl.store(rounded + at_rounded, p.to(rounded.dtype.element_ty), mask=mask & rounds)
