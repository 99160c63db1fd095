"""Binding a process to processor cores, so that a measurement is not moved from one to another in mid-run."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
    """Give every thread of this process these CPUs; one that has ended in the meantime needs none.

    Raises:
        OSError: the system refuses.
    """
    for task in _TASKS.iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


def _restore(cpus: set[int]) -> None:
    """Give every thread these CPUs, as far as the system lets us."""
    with suppress(OSError):
        _bind(cpus)
