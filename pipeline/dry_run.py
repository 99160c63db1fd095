"""`compress run --dry-run`: what a run would be and about what it would take, from a few real steps on this machine.

Random weights stand in for pretrained ones, which are not fetched: they cost the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import timm
import torch
from rich.console import Console

from vitcompress.core.context import Context
from vitcompress.core.machine import usable_cores
from vitcompress.core.records import Cost, DataRecord, StudentRecord, TeacherRecord
from vitcompress.core.words import counted, duration
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.config.choice import Choice
from vitcompress.pipeline.config.networks import resolve_network, size_notes
from vitcompress.pipeline.dry_run_figures import Filling, Training
from vitcompress.pipeline.dry_run_steps import Surroundings, fitting, learning
from vitcompress.pipeline.preview import Preview, preview
from vitcompress.pipeline.request import notes
from vitcompress.stages.distill.control.config import labels_alone
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.models.build import build_model, cost_of
from vitcompress.stages.models.students import LiftStudent
from vitcompress.stages.student import stage as student_stage
from vitcompress.stages.teacher import stage as teacher_stage
from vitcompress.stages.teacher.config import TeacherConfig

_VIEWS = 10
"""Of an image, that are suggested: fewer would repeat too soon, more save less."""
_NOTICEABLE = 0.1
"""Of the training's time."""
_LEAST_SECONDS = 60


@dataclass(frozen=True)
class Network:
    """A network of the run."""

    name: str
    what: str
    """The architecture and what was done to it, in words."""
    cost: Cost


@dataclass(frozen=True)
class DryRun:
    """What a run would be."""

    output: Path
    config: RunConfig
    """Resolved: what config.yaml would hold."""
    processes: int
    data: DataRecord
    choices: tuple[Choice, ...]
    """Settings that were left open, as decided."""
    networks: tuple[Network, ...]
    trainings: tuple[Training, ...]
    """The teacher's fitting, where it has one, the student's, and the control's, where there is one."""
    filling: Filling | None
    """Of the teacher cache, where there is one."""
    device: str
    """What computed, in words."""
    memory: int
    """Bytes that the device has."""
    notes: tuple[str, ...]


def dry_run(config: RunConfig, output: Path | None, processes: int, console: Console) -> DryRun:
    """Decide, check and measure.

    Args:
        config: as requested, "auto" included.
        output: the run directory, as for ``vitcompress.pipeline.run.run_all``; it is not made.
        processes: that would train together; one alone is measured, with its share of the batch and of the cores.
        console: where progress goes.

    Raises:
        CompressError: as the run would before its first step.
    """
    busy = _busy()
    with preview(config, output, processes, console) as found:
        if found.context.threads:
            torch.set_num_threads(found.context.threads)  # everything that is measured, not only the steps
        assumed = _assumed_strategy(found.config)
        networks, trainings, filling = _measured(
            assumed, Surroundings(found.data, processes, found.root, found.context)
        )
    resolved, student = found.config, trainings[-1]
    told = [*notes(resolved), *size_notes(found.asked, resolved), *busy]
    if assumed.student.strategy != resolved.student.strategy:
        told.append(
            "strategy and layers are decided once the teacher is analysed; measured here was "
            f"{assumed.student.strategy} on the last layers."
        )
    return DryRun(
        output=found.root,
        config=resolved,
        processes=processes,
        data=found.data,
        choices=found.choices,
        networks=networks,
        trainings=trainings,
        filling=filling,
        device=_device(resolved, found.context.threads),
        memory=_memory(resolved),
        notes=(*told, *_notes(found, processes), *views_advice(resolved, student)),
    )


def _assumed_strategy(config: RunConfig) -> RunConfig:
    """Return the config with a strategy: the costlier of the likely ones, where the analysis is to decide it."""
    if config.student.strategy != "auto":
        return config
    networks = (config.student, config.teacher)
    student, teacher = (resolve_network(each.model, each.args, config.geometry).shape for each in networks)
    strategy = "lift" if student.isotropic and student.width < teacher.width else "plain"
    return config.model_copy(update={"student": config.student.model_copy(update={"strategy": strategy})})


def _busy() -> list[str]:
    """Return a note where other work holds half of the cores or more, for steps are then slower than they would be."""
    load, cores = psutil.getloadavg()[0], usable_cores()
    if load <= cores / 2:
        return []
    return [
        f"the machine was busy before this began (load {load:.1f} on {cores} cores); alone on it, steps are faster."
    ]


def _measured(
    config: RunConfig, surroundings: Surroundings
) -> tuple[tuple[Network, ...], tuple[Training, ...], Filling | None]:
    """Build every network with random weights, and take a few steps of each training."""
    data, context = surroundings.data, surroundings.context
    trainings: list[Training] = []
    initial, epochs = _initial_teacher(config.teacher, data, context)
    teacher = teacher_stage.record_of(initial, epochs, 0.0, context)  # its accuracy is read by nobody here
    if epochs:
        context.console.print("dry run  a few steps of fitting the teacher", highlight=False)
        trainings.append(fitting(config.teacher, initial, teacher, surroundings))
    del initial
    random = {"init": "random"} if config.student.init in ("pretrained", "teacher") else {}
    asked = config.student.model_copy(update=random)
    student = student_stage.run(asked, student_stage.Inputs(data, teacher), context)
    networks = _networks(config, teacher, student)
    context.console.print("dry run  a few steps of training the student", highlight=False)
    training, filling = learning(config.distill, teacher, student, surroundings)
    trainings.append(training)
    if config.control.kind != "none":
        alone, _ = learning(labels_alone(config.distill, config.control), teacher, student, surroundings)
        trainings.append(replace(alone, name="control"))
    return networks, tuple(trainings), filling


def _initial_teacher(
    config: TeacherConfig, data: DataRecord, context: Context
) -> tuple[teacher_stage.InitialTeacher, int]:
    """The teacher with the weights of its file, or random ones; and the epochs of its fitting.

    Raises:
        UsageError: weights that do not fit, or that nobody has published.
    """
    if config.init != "pretrained":
        initial = teacher_stage.initial_teacher(config, data, context)
        return initial, teacher_stage.epochs_of(config, initial.fits, len(data.classes))
    if not timm.is_model_pretrained(config.model):
        raise teacher_stage.no_weights(config.model, "timm has none")
    published = timm.get_pretrained_cfg(config.model)
    fits = published is not None and published.num_classes == len(data.classes)
    epochs = teacher_stage.epochs_of(config, fits, len(data.classes))
    return teacher_stage.initial_teacher(config.model_copy(update={"init": "scratch"}), data, context), epochs


def _networks(config: RunConfig, teacher: TeacherRecord, student: StudentRecord) -> tuple[Network, ...]:
    teacher_what = teacher.model.arch + f" of width {teacher.width}, {teacher.depth} layers"
    found = [
        Network("teacher", teacher_what, teacher.cost),
        Network("student, trained", student.explanation, student.cost),
    ]
    if student.model.graph == "lift-kept" and config.export.projector != "keep":
        kept = build_model(student.model)
        assert isinstance(kept, LiftStudent)  # noqa: S101 - that is the graph
        folded, _ = folded_from_lift(kept)
        what = "its projector, norm and head folded into one"
        found.append(Network("student, deployed", what, cost_of(folded, student.preprocess.size)))
    return tuple(found)


def _device(config: RunConfig, threads: int) -> str:
    if config.device == "cuda":
        return f"one {torch.cuda.get_device_name()}"
    return f"CPU, {counted(threads or torch.get_num_threads(), 'thread')}"


def _memory(config: RunConfig) -> int:
    if config.device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(psutil.virtual_memory().total)


def _notes(preview: Preview, processes: int) -> list[str]:
    """Return what the figures leave out or take for granted."""
    config = preview.config
    found = [
        "times leave out: checking that images decode, checkpoints, analysis, export, verification and the report."
    ]
    if config.teacher.init == "pretrained":
        found.append(
            "the teacher's pretrained weights were not fetched: random ones stood in for them; whether they can be had "
            "is not checked."
        )
    if config.student.init == "pretrained":
        found.append("the student's pretrained weights were not fetched either, and whether they fit is not checked.")
    if config.teacher.init != "scratch" and config.teacher.epochs:
        found.append(
            "the teacher's linear probe, one pass over the training images without gradients, is not in the times"
            + (
                "; no other weights are trained."
                if config.teacher.tune == "probe"
                else f"; fitting all weights stops after {config.teacher.patience} epochs that bring nothing."
            )
        )
    if config.teacher.epochs == 0:
        found.append("the teacher is used as given, and judged once on the held-out images, which is not in the times.")
    if "on" in (config.teacher.compile, config.distill.compile):
        found.append("steps were measured without compiling, which takes a minute and makes them somewhat faster.")
    if config.distill.views:
        found.append("reading the teacher cache during training is not in the times.")
    if processes > 1:
        found.append(
            f"one process was measured, with its share of the batch; {processes} also exchange gradients, and on one "
            "machine share the memory and the cores that load images."
        )
    if preview.begun:
        found.append(
            f"'{preview.root}' holds this run already: what is finished there is reused, so less is left than this."
        )
    return found


def views_advice(config: RunConfig, training: Training) -> list[str]:
    """Return what ``distill.views`` would save, where it is noticeable and can be had; no or one sentence.

    Args:
        config: resolved.
        training: the student's, measured with the teacher live.
    """
    augment = config.distill.augmentation
    views = max(_VIEWS, augment.repeats)
    can = not (config.distill.views or augment.mixup or augment.cutmix)
    saved = training.saved_by_views(views) if training.beside else 0.0
    if not can or training.epochs <= views or saved < max(_LEAST_SECONDS, _NOTICEABLE * training.seconds):
        return []
    return [
        f"with distill.views={views} the teacher would run {views} times on an image instead of {training.epochs}: "
        f"about {duration(saved)} less of {duration(training.seconds)}. It is not done by itself, because the student "
        f"then sees {views} fixed views of an image in turn instead of a new one every epoch."
    ]
