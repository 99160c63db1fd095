"""What a training shows and writes down of itself: the bar on a terminal, and a line of metrics an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitcompress.core.rundir import SETTINGS_SHOWN
from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.job import Trained, TrainingState
from vitcompress.stages.training.monitor import Pace, progress_bar
from vitcompress.stages.training.pulse import note_position
from vitcompress.stages.training.terms import shares


class Metrics(Callback):
    """Shows progress and writes metrics, those of the other ``callbacks`` too; only the main process does both."""

    line: dict[str, Any]
    """What was written last."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks

    def start(self, training: TrainingState) -> None:
        """Show the bar."""
        self.bar = progress_bar(training.context, "loss {task.fields[loss]}  ")
        total = training.epochs * training.steps_per_epoch
        self.task = self.bar.add_task(training.job.name, total=total, loss="-", rate="-")
        self.bar.start()

    def after_batch(self, training: TrainingState, pace: Pace) -> None:
        """Move the bar."""
        progress = training.progress
        note_position(f"step {progress.steps} of {training.job.name}")
        mean = sum(progress.sums.values()) / max(progress.summed, 1)  # of those read so far
        self.bar.update(self.task, completed=progress.steps, loss=f"{mean:.3f}", rate=f"{pace.rate:.0f}")

    def after_epoch(self, training: TrainingState, pace: Pace | None, found: Trained | None) -> None:
        """Write one line of metrics; what was not measured after this epoch is null."""
        if training.context.rank:
            return
        progress = training.progress
        line: dict[str, Any] = {
            "training": training.job.name,
            "settings": training.job.fingerprint[:SETTINGS_SHOWN],
            "epoch": progress.epoch,
            "step": progress.steps,
            "skipped_steps": progress.skipped,
            "lr": training.learning_rate,
            "loss": sum(progress.losses.values()),
            "losses": progress.losses,
            "shares": shares(progress.losses),
            "gradient_norms": progress.gradient_norms,
            "scales": progress.scales,
            "val_top1_raw": found and found.top1_raw,
            "val_top1_ema": found and found.top1_ema,
            "images_per_second": pace and pace.rate,
            "seconds": progress.seconds,
        }
        for callback in self.callbacks:
            line |= callback.metrics()
        training.context.run.append_metrics(line)
        self.line = line

    def close(self) -> None:
        """Remove the bar."""
        self.bar.stop()
