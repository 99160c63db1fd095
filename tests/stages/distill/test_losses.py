"""The losses against their definitions written out in numpy (docs/distillation.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.losses.alignment import aligned, normalised, on_grid
from vitcompress.stages.distill.losses.logits.hard import loss as hard_kd
from vitcompress.stages.distill.losses.logits.sigmoid import loss as sigmoid_kd
from vitcompress.stages.distill.losses.logits.soft import loss as soft_kd
from vitcompress.stages.distill.losses.registry import loss_of
from vitcompress.stages.distill.losses.terms import corrected, distillation_terms
from vitcompress.stages.distill.pairs import LayerPair, layer_pairs
from vitcompress.stages.training.labels import LabelLoss

KINDS = ("mse", "spectral")


def pair(kind: str = "mse", match: str = "pool", weight: float = 1.0, student: int = 0, teacher: int = 0) -> LayerPair:
    return LayerPair(kind, student, teacher, match, weight)  # type: ignore[arg-type]


def feature_loss(pair: LayerPair, student: Tensor, teacher: Tensor) -> Tensor:
    found: Tensor = loss_of("features", pair.kind)(*aligned(pair, student, teacher))
    return found


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


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_wrong_answers_are_replaced_by_the_labels_and_right_ones_stay(tau: float, mixed: bool) -> None:
    student, teacher = random(6, 1000), random(6, 1000, seed=1)
    labels = teacher.argmax(dim=1)
    labels[[1, 4]] = (labels[[1, 4]] + 1) % 1000
    shares = F.one_hot(labels, 1000).float()
    given = corrected(teacher, 0.9 * shares + 0.0001 if mixed else labels, tau)
    right = [0, 2, 3, 5]
    assert torch.equal(given[right], teacher[right])
    of_labels = tau**2 * F.cross_entropy(student[[1, 4]] / tau, labels[[1, 4]]).item()
    found = soft_kd(student[[1, 4]], given[[1, 4]], tau).item()
    if mixed:
        assert torch.softmax(given[[1, 4]] / tau, dim=1).max(dim=1).values.tolist() == pytest.approx(
            [0.9001] * 2, rel=1e-3
        )
    else:
        assert found == pytest.approx(of_labels, rel=1e-4)
        assert hard_kd(student, given, tau).item() == pytest.approx(F.cross_entropy(student, labels).item(), rel=1e-5)


def test_hard_kd_is_cross_entropy_with_the_teachers_best_class() -> None:
    student, teacher = random(6, 4), random(6, 4, seed=1)
    best = teacher.numpy().argmax(axis=1)
    wanted = -log_softmax(student.double().numpy())[np.arange(6), best].mean()
    assert float(hard_kd(student, teacher, 1.0)) == pytest.approx(wanted, rel=1e-5)


def smoothed_cross_entropy(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> float:
    target = np.full(logits.shape, smoothing / logits.shape[1])
    target[np.arange(len(labels)), labels] += 1 - smoothing
    return float(-(target * log_softmax(logits)).sum(axis=1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_loss_is_smoothed_cross_entropy(smoothing: float) -> None:
    logits, labels = random(6, 4), torch.tensor([0, 3, 3, 1, 2, 0])
    wanted = smoothed_cross_entropy(logits.double().numpy(), labels.numpy(), smoothing)
    assert float(LabelLoss(smoothing=smoothing)(logits, labels)) == pytest.approx(wanted, rel=1e-5)
    mixed = torch.softmax(random(6, 4, seed=1), dim=1)  # probabilities are not smoothed further
    wanted = -(mixed.double().numpy() * log_softmax(logits.double().numpy())).sum(axis=1).mean()
    assert float(LabelLoss(smoothing=smoothing)(logits, mixed)) == pytest.approx(wanted, rel=1e-5)


def test_several_labels_are_learned_each_by_itself() -> None:
    student, teacher, labels = random(6, 4), random(6, 4, seed=1), (random(6, 4, seed=2) > 0).float()
    p, q, y = (each.double().numpy() for each in (student.sigmoid(), (teacher / 3).sigmoid(), labels * 0.9 + 0.05))
    wanted = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(LabelLoss("multilabel", 0.1)(student, labels)) == pytest.approx(wanted, rel=1e-5)
    p = (student / 3).double().sigmoid().numpy()
    wanted = 9 * (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))).mean()
    assert float(sigmoid_kd(student, teacher, 3.0)) == pytest.approx(wanted, rel=1e-4)
    mended, wrong = corrected(teacher, labels, 3.0, several=True), (teacher > 0) != (labels > 0)
    assert torch.equal(mended[~wrong], teacher[~wrong])
    assert torch.allclose((mended[wrong] / 3).sigmoid(), labels[wrong])


@pytest.mark.parametrize(("cs", "ct"), [(5, 5), (3, 8), (192, 384), (7, 3)])
def test_feature_losses_equal_their_definition_with_channels_pooled_both_ways(cs: int, ct: int) -> None:
    student, teacher = random(2, cs, 4, 6), random(2, ct, 4, 6, seed=1)
    s, t = student.double().numpy(), teacher.double().numpy()
    s, t = pooled_channels(s, min(cs, ct)), pooled_channels(t, min(cs, ct))
    assert float(feature_loss(pair("mse"), student, teacher)) == pytest.approx(((s - t) ** 2).mean(), rel=1e-5)
    assert float(feature_loss(pair("spectral"), student, teacher)) == pytest.approx(naive_spectral(s, t), rel=1e-5)


def naive_normalised(tap: np.ndarray) -> np.ndarray:
    mean, variance = tap.mean(axis=(0, 2, 3), keepdims=True), tap.var(axis=(0, 2, 3), keepdims=True)
    return (tap - mean) / np.sqrt(variance + 1e-5)


@pytest.mark.parametrize("teacher_grid", [(4, 6), (8, 12)])
def test_projected_taps_are_compared_after_normalising_both(teacher_grid: tuple[int, int]) -> None:
    student, teacher = 3 * random(5, 8, 4, 6) + 1, 0.1 * random(5, 8, *teacher_grid, seed=1) - 2
    t = teacher.double().numpy()
    t = t.reshape(5, 8, 4, teacher_grid[0] // 4, 6, teacher_grid[1] // 6).mean(axis=(3, 5))
    s, t = naive_normalised(student.double().numpy()), naive_normalised(t)
    torch.testing.assert_close(normalised(5 * student - 7), normalised(student), rtol=1e-4, atol=1e-4)
    found = [float(feature_loss(pair(kind, "projector"), student, teacher)) for kind in KINDS]
    assert found == pytest.approx([((s - t) ** 2).mean(), naive_spectral(s, t)], rel=1e-4)


def test_a_coarser_teacher_grid_is_interpolated_up() -> None:
    ramp = torch.arange(4.0).expand(1, 2, 4, 4)
    resampled = on_grid(ramp, (8, 8))
    assert resampled.shape == (1, 2, 8, 8)
    np.testing.assert_allclose(resampled[0, 0, 0].numpy(), [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_taps_are_compared_in_float32(kind: str) -> None:
    student, teacher = random(2, 8, 4, 4).bfloat16(), random(2, 3, 7, 7, seed=1).bfloat16()
    found = feature_loss(pair(kind), student, teacher)
    assert found.dtype == torch.float32
    assert float(found) == float(feature_loss(pair(kind), student.float(), teacher.float()))


LABELS = torch.tensor([0, 4, 2, 2])


def terms_of(settings: dict[str, Any], leaves: list[Tensor] | None = None) -> dict[str, Tensor]:
    """The terms for random logits and taps of networks of 4 and 6 layers; leaves collect the student's."""
    config = DistillConfig.model_validate(settings, strict=False)
    logits = random(4, 5).requires_grad_()
    compared = []
    for number, layers in enumerate(layer_pairs(config, 4, 6)):
        width = 6 if layers.match == "projector" else 3
        compared.append((layers, random(4, width, 2, 2, seed=10 + number).requires_grad_(), teacher_tap(layers)))
    if leaves is not None:
        leaves += [logits, *(tap for _, tap, _ in compared)]
    return distillation_terms(
        config, LabelLoss(smoothing=config.label_smoothing), logits, random(4, 5, seed=1), LABELS, compared
    )


def teacher_tap(layers: LayerPair) -> Tensor:
    return random(4, 6, 2, 2, seed=20 + layers.teacher)


def test_the_terms_are_the_formula_of_the_papers() -> None:
    features = [
        {"kind": "mse", "pairs": [[0, 0], [1, 2], [-1, -1]], "weight": 0.3},
        {"kind": "spectral", "weight": 0.1},
        {"kind": "mse", "pairs": [[0, 0]], "weight": 0.7, "match": "projector"},
    ]
    leaves: list[Tensor] = []
    terms = terms_of(
        {"alpha": 0.7, "tau": 2.0, "beta": 0.5, "label_smoothing": 0.2, "features": features}, leaves=leaves
    )
    logits, *taps = leaves
    wanted = {
        "labels": 0.3 * smoothed_cross_entropy(logits.detach().double().numpy(), LABELS.numpy(), 0.2),
        "soft_logits": 0.7 * soft_kd(logits, random(4, 5, seed=1), 2.0).item(),
    }
    for number, (name, layers, weight) in enumerate(
        [
            ("mse 0<-0", pair("mse"), 0.5 * 0.3 / 3),
            ("mse 1<-2", pair("mse", student=1, teacher=2), 0.5 * 0.3 / 3),
            ("mse 3<-5", pair("mse", student=3, teacher=5), 0.5 * 0.3 / 3),
            ("spectral 3<-5", pair("spectral", student=3, teacher=5), 0.5 * 0.1),
            ("mse 0<-0 (projector)", pair("mse", "projector"), 0.5 * 0.7),
        ]
    ):
        wanted[name] = weight * feature_loss(layers, taps[number], teacher_tap(layers)).item()
    assert list(terms) == list(wanted)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(wanted, rel=1e-5)


def test_the_published_weights_are_the_defaults() -> None:
    defaults = DistillConfig()
    assert (defaults.alpha, defaults.tau, defaults.beta, defaults.label_smoothing) == (0.9, 1.0, 1.0, 0.1)
    assert layer_pairs(defaults, 12, 24) == (LayerPair("spectral", 11, 23, "pool", 0.2),)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"alpha": 0.0}, {"labels", "spectral 3<-5"}),
        ({"alpha": 1.0}, {"soft_logits", "spectral 3<-5"}),
        ({"alpha": 1.0, "logits": "hard", "features": []}, {"hard_logits"}),
        ({"alpha": 0.0, "features": []}, {"labels"}),
        ({"beta": 0.0}, {"labels", "soft_logits"}),
        ({"features": [{"weight": 0.0}, {"kind": "mse"}]}, {"labels", "soft_logits", "mse 3<-5"}),
    ],
)
def test_terms_without_weight_are_left_out(changes: dict[str, Any], names: set[str]) -> None:
    assert set(terms_of(changes)) == names
