"""The peak memory of a step, as the metrics have it."""

from __future__ import annotations

from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.job import TrainingState
from vitcompress.stages.training.memory import PeakMemory
from vitcompress.stages.training.monitor import Pace


class StepMemory(Callback):
    """Measures each batch and keeps the newest value."""

    def __init__(self) -> None:
        self.peak: int | None = None

    def start(self, training: TrainingState) -> None:
        """Find out how memory is measured on this device."""
        self.memory = PeakMemory(training.accelerator.device)

    def before_batch(self, training: TrainingState) -> None:
        """Begin to measure."""
        self.memory.reset()

    def after_batch(self, training: TrainingState, pace: Pace) -> None:
        """Read the peak, in bytes."""
        self.peak = self.memory.read()

    def metrics(self) -> dict[str, int | None]:
        """Return the peak of the newest batch."""
        return {"peak_step_bytes": self.peak}
