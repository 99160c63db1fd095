from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from distill_run import config, given
from PIL import Image
from safetensors.torch import load_file
from small_run import (
    SPEC,
    data_record,
    said,
    seeded_model,
    student_record,
    student_spec,
    teacher_record,
)

from vitcompress.core.files import is_intact
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import ModelSpec
from vitcompress.stages.distill import job as distill_job
from vitcompress.stages.distill import stage
from vitcompress.stages.distill.config import DistillConfig, FeatureTerm
from vitcompress.stages.distill.model import AdaptedTeacher, FrozenTeacher, TappedStudent, tap_shapes
from vitcompress.stages.distill.pairs import layer_pairs, student_layers, teacher_layers
from vitcompress.stages.distill.stage import Inputs
from vitcompress.stages.models.build import logits_and_taps
from vitcompress.stages.training.labels import LabelLoss
from vitcompress.stages.training.loop import train

IMAGENET = PreprocessSpec(size=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def smooth_image(size: int) -> Image.Image:
    y, x = np.mgrid[0:size, 0:size] / size * 2 * np.pi
    pixels = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 90 + 128
    return Image.fromarray(pixels.astype(np.uint8))


def teacher_network(**args) -> torch.nn.Module:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, **args}
    return seeded_model(ModelSpec(arch="vit_tiny_patch16_224", args=arguments, num_classes=10))


def frozen(*arguments: Any, **named: Any) -> FrozenTeacher:
    return FrozenTeacher(AdaptedTeacher(*arguments, **named))


@pytest.mark.parametrize("size", [32, 48])
def test_the_teacher_sees_its_own_normalisation_and_size(size: int) -> None:
    own = PreprocessSpec(size=size, mean=IMAGENET.mean, std=IMAGENET.std)
    teacher = frozen(teacher_network(img_size=size), (0,), own=own, student=SPEC)
    image = smooth_image(32)
    images = torch.from_numpy(SPEC.apply(image))[None]
    adapted = teacher.teacher.adapted(images)[0].numpy()
    assert (teacher.teacher.renormalises, teacher.teacher.resizes) == (True, size != 32)
    # Pillow rounds the resized pixels to whole levels, torch does not: within one level of 255 of each other.
    np.testing.assert_allclose(adapted, own.apply(image), atol=1e-5 if size == 32 else 1 / 255 / 0.224)
    logits, taps = teacher(images)
    assert (logits.shape, taps[0].shape) == ((1, 10), (1, 48, size // 8, size // 8))
    same = frozen(teacher_network(), (), own=SPEC, student=SPEC).teacher
    assert same.adapted(images) is images


def test_the_teacher_is_frozen_in_eval_mode_and_gives_tensors_that_losses_can_use() -> None:
    network = teacher_network(drop_rate=0.5).train()
    teacher = frozen(network, (0, 2), own=IMAGENET, student=SPEC)
    images = torch.randn(2, 3, 32, 32)
    logits, taps = teacher(images)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(tensor.is_inference() or tensor.requires_grad for tensor in (logits, *taps))
    wanted, wanted_taps = logits_and_taps(network, teacher.teacher.adapted(images), (0, 2))
    torch.testing.assert_close(logits, wanted)
    torch.testing.assert_close(taps, wanted_taps)
    assert torch.equal(teacher(images)[0], logits)  # no dropout


def test_a_teacher_asked_for_taps_alone_stops_after_the_last_of_them() -> None:
    network: Any = teacher_network()
    teacher = frozen(network, (0, 1), own=IMAGENET, student=SPEC, logits=False)
    images = torch.randn(2, 3, 32, 32)
    _, wanted = logits_and_taps(network, teacher.teacher.adapted(images), (0, 1))
    ran: list[int] = []
    for number, block in enumerate(network.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    logits, taps = teacher(images)
    assert logits is None
    torch.testing.assert_close(taps, wanted)
    assert ran == [0, 1]


def features(*terms: dict[str, Any], **settings: Any) -> DistillConfig:
    return config(features=tuple(FeatureTerm(**term) for term in terms), **settings)


def tapped(settings: DistillConfig, network: torch.nn.Module, teacher: torch.nn.Module) -> TappedStudent:
    """The student of 2 layers with projectors to the teacher of 3."""
    pairs = layer_pairs(settings, 2, 3)
    ours, theirs = tap_shapes(network, 32, student_layers(pairs)), tap_shapes(teacher, 32, teacher_layers(pairs))
    torch.manual_seed(0)
    return TappedStudent(
        network,
        pairs,
        {pair: (ours[pair.student][1], theirs[pair.teacher][1]) for pair in pairs if pair.match == "projector"},
    )


PROJECTED = {"kind": "mse", "pairs": ((0, 0), (1, 2)), "match": "projector"}


@pytest.mark.parametrize("strategy", ["plain", "lift-kept", "widelast"])
def test_student_and_projectors_learn_and_the_teacher_does_not(strategy: str) -> None:
    settings, network = features({"pairs": ((0, 1),)}, PROJECTED, alpha=0.5), teacher_network()
    student = tapped(settings, seeded_model(student_spec(strategy)).train(), network)
    teacher = frozen(network, teacher_layers(student.pairs), own=SPEC, student=SPEC)
    terms = distill_job._loss(
        settings, LabelLoss(), student.pairs, teacher, student, torch.randn(4, 3, 32, 32), torch.arange(4)
    )
    torch.stack(list(terms.values())).sum().backward()
    assert len(student.projectors) == 2
    silent = [name for name, own in student.named_parameters() if own.grad is None or not bool((own.grad != 0).any())]
    assert silent == []
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.teacher.network.training


def test_a_student_is_trained_and_written(digits_folder, context) -> None:
    data, student = data_record(str(digits_folder), context), student_record(context, "widelast")
    teacher = teacher_record(context, preprocess=IMAGENET)
    before = load_file(context.run.root / teacher.weights.path)
    config = features(
        {"pairs": ((0, 0), (1, 2))},
        batch_size=20,
        warmup_epochs=0.5,
        alpha=0.5,
        ema_decay=0.9,
    )
    record = stage.run(config, Inputs(data=data, teacher=teacher, student=student), context)
    assert (record.epochs, record.steps) == (2, 8)
    assert record.model == student.model
    assert set(record.losses) == {"labels", "soft_logits", "spectral 0<-0", "spectral 1<-2"}
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
    assert "the teacher sees the student's images at 32 pixels, mean (0.485, 0.456, 0.406)" in said(context)


def test_a_projector_trains_along_and_is_dropped(digits_folder, context, monkeypatch) -> None:
    inputs, modules = given(context, digits_folder, "plain"), []

    def spied(job: Any, *rest: Any) -> Any:
        before = job.model.projectors["mse_0_0"].linear.weight.detach().clone()
        modules.append((job.model, before))
        return train(job, *rest)

    monkeypatch.setattr(stage, "train", spied)
    record = stage.run(features(PROJECTED, epochs=1), inputs, context)
    trained, before = modules[0]
    assert not torch.equal(trained.projectors["mse_0_0"].linear.weight, before)
    assert {"mse 0<-0 (projector)", "mse 1<-2 (projector)"} < set(record.losses)
    written, initial = (load_file(context.run.root / ref.path) for ref in (record.weights, inputs.student.weights))
    assert written.keys() == initial.keys()


def test_a_student_alone_needs_no_teacher_at_all(inputs, context, monkeypatch) -> None:
    built = []
    build = distill_job.build_model
    monkeypatch.setattr(distill_job, "build_model", lambda spec: built.append(spec.arch) or build(spec))
    (context.run.root / inputs.teacher.weights.path).unlink()
    record = stage.run(features(alpha=0.0, epochs=1), inputs, context)
    assert set(record.losses) == {"labels"}
    assert set(built) == {inputs.student.model.arch}
    assert inputs.teacher.model.arch != inputs.student.model.arch
    assert "the teacher is not run" in said(context)
