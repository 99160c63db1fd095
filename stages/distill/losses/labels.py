"""The loss that needs no teacher."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def label_loss(student_BK: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy with the labels, mean over the batch; float32 scalar.

    Class indices int64 ``[B]`` are smoothed; probabilities ``[B, K]`` (mixed images) are taken as they are.
    """
    if labels.is_floating_point():
        return F.cross_entropy(student_BK.float(), labels.float())
    return F.cross_entropy(student_BK.float(), labels, label_smoothing=smoothing)
