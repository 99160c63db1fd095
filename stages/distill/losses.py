"""The distillation losses (DESIGN 3.2).

Shape suffixes: B batch, K classes, C channels, H W patch grid. Sources: [SKD] SpectralKD, arXiv 2412.19055; [EM]
From Low-Rank Features to Encoding Mismatch, arXiv 2511.15572.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.distill.config import DistillConfig


def soft_kd(student_BK: Tensor, teacher_BK: Tensor, tau: float) -> Tensor:
    """``tau^2 KL`` of the softened answers, mean over the batch; float32 scalar."""
    student = F.log_softmax(student_BK.float() / tau, dim=-1)
    teacher = F.log_softmax(teacher_BK.float() / tau, dim=-1)
    return tau**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def hard_kd(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Cross-entropy with the teacher's most likely class, mean over the batch."""
    return F.cross_entropy(student_BK.float(), teacher_BK.argmax(dim=-1))


def align(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both taps ``[B, C, H, W]`` in float32 at the smaller channel count and the student's grid.

    Channels are pooled by adaptive averaging along the channel axis [SKD]. A teacher's map of another grid is
    averaged down, or interpolated up, to the student's.
    """
    student, teacher = student.float(), teacher.float()
    if student.shape[-2:] != teacher.shape[-2:]:
        smaller = student.shape[-1] <= teacher.shape[-1] and student.shape[-2] <= teacher.shape[-2]
        grid = (student.shape[-2], student.shape[-1])
        teacher = (
            F.adaptive_avg_pool2d(teacher, grid)
            if smaller
            else F.interpolate(teacher, size=grid, mode="bilinear", align_corners=False)
        )
    channels = min(student.shape[1], teacher.shape[1])
    if teacher.shape[1] > channels:
        teacher = F.adaptive_avg_pool3d(teacher, (channels, None, None))
    if student.shape[1] > channels:
        student = F.adaptive_avg_pool3d(student, (channels, None, None))
    return student, teacher


def mse_feature(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of two taps ``[B, C, H, W]`` (channels and grids aligned)."""
    return F.mse_loss(*align(student, teacher))


def spectral_feature(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of the taps' spectra [SKD]: rfft2 over H, W (ortho), real and imaginary parts stacked."""
    student, teacher = align(student, teacher)

    def spectrum(tap: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.rfft2(tap, norm="ortho"))

    return F.mse_loss(spectrum(student), spectrum(teacher))


FEATURE_LOSSES = {"mse": mse_feature, "spectral": spectral_feature}


def distillation_terms(
    config: DistillConfig,
    student: tuple[Tensor, list[Tensor]],
    teacher: tuple[Tensor, list[Tensor]],
    labels_B: Tensor,
) -> dict[str, Tensor]:
    """The weighted terms whose sum is the loss; a term of weight zero is left out.

    Args:
        config: weights and kinds.
        student: logits ``[B, K]`` and taps ``[B, C, H, W]``, one a layer pair.
        teacher: likewise.
        labels_B: class indices, int64.
    """
    logits, taps = student
    teacher_logits, teacher_taps = teacher
    terms: dict[str, Tensor] = {}
    if config.alpha < 1:
        smoothed = F.cross_entropy(logits.float(), labels_B, label_smoothing=config.label_smoothing)
        terms["labels"] = (1 - config.alpha) * smoothed
    if config.alpha > 0:
        soft = config.logits == "soft"
        kd = soft_kd(logits, teacher_logits, config.tau) if soft else hard_kd(logits, teacher_logits)
        terms[f"{config.logits}_logits"] = config.alpha * kd
    if taps:
        feature = FEATURE_LOSSES[config.feature]
        each = [feature(s, t) for s, t in zip(taps, teacher_taps, strict=True)]
        terms[f"{config.feature}_features"] = config.beta * config.feature_weight * torch.stack(each).mean()
    return terms
