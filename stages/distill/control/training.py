"""The control's training: the distillation's own job without a teacher, kept apart from what it is compared with.

It depends on data, student and settings, and on the distillation through nothing but ``match: time``. So what it left
behind under ``RUN/control`` is used again when only the distillation's losses have changed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.files import is_intact, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.records import ControlRecord, DistillRecord
from vitcompress.core.words import counted
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.control.config import ControlJob
from vitcompress.stages.distill.job import Inputs, networks_and_loaders, student_job
from vitcompress.stages.models.weights import all_finite, save_weights
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.measure import measure_steps
from vitcompress.stages.training.processes import from_main

_MEASURED_STEPS = 20
"""At most; the first is warm-up and comes on top."""


def trained_control(
    config: ControlJob, training: DistillConfig, inputs: Inputs, distill: DistillRecord, context: Context
) -> ControlRecord:
    """Return the control of these settings, not yet compared: the kept one, or one trained now.

    Every process takes part.

    Raises:
        LeftToMain: this is not the main process, and training is done.
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request.
    """
    folder = context.run.root / "control"
    epochs, why = _length(config, training, inputs, distill, folder, context)
    training = training.model_copy(update={"epochs": epochs})
    settings = _settings(config, training, inputs, context)
    kept = from_main(_kept(folder / "trained.json", settings))
    if kept is not None and kept.weights is not None and from_main(is_intact(kept.weights, context.run.root)):
        context.say("the control is reused: nothing that it was trained with has changed")
        return kept
    context.say(f"training the student from the labels alone for {counted(epochs, 'epoch')}: {why}")
    trained = train(_job(training, inputs, settings, context), training, epochs, context)
    context.leave_to_main()
    chosen, state, _ = trained.chosen
    if not all_finite(state):
        raise ResultError("the control has weights that are not finite; lower distill.lr and run again.")
    found = ControlRecord(
        weights=save_weights(state, folder / "model.safetensors", context.run.root),
        chosen="ema" if chosen == "ema" else "raw",
        epochs=trained.progress.epoch,
        epochs_why=why,
        steps=trained.progress.steps,
        seconds=trained.progress.seconds,
    )
    _keep(folder / "trained.json", settings, found)
    return found


def _settings(config: ControlJob, training: DistillConfig, inputs: Inputs, context: Context) -> str:
    """Return the fingerprint of all that the training depends on."""
    return fingerprint("control", config.version, training, inputs.data, inputs.student, context.seed)


def _job(training: DistillConfig, inputs: Inputs, settings: str, context: Context) -> Job:
    """Return the distillation's job under a name, a folder and a fingerprint of its own."""
    networks, loaders, _ = networks_and_loaders(training, inputs, context)
    return student_job(training, networks, loaders, context, "control", settings)


def _length(
    config: ControlJob, training: DistillConfig, inputs: Inputs, distill: DistillRecord, folder: Path, context: Context
) -> tuple[int, str]:
    """Return its epochs and why; of measured ones what was decided first, for step times differ each time."""
    if config.control.match == "steps":
        return int(training.epochs), "as many as with the teacher"
    own = _settings(config, training, inputs, context)
    settings, path = fingerprint(own, distill), folder / "length.json"
    kept = from_main(_kept(path, settings))
    if kept is not None:
        return kept.epochs, kept.epochs_why
    epochs, why = from_main(_measured(_job(training, inputs, own, context), training, distill, context))
    if context.rank == 0:
        _keep(path, settings, ControlRecord(epochs=epochs, epochs_why=why))
    return epochs, why


def _measured(job: Job, training: DistillConfig, distill: DistillRecord, context: Context) -> tuple[int, str]:
    """Return as many epochs as fit into the seconds of the distillation, by a few measured steps."""
    batches = len(job.train)
    steps = min(_MEASURED_STEPS, batches - 1)
    if steps < 1:
        return distill.epochs, "as many as with the teacher, for an epoch of one batch is too short to be measured"
    # No step takes longer for its learning rate, which may yet have to be found.
    rate = {"lr": 1e-4, "min_lr": 0.0, "warmup_epochs": 0.0}
    step = measure_steps(job, training.model_copy(update=rate), context, steps)
    return fitting_epochs(distill, batches * step.seconds, counted(steps, "measured step"))


def fitting_epochs(distill: DistillRecord, epoch_seconds: float, measured: str) -> tuple[int, str]:
    """Return how many epochs of ``epoch_seconds`` the distillation's time holds, but no fewer than it had, and why."""
    fitting = math.floor(distill.seconds / epoch_seconds)
    why = (
        f"the {distill.seconds:.3g} s of {counted(distill.epochs, 'epoch')} with the teacher hold "
        f"{fitting} of {epoch_seconds:.3g} s (by {measured})"
    )
    if fitting < distill.epochs:
        why += ", and it is given no fewer than those"
    return max(fitting, distill.epochs), why


def _keep(path: Path, settings: str, found: ControlRecord) -> None:
    write_atomic(path, json.dumps({"settings": settings, "found": found.model_dump(mode="json")}, indent=2) + "\n")


def _kept(path: Path, settings: str) -> ControlRecord | None:
    """Return what was kept for the same settings; None if nothing was, or it is damaged."""
    try:
        held = json.loads(path.read_text())
        return ControlRecord.model_validate_json(json.dumps(held["found"])) if held["settings"] == settings else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
