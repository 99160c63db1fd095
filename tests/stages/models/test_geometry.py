from __future__ import annotations

import pytest
import timm
import torch

from vitcompress.core.errors import UsageError
from vitcompress.core.records import WideHeads
from vitcompress.stages.models.geometry import (
    Shape,
    check_strategy,
    heads_of_wide,
    meta_model,
    reduced_args,
    shape_by_name,
)


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


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(UsageError, match="has no transformer blocks or stages to tap"):
        shape_by_name("resnet18", {})


def test_arguments_that_timm_refuses_are_shown() -> None:
    with pytest.raises(UsageError, match=r"'deit_tiny_patch16_224' cannot be built with \{'embed_dimm': 3\}"):
        meta_model("deit_tiny_patch16_224", {"embed_dimm": 3})
    with pytest.raises(UsageError, match="cannot be built"):
        meta_model("deit_tiny_patch16_224", {"embed_dim": 10, "num_heads": 3})
    assert all(parameter.is_meta for parameter in meta_model("vit_large_patch16_224", {}).parameters())


@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        ("deit_tiny_patch16_224", Shape(32, 2, 2)),
        ("cait_s24_224", Shape(64, 4, 8)),
        ("beit_base_patch16_224", Shape(128, 2, 8)),
        ("swin_tiny_patch4_window7_224", Shape(192, 4, None)),
    ],
)
def test_the_reduced_geometry_keeps_proportions_and_runs(arch: str, shape: Shape) -> None:
    args = reduced_args(arch)
    assert args["img_size"] == 32
    assert args.get("init_values") == (0.1 if arch.startswith(("cait", "beit")) else None)
    if shape.heads:
        assert args["embed_dim"] % shape.heads == 0
        assert args["embed_dim"] // shape.heads >= 8
    assert shape_by_name(arch, args) == shape
    model = timm.create_model(arch, num_classes=10, **args).eval()
    last = model.forward_intermediates(torch.zeros(1, 3, 32, 32), norm=False, intermediates_only=True)[-1]
    assert last.shape[:2] == (1, shape.width)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("strategy", ["lift", "widelast", "uniform"])
def test_hierarchical_students_are_plain_only(strategy: str) -> None:
    shape = Shape(768, 4, None)
    check_strategy("plain", "swin", shape, 384)
    with pytest.raises(UsageError, match=rf"strategy '{strategy}' needs a student of equal blocks.*--strategy plain"):
        check_strategy(strategy, "swin", shape, 384)


@pytest.mark.parametrize(
    ("teacher", "keep", "heads"), [(384, "size", 6), (768, "size", 12), (384, "count", 3), (390, "count", 3)]
)
def test_a_widened_block_has_whole_heads(teacher: int, keep: WideHeads, heads: int) -> None:
    assert heads_of_wide("deit", Shape(192, 12, 3), teacher, keep) == heads


@pytest.mark.parametrize(
    ("shape", "teacher", "keep", "words"),
    [
        (Shape(192, 12, 3), 400, "size", "keeps the head size of deit, 64, but the teacher's width 400 is no multiple"),
        (Shape(192, 12, 3), 400, "count", "keeps the 3 heads of deit, but the teacher's width 400 is no multiple"),
        (Shape(192, 12, 3, rotary=True), 390, "count", "390 is no multiple .*rotary positions, a multiple of 12"),
        (Shape(192, 12, 3), 192, "size", "the teacher's, 192, is not above that of deit, 192; use --strategy plain"),
    ],
)
def test_heads_that_are_not_whole_are_refused(shape: Shape, teacher: int, keep: WideHeads, words: str) -> None:
    check_strategy("lift", "deit", shape, teacher)
    with pytest.raises(UsageError, match=words):
        check_strategy("widelast", "deit", shape, teacher, keep)


@pytest.mark.parametrize(
    ("width", "rotary", "words"),
    [
        (205, False, "the 3 heads of deit do not divide .*a multiple of 3.* for example 216"),
        (207, True, "the 3 heads of deit do not divide .*a multiple of 12.* for example 216"),
        (192, False, "deit is 192 wide already; give more, for example 204"),
    ],
)
def test_a_uniform_width_is_wider_and_in_whole_heads(width: int, rotary: bool, words: str) -> None:
    check_strategy("uniform", "deit", Shape(192, 12, 3), 207)
    with pytest.raises(UsageError, match=words):
        check_strategy("uniform", "deit", Shape(192, 12, 3, rotary), width)
