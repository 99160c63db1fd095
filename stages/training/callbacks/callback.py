"""The protocol of callbacks: what the loop calls, and when."""

from __future__ import annotations

from typing import Any

from vitcompress.stages.training.job import Trained, TrainingState
from vitcompress.stages.training.monitor import Pace


class Callback:
    """Something that a training does beside its steps; each method does nothing unless it is overridden.

    The loop calls every method in every process. A callback must not change weights, gradients or generators.
    """

    saved: Any = None
    """An object with ``state_dict`` and ``load_state_dict`` that goes into each checkpoint and comes back from it."""

    def start(self, training: TrainingState) -> None:
        """Begin, before the first step of this session; the newest checkpoint is loaded."""

    def after_step(self, training: TrainingState) -> None:
        """Follow an optimizer step."""

    def after_batch(self, training: TrainingState, pace: Pace) -> None:
        """Follow a batch, whether or not it ended an optimizer step."""

    def after_evaluation(self, training: TrainingState, found: Trained) -> None:
        """Follow an evaluation; of one epoch it may come twice, when a training is resumed."""

    def after_epoch(self, training: TrainingState, pace: Pace | None, found: Trained | None) -> None:
        """Follow an epoch, before the checkpoint that covers it.

        ``pace`` is None if no batch of this epoch was trained in this session, ``found`` if it was not evaluated.
        """

    def stops(self, training: TrainingState) -> bool:
        """Return whether training ends after this epoch, though it is not the last."""
        return False

    def metrics(self) -> dict[str, Any]:
        """Return JSON values for the epoch's line in the metrics."""
        return {}

    def close(self) -> None:
        """End; also after an error."""
