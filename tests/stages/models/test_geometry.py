from __future__ import annotations

import pytest
import timm
import torch

from vitcompress.core.errors import UsageError
from vitcompress.core.records import WideHeads
from vitcompress.stages.models.geometry import (
    Shape,
    check_strategy,
    meta_model,
    reduced_args,
    shape_by_name,
    shape_of,
    wide_shapes,
)


@pytest.mark.parametrize(
    ("arch", "published", "reduced"),
    [
        ("deit_tiny_patch16_224", Shape(192, 12, 3), Shape(32, 2, 2)),
        ("cait_s24_224", Shape(384, 24, 8), Shape(64, 4, 8)),  # the two class-attention blocks are no taps
        ("beit_base_patch16_224", Shape(768, 12, 12), Shape(128, 2, 8)),
        ("eva02_tiny_patch14_224", Shape(192, 12, 3, rotary=True), Shape(32, 2, 2, rotary=True)),
        ("swin_tiny_patch4_window7_224", Shape(768, 4, None), Shape(192, 4, None)),
    ],
)
def test_the_reduced_geometry_keeps_proportions_and_runs(arch: str, published: Shape, reduced: Shape) -> None:
    assert shape_by_name(arch, {}) == published
    assert published.isotropic == (published.heads is not None)
    args = reduced_args(arch)
    assert args["img_size"] == 32
    assert args.get("init_values") == (0.1 if arch.startswith(("cait", "beit")) else None)
    if reduced.heads:
        assert args["embed_dim"] % reduced.heads == 0
        assert args["embed_dim"] // reduced.heads >= 8
    assert shape_by_name(arch, args) == reduced
    model = timm.create_model(arch, num_classes=10, **args).eval()
    last = model.forward_intermediates(torch.zeros(1, 3, 32, 32), norm=False, intermediates_only=True)[-1]
    assert last.shape[:2] == (1, reduced.width)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_network_without_taps_is_refused() -> None:
    with pytest.raises(UsageError, match="'a linear map' has no layers to tap"):
        shape_of(torch.nn.Linear(3, 3), "a linear map")


def test_arguments_that_timm_refuses_are_shown() -> None:
    with pytest.raises(UsageError, match=r"'deit_tiny_patch16_224' cannot be built with \{'embed_dimm': 3\}"):
        meta_model("deit_tiny_patch16_224", {"embed_dimm": 3})
    with pytest.raises(UsageError, match="cannot be built"):
        meta_model("deit_tiny_patch16_224", {"embed_dim": 10, "num_heads": 3})
    assert all(parameter.is_meta for parameter in meta_model("vit_large_patch16_224", {}).parameters())


def test_students_of_stages_are_not_widened() -> None:
    shape = Shape(768, 4, None)
    for strategy in ("plain", "lift"):
        check_strategy(strategy, "swin", shape, 384)  # type: ignore[arg-type]
    for strategy in ("uniform", "widelast"):
        with pytest.raises(UsageError, match=rf"'{strategy}' needs a student of equal blocks.*--strategy lift"):
            check_strategy(strategy, "swin", shape, 1024)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("teacher", "blocks", "keep", "shapes"),
    [
        (384, 1, "size", [(384, 6)]),
        (384, 3, "size", [(256, 4), (320, 5), (384, 6)]),
        (390, 1, "count", [(390, 3)]),
        (384, 2, "count", [(288, 3), (384, 3)]),
    ],
)
def test_widened_blocks_rise_in_equal_steps_of_whole_heads(
    teacher: int, blocks: int, keep: WideHeads, shapes: list[tuple[int, int]]
) -> None:
    assert wide_shapes("deit", Shape(192, 12, 3), teacher, blocks, keep) == shapes


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
        check_strategy("widelast", "deit", shape, teacher, wide_heads=keep)


@pytest.mark.parametrize("blocks", [2, 4, 13])
def test_steps_that_are_not_equal_are_refused_with_those_that_are(blocks: int) -> None:
    with pytest.raises(UsageError, match=rf"wide_blocks is {blocks}, but deit has 12 blocks.*give one of 1, 3\."):
        check_strategy("widelast", "deit", Shape(192, 12, 3), 384, blocks)


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
