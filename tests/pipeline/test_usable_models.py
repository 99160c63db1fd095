"""What `compress models` lists can be teacher and student; what cannot is refused by our own error."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec, Strategy
from vitcompress.pipeline.config.networks import resolve_network
from vitcompress.pipeline.listing import usable_models
from vitcompress.stages.models.build import build_model, input_size, logits_and_taps
from vitcompress.stages.models.geometry import check_strategy, reduced_args, shape_by_name
from vitcompress.stages.models.students import widen_last
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.student.stage import student_spec


@pytest.mark.parametrize("every", [60, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_listed_has_something_to_tap(every: int) -> None:
    sample = usable_models("*")[::every]
    assert len(sample) > 15
    for name in sample:
        assert shape_by_name(name, {}).depth > 0


def run_as_student(arch: str, args: dict[str, Any], strategy: str, teacher_width: int) -> None:
    """Build the student, and look at its logits and its first and last tap."""
    config = StudentConfig.model_validate({"model": arch, "args": args, "strategy": strategy})
    model = build_model(student_spec(config, 7, teacher_width)).eval()
    size = input_size(args, model)
    depth = shape_by_name(arch, args).depth
    with torch.inference_mode():
        logits, (first, last) = logits_and_taps(model, torch.zeros(2, 3, size, size), (0, depth - 1))
    assert logits.shape == (2, 7)
    assert first.ndim == last.ndim == 4
    if strategy in ("lift", "widelast"):
        assert last.shape[1] == teacher_width


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("hiera_tiny_224", {"img_size": 32}),
        ("xcit_nano_12_p8_224", {"img_size": 32}),
        ("mobilenetv4_conv_small", {"pretrained_cfg_overlay": {"input_size": [3, 32, 32]}}),
    ],
)
def test_networks_without_a_reduced_form_stay_as_they_are_at_32_px(name: str, args: dict[str, Any]) -> None:
    arch, found, shape, *_ = resolve_network(name, {}, "reduced")
    assert (found, shape) == (args, shape_by_name(arch, {}))
    run_as_student(arch, found, "lift", 24)


@pytest.mark.parametrize("name", ["qwen3_vit_306m_enc", "efficientformer_l1"])
def test_what_takes_no_image_of_32_px_is_refused_for_the_digits(name: str) -> None:
    with pytest.raises(UsageError, match=r"no reduced form|encoder without a classifier"):
        resolve_network(name, {}, "reduced")


@pytest.mark.parametrize("name", ["cait_xxs24_224", "eva02_tiny_patch14_224"])
def test_families_that_are_listed_are_students_of_every_strategy(name: str) -> None:
    arch, args, shape, *_ = resolve_network(name, {}, "reduced")
    for strategy in get_args(Strategy):
        check_strategy(strategy, name, shape, 2 * shape.width)
        run_as_student(arch, args, strategy, 2 * shape.width)


def test_a_block_that_timm_makes_of_another_width_is_not_widened() -> None:
    """ConViT's `embed_dim` is that of a head: for one of its networks timm would have made a block of 128 GB."""
    with pytest.raises(UsageError, match=r"asked for width 384, timm makes one of \d+; use --strategy lift"):
        run_as_student("convit_tiny", {"img_size": 32, "depth": 12}, "widelast", 384)


def test_a_network_with_a_neck_is_lifted_and_not_widened() -> None:
    args = reduced_args("samvit_base_patch16_224")
    run_as_student("samvit_base_patch16_224", args, "lift", 256)
    with pytest.raises(UsageError, match=r"which has a neck .*; use --strategy lift"):
        run_as_student("samvit_base_patch16_224", args, "widelast", 256)


def test_a_block_of_another_kind_than_the_first_is_not_widened() -> None:
    """ConViT's first blocks attend by position too: made of one of them, a last block would be another network."""
    one_head = {"img_size": 32, "depth": 12, "embed_dim": 64, "num_heads": 1}
    spec = ModelSpec(arch="convit_tiny", args=one_head, num_classes=7)
    with pytest.raises(UsageError, match="of another kind than its first block; use --strategy lift"):
        widen_last(build_model(spec), spec.model_copy(update={"wide_heads": "count"}), 128)
