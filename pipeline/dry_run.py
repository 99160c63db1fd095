"""`compress run --dry-run`: what a run would be and about what it would take, from a few real steps on this machine.

Every check that a run makes before it computes is made, but that every image decodes. Nothing stays on disk. Pretrained
weights are not fetched: random ones cost the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import timm
import torch
from rich.console import Console

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.machine import usable_cores
from vitcompress.core.processes import world_size
from vitcompress.core.records import Cost, DataRecord, StudentRecord, TeacherRecord
from vitcompress.core.rundir import RunDirectory
from vitcompress.core.words import counted
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.defaults import Choice
from vitcompress.pipeline.dry_run_figures import Filling, Training, as_control
from vitcompress.pipeline.dry_run_steps import fitting, learning
from vitcompress.pipeline.dry_run_views import views_advice
from vitcompress.pipeline.earlier import earlier_of, with_precision, with_sizes
from vitcompress.pipeline.machine import threads_each
from vitcompress.pipeline.plan import STAGES
from vitcompress.pipeline.request import default_output, identity, notes, refuse_inside_data, with_absolute_paths
from vitcompress.pipeline.resolve import resolve_models, resolve_training, with_choices
from vitcompress.pipeline.resolve_network import resolve_network
from vitcompress.pipeline.resolve_size import size_notes
from vitcompress.pipeline.resolve_speed import speed_choices
from vitcompress.stages.data import stage as data_stage
from vitcompress.stages.distill import job as distill_job
from vitcompress.stages.distill.control.config import labels_alone
from vitcompress.stages.fold.stage import folded_from_lift
from vitcompress.stages.models.build import build_model, cost_of
from vitcompress.stages.models.students import LiftStudent
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
class DryRun:
    """What a run would be."""

    output: Path
    config: RunConfig
    """Resolved: what config.yaml would hold."""
    processes: int
    data: DataRecord
    choices: tuple[Choice, ...]
    """Settings of the trainings that were left open, as decided for these images."""
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
    """Resolve, check and measure.

    Args:
        config: as requested, "auto" included.
        output: the run directory, as for ``pipeline.run.run_all``; it is not made.
        processes: that would train together; one alone is measured, with its share of the batch and of the cores.
        console: where progress goes.

    Raises:
        CompressError: as the run would before its first step.
    """
    busy = _busy()
    config = with_absolute_paths(config)
    root = output or default_output(config)
    refuse_inside_data(root, config)
    for stage in STAGES:
        stage.facts(config)
    earlier = earlier_of(root)
    models = resolve_models(with_precision(config, earlier), fetch=False)
    begun = _refuse_unusable(root, models)
    with TemporaryDirectory(prefix="compress-dry-run-") as folder:
        run = RunDirectory.claim(Path(folder) / "run", identity(models))
        context = Context(
            run=run,
            seed=config.seed,
            device=models.device,
            workers=int(models.workers),
            threads=_threads(models, processes),
            console=console,
        )
        if context.threads:
            torch.set_num_threads(context.threads)  # everything that is measured, not only the steps
        skipping = models.data.on_bad_image == "skip"  # else a few steps could meet an image that a run leaves out
        unopened = models.data if skipping else models.data.model_copy(update={"check": "skip"})
        data = data_stage.run(unopened, data_stage.Inputs(), context)
        known = RunDirectory(root).stage_state("data") if earlier else {}
        same = known and RunDirectory(root).load_record("data", DataRecord).digest == data.digest
        sized = with_sizes(models, config, earlier if same else None, processes)
        _, choices = with_choices(sized, data, processes)
        resolved = resolve_training(sized, data, processes)
        assumed = _assumed_strategy(resolved)
        networks, trainings, filling = _measured(assumed, data, processes, root, context)
    return DryRun(
        output=root,
        config=resolved,
        processes=processes,
        data=data,
        choices=(*choices, *speed_choices(sized, resolved, data)),
        networks=networks,
        trainings=trainings,
        filling=filling,
        device=_device(resolved, context.threads),
        memory=_memory(resolved),
        notes=(
            *notes(resolved),
            *size_notes(config, resolved, next((each.seconds for each in trainings if each.name == "teacher"), None)),
            *busy,
            *_assumption(resolved, assumed),
            *_notes(resolved, processes, root if begun else None),
            *views_advice(resolved, trainings[-1]),
        ),
    )


def _assumed_strategy(config: RunConfig) -> RunConfig:
    """A strategy to measure where the analysis of the teacher is to decide it: the costlier of what is likely."""
    if config.student.strategy != "auto":
        return config
    student, teacher = (
        resolve_network(network.model, network.args, config.geometry)[2] for network in (config.student, config.teacher)
    )
    strategy = "lift" if student.isotropic and student.width < teacher.width else "plain"
    return config.model_copy(update={"student": config.student.model_copy(update={"strategy": strategy})})


def _assumption(config: RunConfig, assumed: RunConfig) -> list[str]:
    if config.student.strategy == assumed.student.strategy:
        return []
    return [
        "strategy and layers are decided once the teacher is analysed; measured here was "
        f"{assumed.student.strategy} on the last layers."
    ]


def _refuse_unusable(root: Path, models: RunConfig) -> bool:
    """Whether this run has begun at ``root``, which is left as it is.

    Raises:
        UsageError: the run could not be written there; or this process is one of several.
    """
    if world_size() > 1:
        raise UsageError("--dry-run measures in one process; start it without torchrun, with --num-processes N.")
    begun = RunDirectory.begun(root, identity(models))
    parent = next(path for path in (root, *root.absolute().parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"output '{root}' cannot be written ('{parent}' takes no files); give a folder you may write to with "
            "--output."
        )
    return begun


def _busy() -> list[str]:
    """A note where other work holds half of the cores or more, for steps are then slower than they would be."""
    load, cores = psutil.getloadavg()[0], usable_cores()
    if load <= cores / 2:
        return []
    return [
        f"the machine was busy before this began (load {load:.1f} on {cores} cores); alone on it, steps are faster."
    ]


def _threads(config: RunConfig, processes: int) -> int:
    """Threads as the run would have them: several processes share the cores (``pipeline.launch``)."""
    if int(config.threads) or processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return int(config.threads)
    return threads_each(processes)


def _measured(
    config: RunConfig, data: DataRecord, processes: int, root: Path, context: Context
) -> tuple[tuple[Network, ...], tuple[Training, ...], Filling | None]:
    """Build every network with random weights, and take a few steps of each training."""
    trainings: list[Training] = []
    initial, epochs = _initial_teacher(config.teacher, data, context)
    teacher = teacher_stage.record_of(initial, epochs, 0.0, context)  # its accuracy is read by nobody here
    if epochs:
        context.console.print("dry run  a few steps of fitting the teacher", highlight=False)
        trainings.append(fitting(config.teacher, initial, teacher, data, processes, context))
    del initial
    student_config = config.student
    if student_config.init in ("pretrained", "teacher"):
        student_config = student_config.model_copy(update={"init": "random"})
    student = student_stage.run(student_config, student_stage.Inputs(data, teacher), context)
    networks = _networks(config, teacher, student)
    context.console.print("dry run  a few steps of training the student", highlight=False)
    inputs = distill_job.Inputs(data, teacher, student)
    training, filling = learning(config.distill, inputs, processes, root, context)
    trainings.append(training)
    if config.control.kind != "none":
        alone, _ = learning(labels_alone(config.distill, config.control), inputs, processes, root, context)
        trainings.append(as_control(alone, training, config.control.match))
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
        auto = " if that measures faster" if config.export.projector == "auto" else ""
        what = f"its projector, norm and head folded into one{auto}"
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


def _notes(config: RunConfig, processes: int, begun: Path | None) -> list[str]:
    """What the figures leave out or take for granted."""
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
    if config.student.init_reason:
        found.append(f"the student's first weights: {config.student.init}, because {config.student.init_reason}.")
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
    if begun:
        found.append(f"'{begun}' holds this run already: what is finished there is reused, so less is left than this.")
    return found
