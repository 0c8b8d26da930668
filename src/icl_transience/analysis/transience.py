"""What a curve says: when in-context learning appears, peaks and fades, and how sure that is.

A curve is an evaluator's metric y_i at sequences seen n_i, with its chance level c. Definitions:

    smoothed      s_i = mean of y_j over |j - i| <= (smoothing - 1) / 2, fewer at the ends
    peak          p = max s_i, at the first n_i that reaches it: `peak_at`. Censored at the last snapshot n_last, as the
                  curve may go on rising
    final         f = y at the last point alone: the horizon where a segment ends there, else the snapshot before it
    half level    h = c + (p - c) / 2
    emergence     the first n at which s rises to h, interpolated linearly in log2 n. Left-censored where that is not
                  after the first n > 0: all that is known is that it is at most that. Censored at n_last where nothing
                  emerged (never)
    half-life     n - n_peak for the first n after the peak at which s falls to h, interpolated likewise; if it does
                  not by the last snapshot, n_last - n_peak, censored
    index         the transience index (p - f) / (p - c): 0 nothing lost, 1 all of it
    at_peak       every other curve's s at n_peak: what stopping there would have left. A point that is reported:
                  training goes on, and who stops in earnest does not know the peak yet

    noise         sigma_i^2 = e_i^2 + w^2 / m_i, where e_i is the evaluator's standard error (its sequences are the
                  same at every snapshot, so smoothing does not lower it), m_i the snapshots averaged in s_i, and w the
                  noise of a snapshot, from second differences d_i = y_{i-1} - 2 y_i + y_{i+1}:
                  w = median |d_i| / (0.6745 sqrt 6)
    outcome       diverged    the lane's loss was no longer finite
                  never       p - c <= max(min_effect, 3 sigma_peak)
                  transient   p - f >  max(min_effect, 3 sqrt(sigma_peak^2 + sigma_final^2)), m = 1 in sigma_final
                  persistent  otherwise

Three sigma because the peak is the largest of tens of correlated values. A censored time is a lower bound of the time.

Over the seeds of a run, everywhere that a number of a run is said or drawn (`summarise_run`):

    levels        of peak, final, index, at_peak and the ends of other curves: the mean of the lanes' own, with its
                  interval. No number is that of the mean curve, whose peak is lower and elsewhere where seeds peak at
                  different times
    times         of emergence, peak_at, half-life: the median by Kaplan and Meier's estimator (survival.py), infinite
                  where it is not reached. No mean is taken of bounds
    left out      a diverged lane of all, one in which nothing emerged of peak_at, half-life, index and at_peak; n_x
                  counts the lanes of which x is taken
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from icl_transience.analysis.survival import median_time
from icl_transience.specs.experiment import QUANTITIES, TIMES, Statistics

N_SIGMA = 3.0
OUTCOMES = ("never", "transient", "persistent", "diverged")
# Below this many seeds a bootstrap has too few distinct resamples: a t-interval instead.
BOOTSTRAP_FROM = 6


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One lane's curve in numbers; None where the outcome leaves a quantity undefined (never, diverged).

    A time that is `censored` is a lower bound, one that is `left_censored` an upper bound.
    """

    outcome: str
    emergence: float | None = None
    emergence_censored: bool | None = None
    emergence_left_censored: bool | None = None
    peak: float | None = None
    peak_at: float | None = None
    peak_at_censored: bool | None = None
    half_life: float | None = None
    half_life_censored: bool | None = None
    final: float | None = None
    index: float | None = None
    noise: float | None = None


def smooth(values: np.ndarray, smoothing: int) -> np.ndarray:
    """Return the running mean s of `values` [n]; see the module's definitions."""
    return _window_sums(values, smoothing) / _window_sums(np.ones(len(values)), smoothing)


def _window_sums(values: np.ndarray, smoothing: int) -> np.ndarray:
    half = (smoothing - 1) // 2
    return np.array([values[max(0, i - half) : i + half + 1].sum() for i in range(len(values))])


def snapshot_noise(values: np.ndarray) -> float:
    """Return the standard deviation between neighbouring snapshots, whatever the trend; 0 under 3 snapshots."""
    if len(values) < 3:
        return 0.0
    second = np.diff(values, n=2)
    return float(np.median(np.abs(second)) / (special.ndtri(0.75) * math.sqrt(6)))


def summarise(
    sequences_seen: np.ndarray,
    values: np.ndarray,
    standard_errors: np.ndarray,
    chance: float,
    statistics: Statistics,
    diverged: bool = False,
) -> Summary:
    """Summarise one lane's curve.

    sequences_seen [n] ascending; values and standard_errors [n], the evaluator's metric and its standard error.
    """
    if diverged:
        return Summary(outcome="diverged")
    smoothed = smooth(values, statistics.smoothing)
    averaged = _window_sums(np.ones(len(values)), statistics.smoothing)
    between = snapshot_noise(values)
    noise = np.sqrt(smooth(standard_errors, statistics.smoothing) ** 2 + between**2 / averaged)
    top = int(smoothed.argmax())
    peak, final = float(smoothed[top]), float(values[-1])
    fall_noise = math.hypot(noise[top], standard_errors[-1], between)
    last = float(sequences_seen[-1])
    if peak - chance <= max(statistics.min_effect, N_SIGMA * noise[top]):
        return Summary(
            outcome="never",
            emergence=last,
            emergence_censored=True,
            emergence_left_censored=False,
            peak=peak,
            final=final,
            noise=fall_noise,
        )
    half_level = chance + (peak - chance) / 2
    risen, earliest = crossing(sequences_seen, smoothed, half_level), _first_after_start(sequences_seen)
    assert risen is not None, "the peak lies above the level half way to it"
    fallen = crossing(sequences_seen[top:], -smoothed[top:], -half_level)
    is_transient = peak - final > max(statistics.min_effect, N_SIGMA * fall_noise)
    return Summary(
        outcome="transient" if is_transient else "persistent",
        emergence=max(risen, earliest),
        emergence_censored=False,
        emergence_left_censored=risen <= earliest,
        peak=peak,
        peak_at=float(sequences_seen[top]),
        peak_at_censored=top == len(values) - 1,
        half_life=float((last if fallen is None else fallen) - sequences_seen[top]),
        half_life_censored=fallen is None,
        final=final,
        index=(peak - final) / (peak - chance),
        noise=fall_noise,
    )


def _first_after_start(sequences_seen: np.ndarray) -> float:
    """Return the first snapshot after training began; what came before it, nobody saw."""
    return float(sequences_seen[int(np.argmax(sequences_seen > 0))])


def crossing(sequences_seen: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """Return where `values` first rise to `level`, or None; interpolated linearly in log2 of sequences seen."""
    reached = np.flatnonzero(values >= level)
    if not len(reached):
        return None
    after = int(reached[0])
    if after == 0:
        return float(sequences_seen[0])
    before, share = after - 1, (level - values[after - 1]) / (values[after] - values[after - 1])
    start, end = float(sequences_seen[before]), float(sequences_seen[after])
    return start + share * (end - start) if start == 0 else start * (end / start) ** float(share)


def interval(values: Sequence[float], confidence: float) -> tuple[float | None, float | None]:
    """Return an interval for the mean over seeds: Student's t under 6 values, else bootstrap (BCa, 9,999 resamples).

    (None, None) for fewer than two values: one seed says nothing about others.
    """
    if len(values) < 2:
        return None, None
    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if np.ptp(array) == 0:
        return mean, mean
    if len(array) < BOOTSTRAP_FROM:
        half = float(t_half_width(array, confidence))
        return mean - half, mean + half
    # Here and not above: it takes longer to import than everything else in a job that draws or tabulates few seeds.
    from scipy.stats import bootstrap

    ends = bootstrap((array,), np.mean, confidence_level=confidence, rng=np.random.default_rng(0)).confidence_interval
    return float(ends.low), float(ends.high)


def t_half_width(values: np.ndarray, confidence: float) -> np.ndarray:
    """Return half the width of Student's t interval for the mean of values [..., n] over their last axis."""
    n = values.shape[-1]
    standard_error = values.std(axis=-1, ddof=1) / math.sqrt(n)
    return special.stdtrit(n - 1, (1 + confidence) / 2) * standard_error


# What is averaged over seeds, and the range that an interval cannot leave.
LEVELS = {"peak": (0, 1), "final": (0, 1), "index": (-math.inf, 1)}


def summarise_run(summaries: Sequence[Summary], chance: float, statistics: Statistics) -> dict[str, object]:
    """Summarise a run over its seeds: outcome, counts of the lanes' outcomes, and each quantity with its interval.

    Of a quantity x, n_x counts the lanes that have it, and of a time n_x_censored those that only give a lower bound;
    see the module's definitions. The outcome is that of the lanes' mean rise p - c and mean fall p - f: each must
    exceed min_effect and, since all lanes answer the same sequences, 3 times the lanes' mean noise; a fall is claimed
    only if its interval over seeds lies above 0 as well. With one seed the outcome is that lane's own. A run all of
    whose lanes diverged is diverged.
    """
    row: dict[str, object] = {"seeds": len(summaries)}
    row |= {f"n_{outcome}": sum(s.outcome == outcome for s in summaries) for outcome in OUTCOMES}
    alive = [summary for summary in summaries if summary.outcome != "diverged"]
    row["outcome"] = _run_outcome(alive, chance, statistics)
    for name in QUANTITIES:
        with_it = [summary for summary in alive if getattr(summary, name) is not None]
        values = [getattr(summary, name) for summary in with_it]
        if name in TIMES:
            censored = [getattr(summary, f"{name}_censored") for summary in with_it]
            time = median_time(values, censored, statistics.confidence)
            row |= {name: time.median, f"{name}_lower": time.lower, f"{name}_upper": time.upper}
            row |= {f"n_{name}": time.n, f"n_{name}_censored": time.censored}
            continue
        lowest, highest = LEVELS[name]
        lower, upper = interval(values, statistics.confidence)
        row[name] = float(np.mean(values)) if values else None
        row[f"{name}_lower"] = None if lower is None else max(lower, lowest)
        row[f"{name}_upper"] = None if upper is None else min(upper, highest)
        row[f"n_{name}"] = len(values)
    row["n_emergence_left_censored"] = sum(summary.emergence_left_censored is True for summary in alive)
    return row


def _run_outcome(alive: Sequence[Summary], chance: float, statistics: Statistics) -> str:
    """Return the outcome of a run. alive: the summaries of the lanes that did not diverge."""
    if len(alive) < 2:
        return alive[0].outcome if alive else "diverged"
    # A lane that did not diverge has all three.
    peaks, finals, noises = (
        np.array([getattr(summary, name) for summary in alive], dtype=float) for name in ("peak", "final", "noise")
    )
    threshold = max(statistics.min_effect, N_SIGMA * float(noises.mean()))
    falls = peaks - finals
    if (peaks - chance).mean() <= threshold:
        return "never"
    lower, _ = interval(falls.tolist(), statistics.confidence)
    return "transient" if falls.mean() > threshold and lower is not None and lower > 0 else "persistent"


def as_row(summary: Summary) -> dict[str, object]:
    """Return the columns of transience.csv that a summary fills."""
    return {name: value for name, value in vars(summary).items() if name != "noise"}
