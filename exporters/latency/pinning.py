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
    binding. Afterwards every thread may use what it could before, and one that started inside what its process could.

    All threads, not only the calling one: those of torch's pool exist already, and the system keeps one mask for each.
    """
    try:
        own = os.sched_getaffinity(0)
        cores = one_of_each_core(own)
        cpus = cores if len(cores) <= threads else tuple(sorted(idle_first(cores)[:threads]))
        before = _masks()
    except (AttributeError, OSError):  # not Linux, or /proc is closed to us
        yield ()
        return
    try:
        try:
            _bind({task: set(cpus) for task in before})
        except OSError:
            with suppress(OSError):
                _bind(before)  # those that it had accepted
            cpus = ()
        yield cpus
    finally:
        with suppress(OSError):
            _bind({task: before.get(task, own) for task in _tasks()})


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


def _tasks() -> list[int]:
    """Return identifiers of this process's threads."""
    return [int(entry.name) for entry in _TASKS.iterdir()]


def _masks() -> dict[int, set[int]]:
    """Return CPUs that each thread may use now."""
    found = {}
    for task in _tasks():
        with suppress(ProcessLookupError):
            found[task] = os.sched_getaffinity(task)
    return found


def _bind(masks: dict[int, set[int]]) -> None:
    """Give each thread its CPUs; one that has ended in the meantime needs none.

    Raises:
        OSError: the system refuses.
    """
    for task, cpus in masks.items():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(task, cpus)
