"""What a student takes from its teacher: all of it at equal size, and of the right shape where it is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_run import SPEC, STUDENT, STUDENT_ARGS, TEACHER, TEACHER_ARGS, seeded_model, student_spec
from torch import Tensor

from vitcompress.core.records import ModelSpec
from vitcompress.stages.models.build import logits_and_taps
from vitcompress.stages.models.inherit.inherit import Inherited, inherit

CAIT = "cait_s24_224"
IMAGENET = SPEC.model_copy(update={"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)})


def network(arch: str = TEACHER, seed: int = 7, classes: int = 10, **args: Any) -> Any:
    return seeded_model(ModelSpec(arch=arch, args={**TEACHER_ARGS, **args}, num_classes=classes), seed)


def images(count: int = 24, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def inherited(teacher: Any, student: Any, count: int = 24) -> Inherited:
    return inherit(teacher, student, (images(count), images(count)), (SPEC, SPEC))


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
def test_a_student_as_large_as_its_teacher_answers_as_it_does(args: dict[str, Any], own: dict[str, Any]) -> None:
    teacher, student = network(**args), network(seed=8, **{**args, **own})
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    found = inherited(teacher, student)
    wanted = teacher(images(8))
    assert not torch.allclose(network(seed=8, **args)(images(8)), wanted, atol=0.05)
    torch.testing.assert_close(student(images(8)), wanted, rtol=0, atol=2e-5)
    assert found.not_loaded == ()
    assert found.words == "the teacher's blocks 0, 1, 2: PCA directions, 48 of 48, corrected on 24 images"
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("graph", ["plain", "lift-kept", "widelast"])
@pytest.mark.parametrize("teacher_arch", [TEACHER, CAIT])
def test_every_tensor_is_taken_or_told(teacher_arch: str, graph: str) -> None:
    teacher = network(teacher_arch, depth=5, **({"init_values": 0.1} if teacher_arch == CAIT else {}))
    student = seeded_model(student_spec(graph), 8)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    found = inherited(teacher, student)
    after = student.state_dict()
    assert {name: value.shape for name, value in after.items()} == {name: v.shape for name, v in before.items()}
    assert all(torch.isfinite(value).all() for value in after.values())
    told = {line.partition(":")[0] for line in found.not_loaded}
    assert set(found.loaded) | told == set(after)
    assert not set(found.loaded) & told
    assert all(torch.equal(after[name], before[name]) for name in told)
    assert found.words.startswith("the teacher's blocks 0, 4: ")
    assert torch.isfinite(student(images(4))).all()


def test_a_lift_leads_back_to_the_teachers_tokens() -> None:
    teacher = network(depth=2)
    spec = student_spec("lift-kept").model_copy(update={"args": {**STUDENT_ARGS, "embed_dim": 48, "num_heads": 4}})
    student: Any = seeded_model(spec, 8)
    inherited(teacher, student)
    lifted = logits_and_taps(student, images(8), (1,))[1][0]
    last = logits_and_taps(teacher, images(8), (1,))[1][0]
    normed = teacher.norm(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(lifted, normed, rtol=0, atol=2e-5)


def test_a_narrower_student_answers_nearer_to_the_teacher_than_a_random_one() -> None:
    teacher = network()
    wanted = teacher(images(200)).softmax(1)
    student = network(STUDENT, seed=8, embed_dim=32)
    before = (student(images(200)).softmax(1) - wanted).square().mean()
    inherited(teacher, student, 200)
    assert (student(images(200)).softmax(1) - wanted).square().mean() < 0.3 * before


def test_other_patches_grids_and_pixels() -> None:
    teacher, student = network(), network(seed=8)
    pixels = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    views = [
        (pixels - torch.tensor(spec.mean).view(1, 3, 1, 1)) / torch.tensor(spec.std).view(1, 3, 1, 1)
        for spec in (SPEC, IMAGENET)
    ]
    inherit(teacher, student, (views[0], views[1]), (SPEC, IMAGENET))
    torch.testing.assert_close(student(views[1]), teacher(views[0]), rtol=0, atol=2e-5)
    teacher, student = network(), network(STUDENT, seed=8, img_size=48, patch_size=16, embed_dim=24, num_heads=2)
    specs = SPEC, IMAGENET.model_copy(update={"size": 48})
    assert inherit(teacher, student, (images(), images(size=48)), specs).not_loaded == ()
    assert student.pos_embed.shape == (1, 10, 24)


@pytest.mark.parametrize("graph", ["plain", "lift-kept"])
@pytest.mark.parametrize("teacher_arch", [TEACHER, CAIT])
def test_a_classifier_that_reads_something_else_learns_from_the_teachers_answers(graph: str, teacher_arch: str) -> None:
    layer_scale = {"init_values": 0.5} if teacher_arch == CAIT else {}
    teacher = network(teacher_arch, classes=3, **layer_scale)
    spec = ModelSpec(
        arch=STUDENT, args={**TEACHER_ARGS, "global_pool": "avg"}, num_classes=3, graph=graph, lift_width=48
    )
    few: Any = seeded_model(spec, 8)
    head = few.head.weight.clone()
    assert "head.weight: nothing of the teacher's stands for it" in inherited(teacher, few, 20).not_loaded
    assert torch.equal(few.head.weight, head)  # 24 images are the fewest for 3 classes
    student: Any = seeded_model(spec, 8)
    found = inherited(teacher, student, 120)
    assert "head.weight" in found.loaded
    assert "after the teacher's answers" in found.words
    right = [model(images(120)).argmax(1) == teacher(images(120)).argmax(1) for model in (student, few)]
    assert right[0].float().mean() > right[1].float().mean() + 0.2
