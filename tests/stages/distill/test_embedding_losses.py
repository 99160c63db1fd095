"""Losses of embeddings: nothing where they say the same, whatever their length; turned ones keep their relations."""

from __future__ import annotations

import pytest
import torch

from vitcompress.stages.distill.losses.logits import embedding
from vitcompress.stages.distill.losses.registry import loss_of

COSINE, RELATIONAL = loss_of("logits", "cosine"), loss_of("logits", "relational")


def test_lengths_do_not_count_and_a_turn_changes_the_cosine_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, other = torch.randn(2, 6, 8, generator=generator)
    longer = teacher * torch.linspace(0.1, 9, 6)[:, None]
    turned = teacher @ torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    for loss in (COSINE, RELATIONAL):
        assert float(loss(longer, teacher, 1.0)) == pytest.approx(0, abs=1e-6)
        assert float(loss(other, teacher, 1.0)) == pytest.approx(float(loss(other, longer, 4.0)), abs=1e-6)
        assert float(loss(other, teacher, 1.0)) > 0.01
    assert float(RELATIONAL(turned, teacher, 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(COSINE(turned, teacher, 1.0)) > 0.1
    assert float(COSINE(-teacher, teacher, 1.0)) == pytest.approx(2)
    both = COSINE(other, teacher, 1.0) + embedding.RELATIONAL * RELATIONAL(other, teacher, 1.0)
    assert torch.equal(loss_of("logits", "embedding")(other, teacher, 1.0), both)


def test_relations_are_the_mean_over_pairs_of_different_images() -> None:
    student, teacher = torch.tensor([[1.0, 0], [0, 2], [1, 1]]), torch.tensor([[3.0, 0], [1, 0], [0, 1]])
    root = 0.5**0.5
    assert float(RELATIONAL(student, teacher, 1.0)) == pytest.approx(((0 - 1) ** 2 + root**2 + root**2) / 3)
    assert float(RELATIONAL(student[:1], teacher[:1], 1.0)) == 0


def test_a_student_that_begins_at_zero_gets_a_finite_gradient() -> None:
    student = torch.zeros(4, 8, requires_grad=True)
    loss_of("logits", "embedding")(student, torch.randn(4, 8), 1.0).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert bool(torch.isfinite(student.grad).all())
