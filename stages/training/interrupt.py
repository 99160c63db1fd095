"""SIGINT, SIGTERM and SIGUSR1 as a request: finish the step, save, stop. A second one stops at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vitcompress.core.errors import CompressError, RunInterrupted, RunPreempted
from vitcompress.core.signals import PREEMPTING, on_request


class StopRequest:
    """Whether the user asked to stop."""

    requested = False
    preempted = False
    """Whether a scheduler did, by SIGUSR1; ``requested`` is then set too."""


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Let the first SIGINT, SIGTERM or SIGUSR1 within the block only set ``requested``.

    What fails after the request becomes a RunInterrupted: a signal to the whole group also ends helpers that know
    nothing of it, such as compilers. Checkpoints are as they were. After a SIGUSR1, it becomes a RunPreempted.
    """
    stop = StopRequest()

    def request() -> None:
        stop.requested = True

    def preempt() -> None:
        stop.requested = stop.preempted = True

    with on_request(request), on_request(preempt, PREEMPTING):
        try:
            yield stop
        except RunInterrupted as error:
            if stop.preempted:
                raise RunPreempted(str(error)) from error
            raise
        except CompressError:
            raise
        except Exception as error:
            if not stop.requested:
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise (RunPreempted if stop.preempted else RunInterrupted)(
                f"stopped before the step at hand was done ({reason[0][:120]}); the same command goes on from the last "
                "checkpoint."
            ) from error
