"""SIGINT and SIGTERM as a request: finish the step, save, stop. A second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the user asked to stop."""

    requested = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Within the block, the first SIGINT or SIGTERM only sets ``requested``."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread alone
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in watched}

    def request(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        for each in watched:
            signal.signal(each, previous[each])

    for number in watched:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number in watched:
            signal.signal(number, previous[number])
