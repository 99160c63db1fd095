from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_run import HALF, SPEC, data_record, seeded_model, student_record, student_spec, teacher_record

from core.errors import UsageError
from core.files import is_intact
from core.preprocess import PreprocessSpec
from core.records import ModelSpec
from stages.distill import stage
from stages.distill.config import DistillConfig
from stages.distill.model import FrozenTeacher, TappedStudent
from stages.distill.stage import Inputs, layer_pairs
from stages.models.build import logits_and_taps

IMAGENET = PreprocessSpec(size=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def smooth_image(size: int) -> Image.Image:
    y, x = np.mgrid[0:size, 0:size] / size * 2 * np.pi
    pixels = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 90 + 128
    return Image.fromarray(pixels.astype(np.uint8))


def teacher_network(**args) -> torch.nn.Module:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, **args}
    return seeded_model(ModelSpec(arch="vit_tiny_patch16_224", args=arguments, num_classes=10))


def test_the_teacher_sees_its_own_normalisation() -> None:
    teacher = FrozenTeacher(teacher_network(), (0,), own=IMAGENET, student=SPEC)
    image = smooth_image(32)
    adapted = teacher.adapted(torch.from_numpy(SPEC.apply(image))[None])[0].numpy()
    assert (teacher.renormalises, teacher.resizes) == (True, False)
    np.testing.assert_allclose(adapted, IMAGENET.apply(image), atol=1e-5)


@pytest.mark.parametrize("size", [48, 24])
def test_the_teacher_sees_its_own_size(size: int) -> None:
    own = PreprocessSpec(size=size, mean=IMAGENET.mean, std=IMAGENET.std)
    teacher = FrozenTeacher(teacher_network(img_size=size), (0,), own=own, student=SPEC)
    image = smooth_image(32)
    adapted = teacher.adapted(torch.from_numpy(SPEC.apply(image))[None])[0].numpy()
    assert adapted.shape == (3, size, size)
    # Pillow rounds the resized pixels to whole levels, torch does not: within one level of 255 of each other.
    np.testing.assert_allclose(adapted, own.apply(image), atol=1 / 255 / 0.224)
    logits, taps = teacher(torch.from_numpy(SPEC.apply(image))[None])
    assert logits.shape == (1, 10)
    assert taps[0].shape == (1, 48, size // 8, size // 8)


def test_the_teacher_is_handed_the_images_as_they_are_when_nothing_differs() -> None:
    teacher = FrozenTeacher(teacher_network(), (), own=SPEC, student=SPEC)
    images = torch.randn(2, 3, 32, 32)
    assert teacher.adapted(images) is images


def test_the_teacher_is_frozen_in_eval_mode_and_gives_tensors_that_losses_can_use() -> None:
    network = teacher_network(drop_rate=0.5).train()
    teacher = FrozenTeacher(network, (2, 0), own=IMAGENET, student=SPEC)
    images = torch.randn(2, 3, 32, 32)
    logits, taps = teacher(images)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(tensor.is_inference() or tensor.requires_grad for tensor in (logits, *taps))
    wanted, wanted_taps = logits_and_taps(network, teacher.adapted(images), (2, 0))
    torch.testing.assert_close(logits, wanted)
    torch.testing.assert_close(taps, wanted_taps)
    assert torch.equal(teacher(images)[0], logits)  # no dropout


def test_only_the_student_learns() -> None:
    student = TappedStudent(seeded_model(student_spec("lift-kept")).train(), (1,))
    teacher = FrozenTeacher(teacher_network(), (2,), own=SPEC, student=SPEC)
    terms = stage._loss(DistillConfig(alpha=0.5), teacher, student, torch.randn(4, 3, 32, 32), torch.arange(4))
    torch.stack(list(terms.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.network.training


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [("last", ((1, 2),)), (((0, 0), (-1, -1)), ((0, 0), (1, 2))), (((1, 1), (0, -3)), ((1, 1), (0, 0)))],
)
def test_layers_count_from_either_end(pairs, wanted) -> None:
    assert layer_pairs(DistillConfig(pairs=pairs), 2, 3) == wanted


@pytest.mark.parametrize("changes", [{"feature": "none"}, {"beta": 0.0}, {"feature_weight": 0.0}])
def test_no_pairs_without_a_feature_loss(changes) -> None:
    assert layer_pairs(DistillConfig(pairs=((99, 99),), **changes), 2, 3) == ()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (((2, 0),), r"student layer 2; the student has 2 layers, 0 to 1 \(or -2 to -1 from the end\)"),
        (((0, 3),), "teacher layer 3; the teacher has 3 layers, 0 to 2"),
        (((0, -4),), "teacher layer -4"),
        ((), "distill.pairs is empty"),
    ],
)
def test_layers_that_do_not_exist_are_refused(pairs, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        layer_pairs(DistillConfig(pairs=pairs), 2, 3)


@pytest.mark.parametrize("strategy", ["plain", "lift", "widelast"])
def test_a_student_is_trained_and_written(strategy: str, digits_folder, context) -> None:
    data, student = data_record(str(digits_folder), context), student_record(context, strategy)
    teacher = teacher_record(context, preprocess=IMAGENET)
    before = load_file(context.run.root / teacher.weights.path)
    config = DistillConfig(
        epochs=2, batch_size=20, lr=1e-3, warmup_epochs=0.5, pairs=((0, 0), (1, 2)), alpha=0.5, ema_decay=0.9
    )
    record = stage.run(config, Inputs(data=data, teacher=teacher, student=student), context)
    assert (record.epochs, record.steps) == (2, 8)
    assert record.model == student.model
    assert set(record.losses) == {"labels", "soft_logits", "spectral_features"}
    assert all(np.isfinite(value) and value > 0 for value in record.losses.values())
    assert record.val_top1_ema is not None
    assert record.chosen == ("ema" if record.val_top1_ema >= record.val_top1_raw else "raw")
    assert is_intact(record.weights, context.run.root)
    trained, initial = (load_file(context.run.root / ref.path) for ref in (record.weights, student.weights))
    assert trained.keys() == initial.keys()
    changed = [name for name in trained if not torch.equal(trained[name], initial[name])]
    assert len(changed) == len(trained)
    after = load_file(context.run.root / teacher.weights.path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    said = context.console.file
    assert isinstance(said, io.StringIO)
    assert "the teacher sees the student's images re-normalised to mean (0.485, 0.456, 0.406)" in said.getvalue()


def test_the_same_seed_gives_the_same_student_and_another_seed_another(digits_folder, context) -> None:
    from dataclasses import replace

    data, student, teacher = (
        data_record(str(digits_folder), context),
        student_record(context),
        teacher_record(context),
    )
    config = DistillConfig(epochs=1, batch_size=40, lr=1e-3, warmup_epochs=0.0, ema_decay=None)
    inputs = Inputs(data=data, teacher=teacher, student=student)
    hashes = [
        stage.run(config, inputs, replace(context, seed=seed, fingerprint=str(n))).weights.sha256
        for n, seed in enumerate((0, 0, 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    assert teacher.preprocess.mean == HALF
