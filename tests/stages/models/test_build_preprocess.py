from __future__ import annotations

import timm

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
