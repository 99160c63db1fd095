from __future__ import annotations

from itertools import pairwise

import pytest
import timm
import torch

from vitcompress.core.errors import UsageError
from vitcompress.stages.models.geometry import (
    Shape,
    check_strategy,
    meta_model,
    reduced_args,
    shape_by_name,
    wide_shapes,
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


@pytest.mark.parametrize("arch", ["resnet18", "mobilenetv3_small_100"])
def test_a_network_without_blocks_is_refused(arch: str) -> None:
    with pytest.raises(UsageError, match="has no transformer blocks or stages to tap"):
        shape_by_name(arch, {})


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


def test_a_widened_block_needs_whole_heads() -> None:
    shape = Shape(192, 12, 3)
    check_strategy("widelast", "deit", shape, 384)
    check_strategy("lift", "deit", shape, 400)
    with pytest.raises(UsageError, match=r"head size of deit, 64, but the teacher's width 400 is no multiple"):
        check_strategy("widelast", "deit", shape, 400)


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'widest' is unknown; give one of plain, lift, widelast, uniform"):
        check_strategy("widest", "deit", Shape(192, 12, 3), None)


@pytest.mark.parametrize(
    ("teacher", "blocks", "keep", "shapes"),
    [
        (384, 1, "size", "384x6h"),
        (384, 3, "size", "256x4h 320x5h 384x6h"),
        (384, 1, "count", "384x3h"),
        (384, 2, "count", "288x3h 384x3h"),
        (768, 9, "size", "256x4h 320x5h 384x6h 448x7h 512x8h 576x9h 640x10h 704x11h 768x12h"),
        (768, 12, "count", "240x3h 288x3h 336x3h 384x3h 432x3h 480x3h 528x3h 576x3h 624x3h 672x3h 720x3h 768x3h"),
    ],
)
def test_widths_rise_in_equal_steps_of_whole_heads(teacher: int, blocks: int, keep: str, shapes: str) -> None:
    found = wide_shapes("deit", Shape(192, 12, 3), teacher, blocks, keep)  # type: ignore[arg-type]
    assert " ".join(map(str, found)) == shapes
    widths = [192, *(wide.width for wide in found)]
    assert {after - before for before, after in pairwise(widths)} == {(teacher - 192) // blocks}
    for wide in found:
        assert wide.heads == (wide.width // 64 if keep == "size" else 3)


@pytest.mark.parametrize(
    ("teacher", "blocks", "keep", "words"),
    [
        (384, 13, "size", "wide_blocks is 13, but deit has 12 blocks; give 1 to 12"),
        (384, 2, "size", "from 192 to 384 in 2 equal steps is not in whole heads of size 64; give one of 1, 3"),
        (384, 5, "size", "in 5 equal steps is not in whole heads of size 64; give one of 1, 3"),
        (384, 3, "count", "in 3 equal steps is not in multiples of 3 channels; give one of 1, 2, 4, 8"),
        (400, 1, "count", "keeps the 3 heads of deit, but the teacher's width 400 is no multiple"),
        (192, 1, "size", "the teacher's, 192, is not above that of deit, 192; use --strategy plain"),
        (128, 1, "count", "the teacher's, 128, is not above that of deit"),
    ],
)
def test_steps_that_are_not_whole_are_refused(teacher: int, blocks: int, keep: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_strategy("widelast", "deit", Shape(192, 12, 3), teacher, blocks, keep)  # type: ignore[arg-type]


def test_rotary_positions_need_head_sizes_in_fours() -> None:
    plain, rotary = Shape(192, 12, 3), Shape(192, 12, 3, rotary=True)
    assert wide_shapes("eva", plain, 390, 1, "count")[0].heads == 3
    with pytest.raises(
        UsageError, match=r"the teacher's width 390 is no multiple .*rotary positions, a multiple of 12"
    ):
        wide_shapes("eva", rotary, 390, 1, "count")
    check_strategy("uniform", "eva", plain, 207)
    with pytest.raises(UsageError, match=r"uniform_width is 207, a head size of 69.*give a multiple of 12, .*216"):
        check_strategy("uniform", "eva", rotary, 207)


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (205, "which the 3 heads of deit do not divide; give a multiple of 3, for example 216"),
        (193, "do not divide; give a multiple of 3, for example 204"),
        (192, "deit is 192 wide already; give more, for example 204"),
        (96, "deit is 192 wide already"),
    ],
)
def test_a_uniform_width_is_wider_and_in_whole_heads(width: int, words: str) -> None:
    check_strategy("uniform", "deit", Shape(192, 12, 3), 204)
    with pytest.raises(UsageError, match=words):
        check_strategy("uniform", "deit", Shape(192, 12, 3), width)
