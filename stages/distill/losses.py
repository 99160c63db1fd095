"""The distillation losses (DESIGN 3.2).

Shape suffixes: B batch, K classes, C channels, H W patch grid. Sources: [SKD] SpectralKD, arXiv 2412.19055; [EM]
From Low-Rank Features to Encoding Mismatch, arXiv 2511.15572; [DD] Distillation Dynamics, arXiv 2511.06848.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.pairs import LayerPair, averages_down

_NO_SHARE = 1e-13
"""Of probability, instead of 0, whose logarithm is not finite."""


def soft_kd(student_BK: Tensor, teacher_BK: Tensor, tau: float) -> Tensor:
    """``tau^2 KL`` of the softened answers, mean over the batch; float32 scalar."""
    student = F.log_softmax(student_BK.float() / tau, dim=-1)
    teacher = F.log_softmax(teacher_BK.float() / tau, dim=-1)
    return tau**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def corrected(teacher_BK: Tensor, labels: Tensor, tau: float) -> Tensor:
    """The teacher's logits ``[B, K]``, and instead of wrong ones those whose softened answer is the label.

    Wrong is an answer whose most likely class is not the image's (of mixed images: the class of the largest share).
    Wen et al. 2019 (arXiv 1911.07471) put the right class in the place of the wrong one; here the label is the whole
    answer.

    Args:
        teacher_BK: logits.
        labels: class indices int64 ``[B]``, or probabilities ``[B, K]``.
        tau: the temperature by which the answer is softened afterwards.
    """
    shares = (labels if labels.is_floating_point() else F.one_hot(labels, teacher_BK.shape[-1])).float()
    wrong = teacher_BK.argmax(dim=-1) != shares.argmax(dim=-1)
    answer = tau * shares.clamp_min(_NO_SHARE).log()
    return torch.where(wrong[:, None], answer, teacher_BK.float())


def hard_kd(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Cross-entropy with the teacher's most likely class, mean over the batch."""
    return F.cross_entropy(student_BK.float(), teacher_BK.argmax(dim=-1))


def label_loss(student_BK: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with the labels, mean over the batch; float32 scalar.

    Args:
        student_BK: logits.
        labels: class indices int64 ``[B]``, which are smoothed, or probabilities ``[B, K]`` (mixed images), taken as
            they are.
        smoothing: probability spread over all classes.
    """
    if labels.is_floating_point():
        return F.cross_entropy(student_BK.float(), labels.float())
    return F.cross_entropy(student_BK.float(), labels, label_smoothing=smoothing)


def on_grid(teacher: Tensor, grid: tuple[int, int]) -> Tensor:
    """The teacher's tap ``[B, C, H, W]`` averaged down, or interpolated up, to the student's grid."""
    have = (teacher.shape[-2], teacher.shape[-1])
    if have == grid:
        return teacher
    if averages_down(grid, have):
        return F.adaptive_avg_pool2d(teacher, grid)
    return F.interpolate(teacher, size=grid, mode="bilinear", align_corners=False)


def pooled(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both taps at the smaller channel count, by adaptive averaging along the channel axis [SKD]."""
    channels = min(student.shape[1], teacher.shape[1])
    if teacher.shape[1] > channels:
        teacher = F.adaptive_avg_pool3d(teacher, (channels, None, None))
    if student.shape[1] > channels:
        student = F.adaptive_avg_pool3d(student, (channels, None, None))
    return student, teacher


def normalised(tap: Tensor) -> Tensor:
    """``[B, C, H, W]`` with mean 0 and variance 1 a channel over this process's batch; no parameter, no memory [DD].

    Not affine: a trainable scale on the teacher's side could shrink both maps, and the loss with them, to nothing.
    The statistics are those of one process; processes do not exchange them.
    """
    return F.batch_norm(tap, None, None, training=True)


def aligned(pair: LayerPair, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The two taps ``[B, C, H, W]`` of a pair in float32, of one shape.

    Args:
        pair: says how.
        student: the student's tap, already at the teacher's width where ``match`` is ``projector``.
        teacher: the teacher's tap, of any grid and width.
    """
    student, teacher = student.float(), on_grid(teacher.float(), (student.shape[-2], student.shape[-1]))
    if pair.match == "projector":
        return normalised(student), normalised(teacher)
    return pooled(student, teacher)


def spectrum(tap: Tensor) -> Tensor:
    """rfft2 over H, W (ortho) of ``[B, C, H, W]``, real and imaginary parts stacked: ``[B, C, H, W // 2 + 1, 2]``."""
    return torch.view_as_real(torch.fft.rfft2(tap, norm="ortho"))


def feature_loss(pair: LayerPair, student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of two taps ``[B, C, H, W]``, or of their spectra [SKD]; unweighted float32 scalar."""
    student, teacher = aligned(pair, student, teacher)
    if pair.kind == "spectral":
        student, teacher = spectrum(student), spectrum(teacher)
    return F.mse_loss(student, teacher)


def distillation_terms(
    config: DistillConfig,
    student_BK: Tensor,
    teacher_BK: Tensor | None,
    labels: Tensor,
    taps: list[tuple[LayerPair, Tensor, Tensor]],
) -> dict[str, Tensor]:
    """The weighted terms whose sum is the loss, one a layer pair; a term of weight zero is left out.

    Args:
        config: weights and kinds.
        student_BK: the student's logits.
        teacher_BK: the teacher's; may be None when alpha is 0.
        labels: class indices int64 ``[B]``, or probabilities ``[B, K]``.
        taps: each pair with its student tap (projected where asked) and teacher tap, ``[B, C, H, W]``.
    """
    terms: dict[str, Tensor] = {}
    if config.alpha < 1:
        terms["labels"] = (1 - config.alpha) * label_loss(student_BK, labels, config.label_smoothing)
    if config.alpha > 0:
        if teacher_BK is None:
            raise ValueError("alpha is above 0 and no teacher answered")  # a mistake of ours: the stage runs one
        if config.teacher_errors == "replace":
            teacher_BK = corrected(teacher_BK, labels, config.tau)
        soft = config.logits == "soft"
        kd = soft_kd(student_BK, teacher_BK, config.tau) if soft else hard_kd(student_BK, teacher_BK)
        terms[f"{config.logits}_logits"] = config.alpha * kd
    for pair, student, teacher in taps:
        terms[pair.name] = pair.weight * feature_loss(pair, student, teacher)
    return terms
