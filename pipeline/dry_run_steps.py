"""What a training of a run would take: a few steps, over as much of its batch as a budget of arithmetic allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.records import DataRecord, StudentRecord, TeacherRecord
from vitcompress.pipeline.dry_run_figures import Filling, Training
from vitcompress.stages.distill.cache.chunks import Part
from vitcompress.stages.distill.cache.fill import parts_of
from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.job import Inputs, loaders_of, networks_of, require_random_access, student_job
from vitcompress.stages.distill.model import FrozenTeacher
from vitcompress.stages.distill.pairs import teacher_layers
from vitcompress.stages.images.loaders import train_loader, train_views
from vitcompress.stages.images.sources import StreamSplit, recorded_images
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.stage import InitialTeacher, fitting_job
from vitcompress.stages.teacher.tuning import held_out_count
from vitcompress.stages.training.compilation import RATE
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.measure import (
    StepLine,
    first_images,
    measure_forward,
    measure_line,
    measure_loading,
)

_STEPS = 2
"""Measured ones of each of two sizes, after one that is not counted."""
_BUDGET_SECONDS = 15
"""Of arithmetic a training, at the rate that ``stages.training.compilation`` takes for granted."""
_FEWEST = 4
"""Images in the larger of the two steps, whatever they cost."""
_LOADED = 8
"""Images in a batch while the loader is measured: its rate hardly depends on it, and a small one is soon there."""
_LOADING_SECONDS = 1.5


@dataclass(frozen=True)
class Surroundings:
    """What the trainings of a dry run have in common."""

    data: DataRecord
    processes: int
    """That would train together; one alone is measured."""
    root: Path
    """The run directory, which is not made."""
    context: Context

    @property
    def shares_cores(self) -> bool:
        """Whether loading takes time from the networks."""
        return self.context.workers == 0 or self.context.device == "cpu"

    def per_pass(self, config: TrainingConfig) -> int:
        """Return the images of a forward pass of one process."""
        return int(config.batch_size) // config.accumulation // self.processes

    def loader(self, config: TrainingConfig, views: Any, fixed_views: int = 0) -> DataLoader[Any]:
        """Return the loader of one process, in small batches."""
        return train_loader(
            views,
            batch_size=min(_LOADED, self.per_pass(config)),
            seed=self.context.seed,
            workers=self.context.workers,
            repeats=config.augmentation.repeats,
            fixed_views=fixed_views,
        )


def fitting(
    config: TeacherConfig, initial: InitialTeacher, teacher: TeacherRecord, surroundings: Surroundings
) -> Training:
    """Measure the teacher's fitting; its weights are changed."""
    data, context = surroundings.data, surroundings.context
    _, images = recorded_images(data)
    loader = surroundings.loader(
        config, train_views(images.train, config.augmentation, initial.preprocess, context.seed)
    )
    small = _for_measuring(config, 6.0 * teacher.cost.macs, surroundings)
    job = fitting_job(small, initial.model, images, config.augmentation, initial.preprocess, context)
    if config.init != "scratch" and not isinstance(images.train, StreamSplit):
        held = held_out_count(data.train_images, len(data.classes), config.tune_fraction)
        if held:  # which judge each epoch in the place of the held-out images
            data = data.model_copy(update={"train_images": data.train_images - held, "val_images": held})
    measured = _measured_steps(job, small, first_images(loader, int(small.batch_size)), surroundings)
    return _training("teacher", config, teacher.epochs, data, surroundings, loader, measured)


def learning(
    config: DistillConfig, teacher: TeacherRecord, student: StudentRecord, surroundings: Surroundings
) -> tuple[Training, Filling | None]:
    """Measure the student's training, and filling the teacher's cache if there is to be one.

    Raises:
        UsageError: layers or taps that do not fit, views that cannot be kept, or a cache that has no room.
    """
    context = surroundings.context
    inputs = Inputs(surroundings.data, teacher, student)
    data_config, images = recorded_images(inputs.data)
    small = _for_measuring(config, 2.0 * teacher.cost.macs + 6.0 * student.cost.macs, surroundings)
    networks = networks_of(small, inputs, context)
    cached = bool(config.views) and networks.teacher is not None
    if cached:
        require_random_access(config, data_config, images)
    views = train_views(images.train, config.augmentation, student.preprocess, context.seed)
    loader = surroundings.loader(config, views, config.views)
    batch = first_images(loader, int(small.batch_size))
    filling, beside = None, 0.0
    if networks.teacher is not None and cached:
        answers, parts, seconds = _answers(networks.teacher, batch[0], teacher_layers(networks.pairs), context)
        filling = _filling(config, parts, len(images.train), seconds, _rate(loader), surroundings)
        batch = [*batch, *answers]
        networks = replace(networks, teacher=None)
    elif networks.teacher is not None and not isinstance(images.train, StreamSplit):
        beside = measure_forward(networks.teacher, batch[0], make_accelerator(context.device))
    loaders = loaders_of(small, views, images, student.preprocess, context)
    job = student_job(small, networks, loaders, context)
    measured = _measured_steps(job, small, batch, surroundings)
    training = _training("student", config, int(config.epochs), inputs.data, surroundings, loader, measured)
    return replace(training, beside=beside), filling


def _rate(loader: DataLoader[Any]) -> float:
    """Return the images a second that a loader gives."""
    return measure_loading(loader, _LOADING_SECONDS)


def _for_measuring(config: Any, operations: float, surroundings: Surroundings) -> Any:
    """Return the config of a training whose steps are short enough to take some here.

    Args:
        config: of the real training.
        operations: floating-point operations an image, forward and backward.
        surroundings: say on which device, and how the batch is shared.
    """
    per_pass = surroundings.per_pass(config)
    images = (_STEPS + 1) * 1.5  # of a step, and half as many in the smaller one
    most = max(_FEWEST, int(_BUDGET_SECONDS * RATE[surroundings.context.device] / (images * operations)))
    batch = per_pass if per_pass <= most else 1 << (most.bit_length() - 1)
    return config.model_copy(update={"batch_size": batch, "accumulation": 1, "warmup_epochs": 0.0, "compile": "off"})


def _answers(
    teacher: FrozenTeacher, images: Tensor, layers: tuple[int, ...], context: Context
) -> tuple[list[Tensor], tuple[Part, ...], float]:
    """Return what a teacher says to a batch as the cache would hand it out, its parts, and its seconds an image."""
    accelerator = make_accelerator(context.device)
    on_device = images.to(accelerator.device)
    with accelerator.autocast():
        logits, taps = teacher(on_device)
        parts: tuple[Part, ...] = parts_of(teacher, on_device[:1], layers)
    kept = [answer.float().cpu() for answer in ([] if logits is None else [logits]) + taps]
    return kept, parts, measure_forward(teacher, images, accelerator)


def _filling(
    config: DistillConfig,
    parts: tuple[Part, ...],
    images: int,
    answering: float,
    rate: float,
    surroundings: Surroundings,
) -> Filling:
    """Return what the cache takes, given the seconds of an answer and the loader's images a second.

    Raises:
        UsageError: more than is allowed or there is room for.
    """
    store = Store(surroundings.root / "cache", {}, parts, images=images, views=config.views)
    store.require_room(config.cache.max_gb)
    each = answering + 1 / rate if surroundings.shares_cores else max(answering, 1 / rate)
    return Filling(
        views=config.views,
        rows=store.rows,
        seconds=store.rows * each / surroundings.processes,
        bytes=store.bytes_needed(),
        max_bytes=config.cache.max_gb * 1e9,
    )


def _measured_steps(
    job: Job, small: TrainingConfig, batch: Sequence[Tensor], surroundings: Surroundings
) -> tuple[StepLine, float, str]:
    """Take the steps: their line, the seconds an image of an evaluation, and the precision that they were taken in."""
    line = measure_line(job, small, surroundings.context, batch, _STEPS)
    accelerator = make_accelerator(surroundings.context.device, precision=small.precision)
    evaluating = measure_forward(job.network(job.model).eval(), batch[0][: line.large.images], accelerator)
    return line, evaluating, small.precision


def _training(
    name: str,
    config: TrainingConfig,
    epochs: int,
    data: DataRecord,
    surroundings: Surroundings,
    loader: DataLoader[Any],
    measured: tuple[StepLine, float, str],
) -> Training:
    line, evaluating, precision = measured
    return Training(
        name=name,
        config=config,
        images=data.train_images,
        epochs=epochs,
        processes=surroundings.processes,
        line=line,
        loading=_rate(loader),
        workers=surroundings.context.workers,
        shares_cores=surroundings.shares_cores,
        held_out=data.val_images,
        evaluating=evaluating,
        precision=precision,
    )
