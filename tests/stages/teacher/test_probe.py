"""The linear probe: its optimum against scikit-learn's, and its place in timm's networks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from vitcompress.stages.teacher.probe import (
    PENALTIES,
    Head,
    PooledFeatures,
    chosen_head,
    fitted_heads,
    install,
    linear_heads,
)

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
SWIN: dict[str, Any] = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)}


def blobs(images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of very different scales, and classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 3
    centres = torch.randn(3, 12, generator=torch.Generator().manual_seed(99))
    features = centres[labels] + 1.5 * torch.randn(images, 12, generator=generator)
    return features * torch.logspace(-2, 2, 12) + 5, labels


@pytest.mark.parametrize(
    ("arch", "args", "heads"),
    [
        ("vit_tiny_patch16_224", SMALL, 1),
        ("vit_tiny_patch16_224", {**SMALL, "global_pool": "avg"}, 1),  # its norm follows the pooling
        ("deit_tiny_distilled_patch16_224", SMALL, 2),
        ("cait_xxs24_224", SMALL, 1),
        ("swin_tiny_patch4_window7_224", SWIN, 1),
    ],
)
def test_the_network_with_the_head_gives_the_probes_logits(arch: str, args: dict[str, Any], heads: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=3, **args).eval()
    images = torch.rand(4, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = linear_heads(model, 32)
    assert len(found) == heads
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        features = PooledFeatures(model)(images)
        probe = Head(torch.randn(3, features.shape[1]), torch.randn(3))
        install(found, probe)
        assert torch.allclose(model(images), probe.logits(features), atol=1e-5)


class Cosine(nn.Linear):
    """Linear by its name alone."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=-1), self.weight, self.bias)


def test_a_head_that_is_not_linear_in_the_features_is_noticed_and_left_as_it_was() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **SMALL)
    model.head = Cosine(24, 3)
    before = model.head.weight.clone()
    assert linear_heads(model, 32) == ()
    assert torch.equal(model.head.weight, before)
    assert linear_heads(nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)), 32) == ()


@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_the_optimum_is_scikit_learns(penalty: float) -> None:
    features, labels = blobs(90)
    ((_, head),) = fitted_heads(features, labels, 3, (penalty,), CPU)
    scaled = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    theirs = LogisticRegression(C=1 / (penalty * len(labels)), tol=1e-8, max_iter=2000).fit(scaled, labels.numpy())
    shares = head.logits(features).softmax(1).numpy()
    assert np.allclose(shares, theirs.predict_proba(scaled), atol=2e-3)
    several = torch.stack([labels == 0, labels != 1], dim=1)
    ((_, head),) = fitted_heads(features, several.float(), 2, (penalty,), CPU)
    for k in range(2):  # each class by itself
        theirs.fit(scaled, several[:, k].numpy())
        assert np.allclose(head.logits(features)[:, k].sigmoid(), theirs.predict_proba(scaled)[:, 1], atol=2e-3)


def test_the_penalty_is_the_one_that_does_best_on_images_it_was_not_fitted_to() -> None:
    features, labels = blobs(60)
    tuning = np.arange(0, 60, 4)
    rest = np.setdiff1d(np.arange(60), tuning)
    losses = [
        (float(F.cross_entropy(head.logits(features[tuning]), labels[tuning])), one)
        for one, head in fitted_heads(features[rest], labels[rest], 3, PENALTIES, CPU)
    ]
    penalty, head = chosen_head(features, labels, tuning, 3, CPU)
    place = [one for _, one in losses].index(penalty)
    assert all(later < earlier for (earlier, _), (later, _) in pairwise(losses[: place + 1]))
    assert losses[place + 1][0] >= losses[place][0]
    spoilt = labels.clone()
    spoilt[tuning] = (labels[tuning] + 1) % 3  # were they fitted to as well, the head would be another one
    fitted = dict(fitted_heads(features[rest], labels[rest], 3, PENALTIES[: place + 1], CPU))[penalty]
    assert torch.equal(head.weight, fitted.weight)
    assert chosen_head(features, spoilt, tuning, 3, CPU)[0] >= penalty
