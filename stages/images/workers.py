"""How loader processes start: they leave signals to the main process, and Pillow's remarks unsaid."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from copy import copy
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any

import psutil

from vitcompress.core.pillow import hush
from vitcompress.core.signals import PREEMPTING

_LOOK_SECONDS = 2.0
"""Between two looks at whether the main process still lives."""


def worker_context(workers: int) -> BaseContext | None:
    """Return the ``multiprocessing_context`` of every DataLoader here: loaders are forked with signals blocked.

    torch starts a thread in a loader before its ``worker_init_fn`` runs (seen with torch 2.14, where the main process
    had set its number of threads). A signal of the group would reach that thread and end the loader. None where nothing
    is forked.
    """
    context = multiprocessing.get_context()
    if not workers or context.get_start_method() != "fork":
        return None

    class Blocked(context.Process):  # type: ignore[name-defined,misc]  # of whichever context is the default
        def start(self) -> None:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, *PREEMPTING})
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    forking: Any = copy(context)
    forking.Process = Blocked
    return forking  # type: ignore[no-any-return]


def worker_init() -> Callable[[int], None]:
    """Return the ``worker_init_fn`` of every DataLoader here, made in the process that the loaders work for.

    A terminal, `timeout`, systemd, SLURM and Docker signal the whole group. The main process then finishes its step
    and saves, and needs its loaders for that; it ends them itself. Should it be killed, they notice within seconds.
    """
    return partial(_start, os.getpid())


def _start(main: int, worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    waits = hasattr(signal, "sigtimedwait")  # not on macOS, where SIGTERM keeps its meaning
    if waits:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_follow, args=(main, waits), daemon=True).start()
    hush()


def _follow(main: int, waits: bool) -> None:
    """End without the main process, or on a SIGTERM of it, by which torch and multiprocessing end a loader that hangs.

    torch's own watchdog compares its parent with the one that it began with. In a loader that starts while the main
    process is killed that is another one already: it would wait for work for ever, and hold open what it inherited.
    """
    while not _gone(main):
        if not waits:
            time.sleep(_LOOK_SECONDS)
            continue
        received = signal.sigtimedwait({signal.SIGTERM}, _LOOK_SECONDS)
        if received is not None and received.si_pid == main:
            break
    os._exit(0)


def _gone(main: int) -> bool:
    """Return whether that process ended; one that nobody has waited for yet is still listed."""
    try:
        return bool(psutil.Process(main).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except (OSError, psutil.Error):  # no file is left to look with, or it may not be looked at
        return False
