"""Train the student with the teacher's answers and taps."""

from __future__ import annotations

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.records import DistillRecord, ModelSpec
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.job import Inputs as Inputs
from vitcompress.stages.distill.job import Loaders, Networks, networks_and_loaders, student_job
from vitcompress.stages.models.snapshots import Snapshots
from vitcompress.stages.models.weights import all_finite, save_weights
from vitcompress.stages.training.callbacks.snapshots import KeepSnapshots
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.terms import first_and_last, shares


def run(config: DistillConfig, inputs: Inputs, context: Context) -> DistillRecord:
    """Train the student of the records and write its weights.

    Raises:
        UsageError: layers that do not exist, whose taps cannot be compared, or a cache or snapshot that has no room.
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request.
    """
    networks, loaders, cache = networks_and_loaders(config, inputs, context)
    return distil(config, networks, loaders, inputs.student.model, context).model_copy(update={"cache": cache})


def distil(
    config: DistillConfig, networks: Networks, loaders: Loaders, model: ModelSpec, context: Context
) -> DistillRecord:
    """Train these networks on these loaders, choose the better of raw and averaged weights, write them.

    Args:
        config: resolved.
        networks: the student is trained in place.
        loaders: of the student's preprocessing.
        model: what the student is called in the record.
        context: the run that weights, checkpoints, metrics and snapshots go to.

    Raises:
        UsageError: a snapshot has no room.
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request.
    """
    if config.keep_every == "auto" or config.epochs == "auto":
        raise ValueError("distill was not resolved")  # a mistake of ours: pipeline.config decides it
    snapshots = Snapshots(context.run.root, context.fingerprint, config.epochs, config.keep_every)
    job = student_job(config, networks, loaders, context)
    trained = train(job, config, config.epochs, context, [KeepSnapshots(snapshots.keep)])
    context.leave_to_main()
    progress = trained.progress
    first, last = shares(progress.first.get("losses", {})), shares(trained.losses)
    if len(last) > 1:
        context.say(f"terms of the loss, first -> last epoch: {first_and_last(first, last)}")
    chosen, state, _ = trained.chosen
    if not all_finite(state):
        raise ResultError("the trained student has weights that are not finite; lower distill.lr and run again.")
    weights = save_weights(state, context.run.root / "student" / "model.safetensors", context.run.root)
    if missing := snapshots.missing():
        epochs = ", ".join(map(str, missing))
        context.say(f"note: no snapshot on disk of epoch {epochs}: deleted, or asked for only later")
    return DistillRecord(
        model=model,
        weights=weights,
        chosen="ema" if chosen == "ema" else "raw",
        val_top1_raw=trained.top1_raw,
        val_top1_ema=trained.top1_ema,
        epochs=progress.epoch,
        steps=progress.steps,
        images=progress.images,
        left_over=trained.left_over,
        seconds=progress.seconds,
        losses=trained.losses,
        shares=last,
        first_shares=first,
        gradient_norms=progress.gradient_norms,
        first_gradient_norms=progress.first.get("gradient_norms", {}),
        scales=progress.scales,
        snapshots=snapshots.finish(),
        precision=progress.precision,
    )
