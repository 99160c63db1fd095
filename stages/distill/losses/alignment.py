"""Bringing two taps to one shape, so that they can be compared."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vitcompress.stages.distill.pairs import LayerPair


def on_grid(teacher: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the teacher's tap ``[B, C, H, W]`` averaged down, or interpolated up, to the student's grid."""
    have = (teacher.shape[-2], teacher.shape[-1])
    if have == grid:
        return teacher
    if grid[0] <= have[0] and grid[1] <= have[1]:
        return F.adaptive_avg_pool2d(teacher, grid)
    return F.interpolate(teacher, size=grid, mode="bilinear", align_corners=False)


def pooled(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both taps at the smaller channel count, by adaptive averaging along the channel axis [SKD]."""
    ours, theirs = student.shape[1], teacher.shape[1]
    if theirs > ours:
        teacher = F.adaptive_avg_pool3d(teacher, (ours, None, None))
    elif ours > theirs:
        student = F.adaptive_avg_pool3d(student, (theirs, None, None))
    return student, teacher


def normalised(tap: Tensor) -> Tensor:
    """Return ``[B, C, H, W]`` with mean 0 and variance 1 a channel over this process's batch [DD].

    No parameter and no running statistics. Not affine: a trainable scale on the teacher's side could shrink both maps,
    and the loss with them, to nothing. The statistics are those of one process; processes do not exchange them.
    """
    return F.batch_norm(tap, None, None, training=True)


def aligned(pair: LayerPair, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two taps ``[B, C, H, W]`` of a pair in float32, of one shape.

    The student's is already at the teacher's width where ``match`` is ``projector``; the teacher's has any grid.
    """
    student, teacher = student.float(), on_grid(teacher.float(), (student.shape[-2], student.shape[-1]))
    if pair.match == "projector":
        return normalised(student), normalised(teacher)
    return pooled(student, teacher)
