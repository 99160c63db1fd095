"""What trackers are sent of a training: its lines of metrics, and losses between two of them."""

from __future__ import annotations

import time

from vitcompress.core.rundir import SETTINGS_SHOWN
from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.callbacks.metrics import Metrics
from vitcompress.stages.training.job import Trained, TrainingState
from vitcompress.stages.training.monitor import Pace

_SECONDS = 5.0
"""Between two messages within an epoch, at least: a server answers each."""


class Tracked(Callback):
    """Hands to ``context.track``, if there is one (the main process's), what the loop has read anyway."""

    def __init__(self, metrics: Metrics) -> None:
        """``metrics`` is called before this."""
        self.written, self.at, self.read = metrics, time.monotonic(), 0

    def start(self, training: TrainingState) -> None:
        """Send the epochs of earlier sessions, which may have sent nothing."""
        self.own = {"training": training.job.name, "settings": training.job.fingerprint[:SETTINGS_SHOWN]}
        for line in training.context.run.metrics() if training.context.track else ():
            if line.items() >= self.own.items():
                training.context.track(line)  # type: ignore[misc]

    def after_batch(self, training: TrainingState, pace: Pace) -> None:
        """Send the mean loss of this epoch so far, if values were read since it was sent last."""
        progress, track = training.progress, training.context.track
        if track and progress.summed not in (0, self.read) and time.monotonic() - self.at >= _SECONDS:
            self.at, self.read = time.monotonic(), progress.summed
            loss = sum(progress.sums.values()) / progress.summed
            figures = {"step_loss": loss, "step_lr": training.learning_rate, "step_images_per_second": pace.rate}
            track({**self.own, "step": progress.steps, **figures})

    def after_epoch(self, training: TrainingState, pace: Pace | None, found: Trained | None) -> None:
        """Send the epoch's line of metrics."""
        if training.context.track:
            training.context.track(self.written.line)
