"""The processor cores of a measurement: this process bound to them, and what others took of them meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from vitcompress.core.machine import usable_cores

_TASKS = Path("/proc/self/task")
_BUSY = 25.0
"""Percent of a CPU's time, taken by others, from which it is avoided: less is what any system does on the side."""
_LOOK_SECONDS = 0.25
"""For how long the CPUs are watched before some are chosen."""
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def physical_cores() -> int:
    """Return how many physical cores this process may use: the threads that latencies are measured with by default.

    As many as ``pinned`` can bind to, and no more than a container's share of the processor's time.
    """
    if hasattr(os, "sched_getaffinity"):
        bindable = len(one_of_each_core(os.sched_getaffinity(0)))
    else:
        bindable = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return min(bindable, usable_cores())


@contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """Bind every thread of this process to one logical CPU of each of ``threads`` physical cores, idle ones first.

    Bound to a core that another process keeps busy, a thread gets half of it, and cannot move away.

    Yields those CPUs, by the system's numbers: fewer where the process may not use as many, none where the system
    cannot bind threads (all but Linux) or refuses to; then nothing was changed. Threads that start inside inherit the
    binding. Afterwards every thread may use what this one could before.

    All threads, not only the calling one: those of torch's pool exist already, and the system keeps one mask for each.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield ()
        return
    own = os.sched_getaffinity(0)
    cores = one_of_each_core(own)
    cpus = cores if len(cores) <= threads else tuple(sorted(idle_first(cores)[:threads]))
    try:
        _bind(set(cpus))
    except OSError:
        cpus = ()
        _restore(own)
    try:
        yield cpus
    finally:
        _restore(own)


def one_of_each_core(allowed: set[int]) -> tuple[int, ...]:
    """Return lowest-numbered of the ``allowed`` CPUs on each physical core, rising; all of them where none is told."""
    first: dict[str, int] = {}
    for cpu in sorted(allowed):
        path = Path(_TOPOLOGY.format(cpu))
        try:
            siblings = path.read_text().strip()
        except OSError:
            siblings = str(cpu)
        first.setdefault(siblings, cpu)
    return tuple(first.values())


def idle_first(cpus: tuple[int, ...]) -> tuple[int, ...]:
    """Return the CPUs in their order, but those that are busy now behind the others."""
    shares = psutil.cpu_percent(_LOOK_SECONDS, percpu=True)
    busy = {cpu for cpu in cpus if cpu < len(shares) and shares[cpu] >= _BUSY}
    return tuple(sorted(cpus, key=lambda cpu: cpu in busy))


def _bind(cpus: set[int]) -> None:
    """Give every thread of this process these CPUs; an OSError is raised where the system refuses."""
    for task in _TASKS.iterdir():
        with suppress(ProcessLookupError):  # it has ended in the meantime
            os.sched_setaffinity(int(task.name), cpus)


def _restore(cpus: set[int]) -> None:
    """Give every thread these CPUs, as far as the system lets us."""
    with suppress(OSError):
        _bind(cpus)


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
