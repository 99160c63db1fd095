"""Requests to stop: SIGINT and SIGTERM, told from the echoes of one.

`timeout` sends its signal twice, to the command and to the command's group; a terminal, a service manager and a parent
may both pass on the same one. What follows at once is an echo, not a second request.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

ECHO_SECONDS = 1.0
STOPPING = (signal.SIGINT, signal.SIGTERM)
PREEMPTING = tuple(filter(None, [getattr(signal, "SIGUSR1", None)]))
"""What a scheduler announces with that it will take the machine away; nothing on Windows."""
_last: list[float] = []
"""When the last request came, if one did, in whichever block."""


@contextmanager
def on_request(first: Callable[[], None], watched: Sequence[signal.Signals] = STOPPING) -> Iterator[None]:
    """Within the block the first of the signals calls ``first``; a later one does what it did before the block.

    Nothing in a thread that is not the main one, which signals never reach.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in watched}
    asked = False
    _last.clear()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        now = time.monotonic()
        if _last and now - _last[0] < ECHO_SECONDS:
            return
        _last[:] = [now]
        if asked:
            restore()
            _last.clear()
            signal.raise_signal(number)
        else:
            asked = True
            first()

    for number in watched:
        signal.signal(number, request)
    try:
        yield
    finally:
        restore()
