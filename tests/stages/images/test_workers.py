"""Loader processes and the signals of a whole process group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch.utils.data import DataLoader

from vitcompress.stages.images.workers import worker_init

ROOT = Path(__file__).parents[3]


@pytest.fixture
def loading() -> Iterator[Any]:
    """A loader of two processes in the middle of a pass."""
    loader = DataLoader(
        list(range(40)), batch_size=2, num_workers=2, worker_init_fn=worker_init(), persistent_workers=True
    )
    batches = iter(loader)
    assert [len(next(batches)) for _ in range(2)] == [2, 2]  # one of each: both have started
    yield batches
    del batches, loader


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_elsewhere_leaves_them_at_work(loading: Any, number: signal.Signals) -> None:
    pids = [str(worker.pid) for worker in loading._workers]
    assert len(pids) == 2
    for _ in range(2):
        subprocess.run(["/bin/kill", "-s", str(int(number)), *pids], check=True)
    assert sum(len(batch) for batch in loading) == 36
    assert all(psutil.pid_exists(int(pid)) for pid in pids)


def test_the_main_process_can_end_them(loading: Any) -> None:
    """torch and multiprocessing terminate those that hang; they must not be deaf to that."""
    workers = loading._workers
    for worker in workers:
        worker.terminate()
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0]


GROUP = """
import os, signal, subprocess, sys, torch
from torch.utils.data import DataLoader
from vitcompress.stages.images.workers import worker_context, worker_init

os.setpgrp()
torch.set_num_threads(2)
torch.ones(1000, 1000) @ torch.ones(1000, 1000)  # starts the threads
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *given: None)
loader = DataLoader(list(range(400)), batch_size=2, num_workers=2, worker_init_fn=worker_init(),
                    multiprocessing_context=worker_context(2))
batches = iter(loader)
next(batches)
for name in ("TERM", "USR1"):  # from elsewhere
    subprocess.run(["/bin/kill", "-s", name, "--", f"-{os.getpgid(0)}"], start_new_session=True)
print(sum(1 for batch in batches))
"""


def test_a_signal_to_the_group_ends_no_loader_of_a_process_that_set_its_threads(tmp_path: Path) -> None:
    """torch starts a thread in them before `worker_init_fn` runs."""
    (tmp_path / "main.py").write_text(GROUP)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(ROOT)
    words = [sys.executable, str(tmp_path / "main.py")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("199\n", 0), done.stderr


def test_they_do_not_outlive_the_main_process_that_is_killed_while_they_start(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, signal, sys, time
        from torch.utils.data import DataLoader
        from vitcompress.stages.images.workers import worker_context, worker_init

        main, begin = os.getpid(), worker_init()

        def late(worker):
            while os.getppid() == main:
                time.sleep(0.05)
            begin(worker)

        if __name__ == "__main__":
            loader = DataLoader(list(range(1000)), num_workers=2, worker_init_fn=late, multiprocessing_context="fork")
            batches = iter(loader)
            print(*(worker.pid for worker in batches._workers), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    (tmp_path / "main.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:  # pipes would wait for the loaders
        done = subprocess.run(
            [sys.executable, str(tmp_path / "main.py")], env=environment, stdout=out, stderr=err, check=False
        )
    assert done.returncode == -signal.SIGKILL, (tmp_path / "err").read_text()
    pids = [int(pid) for pid in (tmp_path / "out").read_text().split()]
    assert len(pids) == 2
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=60)
    for left in alive:
        left.kill()
    assert alive == []
