"""`--num-processes N`: start N processes of the same command on this machine, and answer for them as one.

torchrun's own launcher would do, but it sends a second signal to processes that are writing their checkpoint (one asks
a training to save and stop, two stop it at once), and reports a failure as a page of text.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from vitcompress.core.errors import (
    CompressError,
    EnvironmentLacksError,
    ProcessLost,
    ResultError,
    RunInterrupted,
    RunPreempted,
    UsageError,
)
from vitcompress.core.processes import own_program
from vitcompress.core.signals import PREEMPTING
from vitcompress.pipeline.api.arguments import COMMAND, launched
from vitcompress.pipeline.machine import threads_each

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0
"""Between the first failure and ending the others: time for a consequence and its cause to both be seen."""
_STOPPING_SECONDS = 120.0
"""The same where a process ended because it was asked to: the others may be writing a checkpoint."""
_STOP_SECONDS = 15.0
"""Between asking a process to end and ending it."""
_ENTRY = "sys.argv[0] = 'compress'\nfrom vitcompress.__main__ import process\nprocess()\n"


def launch(processes: int, arguments: Sequence[str], command: str) -> None:
    """Run `compress ARGUMENTS` in ``processes`` processes that form one group; one that fails takes the others along.

    A CompressError of the kind of the first failure is raised, which its process has explained unless it was killed.
    """
    children = _start(processes, arguments, command)
    try:
        with _forwarding(children):
            failed = _wait(children)
    finally:
        _end(children)
    if failed:
        causes = {rank: code for rank, code in failed.items() if code != ProcessLost.exit_code}
        raise _error(processes, *next(iter((causes or failed).items())))


def end_with_launcher() -> None:
    """In a process that ``launch`` or torchrun started: should that be gone, stop as if asked to, then for good.

    torchrun leaves its processes at work when it is killed, and the store that they share dies with it. Other launchers
    (SLURM's, a shell) may leave a process on purpose.
    """
    if not (launched() or "TORCHELASTIC_RUN_ID" in os.environ):
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_STOPPING_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def check(processes: int, device: str) -> None:
    """Raise a UsageError where this machine has fewer GPUs than processes."""
    if device == "cpu":
        return
    import torch

    gpus = torch.cuda.device_count()
    if (gpus or device == "cuda") and processes > gpus:
        raise UsageError(f"--num-processes is {processes}, and this machine has {gpus} GPUs; give at most {gpus}.")


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(processes: int, arguments: Sequence[str], command: str) -> list[subprocess.Popen[bytes]]:
    shared = {
        "OMP_NUM_THREADS": str(threads_each(processes)),
        **os.environ,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        COMMAND: command,
    }
    return [
        subprocess.Popen(
            own_program(_ENTRY, *arguments),
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            start_new_session=True,  # a terminal's interrupt reaches this process alone, which hands it on once
        )
        for rank in range(processes)
    ]


@contextmanager
def _forwarding(children: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass SIGINT, SIGTERM, SIGUSR1 and, as SIGTERM, SIGHUP on to every process."""

    def forward(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM if number == hangup else number)

    watched = [signal.SIGINT, signal.SIGTERM, *PREEMPTING]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows; and left alone where nohup has it ignored
    watched += [hangup] if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN else []
    previous = {number: signal.signal(number, forward) for number in watched}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(children: list[subprocess.Popen[bytes]]) -> dict[int, int]:
    """Wait until all have ended well, or some time after the first has not; return the failures by rank, in order."""
    deadline: float | None = None
    failed: dict[int, int] = {}
    while True:
        codes = [child.poll() for child in children]
        failed |= {rank: code for rank, code in enumerate(codes) if code and rank not in failed}
        if None not in codes or (deadline is not None and time.monotonic() > deadline):
            return failed
        if failed and deadline is None:
            stopping = {RunInterrupted.exit_code, RunPreempted.exit_code} & {*failed.values()}
            deadline = time.monotonic() + (_STOPPING_SECONDS if stopping else _GRACE_SECONDS)
        time.sleep(_POLL_SECONDS)


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    """End whatever still runs."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _error(processes: int, rank: int, code: int) -> CompressError:
    """Return the error of a process that ended with ``code``, or was killed by the signal ``-code``."""
    if code < 0:
        name = signal.Signals(-code).name
        more = ", often for want of memory" if name == "SIGKILL" else ""
        return EnvironmentLacksError(
            f"rank {rank} of {processes} died (killed by {name}{more}), and the run with it; "
            "the same command goes on from the last checkpoint."
        )
    kinds = (EnvironmentLacksError, ProcessLost, ResultError, RunInterrupted, RunPreempted)
    kind = next((kind for kind in kinds if kind.exit_code == code), UsageError)
    return kind(f"rank {rank} of {processes} ended with exit code {code}; its message is above.")
