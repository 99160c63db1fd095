"""Signs of life: each process of a training shows that it runs and where, and ends the run when another's stop.

A process that was stopped, or whose network died, closes no connection, and the others would wait for its gradients. So
every process counts on in the store that torch's processes share, from a thread of its own, and watches the others.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vitcompress.core.errors import ProcessLost
from vitcompress.core.processes import rank as own_rank
from vitcompress.core.processes import world_size

_SIGNS = 10
"""So many fit into the patience."""
_LONGEST_INTERVAL = 5.0
"""Seconds between two signs of life at most."""
_SHORTEST_MEETING = 60.0
"""Seconds that processes have at least to find each other: on a busy machine, they start at different speeds."""
_where = "before its first step"


def note_position(where: str) -> None:
    """Note where this process is, for the others to say should it fall silent: ``step 120 of student``."""
    global _where
    _where = where


def _end(said: str) -> None:
    """End this process at once: its main thread waits in the transport, where nothing reaches it."""
    print(f"rank {own_rank()}: error: {said}; the same command goes on from the last checkpoint.", file=sys.stderr)  # noqa: T201
    sys.stderr.flush()
    os._exit(ProcessLost.exit_code)


@contextmanager
def meeting(patience: float) -> Iterator[None]:
    """End this process if the block, in which it finds the others, takes too long: one of them may never come.

    At least ``_SHORTEST_MEETING`` seconds are granted.
    """
    limit = max(patience, _SHORTEST_MEETING)
    said = (
        f"the {world_size()} processes did not find each other within {limit / 60:g} minutes (distill.timeout_minutes, "
        "at least 1); see whether all of them were started and can reach MASTER_ADDR"
    )
    timer = threading.Timer(limit, _end, [said])
    timer.daemon = True
    if world_size() > 1:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Pulse:
    """The signs of life of one process, and its watch over the others'.

    After ``patience`` seconds a silent process is taken for lost. Then the lowest rank that still lives says so, and
    each of them ends with ``ProcessLost``'s code.
    """

    def __init__(self, rank: int, processes: int, patience: float) -> None:
        self.rank, self.processes, self.patience = rank, processes, patience
        self.interval = min(patience / _SIGNS, _LONGEST_INTERVAL)
        self.answered = time.monotonic()
        """When the store last answered."""
        self.signs: dict[int, tuple[str, float]] = {}
        """Newest sign of each other process, and when it was first seen."""
        self.closed = threading.Event()

    def start(self) -> None:
        """Begin to show and to watch."""
        for work in (self._show, self._watch):
            threading.Thread(target=work, daemon=True, name=f"pulse{work.__name__}").start()

    def close(self) -> None:
        """Stop watching; this process may fall silent from now on."""
        self.closed.set()

    def hear(self, rank: int, sign: str, now: float) -> None:
        """Note the sign of another process, ``COUNT WHERE``."""
        self.answered = now
        if rank not in self.signs or self.signs[rank][0] != sign:
            self.signs[rank] = sign, now

    def excuse(self, now: float) -> None:
        """Begin to wait anew: this process itself was stopped, and what it last saw says nothing."""
        self.answered = now
        self.signs = {rank: (sign, now) for rank, (sign, _) in list(self.signs.items())}

    def silent(self, now: float) -> list[int]:
        """Return the processes that gave no sign for too long; if the store is silent, rank 0, which has it."""
        if now - self.answered > self.patience / 2:
            return [0] if now - self.answered > self.patience else []
        return [rank for rank, (_, at) in sorted(self.signs.items()) if now - at > self.patience]

    def _show(self) -> None:
        """Count, and read the others' counts. The store may block this thread for good: ``_watch`` notices it."""
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]
        from torch.distributed.distributed_c10d import _get_default_store

        try:
            store = PrefixStore("pulse", _get_default_store().clone())
            count = 0
            while not self.closed.is_set():
                count += 1
                store.set(str(self.rank), f"{count} {_where}")
                for rank in range(self.processes):
                    if rank != self.rank and store.check([str(rank)]):
                        self.hear(rank, store.get(str(rank)).decode(), time.monotonic())
                self.answered = time.monotonic()
                self.closed.wait(self.interval)
        except (RuntimeError, OSError):  # the store's process is gone: its closed connections end the others' waits
            self.closed.set()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self.closed.wait(self.interval):
            now = time.monotonic()
            if now - before > self.patience / 2:
                self.excuse(now)
            before = now
            if silent := self.silent(now):
                self._report(silent)

    def _report(self, silent: list[int]) -> None:
        """Say who is silent, if no lower rank is there to do it, and end this process."""
        if any(rank < self.rank for rank in self.signs.keys() - set(silent)):
            os._exit(ProcessLost.exit_code)
        found = {rank: self.signs[rank][0].partition(" ")[2] for rank in silent if rank in self.signs}
        ranks = ", ".join(f"rank {rank} (last seen at {found.get(rank, 'its start')})" for rank in silent)
        _end(f"no sign of life from {ranks} for {self.patience / 60:g} minutes (distill.timeout_minutes)")
