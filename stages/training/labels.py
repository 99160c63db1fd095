"""The loss that needs no teacher: of any task, for fitting a teacher and for distilling a student."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from vitcompress.core.records import Task


@dataclass(frozen=True)
class LabelLoss:
    """From outputs ``[B, K]`` and labels to a loss, float32 scalar, mean over the batch."""

    task: Task = "classification"
    smoothing: float = 0.0
    """Of class numbers, and of several labels towards 1/2; of mixed images it is in the labels already."""

    def __call__(self, outputs_BK: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with class numbers int64 ``[B]``, or probabilities ``[B, K]`` as they are."""
        if self.task == "multilabel":  # each of the labels [B, K] by itself, mean over classes too
            smoothed = labels.float() * (1 - self.smoothing) + self.smoothing / 2
            return F.binary_cross_entropy_with_logits(outputs_BK.float(), smoothed)
        if labels.is_floating_point():
            return F.cross_entropy(outputs_BK.float(), labels.float())
        return F.cross_entropy(outputs_BK.float(), labels, label_smoothing=self.smoothing)
