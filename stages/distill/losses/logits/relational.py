"""Distillation of how similar the images of a batch are to each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitcompress.stages.distill.losses.logits.cosine import EPS


def loss(student_BE: Tensor, teacher_BE: Tensor, tau: float) -> Tensor:
    """Return the mean squared difference of the cosines of each two images, by the student and by the teacher.

    Similarity-preserving distillation (Tung & Mori 2019, arXiv 1907.09682, eq. 2 to 4), of embeddings of length 1, so
    that rows need no normalising of their own, and without the diagonal, which is 1 for both. Its cost grows with B^2;
    the angles of RKD (Park et al. 2019, arXiv 1904.05068) take B^3. The pairs are those of one process; ``tau`` does
    not count. 0 for a batch of one.
    """
    student_BE, teacher_BE = (F.normalize(one.float(), dim=-1, eps=EPS) for one in (student_BE, teacher_BE))
    difference_BB = student_BE @ student_BE.T - teacher_BE @ teacher_BE.T
    count = len(difference_BB)
    apart_BB = 1 - torch.eye(count, device=difference_BB.device)
    return (difference_BB * apart_BB).square().sum() / max(1, count * (count - 1))
