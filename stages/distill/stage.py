"""Train the student with the teacher's answers and taps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.records import DistillRecord, FileRef, KeptWeights, ModelSpec, Task, WhichWeights
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.job import Inputs as Inputs
from vitcompress.stages.distill.job import Loaders, Networks, networks_and_loaders, student_job
from vitcompress.stages.models.snapshots import Snapshots
from vitcompress.stages.models.weights import all_finite, save_weights
from vitcompress.stages.training.callbacks.best import BestWeights, HighestWeights
from vitcompress.stages.training.callbacks.callback import Callback
from vitcompress.stages.training.callbacks.early import EarlyStop
from vitcompress.stages.training.callbacks.snapshots import KeepSnapshots
from vitcompress.stages.training.job import Trained
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.terms import shares


def run(config: DistillConfig, inputs: Inputs, context: Context) -> DistillRecord:
    """Train the student of the records and write its weights.

    A UsageError is raised for layers that do not exist or whose taps cannot be compared, and for a cache or snapshot
    that has no room; ResultError and RunInterrupted as ``train`` does, and ResultError for weights that are not finite.
    """
    networks, loaders, cache = networks_and_loaders(config, inputs, context)
    found = distil(config, networks, loaders, inputs.student.model, context, inputs.data.task)
    return found.model_copy(update={"cache": cache})


def distil(
    config: DistillConfig,
    networks: Networks,
    loaders: Loaders,
    model: ModelSpec,
    context: Context,
    task: Task = "classification",
) -> DistillRecord:
    """Train these networks on these loaders, choose the better of raw and averaged weights, write them and the others.

    The student is trained in place; ``model`` is what it is called in the record. Raises as ``run`` does.
    """
    epochs, every = int(config.epochs), None if config.keep_every is None else int(config.keep_every)
    snapshots = Snapshots(context.run.root, context.fingerprint, epochs, every)
    job = student_job(config, networks, loaders, context, task=task)
    highest = HighestWeights()
    callbacks: list[Callback] = [KeepSnapshots(snapshots.keep), highest]
    callbacks += [EarlyStop(task, config.early_stop)] if config.early_stop else []
    trained = train(job, config, epochs, context, callbacks)
    context.leave_to_main()
    progress = trained.progress
    chosen, state, _ = trained.chosen
    if not all_finite(state):
        raise ResultError("the trained student has weights that are not finite; lower distill.lr and run again.")
    weights = save_weights(state, context.run.root / "student" / "model.safetensors", context.run.root)
    return DistillRecord(
        model=model,
        weights=weights,
        kept=_kept(trained, weights, highest, context.run.root),
        chosen="ema" if chosen == "ema" else "raw",
        val_top1_raw=trained.top1_raw,
        val_top1_ema=trained.top1_ema,
        epochs=progress.epoch,
        steps=progress.steps,
        images=progress.images,
        left_over=trained.left_over,
        seconds=progress.seconds,
        losses=trained.losses,
        shares=shares(trained.losses),
        first_shares=shares(progress.first.get("losses", {})),
        gradient_norms=progress.gradient_norms,
        first_gradient_norms=progress.first.get("gradient_norms", {}),
        scales=progress.scales,
        snapshots=snapshots.finish(),
        precision=progress.precision,
    )


def _kept(trained: Trained, weights: FileRef, best: BestWeights, root: Path) -> dict[WhichWeights, KeptWeights]:
    """Write the last, averaged and best weights, but where they are the chosen ones, whose file is ``weights``."""
    chosen, last = trained.chosen[1], trained.progress.epoch
    states: dict[WhichWeights, Any] = {
        "last": (trained.raw, last, trained.top1_raw),
        "average": (trained.ema, last, trained.top1_ema),
        "best": (chosen if best.epoch == last else best.state, best.epoch, best.highest),
    }
    kept: dict[WhichWeights, KeptWeights] = {}
    for name, (state, epoch, score) in states.items():
        path = root / "student" / f"{name}.safetensors"
        path.unlink(missing_ok=True)  # of an earlier training
        if state:
            ref = weights if state is chosen else save_weights(state, path, root)
            kept[name] = KeptWeights(epoch=epoch, score=score, **ref.model_dump())
    return kept
