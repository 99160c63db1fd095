"""Signs of life: each process of a training shows that it runs and where, and ends the run when another's stop.

A process that was stopped, or whose network died, closes no connection: the others would wait for its gradients as long
as for a main process that is checking a million images. So every process counts on in the store that torch's processes
share, from a thread that nothing in the training can hold up, and watches the others' counts.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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


@contextmanager
def meeting(patience: float) -> Iterator[None]:
    """End this process if the block, in which it finds the others, takes too long: one of them may never come.

    Args:
        patience: seconds; at least ``_SHORTEST_MEETING`` are granted.
    """
    processes, limit = world_size(), max(patience, _SHORTEST_MEETING)

    def end() -> None:
        print(  # noqa: T201
            f"rank {own_rank()}: error: the {processes} processes did not find each other within "
            f"{limit / 60:g} minutes (distill.timeout_minutes, at least 1); see whether all of them were started and "
            "can reach MASTER_ADDR; the same command goes on from the last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(ProcessLost.exit_code)  # the main thread waits in the transport, where nothing reaches it

    timer = threading.Timer(limit, end)
    timer.daemon = True
    if processes > 1:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass
class _Seen:
    """What is known of another process."""

    count: int
    where: str
    at: float
    """Of this process's monotonic clock: when the count last changed."""


@dataclass
class Others:
    """What one process knows of the others."""

    patience: float
    """Seconds of silence after which a process is taken for lost."""
    answered: float
    """When the store last answered, of the monotonic clock."""
    seen: dict[int, _Seen] = field(default_factory=dict)

    def note(self, rank: int, count: int, where: str, now: float) -> None:
        """Keep what was read of another process."""
        self.answered = now
        if rank not in self.seen or self.seen[rank].count != count:
            self.seen[rank] = _Seen(count, where, now)

    def excuse(self, now: float) -> None:
        """Begin to wait anew: this process itself was stopped, and what it last saw says nothing."""
        self.answered = now
        for one in list(self.seen.values()):
            one.at = now

    def silent(self, now: float) -> dict[int, _Seen]:
        """Return the processes that gave no sign for too long."""
        return {rank: one for rank, one in sorted(self.seen.items()) if now - one.at > self.patience}

    def lost(self, now: float) -> str | None:
        """Return a sentence about the lost processes; None as long as all give signs."""
        for_long = f"for {self.patience / 60:g} minutes (distill.timeout_minutes)"
        if now - self.answered > self.patience:
            main = self.seen.get(0)
            where = f" (last seen at {main.where})" if main else ""
            return f"rank 0{where}, through which the processes find each other, has not answered {for_long}"
        silent = self.silent(now)
        if not silent:
            return None
        ranks = ", ".join(f"rank {rank} (last seen at {one.where})" for rank, one in silent.items())
        return f"no sign of life from {ranks} {for_long}"


class Pulse:
    """The signs of life of one process, and its watch over the others'."""

    def __init__(self, rank: int, processes: int, patience: float) -> None:
        """Begin to show and to watch.

        Args:
            rank: of this process.
            processes: how many there are.
            patience: seconds after which a silent process is taken for lost. Then the lowest rank that still lives
                says so, and each of them ends with ``ProcessLost``'s code.
        """
        self.rank, self.processes = rank, processes
        self.others = Others(patience, time.monotonic())
        self.interval = min(patience / _SIGNS, _LONGEST_INTERVAL)
        self.closed = threading.Event()
        for work in (self._show, self._watch):
            threading.Thread(target=work, daemon=True, name=f"pulse{work.__name__}").start()

    def close(self) -> None:
        """Stop watching; this process may fall silent from now on."""
        self.closed.set()

    def _show(self) -> None:
        """Count, and read the others' counts. The store may block this thread for good: ``_watch`` notices it."""
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]
        from torch.distributed.distributed_c10d import _get_default_store

        try:
            store = PrefixStore("pulse", _get_default_store().clone())
            count = 0
            while not self.closed.is_set():
                count += 1
                store.set(str(self.rank), json.dumps([count, _where]))
                for rank in range(self.processes):
                    if rank != self.rank and store.check([str(rank)]):
                        count_there, where = json.loads(store.get(str(rank)))
                        self.others.note(rank, count_there, where, time.monotonic())
                self.closed.wait(self.interval)
        except (RuntimeError, OSError):  # the store's process is gone: its closed connections end the others' waits
            self.closed.set()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self.closed.wait(self.interval):
            now = time.monotonic()
            if now - before > self.others.patience / 2:
                self.others.excuse(now)
            before = now
            lost = self.others.lost(now)
            if lost is not None:
                self._end(lost, now)

    def _end(self, lost: str, now: float) -> None:
        alive = self.others.seen.keys() - self.others.silent(now).keys()
        if self.rank <= min(alive, default=self.rank):
            said = f"rank {self.rank}: error: {lost}; the same command goes on from the last checkpoint."
            print(said, file=sys.stderr, flush=True)  # noqa: T201
        os._exit(ProcessLost.exit_code)  # the main thread waits in the transport, where nothing reaches it
