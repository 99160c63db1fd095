"""The raw weights after each epoch, handed to whatever keeps them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.job import Trained, TrainingState
from vitcompress.stages.training.monitor import Pace


class KeepSnapshots(Callback):
    """Calls a function in the main process after every epoch but the last.

    ``keep`` is given the epochs trained and the network's raw state (not a copy), before the checkpoint that covers the
    epoch: a training that is resumed after an epoch has called it for that epoch.
    """

    def __init__(self, keep: Callable[[int, dict[str, Tensor]], None]) -> None:
        self.keep = keep

    def after_epoch(self, training: TrainingState, pace: Pace | None, found: Trained | None) -> None:
        """Hand over the weights."""
        if training.progress.epoch < training.epochs and training.accelerator.is_main_process:
            self.keep(training.progress.epoch, training.raw_state())
