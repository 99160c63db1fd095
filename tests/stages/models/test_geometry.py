from __future__ import annotations

import pytest
import timm
import torch

from core.errors import UsageError
from stages.models.geometry import Shape, check_strategy, meta_model, reduced_args, shape_by_name, shape_of


@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        ("deit_tiny_patch16_224", Shape(192, 12, 3)),
        ("cait_s24_224", Shape(384, 24, 8)),  # the two class-attention blocks are no taps
        ("vit_base_patch16_224", Shape(768, 12, 12)),
        ("beit_base_patch16_224", Shape(768, 12, 12)),
        ("eva02_tiny_patch14_224", Shape(192, 12, 3, rotary=True)),
        ("swin_tiny_patch4_window7_224", Shape(768, 4, None)),
    ],
)
def test_shapes_of_published_models(arch: str, shape: Shape) -> None:
    assert shape_by_name(arch, {}) == shape
    assert shape.isotropic == (shape.heads is not None)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenetv3_small_100"])
def test_a_network_without_blocks_is_refused(arch: str) -> None:
    with pytest.raises(UsageError, match="has no transformer blocks or stages to tap"):
        shape_by_name(arch, {})


def test_arguments_that_timm_refuses_are_shown() -> None:
    with pytest.raises(UsageError, match=r"'deit_tiny_patch16_224' cannot be built with \{'embed_dimm': 3\}"):
        meta_model("deit_tiny_patch16_224", {"embed_dimm": 3})
    with pytest.raises(UsageError, match="cannot be built"):
        meta_model("deit_tiny_patch16_224", {"embed_dim": 10, "num_heads": 3})


def test_meta_models_hold_no_memory() -> None:
    assert all(parameter.is_meta for parameter in meta_model("vit_large_patch16_224", {}).parameters())


@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        ("deit_tiny_patch16_224", Shape(32, 2, 2)),
        ("deit_small_patch16_224", Shape(64, 2, 4)),
        ("cait_s24_224", Shape(64, 4, 8)),
        ("vit_tiny_patch16_224", Shape(32, 2, 2)),
        ("beit_base_patch16_224", Shape(128, 2, 8)),
        ("swin_tiny_patch4_window7_224", Shape(192, 4, None)),
    ],
)
def test_the_reduced_geometry_keeps_proportions_and_runs(arch: str, shape: Shape) -> None:
    args = reduced_args(arch)
    assert args["img_size"] == 32
    assert shape_by_name(arch, args) == shape
    model = timm.create_model(arch, num_classes=10, **args).eval()
    last = model.forward_intermediates(torch.zeros(1, 3, 32, 32), norm=False, intermediates_only=True)[-1]
    assert last.shape[:2] == (1, shape.width)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_reduced_heads_divide_the_width_and_are_not_too_thin() -> None:
    for arch in ("deit_tiny_patch16_224", "cait_xxs24_224", "vit_base_patch16_224", "eva02_tiny_patch14_224"):
        args = reduced_args(arch)
        assert args["embed_dim"] % args["num_heads"] == 0
        assert args["embed_dim"] // args["num_heads"] >= 8


def test_reduced_layer_scale_starts_where_training_moves() -> None:
    assert reduced_args("cait_s24_224")["init_values"] == 0.1
    assert "init_values" not in reduced_args("deit_tiny_patch16_224")


@pytest.mark.parametrize("strategy", ["lift", "widelast"])
def test_hierarchical_students_are_plain_only(strategy: str) -> None:
    shape = Shape(768, 4, None)
    check_strategy("plain", "swin", shape, 384)
    with pytest.raises(UsageError, match=rf"strategy '{strategy}' needs a student of equal blocks.*--strategy plain"):
        check_strategy(strategy, "swin", shape, 384)


def test_a_widened_block_needs_whole_heads() -> None:
    shape = Shape(192, 12, 3)
    check_strategy("widelast", "deit", shape, 384)
    check_strategy("lift", "deit", shape, 400)
    with pytest.raises(UsageError, match=r"head size of deit, 64, but the teacher's width 400 is no multiple"):
        check_strategy("widelast", "deit", shape, 400)


def test_shape_of_reads_a_live_model() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
    assert shape_of(model, "x") == Shape(24, 2, 3)
