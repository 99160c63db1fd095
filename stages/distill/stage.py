"""Train the student with the teacher's answers and taps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from core.context import Context
from core.errors import ResultError, UsageError
from core.records import DataRecord, DistillRecord, StudentRecord, TeacherRecord
from stages.distill.config import DistillConfig
from stages.distill.losses import distillation_terms
from stages.distill.model import FrozenTeacher, TappedStudent
from stages.images.loaders import eval_loader, mix_of, train_loader, train_views
from stages.images.sources import recorded_images
from stages.models.build import build_model
from stages.models.weights import all_finite, load_own, save_weights
from stages.training.device import make_accelerator
from stages.training.loop import Job, train


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord


def layer_pairs(config: DistillConfig, student_depth: int, teacher_depth: int) -> tuple[tuple[int, int], ...]:
    """The pairs as non-negative indices; none when the feature loss has no weight.

    Raises:
        UsageError: a layer that a network does not have, with the range it has.
    """
    if config.feature == "none" or config.beta * config.feature_weight == 0:
        return ()
    pairs = ((-1, -1),) if config.pairs == "last" else config.pairs
    resolved = []
    for student, teacher in pairs:
        for who, layer, depth in (("student", student, student_depth), ("teacher", teacher, teacher_depth)):
            if not -depth <= layer < depth:
                raise UsageError(
                    f"distill.pairs has {who} layer {layer}; the {who} has {depth} layers, "
                    f"0 to {depth - 1} (or -{depth} to -1 from the end)."
                )
        resolved.append((student % student_depth, teacher % teacher_depth))
    if not resolved:
        raise UsageError("distill.pairs is empty; give [student layer, teacher layer] pairs, or feature: none.")
    return tuple(resolved)


def run(config: DistillConfig, inputs: Inputs, context: Context) -> DistillRecord:
    """Train, choose the better of raw and averaged weights on the held-out images, write them.

    Raises:
        UsageError: layer pairs out of range.
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request.
    """
    pairs = layer_pairs(config, inputs.student.depth, inputs.teacher.depth)
    teacher = _frozen_teacher(inputs, tuple(pair[1] for pair in pairs), context)
    network = load_own(build_model(inputs.student.model), inputs.student.weights, context.run.root)
    job = _job(config, inputs, context, TappedStudent(network, tuple(pair[0] for pair in pairs)), teacher)
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


def _job(
    config: DistillConfig, inputs: Inputs, context: Context, student: TappedStudent, teacher: FrozenTeacher
) -> Job:
    data_config, images = recorded_images(inputs.data)
    spec, augment = inputs.student.preprocess, data_config.augment
    return Job(
        name="student",
        model=student,
        network=_network,
        loss=partial(_loss, config, teacher),
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
    config: DistillConfig, teacher: FrozenTeacher, student: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    terms: dict[str, Tensor] = distillation_terms(config, student(images), teacher(images), labels)
    return terms


def _frozen_teacher(inputs: Inputs, indices: tuple[int, ...], context: Context) -> FrozenTeacher:
    own, student = inputs.teacher.preprocess, inputs.student.preprocess
    network = load_own(build_model(inputs.teacher.model), inputs.teacher.weights, context.run.root)
    teacher = FrozenTeacher(network, indices, own, student)
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
