"""Distillation of an embedding's direction."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6
"""Instead of a smaller length: gradients of a student whose last layer begins at zero stay finite."""


def loss(student_BE: Tensor, teacher_BE: Tensor, tau: float) -> Tensor:
    """Return ``1 - cos`` of the two embeddings of an image, 0 to 2, mean over the batch; ``tau`` does not count."""
    return 1 - F.cosine_similarity(student_BE.float(), teacher_BE.float(), dim=-1, eps=EPS).mean()
