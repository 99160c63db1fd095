"""Small messages between the processes of one training, beside gradients, over Accelerate's process group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list

from vitcompress.core.errors import CompressError, ProcessLost
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.pulse import Pulse, meeting

Value = TypeVar("Value")


def from_main(value: Value) -> Value:
    """Return the main process's ``value`` in every process: clocks differ, and so may the view of a shared disk."""
    held = [value]
    broadcast_object_list(held)
    return held[0]


class Together:
    """The main process tells, the others hear; used between stages, where the others wait."""

    def __init__(self, device: str, patience: float) -> None:
        """Find the others; ``patience``: seconds without a sign of life after which the run is ended."""
        with meeting(patience):
            self.accelerator = make_accelerator(device)
        self.pulse = Pulse(self.accelerator.process_index, self.accelerator.num_processes, patience)
        self.pulse.start()
        self.in_step = False
        """Whether the others are at work too, and so not listening."""
        self.dismissed = False

    @property
    def main(self) -> bool:
        """Whether this process leads."""
        return bool(self.accelerator.is_main_process)

    def tell(self, value: Any) -> None:
        """Hand a JSON-able value to all other processes; the main one calls this."""
        from_main(value)

    def hear(self) -> Any:
        """Return the next value that the main process tells; the others call this.

        A ProcessLost is raised if the main process failed (it has said how), or cannot be reached any more.
        """
        with report_lost_process():
            received: Any = from_main(None)
        if isinstance(received, dict) and "failed" in received:
            raise ProcessLost("the main process stopped; its message says why.")
        return received

    def dismiss(self) -> None:
        """Say that nothing is left for the other processes to do; the main one calls this."""
        self.dismissed = True
        self.pulse.close()
        self.tell(None)

    def close(self) -> None:
        """Leave the group, so that the others learn at once that this process has."""
        self.pulse.close()
        self.accelerator.end_training()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Note that all processes take part in the block."""
        self.in_step = True
        with report_lost_process():
            yield
        self.in_step = False  # not after a failure: the others are still in the middle of it

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Tell the others, which wait, if the block fails; the main process calls this."""
        try:
            yield
        except BaseException:
            if not (self.in_step or self.dismissed):
                with suppress(RuntimeError):  # the signal that ended this block may have ended them already
                    self.tell({"failed": True})
            raise


def any_process(accelerator: Any, *flags: bool) -> list[bool]:
    """Return for each flag whether any process has set it: clocks and signals differ, saving and stopping must not."""
    return [value > 0 for value in mean_of_all(accelerator, *flags)]


def mean_of_all(accelerator: Any, *values: float) -> list[float]:
    """Return the mean of each value over all processes, the same bits in each of them; float32 if there are several."""
    if accelerator.num_processes == 1:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.float32, device=accelerator.device)
    means: list[float] = accelerator.reduce(numbers, reduction="mean").tolist()
    return means


_LOST = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "Socket Timeout")


@contextmanager
def report_lost_process() -> Iterator[None]:
    """Turn the transport's own error, raised when another process has gone, into one sentence: ``ProcessLost``."""
    try:
        yield
    except CompressError:
        raise
    except (RuntimeError, ConnectionError) as error:
        lost = isinstance(error, torch.distributed.DistError) or any(sign in str(error) for sign in _LOST)
        if not lost or not torch.distributed.is_initialized():
            raise
        raise ProcessLost(f"lost contact with another process ({str(error).splitlines()[0][:120]}).") from error
