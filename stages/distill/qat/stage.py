"""Train the deployable student with the rounding of its int8 graph, if that is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError
from vitcompress.core.records import (
    DataRecord,
    DistillRecord,
    FoldRecord,
    Graph,
    QatRecord,
    StudentRecord,
    TeacherRecord,
)
from vitcompress.core.words import counted
from vitcompress.stages.distill import job
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.qat.config import QatJob, trainable
from vitcompress.stages.distill.qat.fake import fake_quantise, input_ranges, state_of
from vitcompress.stages.images.loaders import sample
from vitcompress.stages.images.sources import recorded_images
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import all_finite, load_own, save_weights
from vitcompress.stages.rewrites.fuse import fused
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.job import Job, Trained
from vitcompress.stages.training.loop import train
from vitcompress.stages.training.processes import from_main


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord
    distill: DistillRecord
    fold: FoldRecord


def run(config: QatJob, inputs: Inputs, context: Context) -> QatRecord:
    """Train every graph that may be deployed from its distilled weights, and write the new ones.

    Of a lift whose projector is decided by timing (``projector`` auto) that is both. A network whose branches become
    one convolution when it is deployed is not trained, and the record says why.

    Raises ResultError and RunInterrupted as ``train`` does, and ResultError for weights that are not finite.
    """
    fold, root = inputs.fold, context.run.root
    graphs = deployable(config, fold)
    network = load_own(build_model(fold.models[graphs[0]]), fold.graphs[graphs[0]], root)
    if fused(network) is not network:
        why = "several branches of this network are one convolution once it is deployed, and were trained apart"
        return QatRecord(why_not=f"{why}; int8-qat is for networks without such blocks, leave it out")
    trained = {graph: _trained(config, graph, inputs, context) for graph in graphs}
    context.leave_to_main()
    weights = {}
    for graph, found in trained.items():
        state = state_of(found.chosen[1])
        if not all_finite(state):
            raise ResultError("weights trained for int8 are not finite; lower qat.lr_factor and run again.")
        weights[graph] = save_weights(state, root / "student" / f"{graph}-qat.safetensors", root)
    return QatRecord(
        weights=weights,
        val_top1={graph: found.chosen[2] for graph, found in trained.items()},
        epochs=config.qat.epochs,
        steps=max(found.progress.steps for found in trained.values()),
        seconds=sum(found.progress.seconds for found in trained.values()),
    )


def deployable(config: QatJob, fold: FoldRecord) -> tuple[Graph, ...]:
    """Return the graphs that export may choose (``stages.export.projector``)."""
    if "lift-folded" not in fold.models:
        return tuple(fold.models)
    exact = fold.max_logit_difference is not None and fold.max_logit_difference <= fold.tolerance
    if config.projector == "keep" or (config.projector == "auto" and not exact):
        return ("lift-kept",)
    return ("lift-folded",) if config.projector == "fold" else ("lift-kept", "lift-folded")


def _trained(config: QatJob, graph: Graph, inputs: Inputs, context: Context) -> Trained:
    """Train one graph; every process takes part."""
    epochs = config.qat.epochs
    context.say(f"training the {graph} graph with int8's rounding for {counted(epochs, 'epoch')}")
    training, made = qat_training(config, graph, inputs, context)
    return train(made, training, epochs, context)


def qat_training(config: QatJob, graph: Graph, inputs: Inputs, context: Context) -> tuple[DistillConfig, Job]:
    """Return the training of one graph: distillation's own, of the fake-quantised network."""
    training = trainable(config.training, graph, inputs.student.depth)
    update = {"model": inputs.fold.models[graph], "weights": inputs.fold.graphs[graph]}
    student = inputs.student.model_copy(update=update)
    networks, loaders, _ = job.networks_and_loaders(training, job.Inputs(inputs.data, inputs.teacher, student), context)
    device = make_accelerator(context.device).device
    network = networks.student.network.to(device)
    images = sample(recorded_images(inputs.data)[1].train, student.preprocess, config.calibration_images)
    fake_quantise(network, from_main(input_ranges(network, images.to(device))))
    return training, job.student_job(training, networks, loaders, context, f"qat-{graph}", task=inputs.data.task)
