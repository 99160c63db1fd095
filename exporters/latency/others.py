"""How much of the processor other processes took while times were measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil


class Others:
    """A watch on what this process does not do itself, from when it is made.

    Interleaving and sessions cancel what slows all models alike. A neighbour does not: it empties the caches that a
    small model lives from and a large one never fitted into, so the ratio of the two moves too, and no interval knows.
    """

    def __init__(self, bound: Sequence[int]) -> None:
        """Start watching; ``bound`` are the CPUs that this process is bound to, empty where it is not."""
        self.bound = tuple(bound)
        self._began = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def share(self) -> float | None:
        """Return share of the CPUs' time that others took until now, 0 to 1; None where the system does not tell.

        Of all CPUs, or of those this process is bound to, whichever is more: on a large machine a neighbour on the same
        core is little of the whole, and a neighbour on another core nothing of its own.
        """
        seconds = time.monotonic() - self._began
        now = _busy_seconds()
        if len(now) != len(self._busy) or not now or seconds <= 0:
            return None
        own = _own_seconds() - self._own
        taken = [after - before for before, after in zip(self._busy, now, strict=True)]
        bound = [taken[cpu] for cpu in self.bound if cpu < len(taken)]
        shares = [(sum(part) - own) / (seconds * len(part)) for part in (taken, bound) if part]
        return min(1.0, max(0.0, *shares))


def _busy_seconds() -> list[float]:
    """Return seconds that each CPU of the machine has worked."""
    times = psutil.cpu_times(percpu=True)
    # What guests ran is in user and nice already; what a hypervisor took (steal) was not there to be used.
    idle = ("idle", "iowait", "guest", "guest_nice")
    return [sum(value for name, value in one._asdict().items() if name not in idle) for one in times]


def _own_seconds() -> float:
    """Return seconds of processor time that this process has used in all its threads."""
    own = psutil.Process().cpu_times()
    return float(own.user + own.system)
