"""Sessions: every contestant opened anew, then timed in rounds; again and again within a budget of time.

A model's speed depends on where its weights and buffers happen to lie. What is opened once and timed a thousand times
has that luck a thousand times alike, and a comparison of two such measurements takes luck for a change. So the models
are opened several times, in shuffled order and with a little memory of random size between them, lest they come to lie
where the last ones did.

Shapes: S sessions. Times are milliseconds, float64.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vitcompress.exporters.latency.rounds import Call, Clock, Rounds, measure, no_garbage_collection
from vitcompress.exporters.latency.statistics import Times, half_width, logs_of

Opener = Callable[[], AbstractContextManager[Call]]
"""Opens a contestant: the inference to time, and closed again after the session."""

PLANNED, FEWEST, EARLIEST = 20, 5, 6
"""Sessions of a measurement; as many as it has however little time there is; and after which it may stop early."""
OPENING_SHARE = 0.5
"""Share of the time budget that opening may take: beyond it there are fewer sessions."""
SESSION_ROUNDS = 25
"""Rounds, those of warm-up included, that the time of a session should be enough for: else there are fewer sessions."""
MIN_ROUNDS = 3
"""Rounds that a session has however little time there is."""
_SPACER = 1 << 20
"""Bytes of memory, at most, that come to lie between two contestants."""


@dataclass(frozen=True)
class Measurement:
    """What all contestants took, session by session."""

    sessions: tuple[Rounds, ...]

    @property
    def warm_up(self) -> int:
        """Rounds that were discarded, over all sessions."""
        return sum(one.warm_up for one in self.sessions)

    @property
    def settled(self) -> bool:
        """Whether times had stopped falling when warm-up ended, in every session."""
        return all(one.settled for one in self.sessions)

    @cached_property
    def medians(self) -> dict[str, Times]:
        """Median of every session ``[S]``, by contestant; entry s of all of them comes from the same session."""
        names = self.sessions[0].milliseconds
        return {name: np.array([np.median(one.milliseconds[name]) for one in self.sessions]) for name in names}

    def samples(self, name: str) -> Times:
        """Return all times of one contestant, sessions in order."""
        return np.concatenate([one.milliseconds[name] for one in self.sessions])


def measure_sessions(
    contestants: Mapping[str, Opener],
    seconds: float,
    *,
    reference: str | None = None,
    tight: float = 0.0,
    planned: int = PLANNED,
    min_rounds: int = MIN_ROUNDS,
    clock: Clock = time.perf_counter,
) -> Measurement:
    """Time all contestants in sessions.

    ``seconds`` are for everything, opening and warm-up included, and ``planned`` sessions share them; where opening
    would take more than half of them, or a session not have ``SESSION_ROUNDS``, there are fewer, but never fewer than
    ``FEWEST`` of ``min_rounds`` rounds each, which may take longer. Timing stops after ``EARLIEST`` sessions where the
    95 % interval of every ratio to the ``reference`` (without one: of every median) has a half-width of at most
    ``tight``, relative; 0 never stops early.
    """
    start, rng = clock(), np.random.default_rng(0)
    sessions: list[Rounds] = []
    opening, count, stopped = 0.0, max(planned, FEWEST), False
    with no_garbage_collection():
        while len(sessions) < count and not stopped:
            share = max(seconds - (clock() - start), 0.0) / (count - len(sessions))
            one, opened = _session(contestants, share, min_rounds, clock, rng)
            sessions.append(one)
            gc.collect(1)  # cycles among what was just closed; the rest was collected before the first session
            opening += opened
            count = max(FEWEST, len(sessions), min(count, _affordable(seconds, opening, sessions)))
            stopped = EARLIEST <= len(sessions) < count and tight > 0 and (_widest(sessions, reference) <= tight)
    return Measurement(tuple(sessions))


def _session(
    contestants: Mapping[str, Opener], seconds: float, min_rounds: int, clock: Clock, rng: np.random.Generator
) -> tuple[Rounds, float]:
    """Return one session, and the seconds that opening took of it."""
    began = clock()
    names = list(contestants)
    spacers = []
    with ExitStack() as stack:
        calls: dict[str, Call] = {}
        for index in rng.permutation(len(names)):
            spacers.append(np.ones(int(rng.integers(1, _SPACER)), dtype=np.uint8))
            calls[names[index]] = stack.enter_context(contestants[names[index]]())
        opened = clock() - began
        # Time already spent leaves a session its fewest rounds.
        rounds = measure(calls, max(seconds - opened, 1e-9), min_rounds, clock, int(rng.integers(1 << 32)))
    return rounds, opened


def _affordable(seconds: float, opening: float, sessions: list[Rounds]) -> int:
    """Return how many sessions fit into ``seconds``, going by those there are, opened in ``opening`` seconds."""
    opened = opening / len(sessions)
    rounds = sum(one.warm_up + len(next(iter(one.milliseconds.values()))) for one in sessions)
    running = SESSION_ROUNDS * sum(one.seconds for one in sessions) / rounds
    return int(seconds / max(opened / OPENING_SHARE, opened + running, 1e-9))


def _widest(sessions: list[Rounds], reference: str | None) -> float:
    """Return the largest relative half-width of a contestant's 95 % interval so far."""
    logs = {name: logs_of(times) for name, times in Measurement(tuple(sessions)).medians.items()}
    if reference is None or len(logs) == 1:
        return max(half_width(times) for times in logs.values())
    return max(half_width(times - logs[reference]) for name, times in logs.items() if name != reference)
