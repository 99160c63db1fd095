"""Stopping a training early, once the held-out images can tell no evaluation better than an earlier one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitcompress.core.records import Task
from vitcompress.core.words import counted
from vitcompress.stages.judging.accuracy import Z95, correct, paired_drop
from vitcompress.stages.judging.embedding_metrics import unit
from vitcompress.stages.judging.tasks import gain
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
        now, best = self._evidence(outputs, labels), state["best"]
        if best is None or self._improved(now, best.numpy(), labels):
            self.state = {"epoch": epoch, "best_epoch": epoch, "waited": 0, "best": torch.from_numpy(now)}
            return
        state |= {"epoch": epoch, "waited": state["waited"] + 1}
        if self.stops(training) and epoch < training.epochs:
            training.context.say(
                f"note: {training.job.name} stops after {epoch} of {training.epochs} epochs: the last "
                f"{counted(state['waited'], 'evaluation')} on {len(labels):,} held-out images cannot be told from that "
                f"after epoch {state['best_epoch']}, or are worse"
            )

    def _evidence(self, outputs: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[Any]:
        """Return whether each image ``[N]`` is right, the cosine of its embedding, or of several labels the outputs."""
        if self.task == "embedding":
            return np.asarray((unit(outputs) * unit(labels)).sum(axis=1))
        return correct(outputs, labels) if self.task == "classification" else outputs

    def _improved(self, now: NDArray[Any], before: NDArray[Any], labels: NDArray[Any]) -> bool:
        """Return whether evidence is better than that ``before`` by more than the paired 95 % interval."""
        if self.task == "classification":
            return paired_drop(now, before)[1] > 0
        if self.task == "multilabel":
            return gain(self.task, now, before, labels)[1] > 0
        difference = now.astype(np.float64) - before
        return bool(difference.mean() > Z95 * difference.std() / np.sqrt(difference.size))

    def stops(self, training: TrainingState) -> bool:
        """Return whether enough evaluations went by."""
        return bool(self.state["waited"] >= self.patience)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return self.state

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.state = saved
