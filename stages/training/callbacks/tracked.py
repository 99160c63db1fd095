"""What trackers are sent of a training: what is written to the metrics, and losses between two epochs."""

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
        self.written = metrics

    def start(self, training: TrainingState) -> None:
        """Send the epochs of earlier sessions, which may have sent nothing."""
        self.own = {"training": training.job.name, "settings": training.job.fingerprint[:SETTINGS_SHOWN]}
        progress = training.progress
        self.seen, self.sent_at = (progress.epoch, sum(progress.sums.values()), progress.summed), time.monotonic()
        for line in training.context.run.metrics() if training.context.track else ():
            if line.items() >= self.own.items():
                training.context.track(line)

    def after_batch(self, training: TrainingState, pace: Pace) -> None:
        """Send the mean loss since the last time, if values were read since."""
        progress, track = training.progress, training.context.track
        if track is None or time.monotonic() - self.sent_at < _SECONDS:
            return
        epoch, total, count = self.seen if self.seen[0] == progress.epoch else (progress.epoch, 0.0, 0)
        if progress.summed == count:
            return
        self.seen, self.sent_at = (epoch, sum(progress.sums.values()), progress.summed), time.monotonic()
        track(
            {
                **self.own,
                "step": progress.steps,
                "step_loss": (self.seen[1] - total) / (progress.summed - count),
                "step_lr": training.learning_rate,
                "step_images_per_second": pace.rate,
            }
        )

    def after_epoch(self, training: TrainingState, pace: Pace | None, found: Trained | None) -> None:
        """Send the epoch's line of metrics."""
        if training.context.track:
            training.context.track(self.written.line)
