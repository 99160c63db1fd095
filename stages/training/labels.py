"""The loss that needs no teacher: of any task, for fitting a teacher and for distilling a student."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vitcompress.core.records import Task
from vitcompress.stages.images.splits import UNLABELLED


@dataclass(frozen=True)
class LabelLoss:
    """From outputs ``[B, K]`` and labels to a loss, float32 scalar, mean over the batch.

    Of B images, those in L with a class: ``1 / B sum over i in L of CE_i``, so that few of them weigh no more for it.
    """

    task: Task = "classification"
    smoothing: float = 0.0
    """Of class numbers, and of several labels towards 1/2; of mixed images it is in the labels already."""
    weights: tuple[float, ...] | None = None
    """Of each class (``stages.training.class_weights``); None: all weigh alike."""
    unlabelled: bool = False
    """Whether images may have no class: ``UNLABELLED``, or probabilities of 0."""

    def __call__(self, outputs_BK: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with class numbers int64 ``[B]``, or probabilities ``[B, K]`` as they are; of
        several labels ``[B, K]`` the binary one, mean over classes too.

        Weighted as torch does it: the mean over class numbers is by their weights, over probabilities by images. Of
        several labels, a weight is of the images that have the class.
        """
        weight = None if self.weights is None else _on(outputs_BK.device, self.weights)
        if self.task == "multilabel":
            smoothed = labels.float() * (1 - self.smoothing) + self.smoothing / 2
            return F.binary_cross_entropy_with_logits(outputs_BK.float(), smoothed, pos_weight=weight)
        if labels.is_floating_point():
            return F.cross_entropy(outputs_BK.float(), labels.float(), weight)
        given, smoothing = outputs_BK.float(), self.smoothing
        if not self.unlabelled:
            return F.cross_entropy(given, labels, weight, label_smoothing=smoothing)
        return F.cross_entropy(
            given, labels, weight, ignore_index=UNLABELLED, reduction="sum", label_smoothing=smoothing
        ) / len(labels)


@lru_cache(maxsize=8)
def _on(device: torch.device, weights: tuple[float, ...]) -> Tensor:
    """Copy weights to a device once, because a GPU waits for a copy at each step."""
    return torch.tensor(weights, device=device)
