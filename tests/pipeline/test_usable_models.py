"""What `compress models` lists is what `shape_of` takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import pytest
import timm
import torch

from vitcompress.core.errors import UsageError
from vitcompress.core.records import ModelSpec, Strategy
from vitcompress.pipeline.listing import usable_models
from vitcompress.pipeline.resolve_network import resolve_network
from vitcompress.stages.models.build import build_model, input_size, logits_and_taps
from vitcompress.stages.models.families.registry import listed_modules
from vitcompress.stages.models.geometry import check_strategy, reduced_args, shape_by_name
from vitcompress.stages.models.students import widen_last
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.student.stage import student_spec


def left_out() -> list[str]:
    known = {name for module in listed_modules() for name in timm.list_models(module=module)}
    return sorted(known - set(usable_models("*")))


def test_a_sample_of_what_is_listed_has_something_to_tap() -> None:
    sample = usable_models("*")[::15]
    assert len(sample) > 15
    for name in sample:
        assert shape_by_name(name, {}).depth > 0


def test_only_what_is_refused_is_left_out() -> None:
    names = left_out()
    assert "vit_small_patch16_18x2_224" in names
    for name in names:
        with pytest.raises(UsageError, match="no transformer blocks or stages to tap"):
            shape_by_name(name, {})


@pytest.mark.slow
def test_everything_listed_has_something_to_tap() -> None:
    for name in usable_models("*"):
        assert shape_by_name(name, {}).depth > 0


def answers(name: str) -> list[str]:
    """How a name is taken, as a network of each geometry and as a student of each strategy: `accepted` or `refused`.

    Anything but this product's own error is left to fail the test.
    """
    found = []
    for geometry in ("full", "reduced"):
        try:
            arch, args, shape = resolve_network(name, {}, geometry)
        except UsageError:
            found.append("refused")
            continue
        found.append("accepted")
        for strategy in get_args(Strategy):
            try:
                check_strategy(strategy, name, shape, 2 * shape.width)
            except UsageError:
                found.append("refused")
                continue
            if geometry == "full":
                found.append("accepted")
                continue
            try:
                run_as_student(arch, args, strategy, 2 * shape.width)
                found.append("accepted")
            except UsageError:
                found.append("refused")
    return found


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
    "name",
    [
        "hiera_tiny_224",
        "xcit_nano_12_p8_224",
        "focalnet_tiny_srf",
        "resnet18",
        "gemma4_vit_167m_enc",
        "qwen3_vit_306m_enc",
    ],
)
def test_families_that_look_like_others_are_refused_at_the_reduced_geometry(name: str) -> None:
    assert answers(name)[-1] == "refused"


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "cait_xxs24_224", "eva02_tiny_patch14_224", "beit_base_patch16_224"]
)
def test_families_that_are_listed_are_students_of_every_strategy(name: str) -> None:
    assert set(answers(name)) == {"accepted"}


def test_a_block_that_timm_makes_of_another_width_is_not_widened() -> None:
    """ConViT's `embed_dim` is that of a head: for one of its networks timm would have made a block of 128 GB."""
    with pytest.raises(UsageError, match=r"asked for width 384, timm makes one of \d+; use --strategy lift"):
        run_as_student("convit_tiny", {"img_size": 32, "depth": 12}, "widelast", 384)


def test_a_network_with_a_neck_is_lifted_and_not_widened() -> None:
    run_as_student("samvit_base_patch16_224", reduced_args("samvit_base_patch16_224"), "lift", 256)
    with pytest.raises(UsageError, match=r"which has a neck .*; use --strategy lift"):
        run_as_student("samvit_base_patch16_224", reduced_args("samvit_base_patch16_224"), "widelast", 256)


def test_a_block_of_another_kind_than_the_first_is_not_widened() -> None:
    """ConViT's first blocks attend by position too: made of one of them, a last block would be another network."""
    one_head = {"img_size": 32, "depth": 12, "embed_dim": 64, "num_heads": 1}
    model = build_model(ModelSpec(arch="convit_tiny", args=one_head, num_classes=7))
    with pytest.raises(UsageError, match="of another kind than its first block; use --strategy lift"):
        widen_last(model, "convit_tiny", one_head, 7, 128, keep="count")


@pytest.mark.slow
def test_every_name_of_timm_is_accepted_and_runs_or_is_refused_by_our_own_error(
    record_property: Callable[[str, object], None],
) -> None:
    found = {name: answers(name) for name in timm.list_models()}
    taken = Counter(answer[0] for answer in found.values())
    for word, count in taken.items():
        record_property(word, count)
    assert taken["accepted"] >= len(usable_models("*"))
    assert taken["refused"] > 0
    refused = [name for name in usable_models("*") if "accepted" not in found[name]]
    assert refused == []
