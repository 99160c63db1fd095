"""Distillation of each class by itself, for images with several labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def loss(student_BK: Tensor, teacher_BK: Tensor, tau: float) -> Tensor:
    """Return ``tau^2 KL(B(p_teacher) || B(p_student))``, mean over classes and batch; float32 scalar.

    B is Bernoulli's distribution, p the sigmoid of a logit over ``tau``: Yang et al. 2023 (Multi-Label Knowledge
    Distillation, arXiv 2308.06453), who sum over classes. The mean has the scale of the labels' binary cross-entropy.
    """
    student, teacher = student_BK.float() / tau, teacher_BK.float() / tau
    shares = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher, shares)
    return tau**2 * (F.binary_cross_entropy_with_logits(student, shares) - entropy)
