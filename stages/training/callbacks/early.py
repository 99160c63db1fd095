"""Stopping a training early, once the held-out images can tell no evaluation better than an earlier one."""

from __future__ import annotations

from typing import Any

import torch

from vitcompress.core.records import Task
from vitcompress.core.words import counted
from vitcompress.stages.judging.tasks import evidence, improved
from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.job import Trained, TrainingState


class EarlyStop(Callback):
    """Stops after ``patience`` evaluations that are not better than the reference beyond the paired 95 % interval.

    The reference is the last evaluation that was, or the first. One that is better by no more than chance does not take
    its place, so that slow improvements add up until they can be told from noise.
    """

    def __init__(self, task: Task, patience: int) -> None:
        self.task, self.patience, self.saved = task, patience, self
        self.state: dict[str, Any] = {"epoch": 0, "best_epoch": 0, "waited": 0, "best": None}

    def after_evaluation(self, training: TrainingState, found: Trained) -> None:
        """Compare with the reference; an epoch that comes again changes nothing."""
        state, epoch, (outputs, labels) = self.state, training.progress.epoch, training.answers
        if epoch <= state["epoch"]:
            return
        now, best = evidence(self.task, outputs, labels), state["best"]
        if best is None or improved(self.task, now, best.numpy(), labels):
            self.state = {"epoch": epoch, "best_epoch": epoch, "waited": 0, "best": torch.from_numpy(now)}
            return
        state |= {"epoch": epoch, "waited": state["waited"] + 1}
        if self.stops(training) and epoch < training.epochs:
            training.context.say(
                f"note: {training.job.name} stops after {epoch} of {training.epochs} epochs: the last "
                f"{counted(state['waited'], 'evaluation')} on {len(labels):,} held-out images cannot be told from that "
                f"after epoch {state['best_epoch']}, or are worse"
            )

    def stops(self, training: TrainingState) -> bool:
        """Return whether enough evaluations went by."""
        return bool(self.state["waited"] >= self.patience)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return self.state

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.state = saved
