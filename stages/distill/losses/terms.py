"""All terms of the loss, weighted."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.losses.alignment import aligned
from vitcompress.stages.distill.losses.registry import loss_of
from vitcompress.stages.distill.pairs import LayerPair
from vitcompress.stages.training.labels import LabelLoss

_NO_SHARE = 1e-13
"""Of probability, instead of 0, whose logarithm is not finite."""


def distillation_terms(
    config: DistillConfig,
    label_loss: LabelLoss,
    student_BK: Tensor,
    teacher_BK: Tensor | None,
    labels: Tensor,
    taps: list[tuple[LayerPair, Tensor, Tensor]],
) -> dict[str, Tensor]:
    """Return the weighted terms whose sum is the loss, one a layer pair; a term of weight zero is left out.

    Logits are ``[B, K]``; the teacher's may be None when alpha is 0. ``labels`` are class indices int64 ``[B]``, or
    probabilities ``[B, K]``; ``taps`` are pairs with their student tap (projected where asked) and teacher tap,
    ``[B, C, H, W]``.
    """
    terms: dict[str, Tensor] = {}
    if config.alpha < 1:
        terms["labels"] = (1 - config.alpha) * label_loss(student_BK, labels)
    if config.alpha > 0:
        if teacher_BK is None:
            raise ValueError("alpha is above 0 and no teacher answered")  # a mistake of ours: the stage runs one
        if config.teacher_errors == "replace":
            teacher_BK = corrected(teacher_BK, labels, config.tau, several=label_loss.task == "multilabel")
        of_logits = loss_of("logits", config.logits)(student_BK, teacher_BK, config.tau)
        terms[f"{config.logits}_logits"] = config.alpha * of_logits
    for pair, student, teacher in taps:
        terms[pair.name] = pair.weight * loss_of("features", pair.kind)(*aligned(pair, student, teacher))
    return terms


def corrected(teacher_BK: Tensor, labels: Tensor, tau: float, several: bool = False) -> Tensor:
    """Return the teacher's logits ``[B, K]``, and instead of wrong ones those whose softened answer is the label.

    Wrong is an answer whose most likely class is not the image's (of mixed images: the class of the largest share).
    Wen et al. 2019 (arXiv 1911.07471) put the right class in the place of the wrong one; here the label is the whole
    answer. ``labels`` are as above; ``tau`` is the temperature by which the answer is softened afterwards. With
    ``several`` labels an image, each class is replaced by itself where it is on the wrong side of one half.
    """
    if several:
        wrong_BK = (teacher_BK > 0) != (labels > 0.5)
        return torch.where(wrong_BK, -tau * math.log(_NO_SHARE) * (2 * labels.float() - 1), teacher_BK.float())
    if labels.is_floating_point():
        shares, known = labels.float(), labels.sum(dim=-1) > 0
    else:
        shares, known = F.one_hot(labels.clamp_min(0), teacher_BK.shape[-1]).float(), labels >= 0
    wrong = (teacher_BK.argmax(dim=-1) != shares.argmax(dim=-1)) & known
    answer = tau * shares.clamp_min(_NO_SHARE).log()
    return torch.where(wrong[:, None], answer, teacher_BK.float())
