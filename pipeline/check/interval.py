"""How much a mean changed between two independent measurements."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def change_interval(
    before: NDArray[np.float64], now: NDArray[np.float64], confidence: float
) -> tuple[float, float, float]:
    """How many times as large ``before`` was as ``now``, with its interval.

    Args:
        before: logarithms by session ``[S]``.
        now: likewise ``[T]``, of another measurement.
        confidence: of the interval, between 0 and 1.

    Returns:
        exp(mean before - mean now), and the ends of the interval of Welch (1947, Biometrika 34:28), which lets the
        two vary by different amounts.

    Raises:
        ValueError: fewer than two sessions on a side.
    """
    from scipy.special import stdtrit  # scipy.stats, which has this as a whole, takes a second to import

    if min(before.size, now.size) < 2:
        raise ValueError(f"two sessions or more on each side needed; got {before.size} and {now.size}.")
    difference = float(before.mean() - now.mean())
    one, other = float(before.var(ddof=1)) / before.size, float(now.var(ddof=1)) / now.size
    spread = one + other
    if spread == 0:
        return math.exp(difference), math.exp(difference), math.exp(difference)
    # Shares of the spread: the squares of tiny variances would vanish.
    freedom = 1 / ((one / spread) ** 2 / (before.size - 1) + (other / spread) ** 2 / (now.size - 1))
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(spread)
    return math.exp(difference), math.exp(difference - half), math.exp(difference + half)
