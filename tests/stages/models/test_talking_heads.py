"""Rewriting talking heads changes no number, and nothing but talking heads."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from vitcompress.stages.models.build import logits_and_taps
from vitcompress.stages.models.talking_heads import FrozenTalkingHeads, freeze_talking_heads


def cait(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Two blocks whose every weight matters: timm starts LayerScale near 0 and biases at 0."""
    torch.manual_seed(0)
    model = timm.create_model("cait_xxs24_224", img_size=48, depth=2, embed_dim=36, num_heads=3, num_classes=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 1.0))
    return model.to(dtype).eval().requires_grad_(False)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_logits_and_taps_are_the_same(dtype: torch.dtype, allowed: float) -> None:
    plain = cait(dtype)
    frozen = copy.deepcopy(plain)
    assert freeze_talking_heads(frozen) == 2
    images = torch.randn(3, 3, 48, 48, dtype=dtype)
    with torch.inference_mode():
        logits, taps = logits_and_taps(plain, images, (0, 1))
        own_logits, own_taps = logits_and_taps(frozen, images, (0, 1))
    for expected, found in zip((logits, *taps), (own_logits, *own_taps), strict=True):
        assert float((found - expected).abs().max()) <= allowed * float(expected.abs().max())


def test_it_runs_in_mixed_precision_as_the_original_does() -> None:
    plain = cait(torch.float32)
    frozen = copy.deepcopy(plain)
    freeze_talking_heads(frozen)
    images = torch.randn(2, 3, 48, 48)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected, found = plain(images), frozen(images)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))


def test_it_shares_the_large_weights_and_changes_none() -> None:
    model = cait()
    attention = next(module for module in model.modules() if hasattr(module, "proj_w"))
    before, weights = {id(parameter) for parameter in model.parameters()}, copy.deepcopy(attention.state_dict())
    FrozenTalkingHeads(attention).scores_gh.zero_()
    assert all(torch.equal(value, weights[name]) for name, value in attention.state_dict().items())
    freeze_talking_heads(model)
    assert {id(parameter) for parameter in model.parameters()} <= before


def test_other_teachers_are_left_alone() -> None:
    with torch.device("meta"):
        model = timm.create_model("deit_tiny_patch16_224")
    modules = list(model.modules())
    assert freeze_talking_heads(model) == 0
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
