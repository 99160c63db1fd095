"""The loss that needs no teacher: of any task, for fitting a teacher and for distilling a student."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vitcompress.core.records import Task


@dataclass(frozen=True)
class LabelLoss:
    """From outputs ``[B, K]`` and labels to a loss, float32 scalar, mean over the batch."""

    task: Task = "classification"
    smoothing: float = 0.0
    """Of class numbers; of mixed images it is in the labels already."""
    weights: tuple[float, ...] | None = None
    """Of each class (``stages.training.class_weights``); None: all weigh alike."""

    def __call__(self, outputs_BK: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with class numbers int64 ``[B]``, or probabilities ``[B, K]`` as they are."""
        weight = None if self.weights is None else _on(outputs_BK.device, self.weights)
        if labels.is_floating_point():
            return F.cross_entropy(outputs_BK.float(), labels.float(), weight)
        return F.cross_entropy(outputs_BK.float(), labels, weight, label_smoothing=self.smoothing)


@lru_cache(maxsize=8)
def _on(device: torch.device, weights: tuple[float, ...]) -> Tensor:
    """Copy weights to a device once, because a GPU waits for a copy at each step."""
    return torch.tensor(weights, device=device)
