from __future__ import annotations

import os
import threading
from pathlib import Path

import joblib
import pytest

from vitcompress.exporters.latency import pinning
from vitcompress.exporters.latency.pinning import idle_first, physical_cores, pinned

on_linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind threads")


@pytest.fixture
def waiting_thread():
    """A thread that exists before anything is bound, as those of torch's pool do."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    yield thread
    stop.set()
    thread.join()


@on_linux
def test_all_threads_are_bound_and_given_back(waiting_thread: threading.Thread) -> None:
    before = os.sched_getaffinity(0)
    with pinned(1) as cpus:
        assert len(cpus) == 1
        assert [os.sched_getaffinity(one) for one in (0, waiting_thread.native_id or 0)] == [set(cpus)] * 2
    assert [os.sched_getaffinity(one) for one in (0, waiting_thread.native_id or 0)] == [before] * 2


@pytest.mark.parametrize(
    ("shares", "order"),
    [
        ([2.0, 0.0, 5.0], (0, 1, 2)),
        ([99.0, 3.0, 60.0], (1, 0, 2)),
        ([99.0, 99.0, 99.0], (0, 1, 2)),
        ([99.0], (1, 2, 0)),  # nothing is told of the others
    ],
)
def test_busy_cpus_come_last(monkeypatch: pytest.MonkeyPatch, shares: list[float], order: tuple[int, ...]) -> None:
    monkeypatch.setattr(pinning.psutil, "cpu_percent", lambda *_, **__: shares)
    assert idle_first((0, 1, 2)) == order


def test_where_the_system_cannot_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pinned(1) as cpus:
        assert cpus == ()


@on_linux
@pytest.mark.parametrize(("share", "expected"), [(16, 2), (2, 2), (1, 1)])
def test_threads_are_no_more_than_can_be_bound_or_run(
    share: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinning, "_TOPOLOGY", str(tmp_path / "{}"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for cpu, siblings in {0: "0,1", 1: "0,1", 2: "2,3", 3: "2,3"}.items():
        (tmp_path / str(cpu)).write_text(siblings)
    monkeypatch.setattr(joblib, "cpu_count", lambda: share)
    assert physical_cores() == expected
