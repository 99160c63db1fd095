"""SIGINT and SIGTERM as a request: finish the step, save, stop. A second one stops at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vitcompress.core.errors import CompressError, RunInterrupted
from vitcompress.core.signals import on_request


class StopRequest:
    """Whether the user asked to stop."""

    requested = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Let the first SIGINT or SIGTERM within the block only set ``requested``.

    What fails after the request becomes a RunInterrupted: a signal to the whole group also ends helpers that know
    nothing of it, such as compilers. Checkpoints are as they were.
    """
    stop = StopRequest()

    def request() -> None:
        stop.requested = True

    with on_request(request):
        try:
            yield stop
        except CompressError:
            raise
        except Exception as error:
            if not stop.requested:
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise RunInterrupted(
                f"stopped before the step at hand was done ({reason[0][:120]}); the same command goes on from the last "
                "checkpoint."
            ) from error
