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
from vitcompress.core.network_names import is_own
from vitcompress.core.records import Cost, DataRecord
from vitcompress.core.words import counted
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.config.networks import resolve_network, size_notes
from vitcompress.pipeline.dry_run_steps import Training, fitting, learning
from vitcompress.pipeline.plan import qat_of
from vitcompress.pipeline.preview import Preview, preview
from vitcompress.pipeline.request import notes
from vitcompress.pipeline.teacher_cache import Kept
from vitcompress.stages.student import stage as student_stage
from vitcompress.stages.teacher import stage as teacher_stage
from vitcompress.stages.teacher.config import TeacherConfig


@dataclass(frozen=True)
class Network:
    """A network of the run."""

    name: str
    what: str
    """The architecture and what was done to it, in words."""
    cost: Cost


@dataclass(frozen=True)
class DryRun(Preview):
    """What a run would be, and about what it would take."""

    networks: tuple[Network, ...]
    trainings: tuple[Training, ...]
    """The student's; and the teacher's fitting, the control's and that for int8-qat where there are such."""
    kept: Kept | None
    """The teacher's answers, where they can be kept."""
    device: str
    """What computed, in words."""
    memory: int
    """Bytes that the device has."""
    notes: tuple[str, ...]


def dry_run(config: RunConfig, output: Path | None, processes: int, console: Console) -> DryRun:
    """Decide, check and measure; arguments and errors are those of ``preview``.

    One of the ``processes`` alone is measured, with its share of the batch and of the cores.
    """
    with preview(config, output, processes, console) as found:
        if found.context.threads:
            torch.set_num_threads(found.context.threads)  # everything that is measured, not only the steps
        assumed = _assumed_strategy(found.config)
        networks, trainings, kept = _measured(assumed, found)
    resolved = found.config
    told = [*notes(resolved), *size_notes(found.asked, resolved)]
    if assumed.student.strategy != resolved.student.strategy:
        told.append(
            "strategy and layers are decided once the teacher is analysed; measured here was "
            f"{assumed.student.strategy} on the last layers."
        )
    on_gpu = resolved.device == "cuda"
    threads = counted(found.context.threads or torch.get_num_threads(), "thread")
    return DryRun(
        **vars(found),
        networks=networks,
        trainings=trainings,
        kept=kept,
        device=f"one {torch.cuda.get_device_name()}" if on_gpu else f"CPU, {threads}",
        memory=torch.cuda.get_device_properties(0).total_memory if on_gpu else psutil.virtual_memory().total,
        notes=(*told, *_notes(found)),
    )


def _assumed_strategy(config: RunConfig) -> RunConfig:
    """Return the config with a strategy: the costlier of the likely ones, where the analysis is to decide it."""
    if config.student.strategy != "auto":
        return config
    student, teacher = (
        resolve_network(each.model, each.args, config.geometry, channels=config.data.channels).shape
        for each in (config.student, config.teacher)
    )
    strategy = "lift" if student.isotropic and student.width < teacher.width else "plain"
    return config.model_copy(update={"student": config.student.model_copy(update={"strategy": strategy})})


def _measured(config: RunConfig, found: Preview) -> tuple[tuple[Network, ...], tuple[Training, ...], Kept | None]:
    """Build every network with random weights, and take a few steps of each training."""
    data, context = found.data, found.context
    trainings: list[Training] = []
    initial, epochs = _initial_teacher(config.teacher, data, context)
    teacher = teacher_stage.record_of(initial, epochs, 0.0, context)  # its accuracy is read by nobody here
    if epochs:
        context.console.print("dry run  a few steps of fitting the teacher", highlight=False)
        trainings.append(fitting(config.teacher, initial, teacher, found))
    del initial
    random = {"init": "random"} if config.student.init in ("pretrained", "teacher") else {}
    asked = config.student.model_copy(update=random)
    student = student_stage.run(asked, student_stage.Inputs(data, teacher), context)
    networks = (
        Network("teacher", f"{teacher.model.name} of width {teacher.width}, {teacher.depth} layers", teacher.cost),
        Network("student, trained", student.explanation, student.cost),
    )
    context.console.print("dry run  a few steps of training the student", highlight=False)
    training, kept = learning(config.distill, teacher, student, found)
    trainings.append(training)
    if config.control.kind != "none":
        trainings.append(replace(training, name="control"))  # at most: it runs no teacher
    if "int8-qat" in config.export.precision:
        trainings.append(learning(qat_of(config).training, teacher, student, found, rounded=True)[0])
    return networks, tuple(trainings), kept


def _initial_teacher(
    config: TeacherConfig, data: DataRecord, context: Context
) -> tuple[teacher_stage.InitialTeacher, int]:
    """Return the unfitted teacher and the epochs of its fitting; a UsageError is raised for weights that do not fit."""
    if config.init != "pretrained" or is_own(config.model):
        initial = teacher_stage.initial_teacher(config, data, context)
        return initial, teacher_stage.epochs_of(config, initial.fits, len(data.classes))
    if not timm.is_model_pretrained(config.model):
        raise teacher_stage.no_weights(config.model, "timm has none")
    published = timm.get_pretrained_cfg(config.model)
    fits = data.task == "embedding" or (published is not None and published.num_classes == len(data.classes))
    epochs = teacher_stage.epochs_of(config, fits, len(data.classes))
    return teacher_stage.initial_teacher(config.model_copy(update={"init": "scratch"}), data, context), epochs


def _notes(preview: Preview) -> list[str]:
    """Return what the figures leave out or take for granted."""
    config, processes = preview.config, preview.processes
    found = [
        "times leave out: checking that images decode, compiling, a linear probe of the teacher, checkpoints, "
        "analysis, export, verification and the report."
    ]
    if "pretrained" in (config.teacher.init, config.student.init):
        found.append("pretrained weights were not fetched: random ones stood in for them.")
    if processes > 1:
        found.append(
            f"one process was measured, with its share of the batch; {processes} also exchange gradients, and on one "
            "machine share the memory and the cores that load images."
        )
    if preview.begun:
        found.append(
            f"'{preview.output}' holds this run already: what is finished there is reused, so less is left than this."
        )
    return found
