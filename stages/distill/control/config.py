"""Settings of the control (torch-free)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from vitcompress.core.record import Record
from vitcompress.stages.distill.config import DistillConfig


class ControlConfig(Record):
    """Whether the student is trained once more without the teacher."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: Literal["none", "labels"] = "none"
    """labels: train the same student on the same images in the same order, with the labels alone, for as many epochs,
    and report what the teacher was worth in points; takes about as long again as the student. none: do not."""
    start: Literal["untaught", "same"] = "untaught"
    """Its first weights. untaught: the student's, or random ones where those are the teacher's, so that it has nothing
    of the teacher and the gain is all that the teacher was worth. same: the student's in any case, so that the gain is
    what the distillation's losses were worth."""
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Its peak learning rate. auto: distill.lr; where it starts from random weights and the student from the
    teacher's, the rate for random ones."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] | None = "auto"
    """Its decay by layer; auto: as for `lr`."""


class ControlJob(Record):
    """What the stage is given: the setting, and the training that it comes to."""

    control: ControlConfig
    training: DistillConfig | None
    """The distillation's settings less the teacher; None when no control is trained."""
    version: int
    """Of the distillation's code, by which the control is trained: another version trains it anew."""


def control_job(control: ControlConfig, distill: DistillConfig, version: int) -> ControlJob:
    """Return the job that ``control`` asks for; without a control, nothing of the distillation is in it."""
    training = None if control.kind == "none" else labels_alone(distill, control)
    return ControlJob(control=control, training=training, version=version)


def labels_alone(distill: DistillConfig, control: ControlConfig) -> DistillConfig:
    """Return the same training with cross-entropy alone, at the control's own rates and without snapshots."""
    alone: dict[str, Any] = {"alpha": 0.0, "features": (), "keep_every": None}
    if control.layer_decay != "auto":
        alone["layer_decay"] = control.layer_decay
    if control.lr not in ("auto", distill.lr):
        alone |= {"lr": control.lr, "min_lr": float(control.lr) / 100}
    return distill.model_copy(update=alone)
