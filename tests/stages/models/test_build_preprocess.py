from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import input_size, preprocess_of, pretrained_model, size_change


def test_the_crop_mode_is_timms_own_and_an_unknown_one_is_refused() -> None:
    model = timm.create_model("eva02_base_patch14_448", depth=1, embed_dim=48, num_heads=3)
    config, spec = resolve_model_data_config(model), preprocess_of(model, {}, None)
    assert (spec.crop_mode, spec.size) == ("squash", 448)
    wide = Image.effect_noise((400, 120), 60).convert("RGB")
    np.testing.assert_allclose(spec.apply(wide), create_transform(**config)(wide).numpy(), rtol=0, atol=1e-6)
    model = timm.create_model("deit_tiny_patch16_224", depth=1)
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": "border"}
    with pytest.raises(UsageError, match=r"crop mode 'border', which is not supported \(center and squash are\)"):
        preprocess_of(model, {}, None)


def test_at_another_size_all_but_the_size_stays_the_models() -> None:
    size = 98
    model = timm.create_model("deit_tiny_patch16_224", img_size=size, depth=1)
    own, other = preprocess_of(model, {}, None), preprocess_of(model, {"img_size": size}, None)
    assert other == own.model_copy(update={"size": size})
    assert other.crop_pct == 0.9
    assert preprocess_of(model, {}, 1.0).crop_pct == 1.0
    assert input_size({"img_size": [size, size]}, model) == size
    image = Image.effect_noise((200, 150), 60).convert("RGB")
    expected = create_transform(**{**resolve_model_data_config(model), "input_size": (3, size, size)})(image).numpy()
    np.testing.assert_allclose(other.apply(image), expected, rtol=0, atol=1e-6)


def test_a_change_of_size_is_told() -> None:
    model = timm.create_model("vit_small_patch14_dinov2", depth=1, img_size=98)
    assert size_change(model, {"img_size": 98}) == "published for 518 px, brought to 98 px"
    assert size_change(model, {"img_size": 518}) == size_change(model, {}) == ""


CAIT: dict[str, Any] = {"embed_dim": 24, "depth": 1, "num_heads": 3, "patch_size": 8}


def _as_if_published(monkeypatch: pytest.MonkeyPatch, refusal: str) -> list[dict[str, Any]]:
    """A small CaiT as timm would have it from its hub: at 32 px, and ``refusal`` at any other."""
    real, asked = timm.create_model, []

    def create(arch: str, *, pretrained: bool = False, **keywords: Any) -> torch.nn.Module:
        if not pretrained:
            return real(arch, **keywords)
        asked.append(keywords)
        if "img_size" in keywords:
            raise RuntimeError(refusal)
        torch.manual_seed(4)
        return real(arch, img_size=32, **keywords)

    monkeypatch.setattr("timm.create_model", create)
    return asked


def test_published_positions_that_timm_leaves_alone_are_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(arch="cait_xxs24_224", args={**CAIT, "img_size": 56}, num_classes=3)
    asked = _as_if_published(monkeypatch, "Error(s) in loading state_dict: size mismatch for pos_embed")
    model = pretrained_model("cait_xxs24_224.fb_dist_in1k", spec)
    assert [("img_size" in keywords, keywords["num_classes"]) for keywords in asked] == [(True, 3), (False, 3)]
    torch.manual_seed(4)
    published = timm.create_model("cait_xxs24_224", num_classes=3, img_size=32, **CAIT).state_dict()
    own = model.state_dict()
    assert own["pos_embed"].shape == (1, 49, 24)
    assert all(torch.equal(own[name], value) for name, value in published.items() if name != "pos_embed")
    assert model.pretrained_cfg["tag"] == "fb_dist_in1k"
    asked = _as_if_published(monkeypatch, "no weights exist")  # any other failure of timm's is its own
    with pytest.raises(RuntimeError, match="no weights exist"):
        pretrained_model("cait_xxs24_224", spec)
    assert len(asked) == 1


def test_tables_that_timm_does_not_resample_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model

    def create(arch: str, *, pretrained: bool = False, **keywords: Any) -> torch.nn.Module:
        if pretrained and "img_size" in keywords:
            raise RuntimeError("size mismatch for stages.0.blocks.0.attn.attention_biases")
        return real(arch, **keywords)

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(UsageError, match=r"pit_xs_224 are for 224 px, and pos_embed cannot be brought to 128 px"):
        pretrained_model("pit_xs_224", ModelSpec(arch="pit_xs_224", args={"img_size": 128}, num_classes=5))
