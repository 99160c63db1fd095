"""A loss of another package: from its entry point and the config to a training step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from vitcompress.core.errors import UsageError
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm
from vitcompress.stages.distill.job import _loss
from vitcompress.stages.distill.losses.registry import loss_of, names
from vitcompress.stages.distill.model import TappedStudent
from vitcompress.stages.distill.pairs import layer_pairs
from vitcompress.stages.training.labels import LabelLoss

PRETEND = """
import torch.nn.functional as F

def cosine(student, teacher):
    return 1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1)).mean()

def distance(student, teacher, tau):
    return (student - teacher).abs().mean() / tau
"""
POINTS = """
[vitcompress.losses]
features.cosine = pretend:cosine
logits.distance = pretend:distance
logits.gone = pretend:gone
"""


@pytest.fixture
def pretend(install: Callable[..., Path]) -> None:
    """An installed package with two losses."""
    install(POINTS, PRETEND)


class Student(torch.nn.Module):
    """Its one tap is the image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tap = images * self.scale
        return tap.mean((2, 3)), [tap]


@pytest.mark.usefixtures("pretend")
def test_a_loss_of_another_package_takes_part_in_a_step() -> None:
    terms = (FeatureTerm(kind="cosine", pairs=((0, 0),), weight=0.5),)
    config = DistillConfig(logits="distance", tau=2.0, features=terms)
    pairs = layer_pairs(config, 1, 1)
    student, images, labels = Student(), torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    logits, tap = torch.randn(4, 3), torch.randn(4, 3, 8, 8)
    found = _loss(config, LabelLoss(), pairs, None, student, images, labels, logits, tap)
    assert list(found) == ["labels", "distance_logits", "cosine 0<-0"]
    cosine = torch.nn.functional.cosine_similarity(images.flatten(1), tap.flatten(1)).mean()
    assert found["cosine 0<-0"].item() == pytest.approx(0.5 * (1 - cosine.item()), rel=1e-5)
    assert found["distance_logits"].item() == pytest.approx(
        0.9 * (images.mean((2, 3)) - logits).abs().mean().item() / 2, rel=1e-5
    )
    torch.stack(list(found.values())).sum().backward()
    assert student.scale.grad is not None
    assert bool((student.scale.grad != 0).any())
    assert names("features") == ["mse", "spectral", "cosine"]
    assert TappedStudent(torch.nn.Identity(), pairs).pairs[0].key == "cosine_0_0"


def test_a_loss_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert {"embedding", "hard", "soft"} <= set(names("logits"))
    with pytest.raises(ValidationError, match=r"given 'cosine'; there are mse, spectral \(other packages add theirs"):
        FeatureTerm(kind="cosine")
    with pytest.raises(ValidationError, match=r"given 'mse'; there are .*hard, .*soft"):
        DistillConfig(logits="mse")
    with pytest.raises(ValueError, match=r"given 'features\.mse'"):
        loss_of("features", "features.mse")


@pytest.mark.usefixtures("pretend")
def test_a_loss_that_its_package_lacks_is_told_in_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"the loss 'logits.gone' \(pretend:gone\) .* cannot be loaded"):
        loss_of("logits", "gone")
