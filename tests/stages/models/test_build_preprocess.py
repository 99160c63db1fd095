from __future__ import annotations

import numpy as np
import pytest
import timm
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from core.errors import UsageError
from stages.models.build import input_size, preprocess_of


def test_preprocessing_is_timms_own_of_the_model() -> None:
    model = timm.create_model("cait_s24_224")
    spec = preprocess_of(model, {}, None)
    assert (spec.size, spec.crop_pct, spec.interpolation) == (224, 1.0, "bicubic")
    assert spec.mean == (0.485, 0.456, 0.406)
    model = timm.create_model("deit_tiny_patch16_224")
    assert preprocess_of(model, {}, None).crop_pct == 0.9
    assert preprocess_of(model, {}, 1.0).crop_pct == 1.0


def test_the_size_is_the_one_the_network_was_built_for() -> None:
    args = {"img_size": 64}
    model = timm.create_model("deit_tiny_patch16_224", **args)
    assert input_size(args, model) == preprocess_of(model, args, None).size == 64
    assert input_size({"img_size": [96, 96]}, model) == 96
    assert input_size({}, timm.create_model("deit_tiny_patch16_224")) == 224


def test_the_crop_mode_is_timms_own_of_the_model() -> None:
    model = timm.create_model("eva02_base_patch14_448", depth=1, embed_dim=48, num_heads=3)
    config = resolve_model_data_config(model)
    spec = preprocess_of(model, {}, None)
    assert (spec.crop_mode, spec.size) == (config["crop_mode"], 448) == ("squash", 448)
    wide = Image.effect_noise((400, 120), 60).convert("RGB")
    np.testing.assert_allclose(spec.apply(wide), create_transform(**config)(wide).numpy(), rtol=0, atol=1e-6)
    assert preprocess_of(timm.create_model("deit_tiny_patch16_224", depth=1), {}, None).crop_mode == "center"


def test_another_crop_mode_is_refused() -> None:
    model = timm.create_model("deit_tiny_patch16_224", depth=1)
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": "border"}
    with pytest.raises(UsageError, match=r"crop mode 'border', which is not supported \(center and squash are\)"):
        preprocess_of(model, {}, None)
