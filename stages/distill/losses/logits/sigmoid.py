"""Distillation of each class by itself, for images with several labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def loss(student_BK: Tensor, teacher_BK: Tensor, tau: float) -> Tensor:
    """Return ``tau^2 KL(B(p_teacher) || B(p_student))``, p = sigmoid(logit / tau), mean over classes and batch.

    B is Bernoulli's distribution: Yang et al. 2023 (Multi-Label Knowledge Distillation, arXiv 2308.06453), who sum over
    classes. The mean has the scale of the labels' binary cross-entropy.
    """
    student, teacher = student_BK.float() / tau, teacher_BK.float() / tau
    shares, cross_entropy = teacher.sigmoid(), F.binary_cross_entropy_with_logits
    return tau**2 * (cross_entropy(student, shares) - cross_entropy(teacher, shares))
