"""Small networks of every family the rewrites know, every parameter of them random, in float64."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.students import LiftStudent

SIZE, CLASSES = 32, 10
SPEC = PreprocessSpec(size=SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
SHAPE: dict[str, Any] = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
SCALED = {"init_values": 0.1}

TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "deit": ("deit_tiny_patch16_224", {}),
    "deit3": ("deit3_small_patch16_224", SCALED),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "vit mean": ("vit_small_patch16_224", {"global_pool": "avg"}),
    "vit qk_norm": ("vit_small_patch16_224", {"qk_norm": True}),
    "vit inner norm": ("vit_small_patch16_224", {"scale_attn_norm": True, "scale_mlp_norm": True}),
    "vit registers": ("vit_small_patch16_224", {"reg_tokens": 2}),
    "vit no bias": ("vit_small_patch16_224", {"qkv_bias": False}),
    "beit": ("beit_base_patch16_224", SCALED),
    "beit token": ("beitv2_base_patch16_224", {**SCALED, "global_pool": "token"}),
    "eva": ("eva02_tiny_patch14_224", {}),
    "eva token": ("eva02_tiny_patch14_224", {"global_pool": "token"}),
    "cait": ("cait_xxs24_224", SCALED),
}
STUDENTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "widelast deit": ("deit_tiny_patch16_224", {}, {"graph": "widelast"}),
    "widelast beit token": ("beitv2_base_patch16_224", {**SCALED, "global_pool": "token"}, {"graph": "widelast"}),
    "widelast eva by count": ("eva02_tiny_patch14_224", {}, {"graph": "widelast", "wide_heads": "count"}),
    "widelast cait": ("cait_xxs24_224", SCALED, {"graph": "widelast"}),
    "lift kept": ("deit_tiny_patch16_224", {}, {"graph": "lift-kept"}),
    "lift folded": ("deit_tiny_patch16_224", {}, {"graph": "lift-folded"}),
    "lift folded cait": ("cait_xxs24_224", SCALED, {"graph": "lift-folded"}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "swin": (
        "swin_tiny_patch4_window7_224",
        {
            "img_size": SIZE,
            "patch_size": 2,
            "window_size": 4,
            "embed_dim": 24,
            "depths": (1, 2),
            "num_heads": (3, 6),
        },
    ),
    "resnet": ("resnet10t", {}),
}
EVERY = [*TIMM, *STUDENTS, *OTHERS]


def network(name: str) -> nn.Module:
    """The named network, float64, eval mode, every parameter random; the caller's own."""
    return deepcopy(_network(name))


@cache
def _network(name: str) -> nn.Module:
    if name in TIMM or name in OTHERS:
        arch, args = {**TIMM, **OTHERS}[name]
        shape = {} if name in OTHERS else SHAPE
        model = timm.create_model(arch, num_classes=CLASSES, **{**shape, **args})
    else:
        arch, args, more = STUDENTS[name]
        graph = more.get("graph", "plain")
        kept = {**more, "graph": "lift-kept" if graph == "lift-folded" else graph}
        width = None if graph == "plain" else 96
        model = build_model(ModelSpec(arch=arch, args={**SHAPE, **args}, num_classes=CLASSES, lift_width=width, **kept))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    if name.startswith("lift folded"):
        assert isinstance(model, LiftStudent)
        model = folded_from_lift(model)[0]
    return model.double().eval()


def images(count: int = 3) -> Tensor:
    """Normalised images ``[count, 3, SIZE, SIZE]``, float64."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
def change(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Largest difference of logits, relative to the largest of the first's."""
    expected, found = one(x), other(x)
    assert expected.shape == found.shape == (len(x), CLASSES)
    assert float(expected.std(dim=0).min()) > 1e-6  # images get different logits, or agreeing would say nothing
    return float((found - expected).abs().max() / expected.abs().max())
