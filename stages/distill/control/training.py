"""The control's training: the distillation's own job without a teacher, kept apart from what it is compared with.

It depends on data, student and settings, and on the distillation through nothing but ``match: time``. So what it left
behind under ``RUN/control`` is used again when only the distillation's losses have changed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from accelerate.utils import broadcast_object_list
from pydantic import ValidationError

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.files import is_intact, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.record import FileRef, Record
from vitcompress.core.records import DistillRecord
from vitcompress.core.words import counted
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.control.config import ControlJob
from vitcompress.stages.distill.job import Inputs, distillation_job
from vitcompress.stages.models.weights import all_finite, save_weights
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.measure import measure_steps

Kept = TypeVar("Kept", bound="Remembered")
Value = TypeVar("Value")
_MEASURED_STEPS = 20
"""At most; the first is warm-up and comes on top."""


class Remembered(Record):
    """What is kept under ``RUN/control`` for a training of these settings."""

    settings: str
    """Its fingerprint."""


class Length(Remembered):
    """How long the control trains: decided once, for step times differ from measurement to measurement."""

    epochs: int
    why: str


class TrainedControl(Remembered):
    """A finished control."""

    weights: FileRef
    chosen: Literal["raw", "ema"]
    epochs: int
    epochs_why: str
    steps: int
    seconds: float


def trained_control(config: ControlJob, inputs: Inputs, distill: DistillRecord, context: Context) -> TrainedControl:
    """The control of these settings: as it was left behind, else trained, from its newest checkpoint or the start.

    Every process takes part.

    Raises:
        LeftToMain: this is not the main process, and training is done.
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request.
    """
    assert config.training is not None  # noqa: S101 - the stage has asked
    folder = context.run.root / "control"
    length = _length(config, inputs, distill, folder, context)
    training = config.training.model_copy(update={"epochs": length.epochs})
    settings = _settings(config, training, inputs, context)
    earlier = _same_in_all(_remembered(folder / "trained.json", TrainedControl, settings), context)
    if earlier is not None and _same_in_all(is_intact(earlier.weights, context.run.root), context):
        context.say("the control is reused: nothing that it was trained with has changed")
        return earlier
    context.say(f"training the student from the labels alone for {counted(length.epochs, 'epoch')}: {length.why}")
    trained = train(_job(training, inputs, settings, context), training, length.epochs, context)
    context.leave_to_main()
    chosen, state, _ = trained.chosen
    if not all_finite(state):
        raise ResultError("the control has weights that are not finite; lower distill.lr and run again.")
    found = TrainedControl(
        settings=settings,
        weights=save_weights(state, folder / "model.safetensors", context.run.root),
        chosen="ema" if chosen == "ema" else "raw",
        epochs=trained.progress.epoch,
        epochs_why=length.why,
        steps=trained.progress.steps,
        seconds=trained.progress.seconds,
    )
    write_atomic(folder / "trained.json", found.model_dump_json(indent=2) + "\n")
    return found


def _settings(config: ControlJob, training: DistillConfig, inputs: Inputs, context: Context) -> str:
    """The fingerprint of all that the training depends on."""
    return fingerprint("control", config.version, training, inputs.data, inputs.student, context.seed)


def _job(training: DistillConfig, inputs: Inputs, settings: str, context: Context) -> Job:
    """The distillation's job under a name, a folder and a fingerprint of its own."""
    job, _ = distillation_job(training, inputs, context)
    folder = context.run.root / "checkpoints" / "control"
    return replace(job, name="control", folder=folder, fingerprint=settings)


def _length(config: ControlJob, inputs: Inputs, distill: DistillRecord, folder: Path, context: Context) -> Length:
    """Its epochs, as they were decided before where the same is asked again."""
    assert config.training is not None  # noqa: S101 - the stage has asked
    if config.control.match == "steps":
        return Length(settings="", epochs=int(config.training.epochs), why="as many as with the teacher")
    settings = fingerprint(_settings(config, config.training, inputs, context), distill)
    path = folder / "length.json"
    known = _same_in_all(_remembered(path, Length, settings), context)
    if known is not None:
        return known
    found = _same_in_all(_measured(config.training, inputs, distill, settings, context), context)
    if context.rank == 0:
        write_atomic(path, found.model_dump_json(indent=2) + "\n")
    return found


def _measured(
    training: DistillConfig, inputs: Inputs, distill: DistillRecord, settings: str, context: Context
) -> Length:
    """As many epochs as fit into the seconds of the distillation, by a few steps that are thrown away."""
    job = _job(training, inputs, settings, context)
    batches = len(job.train)
    steps = min(_MEASURED_STEPS, batches - 1)
    if steps < 1:
        why = "as many as with the teacher, for an epoch of one batch is too short to be measured"
        return Length(settings=settings, epochs=distill.epochs, why=why)
    # No step takes longer for its learning rate, which may yet have to be found.
    rate = {"lr": 1e-4, "min_lr": 0.0, "warmup_epochs": 0.0}
    step = measure_steps(job, training.model_copy(update=rate), context, steps)
    seconds = batches * step.seconds
    return fitting_epochs(distill, seconds, counted(steps, "measured step"), settings)


def fitting_epochs(distill: DistillRecord, epoch_seconds: float, measured: str, settings: str = "") -> Length:
    """The epochs of ``epoch_seconds`` that the distillation's time holds; without a teacher it is no slower."""
    fitting = math.floor(distill.seconds / epoch_seconds)
    why = (
        f"the {distill.seconds:.3g} s of {counted(distill.epochs, 'epoch')} with the teacher hold "
        f"{fitting} of {epoch_seconds:.3g} s (by {measured})"
    )
    if fitting < distill.epochs:
        why += ", and it is given no fewer than those"
    return Length(settings=settings, epochs=max(fitting, distill.epochs), why=why)


def _remembered(path: Path, kind: type[Kept], settings: str) -> Kept | None:
    """What was kept for the same settings; None where nothing was, or it is damaged."""
    try:
        found = kind.model_validate_json(path.read_text())
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return found if found.settings == settings else None


def _same_in_all(value: Value, context: Context) -> Value:
    """The main process's value, in every process: clocks differ, and so may what is seen of a shared disk."""
    if make_accelerator(context.device).num_processes == 1:
        return value
    told: list[Any] = [value]
    broadcast_object_list(told)
    found: Value = told[0]
    return found
