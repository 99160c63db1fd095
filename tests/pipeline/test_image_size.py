"""One size for both networks: what each gets, what is refused, and what is said of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from deciding import before_data

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.config import RunConfig, merge, validate
from vitcompress.pipeline.config.facts import Earlier
from vitcompress.pipeline.config.networks import resolve_network, size_notes, sized
from vitcompress.stages.models.build import cost_of, input_size
from vitcompress.stages.models.geometry import meta_model, reduced_args

DINO = "vit_small_patch14_dinov2"
SHALLOW = {"depth": 2}
"""Real patches and widths, so that sizes are the real ones, and few blocks."""
REAL = {
    "teacher": {"model": DINO, "args": SHALLOW, "init": "scratch"},
    "student": {"model": "deit_tiny", "args": SHALLOW},
    "data": {"source": "/images"},
}


def asked(**changes: Any) -> RunConfig:
    return validate(merge(REAL, changes))


def sizes(config: RunConfig) -> tuple[int, int]:
    """Of the student's input and the teacher's, as built."""
    found = []
    for network in (config.student, config.teacher):
        assert isinstance(network.args, dict)
        found.append(input_size(network.args, meta_model(network.model.partition(".")[0], network.args)))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("size", "changes", "expected", "said"),
    [
        (112, {}, (112, 112), "the student runs at 112 px (7x7 patches), the teacher at 112 px (8x8 patches)."),
        (160, {}, (160, 140), "the student runs at 160 px (10x10 patches), the teacher at 140 px (10x10 patches)."),
        (112, {"teacher": {"args": {"img_size": 98}}}, (112, 98), "the img_size in teacher.args goes before"),
        (112, {"student": {"args": {"img_size": 64}}}, (64, 112), "the img_size in student.args goes before"),
    ],
)
def test_a_size_for_both_unless_one_has_its_own(
    size: int, changes: dict[str, Any], expected: tuple[int, int], said: str
) -> None:
    config = asked(image_size=size, **changes)
    resolved = before_data(config)
    assert sizes(resolved) == expected
    (note,) = size_notes(config, resolved)
    assert note.startswith(f"image size {size}: ")
    assert said in note
    assert before_data(resolved).teacher.args == resolved.teacher.args


NEAREST = "does not divide; the nearest that fit:"
CNN = {"model": "mobilenetv4_conv_small", "args": "auto"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"image_size": 100},
            "image_size (--image-size) is 100, which the patch of deit_tiny_patch16_224, 16 px, "
            f"{NEAREST} 96 px (the teacher at 84) and 112 px.",
        ),
        ({"image_size": 10}, f"{NEAREST} 16 px (the teacher at 14)."),
        (
            {"image_size": 100, "student": {"args": {"img_size": 64}}},
            f"the patch of vit_small_patch14_dinov2, 14 px, {NEAREST} 98 px and 112 px.",
        ),
        (
            {"image_size": 100, "student": CNN},
            f"the stride of mobilenetv4_conv_small, 32 px, {NEAREST} 96 px (the teacher at 98) and 128 px (the teacher "
            "at 126).",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        before_data(validate(merge(REAL, changes)))


@pytest.mark.parametrize(
    ("size", "changes", "expected"),
    [
        (64, {"student": CNN}, (64, 70)),  # the nearest multiple of 14
        (112, {"teacher": CNN}, (112, 128)),  # strides of 32: 112 is half way
        (64, {"student": CNN, "teacher": CNN}, (64, 64)),
    ],
)
def test_a_cnn_takes_any_size_that_its_stride_divides(
    size: int | None, changes: dict[str, Any], expected: tuple[int, int]
) -> None:
    resolved = before_data(asked(image_size=size, **changes))
    assert sizes(resolved) == expected
    assert sizes(before_data(resolved)) == expected  # what is resolved is a config too


def test_a_size_of_its_own_is_given_to_a_cnn_as_to_others() -> None:
    args = resolve_network("mobilenetv4_conv_small", {"img_size": 96}, "full").args
    assert input_size(args, meta_model("mobilenetv4_conv_small", args)) == 96
    assert sized(64, args, args, "mobilenetv4_conv_small") is args


def test_one_that_the_network_cannot_run_at_is_refused_with_its_reason() -> None:
    with pytest.raises(UsageError, match=r"is 112, and hiera_tiny_224 cannot run at 112 px \(shape"):
        sized(112, {}, {}, "hiera_tiny_224")


@pytest.mark.parametrize(
    "arch",
    ["cait_xxs24_224", "swin_tiny_patch4_window7_224", "beit_base_patch16_224", "eva02_tiny_patch14_224",
     "deit3_small_patch16_224"],
)  # fmt: skip
def test_every_family_takes_another_size(arch: str) -> None:
    reduced = reduced_args(arch)
    args = sized(48, reduced, {}, arch)
    assert args == {**reduced, "img_size": 48}
    own, other = (cost_of(meta_model(arch, each), each["img_size"]) for each in (reduced, args))
    assert other.macs > own.macs
    assert sized(48, args, {"img_size": 48}, arch) is args
    with pytest.raises(UsageError, match=rf"is 49, which the patch of {arch}, [28] px, does not divide"):
        sized(49, reduced, {}, arch)


def test_a_reduced_geometry_takes_the_size_too(digits: RunConfig) -> None:
    config = digits.model_copy(update={"image_size": 48})
    assert sizes(before_data(config)) == (48, 48)
    smaller = validate(merge(config.model_dump(mode="json"), {"teacher": {"args": {"patch_size": 5}}}))
    assert sizes(before_data(smaller)) == (48, 30)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ["the teacher runs at 518 px (37x37 patches), the student at 224 px (14x14 patches); --image-size 224 "
              "would take less time for the teacher, and its accuracy may fall."]),
        ({"teacher": {"args": {"img_size": 280}}}, []),
        ({"teacher": {"model": "vit_tiny_patch16_224"}}, []),
        ({"student": {"args": {"img_size": 512}}}, []),
    ],
)  # fmt: skip
def test_a_larger_teacher_is_told_unless_its_size_was_chosen(changes: dict[str, Any], said: list[str]) -> None:
    config = asked(**changes)
    assert size_notes(config, before_data(config)) == said


def test_what_was_decided_for_another_size_is_decided_anew() -> None:
    config = asked(image_size=112)
    earlier = Earlier(config, before_data(config))
    assert earlier.same("teacher", config)
    assert not earlier.same("teacher", asked(image_size=160))
    assert not earlier.same("distill", asked())
