"""Labels of images of which some have no class: in the loss, mixed, and where a wrong answer is replaced."""

import pytest
import torch
import torch.nn.functional as F
from small_run import SPEC

from vitcompress.stages.distill.losses.terms import corrected
from vitcompress.stages.images.config import AugmentConfig
from vitcompress.stages.images.loaders import mix_of
from vitcompress.stages.training.labels import LabelLoss

LABELS = torch.tensor([3, -1, 0, -1, -1, 2])
LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def test_only_classes_teach_and_one_weighs_as_much_beside_images_without():
    loss, known = LabelLoss(smoothing=0.1, unlabelled=True), LABELS >= 0
    summed = F.cross_entropy(LOGITS[known], LABELS[known], label_smoothing=0.1, reduction="sum")
    assert float(loss(LOGITS, LABELS)) == pytest.approx(float(summed) / 6)
    assert float(loss(LOGITS, torch.full((6,), -1))) == 0
    given = corrected(LOGITS, LABELS, 1.0)
    assert torch.equal(given[~known], LOGITS[~known])
    assert torch.equal(given[known].argmax(1), LABELS[known])


def test_a_mixture_with_an_image_of_no_class_has_none():
    mix = mix_of(AugmentConfig(mixup=1.0), SPEC, 5, 0.1)
    _, shares = mix(torch.zeros(6, 3, 8, 8), LABELS)
    assert shares.sum(1).tolist() == pytest.approx([1, 0, 0, 0, 0, 1])  # the first and the last were mixed
    assert float(LabelLoss()(LOGITS, shares)) == pytest.approx(float(-(shares * LOGITS.log_softmax(1)).sum() / 6))
