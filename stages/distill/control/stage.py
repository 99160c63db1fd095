"""Train the student without the teacher, if asked to, and measure the gain by the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitcompress.core.context import Context
from vitcompress.core.records import ControlRecord, DataRecord, DistillRecord, StudentRecord, TeacherRecord
from vitcompress.stages.distill import job
from vitcompress.stages.distill.control.config import ControlJob
from vitcompress.stages.distill.control.gain import with_gain
from vitcompress.stages.distill.control.training import trained_control


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
    student = inputs.student
    start: Literal["", "random", "same"] = ""
    if student.random_weights is not None:
        start = "same" if config.control.start == "same" else "random"
    if start == "random":
        context.say("the control starts from random weights, since the student's are the teacher's")
        student = student.model_copy(update={"weights": student.random_weights})
    given = job.Inputs(inputs.data, inputs.teacher, student)
    control = trained_control(config, config.training, given, inputs.distill, context)
    context.leave_to_main()
    control = control.model_copy(update={"kind": config.control.kind, "match": config.control.match, "start": start})
    return with_gain(control, inputs.data, inputs.student, inputs.distill, context)
