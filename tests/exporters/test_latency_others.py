from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from vitcompress.exporters.latency import pinning
from vitcompress.exporters.latency.pinning import Others


class Cpu(NamedTuple):
    user: float
    system: float
    idle: float
    iowait: float
    guest: float


class Machine:
    """A machine of which every second is told."""

    def __init__(self, cpus: int) -> None:
        self.now, self.cpus, self.own = 0.0, [0.0] * cpus, 0.0

    def passes(self, seconds: float, own: float, *taken: float) -> None:
        self.now, self.own = self.now + seconds, self.own + own
        self.cpus = [before + more for before, more in zip(self.cpus, taken, strict=True)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(4)
    monkeypatch.setattr(pinning, "time", SimpleNamespace(monotonic=lambda: found.now))

    def cpu_times(percpu: bool) -> list[Cpu]:
        assert percpu
        return [Cpu(0.75 * one, 0.25 * one, found.now - one, 3.0, one) for one in found.cpus]

    process: Any = SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=0.5 * found.own, system=0.5 * found.own))
    monkeypatch.setattr(pinning, "psutil", SimpleNamespace(cpu_times=cpu_times, Process=lambda: process))
    return found


@pytest.mark.parametrize(
    ("bound", "own", "taken", "share"),
    [
        ((0,), 10.0, (10.0, 0.0, 0.0, 0.0), 0.0),  # nobody else
        ((0,), 10.0, (10.0, 10.0, 0.0, 0.0), 0.25),  # a neighbour on another core
        ((0,), 5.0, (10.0, 0.0, 0.0, 0.0), 0.5),  # one on the same core
        ((), 10.0, (10.0, 10.0, 10.0, 10.0), 0.75),  # not bound
        ((0,), 11.0, (10.0, 0.0, 0.0, 0.0), 0.0),  # clocks that differ by a tick
    ],
)
def test_the_share_of_others(
    machine: Machine, bound: tuple[int, ...], own: float, taken: tuple[float, ...], share: float
) -> None:
    machine.passes(100.0, 7.0, 50.0, 50.0, 50.0, 50.0)  # before it is watched
    watch = Others(bound)
    machine.passes(10.0, own, *taken)
    assert watch.share() == pytest.approx(share)
