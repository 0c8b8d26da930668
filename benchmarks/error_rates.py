"""How often anytime-valid verdicts err where nothing is so, and what they find where something is.

    python benchmarks/error_rates.py [--runs 20000] [--write]

A run is a claim whose seeds come one by one; whoever looks at p after each of them stops as soon as it is at most
0.05. Of each kind of null hypothesis, the share of runs that end as "supported" or as "contradicted" must not exceed
0.05 by more than Monte Carlo error; nor must, of studies with a claim of every kind, the share of those in which any
claim does, after Holm's correction. --write records them in benchmarks/error_rates.json, with the power of the
anytime-valid and of the fixed-sample test at numbers of seeds that are fixed beforehand.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from icl_transience.analysis import eprocess, paired_tests

ALPHA = 0.05
# Longer than anybody adds seeds.
SEEDS = 64
FIRST, HORIZON = 0.3, 1.5
RECORDED = Path(__file__).with_suffix(".json")

Generator = np.random.Generator
# (generator, runs, seeds) -> signs [runs, parts, seeds]
Null = Callable[[Generator, int, int], np.ndarray]


# Null hypotheses: no direction is more likely than the other.


def ties(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """Accuracies of few sequences, so that many are equal."""
    return eprocess.signs("difference", generator.normal(size=(runs, seeds, 2)).round(), 1)


def unequal_seeds(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """Seeds differ in level, and by orders of magnitude in noise."""
    level, noise = generator.normal(size=(2, runs, seeds, 1))
    return eprocess.signs("difference", level + np.exp(3 * noise) * generator.normal(size=(runs, seeds, 2)), -1)


def skewed(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """A quantity whose median is the threshold, and whose mean is far above."""
    return eprocess.signs("threshold", generator.exponential(size=(runs, seeds, 1)) ** 3, 1, threshold=np.log(2) ** 3)


def censored_difference(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """Times past the horizon or before the first snapshot, of which only that is known."""
    return eprocess.signs("difference", *_times(generator, (runs, seeds, 2)))


def censored_trend(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """The same at four levels."""
    return eprocess.signs("trend", *_times(generator, (runs, seeds, 4)))


def _times(generator: Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, int, np.ndarray]:
    """Return times of which those past HORIZON and before FIRST are bounded: lowest, claimed direction, highest."""
    times = generator.exponential(size=shape).round(1)
    early = times < FIRST
    return (
        np.where(early, 0, np.minimum(times, HORIZON)),
        1,
        np.where(times > HORIZON, np.inf, np.maximum(times, FIRST)),
    )


def seen_for_longer(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """Half-lives of two runs, either as likely longer; one peaks late, and so is seen for less time after its peak."""
    spread = generator.normal(size=(runs, seeds, 2)) * [1.0, 0.15]
    seen = generator.uniform([0.2, 0.1], [1.5, 0.4], size=(runs, seeds, 2))
    lowest, highest = _seen(0.3 * np.exp(spread), seen)
    return eprocess.signs("difference", lowest, -1, highest)


def seen_for_less(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """Half-lives whose median is the threshold, and of which the long ones are seldom seen to the end."""
    half_lives, seen = generator.exponential(size=(runs, seeds, 1)), generator.uniform(0, 1, size=(runs, seeds, 1))
    lowest, highest = _seen(half_lives, seen)
    return eprocess.signs("threshold", lowest, -1, highest, threshold=np.log(2))


def seen_trend(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """Half-lives at three levels, any order as likely as its reverse; the more they vary, the longer they are seen."""
    half_lives = 0.3 * np.exp(generator.normal(size=(runs, seeds, 3)) * [1.0, 0.5, 0.15])
    seen = generator.uniform([0.2, 0.15, 0.1], [1.5, 0.8, 0.4], size=(runs, seeds, 3))
    lowest, highest = _seen(half_lives, seen)
    return eprocess.signs("trend", lowest, 1, highest)


def _seen(times: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return times of which those that are not over after `seen` are lower bounds: lowest, highest."""
    return np.minimum(times, seen), np.where(times > seen, np.inf, times)


def no_trend(generator: Generator, runs: int, seeds: int, *, levels: int) -> np.ndarray:
    """Levels make no difference; some values are equal."""
    return eprocess.signs("trend", generator.normal(size=(runs, seeds, levels)).round(1), 1)


def random_slopes(generator: Generator, runs: int, seeds: int, *, levels: int) -> np.ndarray:
    """Every seed has a slope of its own, which is 0 on average."""
    slopes = generator.normal(size=(runs, seeds, 1)) * np.arange(levels)
    return eprocess.signs("trend", slopes + 0.3 * generator.normal(size=(runs, seeds, levels)), 1)


def undefined(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """In one run a quantity is missing in every fifth seed, which goes against the claim; else it rather holds."""
    values = np.stack([generator.random((runs, seeds)), np.full((runs, seeds), 0.5 - 0.125)], axis=-1)
    values[generator.random((runs, seeds)) < 0.2, 1] = np.nan
    return eprocess.signs("difference", values, 1)


def missing_in_one_run(generator: Generator, runs: int, seeds: int, *, where: int, kind: str, lanes: int) -> np.ndarray:
    """Of the seeds that would go one way (`where`) most have a lane that diverged, so that the others are left."""
    values = generator.normal(size=(runs, seeds, lanes))
    going = eprocess.signs(kind, values[..., :1] if kind == "threshold" else values, 1)[..., 0, :]
    values[(going == where) & (generator.random((runs, seeds)) < 0.8), 0] = np.nan
    return eprocess.signs(kind, values, 1)


def missing_in_all_runs(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """In some seeds every lane diverged."""
    values = generator.normal(size=(runs, seeds, 2))
    values[generator.random((runs, seeds)) < 0.4] = np.nan
    return eprocess.signs("difference", values, 1)


def depends_on_the_past(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """Seeds are not independent: how many are ties depends on what came before, the direction does not."""
    signs = np.zeros((runs, 1, seeds), int)
    for seed in range(seeds):
        ahead = signs[:, 0].sum(axis=1) > 0
        decided = generator.random(runs) < np.where(ahead, 0.3, 1)
        signs[:, 0, seed] = np.where(decided, generator.choice([-1, 1], runs), 0)
    return signs


def one_part_fails(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """Of a claim of four parts three always hold, one is open."""
    return np.concatenate([np.ones((runs, 3, seeds), int), ties(generator, runs, seeds)], axis=1)


def open_parts(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """Of a claim of four parts all are open, and depend on each other."""
    common = generator.normal(size=(runs, seeds, 1))
    return eprocess.signs("threshold", common + 0.5 * generator.normal(size=(runs, seeds, 4)), 1, threshold=0)


def equal_parts(generator: Generator, runs: int, seeds: int) -> np.ndarray:
    """All four are the same thing."""
    return np.repeat(ties(generator, runs, seeds), 4, axis=1)


NULLS: dict[str, Null] = {
    "difference, ties": ties,
    "difference, unequal seeds": unequal_seeds,
    "difference, censored": censored_difference,
    "difference, one run is seen for longer": seen_for_longer,
    "threshold, seen for less than it takes": seen_for_less,
    "trend, seen for less at each level": seen_trend,
    "difference, undefined in one run": undefined,
    "difference, undefined in all runs": missing_in_all_runs,
    **{
        f"{kind}, diverged where it {'holds' if where == 1 else 'does not hold'}": partial(
            missing_in_one_run, where=where, kind=kind, lanes=lanes
        )
        for kind, lanes in (("difference", 2), ("threshold", 1), ("trend", 3))
        for where in (1, -1)
    },
    "threshold, skewed": skewed,
    "trend, censored": censored_trend,
    **{f"trend, {levels} levels": partial(no_trend, levels=levels) for levels in range(2, 7)},
    **{f"random slopes, {levels} levels": partial(random_slopes, levels=levels) for levels in range(2, 7)},
    "seeds that depend on the past": depends_on_the_past,
    "conjunction, one part open": one_part_fails,
    "conjunction, all parts open": open_parts,
    "conjunction, equal parts": equal_parts,
}


def error_rates(null: Null, runs: int, seeds: int = SEEDS, seed: int = 0) -> tuple[float, float]:
    """Return the share of runs that were ever supported, and that were ever contradicted, looked at after each seed."""
    found = eprocess.evidence(null(np.random.default_rng(seed), runs, seeds))
    # p never rises, so that whoever stops at the first p <= ALPHA stops where the last one is.
    return float((found.p[:, -1] <= ALPHA).mean()), float((found.p_against[:, -1] <= ALPHA).mean())


def family_error_rates(runs: int, seeds: int = SEEDS) -> tuple[float, float]:
    """Return in which share of studies, with a claim of every kind, any was ever supported, or ever contradicted."""
    found = [
        eprocess.evidence(null(np.random.default_rng([1, n]), runs, seeds)) for n, null in enumerate(NULLS.values())
    ]
    of_claims = [np.stack([getattr(one, name)[:, -1] for one in found], axis=1) for name in ("p", "p_against")]
    any_of = [[min(paired_tests.holm(study)) <= ALPHA for study in p.tolist()] for p in of_claims]
    supported, contradicted = (float(np.mean(ever)) for ever in any_of)
    return supported, contradicted


def monte_carlo_error(runs: int) -> float:
    """Return the standard error of a share of ALPHA."""
    return float(np.sqrt(ALPHA * (1 - ALPHA) / runs))


# Power: normal differences, in units of their standard deviation over seeds.


def power(effect: float, seeds: int, alpha: float, runs: int) -> tuple[float, float]:
    """Return how often the claim is supported after `seeds` seeds: anytime-valid, and by the sign-flip test."""
    differences = np.random.default_rng(1).normal(effect, size=(runs, seeds, 1))
    anytime = eprocess.evidence(eprocess.signs("threshold", differences, 1)).p[:, -1] <= alpha
    flips = [paired_tests.sign_flip(of_run) <= alpha and sum(of_run) > 0 for of_run in differences[..., 0].tolist()]
    return float(anytime.mean()), float(np.mean(flips))


def main() -> None:
    """Print the rates, and record them where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20_000, help="claims of each kind")
    parser.add_argument("--write", action="store_true", help=f"record them in {RECORDED.name}")
    options = parser.parse_args()
    error = monte_carlo_error(options.runs)
    nulls, powers = {}, []
    for name, null in NULLS.items():
        began = time.perf_counter()
        supported, contradicted = error_rates(null, options.runs)
        seconds = time.perf_counter() - began
        nulls[name] = {"supported": supported, "contradicted": contradicted}
        print(f"{name:35} supported {supported:.4f}  contradicted {contradicted:.4f}  ({seconds:.1f} s)")
    supported, contradicted = family_error_rates(options.runs)
    print(f"{'any claim of a study, after Holm':35} supported {supported:.4f}  contradicted {contradicted:.4f}")
    # What Holm's correction for ten claims asks of the first, and of the last.
    for alpha in (ALPHA / 10, ALPHA):
        for effect in (1.0, 1.5, 2.0):
            for seeds in (8, 12, 16):
                anytime, fixed = power(effect, seeds, alpha, options.runs // 20)
                said = {"alpha": alpha, "effect": effect, "seeds": seeds}
                powers.append(said | {"anytime": anytime, "fixed": fixed})
                print(f"alpha {alpha:g}, effect {effect:g}, {seeds:2} seeds: anytime {anytime:.3f}, fixed {fixed:.3f}")
    recorded = {"alpha": ALPHA, "runs": options.runs, "seeds": SEEDS, "standard_error": error}
    family = {"supported": supported, "contradicted": contradicted}
    recorded |= {"nulls": nulls, "any_of_a_study": family, "power": powers}
    if options.write:
        RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
