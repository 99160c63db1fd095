"""Distillation of the softened answer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def loss(student_BK: Tensor, teacher_BK: Tensor, tau: float) -> Tensor:
    """Return ``tau^2 KL`` of the softened answers, mean over the batch; float32 scalar."""
    student = F.log_softmax(student_BK.float() / tau, dim=-1)
    teacher = F.log_softmax(teacher_BK.float() / tau, dim=-1)
    return tau**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
