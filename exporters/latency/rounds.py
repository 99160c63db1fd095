"""Rounds: every contestant once, in an order shuffled anew, after a detected warm-up.

A machine drifts (turbo, heat, neighbours), so models timed one after the other are compared across different machines
in effect. For ONNX Runtime, sessions must have ``session.intra_op.allow_spinning=0``, or the threads of one steal the
cores of the next.

Shapes: R rounds, C contestants. Times are milliseconds, float64.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from vitcompress.exporters.latency.statistics import Times

Call = Callable[[], object]
"""One inference, finished when it returns."""
Clock = Callable[[], float]
"""Seconds, monotonic."""

WINDOW = 5
"""Rounds that are compared with as many before them to see whether warm-up is over."""
SETTLED = 0.05
"""Fall from one window to the next, relative, up to which a contestant counts as warm."""
WARMUP_SHARE = 0.25
"""Share of the time budget that warm-up may take when nothing settles; two windows, if they take more."""
LEAD_SECONDS = 0.005
"""A call shorter than this is timed right after another of the same contestant, for the caches are its own then."""
MAX_ROUNDS = 2000
"""Rounds after which more would sharpen nothing that is reported."""


@dataclass(frozen=True)
class Rounds:
    """What a number of rounds took."""

    milliseconds: dict[str, Times]
    """``[R]`` for each contestant; entry r of all of them comes from the same round."""
    warm_up: int
    """Rounds before them that were discarded."""
    seconds: float
    """What everything took: the rounds, those discarded, and calls before short ones."""
    settled: bool
    """Whether no contestant's times were still falling when the first of them began."""


def measure(
    contestants: Mapping[str, Call],
    seconds: float,
    min_rounds: int = 20,
    clock: Clock = time.perf_counter,
    seed: int = 0,
) -> Rounds:
    """Time all contestants interleaved, after a detected warm-up.

    What a short call takes depends on what ran before it: a network of 0.1 ms is a quarter faster after itself than
    after a larger one, whose weights are in the caches then. So short calls (``LEAD_SECONDS``) have one of their own
    before them.

    Warm-up is over when the fastest call in a window of rounds is, for every contestant, no faster than that in the
    window before; the later window is kept. (What else runs makes medians of five rise and fall all the time.)

    ``seconds`` are for everything, warm-up included; it ends at the first whole round past them that is no less than
    the ``min_rounds``-th. ``seed`` is of the order within rounds: in a rotation all have the same neighbour.
    """
    names, calls = list(contestants), list(contestants.values())
    rng = np.random.default_rng(seed)
    latest = np.full(len(calls), np.inf)
    start = clock()

    def one_round() -> Times:
        for index in rng.permutation(len(calls)):
            if latest[index] < LEAD_SECONDS:
                calls[index]()
            began = clock()
            calls[index]()
            latest[index] = clock() - began
        return latest.copy()

    with no_garbage_collection():
        discarded, rounds, settled = _warm_up(one_round, lambda share: clock() - start >= share * seconds)
        while len(rounds) < min_rounds or (clock() - start < seconds and len(rounds) < MAX_ROUNDS):
            rounds.append(one_round())
    whole = clock() - start
    table = np.stack(rounds) * 1e3
    columns = {name: np.ascontiguousarray(table[:, column]) for column, name in enumerate(names)}
    return Rounds(columns, discarded, whole, settled)


def _warm_up(one_round: Callable[[], Times], spent: Callable[[float], bool]) -> tuple[int, list[Times], bool]:
    """Run rounds until no contestant's times fall from window to window, or the warm-up's time is spent.

    Return how many to discard (all where time was spent first), those to keep, and whether times had stopped falling.
    """
    rounds: list[Times] = []
    while True:
        rounds.append(one_round())
        windows = len(rounds) // WINDOW
        if len(rounds) == windows * WINDOW and windows > 1:
            before = np.min(rounds[-2 * WINDOW : -WINDOW], axis=0)
            now = np.min(rounds[-WINDOW:], axis=0)
            if bool(np.all(now >= (1 - SETTLED) * before)):
                return len(rounds) - WINDOW, rounds[-WINDOW:], True
        if spent(WARMUP_SHARE if len(rounds) >= 2 * WINDOW else 1.0):
            return len(rounds), [], False


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the collector from running inside; as it was afterwards. What could be collected is, beforehand."""
    was_enabled = gc.isenabled()
    if was_enabled:  # else this is inside another such block, which has collected
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
