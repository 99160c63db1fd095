"""The control's training: the distillation's own job without a teacher, kept apart from what it is compared with.

It depends on data, student and settings, and not on the distillation. So what it left behind under ``RUN/control`` is
used again when only the distillation's losses have changed.
"""

from __future__ import annotations

import json
from pathlib import Path

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.files import is_intact, write_atomic
from vitcompress.core.fingerprint import fingerprint
from vitcompress.core.records import ControlRecord
from vitcompress.core.words import counted
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.job import Inputs, networks_and_loaders, student_job
from vitcompress.stages.models.weights import all_finite, save_weights
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.processes import from_main


def trained_control(training: DistillConfig, inputs: Inputs, version: int, context: Context) -> ControlRecord:
    """Return the control of these settings, not yet compared: the kept one, or one trained now.

    Every process takes part.

    Args:
        training: the distillation's settings less the teacher.
        inputs: with the control's first weights.
        version: of the distillation's code.
        context: the run.

    Raises:
        LeftToMain: this is not the main process, and training is done.
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request.
    """
    folder, epochs = context.run.root / "control", int(training.epochs)
    settings = fingerprint("control", version, training, inputs.data, inputs.student, context.seed)
    kept = from_main(_kept(folder / "trained.json", settings, context.run.root))
    if kept is not None:
        context.say("the control is reused: nothing that it was trained with has changed")
        return kept
    context.say(f"training the student from the labels alone for {counted(epochs, 'epoch')}")
    networks, loaders, _ = networks_and_loaders(training, inputs, context)
    job = student_job(training, networks, loaders, context, "control", settings)
    trained = train(job, training, epochs, context)
    context.leave_to_main()
    chosen, state, _ = trained.chosen
    if not all_finite(state):
        raise ResultError("the control has weights that are not finite; lower distill.lr and run again.")
    found = ControlRecord(
        weights=save_weights(state, folder / "model.safetensors", context.run.root),
        chosen="ema" if chosen == "ema" else "raw",
        epochs=trained.progress.epoch,
        epochs_why="as many as with the teacher",
        steps=trained.progress.steps,
        seconds=trained.progress.seconds,
    )
    held = {"settings": settings, "found": found.model_dump(mode="json")}
    write_atomic(folder / "trained.json", json.dumps(held, indent=2) + "\n")
    return found


def _kept(path: Path, settings: str, root: Path) -> ControlRecord | None:
    """Return the control that was trained with the same settings; None if there is none, or it is damaged."""
    try:
        held = json.loads(path.read_text())
        found = ControlRecord.model_validate_json(json.dumps(held["found"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    good = held["settings"] == settings and found.weights is not None and is_intact(found.weights, root)
    return found if good else None
