"""Distillation of an embedding: its direction, and how similar the images of a batch are to each other."""

from __future__ import annotations

from torch import Tensor

from vitcompress.stages.distill.losses.logits import cosine, relational

RELATIONAL = 0.1
"""Weight of ``relational``; that of ``cosine`` is 1. With 1 a short training from random weights learns less: docs."""


def loss(student_BE: Tensor, teacher_BE: Tensor, tau: float) -> Tensor:
    """Return ``cosine + RELATIONAL * relational``; float32 scalar."""
    return cosine.loss(student_BE, teacher_BE, tau) + RELATIONAL * relational.loss(student_BE, teacher_BE, tau)
