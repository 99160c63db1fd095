"""The losses against their definitions written out in numpy (DESIGN 3.2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.distill.config import DistillConfig
from stages.distill.losses import (
    FEATURE_LOSSES,
    align,
    distillation_terms,
    hard_kd,
    mse_feature,
    soft_kd,
    spectral_feature,
)

FEATURES = list(FEATURE_LOSSES.values())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def pooled_channels(tap: np.ndarray, channels: int) -> np.ndarray:
    """Adaptive average pooling of axis 1: output c averages floor(c C / n) to ceil((c + 1) C / n)."""
    have = tap.shape[1]
    parts = [tap[:, c * have // channels : -(-(c + 1) * have // channels)].mean(axis=1) for c in range(channels)]
    return np.stack(parts, axis=1)


def naive_spectral(student: np.ndarray, teacher: np.ndarray) -> float:
    difference = np.fft.rfft2(student, norm="ortho") - np.fft.rfft2(teacher, norm="ortho")
    return float(np.stack([difference.real, difference.imag], axis=-1).__pow__(2).mean())


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_soft_kd_is_tau_squared_kl_of_the_softened_answers(tau: float) -> None:
    student, teacher = random(5, 7), 3 * random(5, 7, seed=1)
    log_s, log_t = log_softmax(student.double().numpy() / tau), log_softmax(teacher.double().numpy() / tau)
    wanted = tau**2 * (np.exp(log_t) * (log_t - log_s)).sum(axis=1).mean()
    assert float(soft_kd(student, teacher, tau)) == pytest.approx(wanted, rel=1e-5)


def test_hard_kd_is_cross_entropy_with_the_teachers_best_class() -> None:
    student, teacher = random(6, 4), random(6, 4, seed=1)
    best = teacher.numpy().argmax(axis=1)
    wanted = -log_softmax(student.double().numpy())[np.arange(6), best].mean()
    assert float(hard_kd(student, teacher)) == pytest.approx(wanted, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 8.0))
def test_soft_kd_is_never_negative_zero_when_equal_and_blind_to_shifts(seed: int, tau: float) -> None:
    student, teacher = 5 * random(3, 6, seed=seed), 5 * random(3, 6, seed=seed + 1)
    assert float(soft_kd(student, teacher, tau)) >= -1e-6
    assert float(soft_kd(teacher, teacher, tau)) == pytest.approx(0, abs=1e-5)
    shifted = student + random(3, 1, seed=seed + 2)
    assert float(soft_kd(shifted, teacher, tau)) == pytest.approx(float(soft_kd(student, teacher, tau)), abs=2e-4)


@pytest.mark.parametrize(("cs", "ct"), [(5, 5), (4, 8), (3, 8), (192, 384), (8, 4), (7, 3)])
def test_feature_losses_equal_their_definition_with_channels_pooled_both_ways(cs: int, ct: int) -> None:
    student, teacher = random(2, cs, 4, 6), random(2, ct, 4, 6, seed=1)
    s, t = student.double().numpy(), teacher.double().numpy()
    s, t = pooled_channels(s, min(cs, ct)), pooled_channels(t, min(cs, ct))
    assert float(mse_feature(student, teacher)) == pytest.approx(((s - t) ** 2).mean(), rel=1e-5)
    assert float(spectral_feature(student, teacher)) == pytest.approx(naive_spectral(s, t), rel=1e-5)


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (5, 3)])
def test_spectral_counts_real_and_imaginary_parts_of_half_the_plane(grid: tuple[int, int]) -> None:
    student, teacher = random(3, 2, *grid), random(3, 2, *grid, seed=1)
    wanted = naive_spectral(student.double().numpy(), teacher.double().numpy())
    assert float(spectral_feature(student, teacher)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", FEATURES)
def test_feature_losses_are_zero_when_equal_and_not_else(loss) -> None:
    tap = random(2, 6, 4, 4)
    assert float(loss(tap, tap.clone())) == 0
    assert float(loss(tap, tap + 1e-2)) > 0


@pytest.mark.parametrize("loss", FEATURES)
def test_feature_losses_do_not_depend_on_the_order_of_the_batch(loss) -> None:
    student, teacher = random(5, 4, 3, 3), random(5, 6, 3, 3, seed=1)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert float(loss(student, teacher)) == pytest.approx(float(loss(student[order], teacher[order])), rel=1e-5)
    assert float(loss(student, teacher)) != pytest.approx(float(loss(student[order], teacher)), rel=1e-3)


def test_a_finer_teacher_grid_is_averaged_down() -> None:
    teacher = random(2, 3, 8, 6)
    _, aligned = align(random(2, 3, 4, 3), teacher)
    wanted = teacher.numpy().reshape(2, 3, 4, 2, 3, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(aligned.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_a_coarser_teacher_grid_is_interpolated_up() -> None:
    ramp = torch.arange(4.0).expand(1, 2, 4, 4)
    student, aligned = align(random(1, 2, 8, 8), ramp)
    assert aligned.shape == student.shape == (1, 2, 8, 8)
    np.testing.assert_allclose(aligned[0, 0, 0].numpy(), [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)


def test_grid_and_channels_are_aligned_together_and_in_float32() -> None:
    student, teacher = align(random(2, 8, 4, 4).bfloat16(), random(2, 3, 7, 7).bfloat16())
    assert student.shape == teacher.shape == (2, 3, 4, 4)
    assert student.dtype == teacher.dtype == torch.float32


def config(**changes) -> DistillConfig:
    return DistillConfig(**changes)


def both(seed: int = 0) -> tuple[tuple[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]], Tensor]:
    student = (random(4, 5, seed=seed).requires_grad_(), [random(4, 3, 2, 2, seed=seed + n) for n in (1, 2)])
    teacher = (random(4, 5, seed=seed + 3), [random(4, 6, 2, 2, seed=seed + n) for n in (4, 5)])
    return student, teacher, torch.tensor([0, 4, 2, 2])


def smoothed_cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> float:
    classes = logits.shape[1]
    target = np.full(logits.shape, smoothing / classes)
    target[np.arange(len(labels)), labels] += 1 - smoothing
    return float(-(target * log_softmax(logits)).sum(axis=1).mean())


def test_the_terms_are_the_formula_of_the_papers() -> None:
    student, teacher, labels = both()
    terms = distillation_terms(
        config(alpha=0.7, tau=2.0, beta=0.5, feature_weight=0.3, label_smoothing=0.2, feature="mse"),
        student,
        teacher,
        labels,
    )
    cross_entropy = smoothed_cross_entropy(student[0].detach().double().numpy(), labels.numpy(), 0.2)
    features = np.mean([float(mse_feature(s, t)) for s, t in zip(student[1], teacher[1], strict=True)])
    assert set(terms) == {"labels", "soft_logits", "mse_features"}
    assert terms["labels"].item() == pytest.approx(0.3 * cross_entropy, rel=1e-5)
    assert terms["soft_logits"].item() == pytest.approx(0.7 * soft_kd(student[0], teacher[0], 2.0).item(), rel=1e-6)
    assert terms["mse_features"].item() == pytest.approx(0.5 * 0.3 * features, rel=1e-5)


def test_the_published_weights_are_the_defaults() -> None:
    defaults = config()
    found = (defaults.alpha, defaults.tau, defaults.beta, defaults.feature_weight, defaults.label_smoothing)
    assert found == (0.9, 1.0, 1.0, 0.2, 0.1)
    student, teacher, labels = both()
    terms = distillation_terms(defaults, student, teacher, labels)
    spectral = np.mean([float(spectral_feature(s, t)) for s, t in zip(student[1], teacher[1], strict=True)])
    assert terms["spectral_features"].item() == pytest.approx(0.2 * spectral, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "taps", "names"),
    [
        ({"alpha": 0.0}, True, {"labels", "spectral_features"}),
        ({"alpha": 1.0}, True, {"soft_logits", "spectral_features"}),
        ({"alpha": 1.0, "logits": "hard"}, False, {"hard_logits"}),
        ({"alpha": 0.0, "feature": "none"}, False, {"labels"}),
    ],
)
def test_terms_without_weight_are_left_out(changes, taps: bool, names: set[str]) -> None:
    student, teacher, labels = both()
    if not taps:
        student, teacher = (student[0], []), (teacher[0], [])
    assert set(distillation_terms(config(**changes), student, teacher, labels)) == names


def test_gradients_reach_the_student_alone() -> None:
    student, teacher, labels = both()
    for tap in student[1]:
        tap.requires_grad_()
    sum(distillation_terms(config(), student, teacher, labels).values()).backward()  # type: ignore[union-attr]
    assert all(float(leaf.grad.abs().sum()) > 0 for leaf in (student[0], *student[1]) if leaf.grad is not None)
    assert all(leaf.grad is not None for leaf in (student[0], *student[1]))
    assert all(leaf.grad is None for leaf in (teacher[0], *teacher[1]))


@pytest.mark.parametrize("name", list(FEATURE_LOSSES))
def test_a_feature_loss_alone_moves_only_the_taps(name: str) -> None:
    student, teacher, labels = both()
    for tap in student[1]:
        tap.requires_grad_()
    terms = distillation_terms(config(feature=name, alpha=0.0), student, teacher, labels)
    terms[f"{name}_features"].backward()
    assert student[0].grad is None
    assert all(tap.grad is not None and bool((tap.grad != 0).any()) for tap in student[1])


def test_half_precision_logits_are_judged_in_float32() -> None:
    student, teacher = random(3, 5).half(), random(3, 5, seed=1).half()
    found = soft_kd(student, teacher, 1.0)
    assert found.dtype == torch.float32
    assert float(found) == float(soft_kd(student.float(), teacher.float(), 1.0))
