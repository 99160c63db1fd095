"""Distillation of an embedding: its direction, and how similar the images of a batch are to each other."""

from __future__ import annotations

from torch import Tensor

from vitcompress.stages.distill.losses.logits import cosine, relational

RELATIONAL = 1.0
"""Weight of ``relational`` beside ``cosine``, whose weight is 1."""


def loss(student_BE: Tensor, teacher_BE: Tensor, tau: float) -> Tensor:
    """Return ``cosine + RELATIONAL * relational``; float32 scalar."""
    return cosine.loss(student_BE, teacher_BE, tau) + RELATIONAL * relational.loss(student_BE, teacher_BE, tau)
