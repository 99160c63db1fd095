"""Train the student without the teacher, if asked to, and measure the gain by the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitcompress.core.bits import packed
from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.kept import keep, kept
from vitcompress.core.records import ControlRecord, DataRecord, DistillRecord, StudentRecord, TeacherRecord
from vitcompress.core.words import counted
from vitcompress.stages.distill import job
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.control.config import ControlJob
from vitcompress.stages.images.held_out import held_out_batches
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.judging.accuracy import correct
from vitcompress.stages.judging.tasks import gain, training_score
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import all_finite, load_own, save_weights
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.processes import from_main

_BATCH = 32


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord


def run(config: ControlJob, inputs: Inputs, context: Context) -> ControlRecord:
    """Train, or take what the same training left behind; then ask both students the held-out images.

    Raises ResultError and RunInterrupted as ``train`` does, and ResultError for a trained weight that is not finite.
    """
    if config.training is None:
        return ControlRecord()
    student, start = inputs.student, ""
    if student.random_weights is not None:
        start = "same" if config.control.start == "same" else "random"
    if start == "random":
        context.say("the control starts from random weights, since the student's come from a teacher")
        student = student.model_copy(update={"weights": student.random_weights})
    given = job.Inputs(inputs.data, inputs.teacher, student)
    control = trained_control(config.training, given, config.version, context)
    context.leave_to_main()
    return with_gain(control.model_copy(update={"kind": config.control.kind, "start": start}), inputs, context)


def trained_control(training: DistillConfig, inputs: job.Inputs, version: int, context: Context) -> ControlRecord:
    """Return the control of these settings, not yet compared: the kept one, or one trained now.

    It does not depend on the distillation: what it left behind under ``RUN/control`` is used again when only the losses
    have changed. Every process takes part. ``inputs`` has the control's first weights; ``version``: see ControlJob.
    """
    folder, epochs = context.run.root / "control", int(training.epochs)
    settings = fingerprint("control", version, training, inputs.data, inputs.student, context.seed)
    before = from_main(kept(ControlRecord, folder / "trained.json", settings, context.run.root))
    if before is not None and before.weights is not None:
        context.say("the control is reused: nothing that it was trained with has changed")
        return before
    context.say(f"training the student from the labels alone for {counted(epochs, 'epoch')}")
    networks, loaders, _ = job.networks_and_loaders(training, inputs, context)
    alone = job.student_job(training, networks, loaders, context, "control", settings, inputs.data.task)
    trained = train(alone, training, epochs, context)
    context.leave_to_main()
    chosen, state, _ = trained.chosen
    if not all_finite(state):
        raise ResultError("the control has weights that are not finite; lower distill.lr and run again.")
    found = ControlRecord(
        weights=save_weights(state, folder / "model.safetensors", context.run.root),
        chosen="ema" if chosen == "ema" else "raw",
        epochs=trained.progress.epoch,
        steps=trained.progress.steps,
        seconds=trained.progress.seconds,
    )
    keep(folder / "trained.json", settings, found)
    return found


def with_gain(control: ControlRecord, inputs: Inputs, context: Context) -> ControlRecord:
    """Return ``control`` with its answers and the gain of the distilled student, both in float32.

    The gain is the distilled student's score less the control's, with the paired interval that the drop against the
    teacher has (``stages.judging.tasks.gain``).
    """
    assert control.weights is not None  # noqa: S101 - it was trained
    device, spec = make_accelerator(context.device).device, inputs.student.preprocess
    networks = [
        load_own(build_model(inputs.student.model), weights, context.run.root).eval().to(device)
        for weights in (inputs.distill.weights, control.weights)
    ]
    outputs: list[list[NDArray[np.float32]]] = [[], []]
    labels: list[NDArray[Any]] = []
    task, split = inputs.data.task, recorded_images(inputs.data)[1].val
    with torch.inference_mode():
        for batch in held_out_batches(split, [spec], batch_size=_BATCH, workers=context.workers):
            images = torch.from_numpy(batch.inputs[spec]).to(device)
            labels.append(batch.labels)
            for network, found in zip(networks, outputs, strict=True):
                found.append(network(images).float().cpu().numpy())
    (distilled, alone), every = (np.concatenate(found) for found in outputs), np.concatenate(labels)
    (points, low, high, _), score = gain(task, distilled, alone, every), training_score(task)
    by_image = {"right": alone, "distilled_right": distilled} if task == "classification" else {}
    return control.model_copy(
        update={
            "images": len(every),
            "val_top1": score(alone, every),
            "distilled_top1": score(distilled, every),
            "gain": points,
            "gain_low": low,
            "gain_high": high,
            **{name: packed(correct(own, every)) for name, own in by_image.items()},
        }
    )
