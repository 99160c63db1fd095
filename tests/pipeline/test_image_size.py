"""One size for both networks: what each gets, what is refused, and what a teacher's own size is said to cost."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
from deciding import before_data
from small_run import STUDENT, STUDENT_ARGS

from vitcompress.core.errors import UsageError
from vitcompress.pipeline.config import RunConfig, merge, validate
from vitcompress.pipeline.config.facts import Earlier
from vitcompress.pipeline.config.networks import size_notes, sized
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
    ("size", "expected", "said"),
    [
        (
            112,
            (112, 112),
            "the student runs at 112 px (7x7 patches), the teacher at 112 px (8x8 patches); --set "
            "'teacher.args={img_size: 98}' would give it as many patches as the student has.",
        ),
        (
            160,
            (160, 140),
            "the student runs at 160 px (10x10 patches), the teacher at 140 px (10x10 patches), because its patch, "
            "14 px, does not divide 160.",
        ),
        (16, (16, 14), "the teacher at 14 px (1x1 patches), because its patch"),
    ],
)
def test_a_size_for_both(size: int, expected: tuple[int, int], said: str) -> None:
    config = asked(image_size=size)
    resolved = before_data(config)
    assert sizes(resolved) == expected
    (note,) = size_notes(config, resolved)
    assert note.startswith(f"image size {size}: ")
    assert said in note
    assert before_data(resolved).teacher.args == resolved.teacher.args


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"teacher": {"args": {"img_size": 98}}}, (112, 98)),
        ({"student": {"args": {"img_size": 64}}}, (64, 112)),
        ({"student": {"args": {"img_size": 64}}, "teacher": {"args": {"img_size": 98}}}, (64, 98)),
    ],
)
def test_a_size_given_for_one_network_goes_before_and_is_told(
    changes: dict[str, Any], expected: tuple[int, int]
) -> None:
    config = asked(image_size=112, **changes)
    resolved = before_data(config)
    assert sizes(resolved) == expected
    (note,) = size_notes(config, resolved)
    assert note.endswith(f"{' and '.join(f'{who}.args' for who in changes)} had an img_size, which goes before "
                         "--image-size.")  # fmt: skip


NEAREST = "does not divide; the nearest that fit:"
FOCAL = {"teacher": {"model": "focalnet_tiny_srf", "args": "auto"}, "student": {"strategy": "plain"}}


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
        ({"image_size": 112, **FOCAL}, "timm's focalnet_tiny_srf takes no img_size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        before_data(validate(merge(REAL, changes)))


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


def test_a_hierarchical_teacher_at_the_students_size() -> None:
    values = merge(REAL, {"image_size": 112, "student": {"strategy": "plain"}})
    values["teacher"] = {"model": "swin_tiny", "init": "scratch"}
    config = validate(values)
    resolved = before_data(config)
    assert sizes(resolved) == (112, 112)
    (note,) = size_notes(config, resolved)
    assert note.endswith("the teacher at 112 px (28x28 patches).")  # its last layer has 4x4: nothing to propose


def test_what_a_larger_teacher_costs_is_counted() -> None:
    config = asked()
    resolved = before_data(config)
    at = {size: cost_of(meta_model(DINO, {**SHALLOW, "img_size": size}), size).macs for size in (518, 224)}
    (note,) = size_notes(config, resolved)
    assert note == (
        f"the teacher runs at 518 px (1,370 tokens, {at[518] / 1e9:.3g} GMACs an image); --image-size 224 would take "
        f"{at[224] / 1e9:.3g} GMACs, {at[518] / at[224]:.1f} times less; accuracy may fall."
    )
    assert at[518] > 5 * at[224]
    (more,) = size_notes(config, resolved, lambda saving: f" {saving:.1f}")
    assert more == f"{note} {at[518] / at[224]:.1f}"


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": {"args": {"img_size": 280}}},
        {"teacher": {"model": "vit_tiny_patch16_224"}},
        {"student": {"args": {"img_size": 512}}},
        {"teacher": {"model": "vit_small_patch16_dinov3"}, "student": {"args": {"img_size": 240}}},  # 256: hardly less
    ],
)
def test_nothing_is_said_of_a_size_that_was_chosen_or_is_the_students(changes: dict[str, Any]) -> None:
    config = asked(**changes)
    assert size_notes(config, before_data(config)) == []


def test_what_was_decided_for_another_size_is_decided_anew() -> None:
    config = asked(image_size=112)
    earlier = Earlier(config, before_data(config))
    assert earlier.same("teacher", config)
    assert not earlier.same("teacher", asked(image_size=160))
    assert not earlier.same("distill", asked())


def test_the_border_that_a_patch_leaves_over_is_why_such_sizes_are_refused() -> None:
    """timm takes 36 pixels by patches of 8 for 32, without a word."""
    model = timm.create_model(STUDENT, **{**STUDENT_ARGS, "img_size": 36}).eval()
    image = torch.rand(1, 3, 36, 36)
    changed = image.clone()
    changed[..., 32:, :] = 0
    changed[..., :, 32:] = 0
    with torch.no_grad():
        assert torch.equal(model(image), model(changed))
