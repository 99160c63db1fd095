"""What a student takes from its teacher: all of it at equal size, and of the right shape and share where it is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_run import SPEC, STUDENT, STUDENT_ARGS, TEACHER, TEACHER_ARGS, seeded_model, student_spec
from torch import Tensor

from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import logits_and_taps
from vitcompress.stages.models.inherit.inherit import Inherited, inherit, spaced

WAYS = ("fitted", "pca", "spectral", "important", "channels")
CAIT = "cait_s24_224"
IMAGENET = SPEC.model_copy(update={"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)})


def network(arch: str = TEACHER, seed: int = 7, classes: int = 10, **args: Any) -> Any:
    return seeded_model(ModelSpec(arch=arch, args={**TEACHER_ARGS, **args}, num_classes=classes), seed)


def images(count: int = 24, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def inherited(teacher: Any, student: Any, way: str = "pca", size: int = 32) -> Inherited:
    views = images(), images(size=size)
    return inherit(teacher, student, views, (SPEC, SPEC.model_copy(update={"size": size})), way)


every_way = pytest.mark.parametrize("way", WAYS)


@every_way
@pytest.mark.parametrize(
    ("args", "own"),
    [
        ({}, {}),
        ({"init_values": 0.5}, {"init_values": 0.5}),
        ({"init_values": 0.5}, {"init_values": None}),  # it goes into the weights
        ({"global_pool": "avg"}, {}),
        ({"reg_tokens": 2, "no_embed_class": True}, {}),
    ],
    ids=["plain", "layer scale", "layer scale of the teacher alone", "mean of the patches", "registers"],
)
def test_a_student_as_large_as_its_teacher_answers_as_it_does(
    way: str, args: dict[str, Any], own: dict[str, Any]
) -> None:
    teacher, student = network(**args), network(seed=8, **{**args, **own})
    found = inherited(teacher, student, way)
    wanted = teacher(images(8))
    assert not torch.allclose(network(seed=8, **args)(images(8)), wanted, atol=0.05)
    torch.testing.assert_close(student(images(8)), wanted, rtol=0, atol=2e-5)
    assert found.not_loaded == ()
    assert "48 of 48 (100.0 % of energy)" in found.words
    assert ("corrected on 24 images" in found.words) == (way == "fitted")


@pytest.mark.parametrize("way", ["fitted", "channels"])
def test_talking_heads_are_taken_by_a_student_that_has_them(way: str) -> None:
    teacher, student = network(CAIT, init_values=0.5), network(CAIT, seed=8, init_values=0.5)
    found = inherited(teacher, student, way)
    # The stream is rotated, and the energy of a token less its mean is what a rotation keeps.
    taps = [logits_and_taps(model, images(8), (2,))[1][0] for model in (teacher, student)]
    sizes = [(tap - tap.mean(1, keepdim=True)).norm(dim=1) for tap in taps]
    torch.testing.assert_close(sizes[1], sizes[0], rtol=1e-4, atol=1e-4)
    assert "cls_token: nothing of the teacher's stands for it" in found.not_loaded
    assert "the teacher's blocks_token_only: no place in the student" in found.not_loaded


IN_EVERY_WAY = ((TEACHER, "lift-kept"), (CAIT, "widelast"))
"""Each teacher and each added part once; other pairs in one way, and in all of them as a sweep."""


@pytest.mark.parametrize(
    ("graph", "teacher_arch", "way"),
    [
        pytest.param(
            graph, arch, way, marks=[] if way == "fitted" or (arch, graph) in IN_EVERY_WAY else [pytest.mark.sweep]
        )
        for graph in ("plain", "lift-kept", "widelast")
        for arch in (TEACHER, CAIT)
        for way in WAYS
    ],
)
def test_every_tensor_is_taken_or_told(way: str, teacher_arch: str, graph: str) -> None:
    teacher = network(teacher_arch, depth=5, **({"init_values": 0.1} if teacher_arch == CAIT else {}))
    student = seeded_model(student_spec(graph), 8)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    found = inherited(teacher, student, way)
    after = student.state_dict()
    assert {name: value.shape for name, value in after.items()} == {name: v.shape for name, v in before.items()}
    assert all(torch.isfinite(value).all() for value in after.values())
    told = {line.partition(":")[0] for line in found.not_loaded}
    assert set(found.loaded) | told >= set(after)
    assert not set(found.loaded) & told
    assert all(torch.equal(after[name], before[name]) for name in after if name not in found.loaded)
    assert found.blocks == (0, 4)
    assert "the teacher's blocks.2: between those that are taken" in found.not_loaded
    if teacher_arch == CAIT:
        assert "the teacher's proj_l and proj_w of all blocks: no place in the student" in found.not_loaded
        assert "head.bias" in told
    assert torch.isfinite(student(images(4))).all()


def test_a_wide_last_block_is_the_teachers_own() -> None:
    teacher = network(num_heads=6)  # heads of 8, as the student's
    student: Any = seeded_model(student_spec("widelast"), 8)
    inherited(teacher, student, "channels")
    wide, last = student.blocks[-1].block.state_dict(), teacher.blocks[-1].state_dict()
    assert wide.keys() == last.keys()
    for name, value in last.items():
        torch.testing.assert_close(wide[name], value)
    torch.testing.assert_close(student.head.weight, teacher.head.weight)


def test_a_lift_leads_back_to_the_teachers_tokens() -> None:
    teacher = network(depth=2)
    spec = student_spec("lift-kept").model_copy(update={"args": {**STUDENT_ARGS, "embed_dim": 48, "num_heads": 4}})
    student: Any = seeded_model(spec, 8)
    inherited(teacher, student, "pca")
    lifted = logits_and_taps(student, images(8), (1,))[1][0]
    last = logits_and_taps(teacher, images(8), (1,))[1][0]
    normed = teacher.norm(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(lifted, normed, rtol=0, atol=2e-5)


def test_least_squares_come_nearer_to_the_teacher_than_cutting_alone() -> None:
    teacher = network()
    wanted = teacher(images(200)).softmax(1)
    error = {}
    for way in ("fitted", "pca", "channels"):
        student = network(STUDENT, seed=8, embed_dim=32)
        inherit(teacher, student, (images(200), images(200)), (SPEC, SPEC), way)
        error[way] = (student(images(200)).softmax(1) - wanted).square().mean().item()
    assert error["fitted"] < 0.7 * min(error["pca"], error["channels"])


@pytest.mark.parametrize("way", ["fitted", "important"])
def test_other_patches_grids_and_pixels(way: str) -> None:
    teacher, student = network(), network(seed=8)
    pixels = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    views = [
        (pixels - torch.tensor(spec.mean).view(1, 3, 1, 1)) / torch.tensor(spec.std).view(1, 3, 1, 1)
        for spec in (SPEC, IMAGENET)
    ]
    inherit(teacher, student, (views[0], views[1]), (SPEC, IMAGENET), way)
    torch.testing.assert_close(student(views[1]), teacher(views[0]), rtol=0, atol=2e-5)
    teacher, student = network(), network(STUDENT, seed=8, img_size=48, patch_size=16, embed_dim=24, num_heads=2)
    specs = SPEC, IMAGENET.model_copy(update={"size": 48})
    found = inherit(teacher, student, (images(), images(size=48)), specs, way)
    assert found.not_loaded == ()
    assert student.pos_embed.shape == (1, 10, 24)


def test_a_classifier_of_another_pooling_is_not_taken() -> None:
    student = network(seed=8, global_pool="avg")
    head = student.head.weight.clone()
    found = inherited(network(), student)
    assert torch.equal(student.head.weight, head)
    assert "head.weight: nothing of the teacher's stands for it" in found.not_loaded
    assert "the teacher's head: no place in the student" in found.not_loaded
    lift: Any = seeded_model(student_spec("lift-kept"), 8)
    head = lift.head.weight.clone()
    assert inherited(network(), lift, "fitted").words.endswith("corrected on 24 images")  # too few for 10 classes
    assert torch.equal(lift.head.weight, head)


@pytest.mark.parametrize("graph", ["plain", "lift-kept"])
@pytest.mark.parametrize("teacher_arch", [TEACHER, CAIT])
def test_a_classifier_that_reads_something_else_learns_from_the_teachers_answers(graph: str, teacher_arch: str) -> None:
    layer_scale = {"init_values": 0.5} if teacher_arch == CAIT else {}
    teacher = network(teacher_arch, classes=3, **layer_scale)
    spec = ModelSpec(
        arch=STUDENT, args={**TEACHER_ARGS, "global_pool": "avg"}, num_classes=3, graph=graph, lift_width=48
    )
    wanted = teacher(images(120)).argmax(1)
    right = {}
    for way in ("fitted", "pca"):
        student: Any = seeded_model(spec, 8)
        found = inherit(teacher, student, (images(120), images(120)), (SPEC, SPEC), way)
        assert ("head.weight" in found.loaded) == ("after the teacher's answers" in found.words) == (way == "fitted")
        right[way] = (student(images(120)).argmax(1) == wanted).float().mean().item()
    assert right["fitted"] > right["pca"] + 0.2


def test_the_teacher_is_left_as_it_was() -> None:
    teacher = network()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    inherited(teacher, network(STUDENT, seed=8, embed_dim=24, num_heads=3), "fitted")
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("count", "of", "wanted"), [(12, 12, tuple(range(12))), (3, 5, (0, 2, 4)), (2, 24, (0, 23)), (1, 4, (3,))]
)
def test_blocks_are_evenly_spaced(count: int, of: int, wanted: tuple[int, ...]) -> None:
    assert spaced(count, of) == wanted
