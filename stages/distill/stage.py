"""Train the student with the teacher's answers and taps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from core.context import Context
from core.errors import ResultError
from core.records import DataRecord, DistillRecord, StudentRecord, TeacherRecord
from stages.distill.config import DistillConfig
from stages.distill.losses import distillation_terms
from stages.distill.model import FrozenTeacher, TappedStudent, tap_shapes
from stages.distill.pairs import LayerPair, Shape, check_alignable, layer_pairs, student_layers, teacher_layers
from stages.images.loaders import eval_loader, mix_of, train_loader, train_views
from stages.images.sources import recorded_images
from stages.models.build import build_model
from stages.models.weights import all_finite, load_own, save_weights
from stages.training.device import make_accelerator
from stages.training.loop import Job, LossFunction, train


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord


def run(config: DistillConfig, inputs: Inputs, context: Context) -> DistillRecord:
    """Train, choose the better of raw and averaged weights on the held-out images, write them.

    Raises:
        UsageError: layers that do not exist, or whose taps cannot be compared.
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request.
    """
    pairs = layer_pairs(config, inputs.student.depth, inputs.teacher.depth)
    teacher = _frozen_teacher(config, pairs, inputs, context)
    job = _job(config, inputs, context, _tapped_student(pairs, inputs, context), partial(_loss, config, pairs, teacher))
    trained = train(job, config, config.epochs, context)
    context.leave_to_main()
    chosen, state, _ = trained.chosen
    if not all_finite(state):
        raise ResultError("the trained student has weights that are not finite; lower distill.lr and run again.")
    return DistillRecord(
        model=inputs.student.model,
        weights=save_weights(state, context.run.root / "student" / "model.safetensors", context.run.root),
        chosen="ema" if chosen == "ema" else "raw",
        val_top1_raw=trained.top1_raw,
        val_top1_ema=trained.top1_ema,
        epochs=trained.progress.epoch,
        steps=trained.progress.steps,
        seconds=trained.progress.seconds,
        losses=trained.losses,
    )


def _job(config: DistillConfig, inputs: Inputs, context: Context, student: TappedStudent, loss: LossFunction) -> Job:
    data_config, images = recorded_images(inputs.data)
    spec, augment = inputs.student.preprocess, data_config.augment
    return Job(
        name="student",
        model=student,
        network=_network,
        loss=loss,
        train=train_loader(
            train_views(images.train, augment, spec, context.seed),
            batch_size=int(config.batch_size) // config.accumulation,
            seed=context.seed,
            workers=context.workers,
            repeats=augment.repeats,
        ),
        val=eval_loader(images.val, spec, batch_size=int(config.batch_size), workers=context.workers),
        folder=context.run.root / "checkpoints" / "student",
        fingerprint=context.fingerprint,
        mix=mix_of(augment, len(images.classes), config.label_smoothing),
    )


def _network(student: Any) -> nn.Module:
    """The network inside a TappedStudent, or inside its average."""
    network: nn.Module = student.network
    return network


def _loss(
    config: DistillConfig,
    pairs: tuple[LayerPair, ...],
    teacher: FrozenTeacher | None,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *cached: Tensor,
) -> dict[str, Tensor]:
    """The terms of one batch.

    Args:
        config: weights and kinds.
        pairs: the comparisons in use.
        teacher: answers when nothing is cached; None when nothing is asked of it.
        student: a TappedStudent, as prepared for this device.
        images: ``[B, 3, S, S]``.
        labels: class indices int64 ``[B]``, or probabilities ``[B, K]``.
        cached: the teacher's logits (they may be missing when alpha is 0), then its taps in the order of
            ``teacher_layers(pairs)``, if they were kept.
    """
    logits, taps = student(images)
    layers = teacher_layers(pairs)
    teacher_logits: Tensor | None = None
    teacher_taps: list[Tensor] = []
    if cached:
        first_tap = len(cached) - len(layers)
        teacher_logits, teacher_taps = cached[0] if first_tap else None, list(cached[first_tap:])
    elif teacher is not None:
        teacher_logits, teacher_taps = teacher(images)
    by_layer = dict(zip(layers, teacher_taps, strict=True))
    compared = [(pair, tap, by_layer[pair.teacher]) for pair, tap in zip(pairs, taps, strict=True)]
    return distillation_terms(config, logits, teacher_logits, labels, compared)


def _tapped_student(pairs: tuple[LayerPair, ...], inputs: Inputs, context: Context) -> TappedStudent:
    """The student with its first weights, and its projectors with theirs from the seed."""
    network = load_own(build_model(inputs.student.model), inputs.student.weights, context.run.root)
    ours = _tap_shapes(inputs.student, student_layers(pairs))
    theirs = _tap_shapes(inputs.teacher, teacher_layers(pairs))
    for change in check_alignable(pairs, ours, theirs):
        context.say(change)
    widths = {pair: (ours[pair.student][1], theirs[pair.teacher][1]) for pair in pairs if pair.match == "projector"}
    set_seed(context.seed)
    return TappedStudent(network, pairs, widths)


def _tap_shapes(network: StudentRecord | TeacherRecord, layers: tuple[int, ...]) -> dict[int, Shape]:
    if not layers:
        return {}
    with torch.device("meta"):
        model = build_model(network.model)
    return tap_shapes(model, network.preprocess.size, layers)


def _frozen_teacher(
    config: DistillConfig, pairs: tuple[LayerPair, ...], inputs: Inputs, context: Context
) -> FrozenTeacher | None:
    """The teacher on its device; None when neither its answers nor its taps are asked for."""
    if config.alpha == 0 and not pairs:
        context.say("the student learns from the labels alone; the teacher is not run")
        return None
    own, student = inputs.teacher.preprocess, inputs.student.preprocess
    network = load_own(build_model(inputs.teacher.model), inputs.teacher.weights, context.run.root)
    teacher = FrozenTeacher(network, teacher_layers(pairs), own, student, logits=config.alpha > 0)
    changes = [
        text
        for changed, text in (
            (teacher.renormalises, f"re-normalised to mean {own.mean}, std {own.std}"),
            (teacher.resizes, f"resized from {student.size} to {own.size} pixels"),
        )
        if changed
    ]
    if changes:
        context.say(f"the teacher sees the student's images {' and '.join(changes)}")
    return teacher.to(make_accelerator(context.device).device)
