"""How loader processes start: they leave signals to the main process, and Pillow's remarks unsaid."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial

from core.pillow import hush


def worker_init() -> Callable[[int], None]:
    """``worker_init_fn`` of every DataLoader here, made in the process that the loaders work for.

    A terminal, `timeout`, systemd, SLURM and Docker signal the whole group. The main process then finishes its step
    and saves, and needs its loaders for that; it ends them itself. Should it be killed, torch's watchdog in each
    loader notices within seconds.
    """
    return partial(_start, os.getpid())


def _start(main: int, worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where SIGTERM keeps its meaning
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(main,), daemon=True).start()
    hush()


def _obey(main: int) -> None:
    """End on a SIGTERM of the main process, which is how torch and multiprocessing end a loader that hangs."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main:
        pass
    os._exit(0)
