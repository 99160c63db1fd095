"""Train the student without the teacher, if asked to, and measure the gain by the teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vitcompress.core.bits import packed
from vitcompress.core.context import Context
from vitcompress.core.records import ControlRecord, DataRecord, DistillRecord, StudentRecord, TeacherRecord
from vitcompress.stages.distill import job
from vitcompress.stages.distill.control.config import ControlJob
from vitcompress.stages.distill.control.training import trained_control
from vitcompress.stages.images.held_out import held_out_batches
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own
from vitcompress.stages.training.accuracy import paired_drop
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.evaluate import correct

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

    Raises:
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request.
    """
    if config.training is None:
        return ControlRecord()
    student, start = inputs.student, ""
    if student.random_weights is not None:
        start = "same" if config.control.start == "same" else "random"
    if start == "random":
        context.say("the control starts from random weights, since the student's are the teacher's")
        student = student.model_copy(update={"weights": student.random_weights})
    given = job.Inputs(inputs.data, inputs.teacher, student)
    control = trained_control(config.training, given, config.version, context)
    context.leave_to_main()
    return with_gain(control.model_copy(update={"kind": config.control.kind, "start": start}), inputs, context)


def with_gain(control: ControlRecord, inputs: Inputs, context: Context) -> ControlRecord:
    """Return ``control`` with its answers and the gain of the distilled student, both in float32.

    The gain is the distilled student's top-1 less the control's, with the paired interval of Bonett & Price (2012)
    that the drop against the teacher has (``stages.training.accuracy``).
    """
    assert control.weights is not None  # noqa: S101 - it was trained
    device, spec = make_accelerator(context.device).device, inputs.student.preprocess
    networks = [
        load_own(build_model(inputs.student.model), weights, context.run.root).eval().to(device)
        for weights in (inputs.distill.weights, control.weights)
    ]
    right: list[list[NDArray[np.bool_]]] = [[], []]
    split = recorded_images(inputs.data)[1].val
    with torch.inference_mode():
        for batch in held_out_batches(split, [spec], batch_size=_BATCH, workers=context.workers):
            images = batch.inputs[spec].to(device)
            for network, found in zip(networks, right, strict=True):
                found.append(correct(network(images).float().cpu().numpy(), batch.labels))
    distilled, alone = (np.concatenate(found) for found in right)
    gain, low, high = paired_drop(distilled, alone)
    return control.model_copy(
        update={
            "images": int(alone.size),
            "val_top1": float(100 * alone.mean()),
            "distilled_top1": float(100 * distilled.mean()),
            "gain": gain,
            "gain_low": low,
            "gain_high": high,
            "right": packed(alone),
            "distilled_right": packed(distilled),
        }
    )
