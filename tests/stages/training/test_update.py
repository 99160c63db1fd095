"""Bit for bit what torch and timm compute, with less traffic."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from vitcompress.stages.training.callbacks.average import AveragedWeights
from vitcompress.stages.training.optimizer import clip_gradients


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3), nn.Linear(3, 3))


def with_gradients() -> nn.Module:
    model = network()
    model(torch.randn(6, 5)).square().sum().backward()
    model[3].bias.grad = None  # type: ignore[union-attr, assignment]
    return model


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in model.parameters()]


def norm_of(model: nn.Module) -> float:
    return float(clip_grad_norm_(with_gradients().parameters(), float("inf")))


@pytest.mark.parametrize("part", [None, 0.3, 0.999999, 1.0, 1.000001, 20.0])
def test_norm_and_clipping_are_torchs_bit_for_bit(part: float | None) -> None:
    ours, theirs = with_gradients(), with_gradients()
    limit = None if part is None else part * norm_of(ours)
    expected = float(clip_grad_norm_(theirs.parameters(), float("inf") if limit is None else limit))
    assert clip_gradients(ours.parameters(), limit) == expected
    for own, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert (own is None and other is None) or torch.equal(own, other)  # type: ignore[arg-type]
    if part == 0.3:
        assert norm_of(ours) > 2 * float(clip_grad_norm_(ours.parameters(), float("inf")))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_norm_that_is_not_finite_is_told(bad: float) -> None:
    model = with_gradients()
    model[0].weight.grad[0, 0] = bad  # type: ignore[index]
    assert not torch.isfinite(torch.tensor(clip_gradients(model.parameters(), 1.0)))


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_timms_bit_for_bit(warmup: bool) -> None:
    model = network()
    ours = AveragedWeights(model, decay=0.9, use_warmup=warmup)
    theirs = ModelEmaV3(model, decay=0.9, use_warmup=warmup)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, 6):
        model(torch.randn(6, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        for average in (ours, theirs):
            average.update(model, step=step)
        if step == 3:  # as a training that is resumed does
            ours.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for own, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(own, other)
    assert not torch.equal(ours.module[0].weight, model[0].weight)  # type: ignore[index]
    assert ours.module[1].num_batches_tracked == 5  # type: ignore[index]
