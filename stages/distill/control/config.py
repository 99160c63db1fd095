"""Settings of the control (torch-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from core.record import Record
from stages.distill.config import DistillConfig


class ControlConfig(Record):
    """Whether the student is trained once more without the teacher, and for how long."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: Literal["none", "labels"] = "none"
    """labels: train the same student from the same first weights on the same images in the same order, with the labels
    alone, and report what the teacher was worth in points; takes about as long again as the student. none: do not."""
    match: Literal["steps", "time"] = "steps"
    """How long it trains. steps: for the distillation's epochs. time: for as many epochs, but no fewer than those, as
    fit into the seconds that the distillation's steps took (a teacher cache's filling left out), by measured steps."""


class ControlJob(Record):
    """What the stage is given: the setting, and the training that it comes to."""

    control: ControlConfig
    training: DistillConfig | None
    """The distillation's settings less the teacher; None when no control is trained."""
    version: int
    """Of the distillation's code, by which the control is trained: another version trains it anew."""


def control_job(control: ControlConfig, distill: DistillConfig, version: int) -> ControlJob:
    """The job that ``control`` asks for beside this distillation; without one, nothing of the latter is in it."""
    training = None if control.kind == "none" else labels_alone(distill)
    return ControlJob(control=control, training=training, version=version)


def labels_alone(distill: DistillConfig) -> DistillConfig:
    """The same training with cross-entropy alone; no snapshots are kept of it."""
    return distill.model_copy(update={"alpha": 0.0, "features": (), "keep_every": None})
