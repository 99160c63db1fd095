"""The loss that needs no teacher: of any task, for fitting a teacher and for distilling a student."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

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
    """Of class numbers; of mixed images it is in the labels already."""
    unlabelled: bool = False
    """Whether images may have no class: ``UNLABELLED``, or probabilities of 0."""

    def __call__(self, outputs_BK: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with class numbers int64 ``[B]``, or probabilities ``[B, K]`` as they are."""
        if labels.is_floating_point():
            return F.cross_entropy(outputs_BK.float(), labels.float())
        if not self.unlabelled:
            return F.cross_entropy(outputs_BK.float(), labels, label_smoothing=self.smoothing)
        loss = partial(F.cross_entropy, ignore_index=UNLABELLED, reduction="sum", label_smoothing=self.smoothing)
        return loss(outputs_BK.float(), labels) / len(labels)
