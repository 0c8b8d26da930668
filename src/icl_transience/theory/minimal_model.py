"""The minimal model of coopetition (Singh et al. 2025): ICL's loss falls, then rises again while CIWL's goes to 0.

Two strategies fit a target of rank 1 each, and share two of their three factors. With means over all entries,

    L1 = 1/2 mean((a* x b* x c* - a x b x c)^2)                           ICL
    L2 = the same with d in place of a                                    CIWL
    L = (L1 + mu1)(L2 + mu2) + alpha/2 mean((a x d)^2)

where x is the outer product and * marks targets. Gradient descent on L starts from other random vectors.

A gradient of L with respect to a vector lies in the plane of that vector and its target, so each stays where it began:
x(t) = p(t) x(0) + q(t) x*. All that L and its gradient need are scalar products of x(0) and x*, which do not change.
A step takes a few numbers a seed, whatever the vectors' lengths.

R: seeds, those of all variants together; an axis of 4 is in the order of VECTORS.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from icl_transience import philox
from icl_transience.specs.theory import MinimalModel

VECTORS = ("a", "b", "c", "d")
# Losses are kept at each of the first steps, then at steps this much later than the one before.
_EACH_UNTIL = 100
_GROWTH = 1.02


@dataclass(frozen=True)
class Vectors:
    """Where the vectors begin and where they are to go: of each of VECTORS an array [R, entries], float64."""

    start: tuple[np.ndarray, ...]
    target: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Losses:
    """What gradient descent did, for R seeds; a step is counted by those taken before it.

    steps: [T], at which losses are kept. icl, ciwl: L1 and L2 at them, [T, R]; NaN after a seed's last one.
    last: [R], the step at which a seed stopped, diverged or was told to end. stopped: [R], whether L was below
    `stop_below` there. diverged: [R], whether it was no finite number. icl_min, icl_min_at: [R], the lowest L1 over all
    steps and where it was. icl_end, ciwl_end: [R], at the last one.
    """

    steps: np.ndarray
    icl: np.ndarray
    ciwl: np.ndarray
    last: np.ndarray
    stopped: np.ndarray
    diverged: np.ndarray
    icl_min: np.ndarray
    icl_min_at: np.ndarray
    icl_end: np.ndarray
    ciwl_end: np.ndarray


def draw(model: MinimalModel) -> Vectors:
    """Draw standard normal vectors, R = seeds: a pure function of seed, vector and entry."""

    def vectors(what: str) -> tuple[np.ndarray, ...]:
        return tuple(
            np.stack([_normal(seed, f"minimal model/{name}/{what}", count) for seed in range(model.n_seeds)])
            for name, count in zip(VECTORS, (model.dim, model.dim, model.dim, model.dim_d), strict=True)
        )

    return Vectors(start=vectors("start"), target=vectors("target"))


def _normal(seed: int, name: str, count: int) -> np.ndarray:
    words = philox.words(seed, philox.domain(name), np.arange(-(-count // 4)), 0, 4)
    return ndtri((np.stack(words, axis=1).ravel()[:count] + 0.5) / 2**32)


def kept_steps(steps: int) -> np.ndarray:
    """Return the steps below `steps` at which losses are kept, ascending from 0."""
    kept = list(range(min(_EACH_UNTIL, steps)))
    while (following := math.ceil(kept[-1] * _GROWTH)) < steps and kept[-1]:
        kept.append(following)
    return np.array(kept)


@np.errstate(over="ignore", invalid="ignore")  # at too high a rate; such seeds are reported as diverged
def descend(model: MinimalModel, vectors: Vectors) -> Losses:
    """Follow gradient descent, every seed under every variant: R is variants x seeds, seeds within variants.

    The loss is computed `model.steps` times at most. A seed whose loss is below `model.stop_below`, or no finite number
    any more, goes no further.
    """
    descent = _Descent(model, vectors)
    # Of all seeds; `under_way` are the places in them of those that the descent still has.
    under_way = np.arange(len(model.variants) * len(vectors.start[0]))
    kept = kept_steps(model.steps)
    icl, ciwl = np.full((2, len(kept), len(under_way)), np.nan)
    icl_min, icl_end, ciwl_end = np.full((3, len(under_way)), np.inf)
    icl_min_at, last = np.zeros((2, len(under_way)), int)
    stopped, diverged = np.zeros((2, len(under_way)), bool)
    lowest, lowest_at = np.full(len(under_way), np.inf), np.zeros(len(under_way), int)
    row = 0
    for step in range(model.steps):
        loss1, loss2, loss = descent.losses()
        lowest_at[loss1 < lowest] = step
        lowest = np.fmin(lowest, loss1)
        if row < len(kept) and kept[row] == step:
            icl[row, under_way], ciwl[row, under_way] = loss1, loss2
            row += 1
        below, lost = loss < model.stop_below, ~np.isfinite(loss)
        ends = below | lost | (step == model.steps - 1)
        if ends.any():
            ended = under_way[ends]
            last[ended], stopped[ended], diverged[ended] = step, below[ends], lost[ends]
            icl_min[ended], icl_min_at[ended] = lowest[ends], lowest_at[ends]
            icl_end[ended], ciwl_end[ended] = loss1[ends], loss2[ends]
            under_way, lowest, lowest_at = under_way[~ends], lowest[~ends], lowest_at[~ends]
            descent.leave_out(ends)
        if not len(under_way):
            break
        descent.step()
    return Losses(
        steps=kept[:row],
        icl=icl[:row],
        ciwl=ciwl[:row],
        last=last,
        stopped=stopped,
        diverged=diverged,
        icl_min=icl_min,
        icl_min_at=icl_min_at,
        icl_end=icl_end,
        ciwl_end=ciwl_end,
    )


class _Descent:
    """Where the vectors of R seeds are; R becomes smaller as seeds end. A pair is what holds for a and L1, d and L2."""

    def __init__(self, model: MinimalModel, vectors: Vectors):
        seeds, times = len(vectors.start[0]), len(model.variants)
        self.learning_rate = model.learning_rate
        weights = np.repeat([(one.mu1, one.mu2, one.alpha) for one in model.variants], seeds, axis=0).T
        self.mu, self.alpha = weights[:2], weights[2]
        # x(0).x(0), x(0).x* and x*.x* of each vector: [3, 4, R]
        pairs = ((vectors.start, vectors.start), (vectors.start, vectors.target), (vectors.target, vectors.target))
        fixed = [[(x * y).sum(axis=1) for x, y in zip(*pair, strict=True)] for pair in pairs]
        self.fixed = np.tile(np.array(fixed), times)
        a, b, c, d = (vector.shape[1] for vector in vectors.start)
        self.entries, self.entries_of_cost = np.array([[a * b * c], [d * b * c]]), a * d
        # p and q of each vector: [4, R]
        self.p, self.q = np.ones(self.fixed.shape[1:]), np.zeros(self.fixed.shape[1:])

    def losses(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return L1, L2 and L, [R] each."""
        p, q, (start, across, target) = self.p, self.q, self.fixed
        # |x|^2 and x.x* of each vector: [4, R]
        self.squares = p * p * start + 2 * p * q * across + q * q * target
        self.products = p * across + q * target
        self.bc2, self.bc = self.squares[1] * self.squares[2], self.products[1] * self.products[2]
        errors = target[::3] * (target[1] * target[2]) - 2 * self.products[::3] * self.bc + self.squares[::3] * self.bc2
        pair = errors / (2 * self.entries)
        self.factors = pair + self.mu
        cost = self.squares[0] * self.squares[3] / (2 * self.entries_of_cost)
        return pair[0], pair[1], self.factors[0] * self.factors[1] + self.alpha * cost

    def step(self) -> None:
        """Take a step from where `losses` was computed."""
        squares, products = self.squares, self.products
        # dL/dL1 and dL/dL2 over the entries of their means. The gradient with respect to x is keep * x - pull * x*.
        slopes = self.factors[::-1] / self.entries
        keep, pull = np.empty_like(squares), np.empty_like(squares)
        keep[::3] = slopes * self.bc2 + self.alpha / self.entries_of_cost * squares[::-3]
        pull[::3] = slopes * self.bc
        keep[1:3] = (slopes * squares[::3]).sum(axis=0) * squares[2:0:-1]
        pull[1:3] = (slopes * products[::3]).sum(axis=0) * products[2:0:-1]
        stays = 1 - self.learning_rate * keep
        self.p, self.q = self.p * stays, self.q * stays + self.learning_rate * pull

    def leave_out(self, ended: np.ndarray) -> None:
        """Go on without these seeds, bool [R]."""
        for name in ("mu", "alpha", "fixed", "p", "q", "squares", "products", "bc2", "bc", "factors"):
            setattr(self, name, getattr(self, name)[..., ~ended])
