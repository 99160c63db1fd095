"""What latencies measured in sessions say, and how sure that is.

The same file opened twice differs in median latency by 1 to 3 %, for its memory lies elsewhere; within one session that
cannot be seen. So a session is one observation: its median of each contestant. Rounds within it only sharpen that.

Shapes: R rounds, S sessions. Times are milliseconds, float64.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

TAIL_SAMPLES = 100
"""Samples from which a 99th percentile is reported: with fewer, none is expected beyond it, and it is the maximum."""
QUANTILES = 21
"""Numbers that show a distribution: minimum, 5th, 10th, ... 95th percentile, maximum."""
CONFIDENCE = 0.95
"""Of every interval that a record holds."""
TRIM = 0.1
"""Share of sessions left out at either end where two measurements are compared."""


def percentiles(samples: Times) -> tuple[float, float, float | None]:
    """Return median, 90th and 99th percentile of ``samples [R]``, linearly interpolated, in the unit of the samples.

    The 99th is None with fewer than ``TAIL_SAMPLES`` samples.
    """
    p50, p90, p99 = np.percentile(samples, (50, 90, 99))
    return float(p50), float(p90), float(p99) if samples.size >= TAIL_SAMPLES else None


def quantiles(samples: Times) -> tuple[float, ...]:
    """Return the ``QUANTILES`` numbers, rising, of ``samples [R]``."""
    return tuple(float(value) for value in np.quantile(samples, np.linspace(0, 1, QUANTILES)))


def median_interval(samples: Times, sessions: Times, bootstrap: int, seed: int) -> tuple[float, float, float]:
    """Return median of all ``samples [R]``, and a 95 % interval from the sessions' medians ``[S]``.

    The interval is that of the geometric mean of the session medians (as in ``speedup_interval``), so that it knows how
    much one session differs from the next. The median of all samples weighs sessions by their rounds and can lie
    outside; the interval is then extended to hold it.
    """
    median = float(np.median(samples))
    _, low, high = _geometric_mean_interval(logs_of(sessions), bootstrap, seed)
    return median, min(low, median), max(high, median)


def speedup_interval(
    reference: Times, own: Times, bootstrap: int, seed: int, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Return speed-up over a reference: geometric mean over sessions of median over median, and its interval.

    ``reference [S]`` and ``own [S]`` are medians of the same sessions, so that drift they share cancels. The interval
    is a block bootstrap with sessions as blocks, by percentiles that are expanded because a bootstrap of few blocks is
    too narrow (Hesterberg 2015, Am. Stat. 69:371, section 4.2): to normal quantiles of level
    Phi(-sqrt(S / (S - 1)) t), t the quantile of Student's t with S - 1 degrees of freedom. No resample of so few
    blocks reaches beyond them all, so an end is never nearer than that of Student's interval of the mean itself.

    Simulated coverage with session effects of 1 to 3 % (1,500 trials each) is 94 to 97 % with 5 to 20 sessions. What
    stays the same for as long as a process lives is in no session's difference from the next, nor in the interval;
    ``benchmarks/gates.py`` measures that.
    """
    return _geometric_mean_interval(logs_of(reference) - logs_of(own), bootstrap, seed, confidence)


def change_interval(before: Times, now: Times, confidence: float) -> tuple[float, float, float]:
    """Return how many times as large ``before`` was as ``now``, with an interval, from two independent measurements.

    ``before [S]`` and ``now [T]`` are logarithms by session. The result is exp(mean before - mean now), with the ends
    of Yuen's interval (1974, Biometrika 61:165): that of Welch, which lets the two differ in how much their sessions
    vary, of means without the ``TRIM`` highest and lowest, so that a disturbed session neither moves the mean nor
    widens the interval. Of log speed-ups this is the slowdown: 1.1 for a student that became 10 % slower relative to
    its teacher.
    """
    (first, one, many), (second, other, more) = _trimmed(before), _trimmed(now)
    difference, spread = first - second, one + other
    if spread == 0:  # no variation to judge by
        return math.exp(difference), math.exp(difference), math.exp(difference)
    # Shares of the spread: the squares of tiny variances would vanish.
    freedom = 1 / ((one / spread) ** 2 / (many - 1) + (other / spread) ** 2 / (more - 1))
    half = student_quantile(freedom, confidence) * math.sqrt(spread)
    return math.exp(difference), math.exp(difference - half), math.exp(difference + half)


def _trimmed(logs: Times) -> tuple[float, float, int]:
    """Return mean of ``logs [S]`` without the extremes, the variance of that mean, and how many are left."""
    ordered, cut = np.sort(logs), int(TRIM * logs.size)
    kept = ordered[cut : logs.size - cut]
    drawn_in = np.clip(ordered, kept[0], kept[-1])  # winsorized
    variance = float(drawn_in.var(ddof=1)) * (logs.size - 1) / (kept.size * (kept.size - 1))
    return float(kept.mean()), variance, kept.size


def half_width(logs: Times, confidence: float = CONFIDENCE) -> float:
    """Return half of Student's interval of the mean of ``logs [S]``: near zero, a share of what they are logs of."""
    return student_quantile(logs.size - 1, confidence) * float(logs.std(ddof=1)) / math.sqrt(logs.size)


def logs_of(medians: Times) -> Times:
    """Return natural logarithms of session medians ``[S]``; a ValueError is raised for one that is not positive."""
    if not bool(np.all(medians > 0)):
        raise ValueError("a time is zero or negative: the clock is too coarse for these models.")
    return np.asarray(np.log(medians), dtype=np.float64)


def _geometric_mean_interval(
    logs: Times, bootstrap: int, seed: int, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    count = logs.size
    resampled = np.random.default_rng(seed).integers(0, count, size=(bootstrap, count))
    means = logs[resampled].mean(axis=1)
    wide = math.sqrt(count / (count - 1)) * student_quantile(count - 1, confidence)
    tail = 100 * NormalDist().cdf(-wide)
    low, high = np.percentile(means, (tail, 100 - tail))
    mean, half = float(logs.mean()), half_width(logs, confidence)
    return math.exp(mean), math.exp(min(low, mean - half)), math.exp(max(high, mean + half))


def student_quantile(freedom: float, confidence: float) -> float:
    """Return the number that |t| stays below with ``confidence``."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + confidence / 2))
