"""Latency of several models side by side, in a way that a comparison can be trusted.

A machine drifts (turbo, heat, neighbours), so models timed one after the other are compared across different
machines in effect. Here every round times each contestant once, in an order shuffled anew, and the statistics keep
rounds together. For ONNX Runtime, sessions must have ``session.intra_op.allow_spinning=0``, or the threads of one
steal the cores of the next.

Shapes: R rounds. Times are milliseconds, float64.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import psutil
from numpy.typing import NDArray

Times = NDArray[np.float64]

WINDOW = 5
"""Rounds whose medians are compared to see whether warm-up is over."""
SETTLED = 0.05
"""Relative change between successive windows' medians below which a contestant counts as warm."""
WARMUP_SHARE = 0.25
"""Share of the time budget that warm-up may take when nothing settles."""
MAX_ROUNDS = 2000
"""Rounds after which more would sharpen nothing that is reported."""
TAIL_SAMPLES = 100
"""Samples from which a 99th percentile is reported: with fewer, none is expected beyond it, and it is the maximum."""


def physical_cores() -> int:
    """Physical cores that this process may use: the threads every latency is measured with unless told otherwise."""
    allowed = len(psutil.Process().cpu_affinity() or []) if hasattr(psutil.Process, "cpu_affinity") else None
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return min(allowed or physical, physical)


def measure(
    contestants: Mapping[str, Callable[[], object]],
    seconds: float,
    min_rounds: int = 20,
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> dict[str, Times]:
    """Time all contestants interleaved, after a detected warm-up.

    Args:
        contestants: what to time, by name; each call is one inference that has finished when it returns.
        seconds: budget for everything, warm-up included. Ends at the first whole round past it.
        min_rounds: rounds kept even when the budget is spent.
        clock: seconds, monotonic; replaced in tests.
        seed: of the order within rounds. Random, not rotated: a rotation keeps every contestant behind the same
            neighbour, and inherits that one's caches and clocks each time.

    Returns:
        Milliseconds ``[R]`` for each contestant; entry r of all of them comes from the same round.

    Raises:
        ValueError: no contestants, a budget that is not positive, or fewer than one round asked for.
    """
    if not contestants or not seconds > 0 or min_rounds < 1:
        raise ValueError(
            f"{len(contestants)} contestants, {seconds} seconds, min_rounds {min_rounds}: all must be positive."
        )
    names, calls = list(contestants), list(contestants.values())
    rng = np.random.default_rng(seed)
    start = clock()

    def one_round() -> Times:
        times = np.empty(len(calls))
        for index in rng.permutation(len(calls)):
            began = clock()
            calls[index]()
            times[index] = clock() - began
        return times

    with no_garbage_collection():
        _warm_up(one_round, lambda: clock() - start >= WARMUP_SHARE * seconds)
        rounds: list[Times] = []
        while len(rounds) < min_rounds or (clock() - start < seconds and len(rounds) < MAX_ROUNDS):
            rounds.append(one_round())
    table = np.stack(rounds) * 1e3
    return {name: np.ascontiguousarray(table[:, column]) for column, name in enumerate(names)}


def _warm_up(one_round: Callable[[], Times], spent: Callable[[], bool]) -> None:
    """Run and discard rounds until every contestant's window medians settle, or the warm-up's time is spent."""
    previous: Times | None = None
    window: list[Times] = []
    while True:
        window.append(one_round())
        if spent():
            return
        if len(window) < WINDOW:
            continue
        medians = np.median(np.stack(window), axis=0)
        if previous is not None and bool(np.all(np.abs(medians - previous) <= SETTLED * previous)):
            return
        previous, window = medians, []


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the collector from running inside; as it was afterwards. What could be collected is, beforehand."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def percentiles(samples: Times) -> tuple[float, float, float | None]:
    """Median, 90th and 99th percentile of ``samples [R]``, linearly interpolated, in the unit of the samples.

    The 99th is None with fewer than ``TAIL_SAMPLES`` samples.

    Raises:
        ValueError: no samples.
    """
    if samples.size == 0:
        raise ValueError("no samples to take percentiles of.")
    p50, p90, p99 = np.percentile(samples, (50, 90, 99))
    return float(p50), float(p90), float(p99) if samples.size >= TAIL_SAMPLES else None


def median_interval(samples: Times, bootstrap: int, seed: int) -> tuple[float, float, float]:
    """Median of ``samples [R]`` and its 95 % block-bootstrap interval, in the unit of the samples.

    Raises:
        ValueError: no samples.
    """
    if samples.size == 0:
        raise ValueError("no samples to take the median of.")
    medians = np.median(samples[_resampled_rounds(samples.size, bootstrap, seed)], axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(np.median(samples)), float(low), float(high)


def ratio_interval(teacher_ms: Times, student_ms: Times, bootstrap: int, seed: int) -> tuple[float, float, float]:
    """Speed-up: median of ``teacher_ms [R]`` over median of ``student_ms [R]``, with a 95 % block-bootstrap interval.

    Both are resampled by the same rounds, so drift they share cancels. Simulated coverage with autocorrelated drift
    in each (lag-one correlation 0 / 0.5 / 0.8): 95 / 94 / 92 % at 200 rounds, 96 / 95 / 85 % at 50.

    Raises:
        ValueError: the two are not rounds of one measurement (lengths differ), are empty, or hold a time <= 0.
    """
    if teacher_ms.shape != student_ms.shape or teacher_ms.size == 0:
        raise ValueError(f"paired rounds needed; got shapes {teacher_ms.shape} and {student_ms.shape}.")
    if not (bool(np.all(teacher_ms > 0)) and bool(np.all(student_ms > 0))):
        raise ValueError("a time is zero or negative: the clock is too coarse for these models.")
    rounds = _resampled_rounds(teacher_ms.size, bootstrap, seed)
    ratios = np.median(teacher_ms[rounds], axis=1) / np.median(student_ms[rounds], axis=1)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(np.median(teacher_ms) / np.median(student_ms)), float(low), float(high)


def _resampled_rounds(count: int, bootstrap: int, seed: int) -> NDArray[np.intp]:
    """Indices ``[bootstrap, count]`` of the circular block bootstrap (Politis & Romano 1992), blocks of sqrt(count).

    Neighbouring rounds resemble each other; resampling them one by one would make the interval too narrow (simulated:
    69 % coverage at lag-one correlation 0.8).
    """
    length = max(1, round(math.sqrt(count)))
    blocks = math.ceil(count / length)
    starts = np.random.default_rng(seed).integers(0, count, size=(bootstrap, blocks, 1))
    rounds = (starts + np.arange(length)) % count
    return np.asarray(rounds.reshape(bootstrap, -1)[:, :count], dtype=np.intp)
