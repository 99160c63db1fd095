"""What a training of a run would take: a few steps, over as much of its batch as a budget of arithmetic allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.records import DataRecord, TeacherRecord
from vitcompress.pipeline.dry_run_figures import Filling, Training
from vitcompress.stages.distill.cache.chunks import Part
from vitcompress.stages.distill.cache.fill import parts_of
from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.distill.cache.upkeep import require_room
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
    first_images,
    measure_forward,
    measure_line,
    measure_loading,
    with_precision,
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


def fitting(
    config: TeacherConfig,
    initial: InitialTeacher,
    teacher: TeacherRecord,
    data: DataRecord,
    processes: int,
    context: Context,
) -> Training:
    """The teacher's fitting; its weights are changed."""
    _, images = recorded_images(data)
    views = train_views(images.train, config.augmentation, initial.preprocess, context.seed)
    loading = _Loading(config, views, processes, config.augmentation.repeats, 0, context)
    small = _for_measuring(config, loading.per_pass, 6.0 * teacher.cost.macs, context)
    job = fitting_job(small, initial.model, images, config.augmentation, initial.preprocess, context)
    if config.init != "scratch" and not isinstance(images.train, StreamSplit):
        held = held_out_count(data.train_images, len(data.classes), config.tune_fraction)
        if held:  # which judge each epoch in the place of the held-out images
            data = data.model_copy(update={"train_images": data.train_images - held, "val_images": held})
    batch = loading.batch(int(small.batch_size))
    return _training("teacher", config, teacher.epochs, data, processes, job, small, batch, loading, context)


def learning(
    config: DistillConfig, inputs: Inputs, processes: int, root: Path, context: Context
) -> tuple[Training, Filling | None]:
    """The student's training, and filling the teacher's cache if there is to be one under ``root``.

    Raises:
        UsageError: layers or taps that do not fit, views that cannot be kept, or a cache that has no room.
    """
    data_config, images = recorded_images(inputs.data)
    teacher_operations, student_operations = 2.0 * inputs.teacher.cost.macs, 6.0 * inputs.student.cost.macs
    per_pass = int(config.batch_size) // config.accumulation // processes
    small = _for_measuring(config, per_pass, teacher_operations + student_operations, context)
    networks = networks_of(small, inputs, context)
    cached = bool(config.views) and networks.teacher is not None
    if cached:
        require_random_access(config, data_config, images)
    views = train_views(images.train, config.augmentation, inputs.student.preprocess, context.seed)
    loading = _Loading(config, views, processes, config.augmentation.repeats, config.views, context)
    batch = loading.batch(int(small.batch_size))
    filling, beside = None, 0.0
    if networks.teacher is not None and not cached and not isinstance(images.train, StreamSplit):
        beside = measure_forward(networks.teacher, batch[0], make_accelerator(context.device))
    if cached and networks.teacher is not None:
        layers = teacher_layers(networks.pairs)
        answered = _Answered(networks.teacher, batch[0], layers, context)
        filling = _filling(config, answered, len(images.train), processes, loading, root, context)
        batch = [*batch, *answered.kept]
        networks = replace(networks, teacher=None)
    loaders = loaders_of(small, views, images, inputs.student.preprocess, context)
    job = student_job(small, networks, loaders, context)
    epochs, data = int(config.epochs), inputs.data
    training = _training("student", config, epochs, data, processes, job, small, batch, loading, context, beside)
    return training, filling


def _for_measuring(config: Any, per_pass: int, operations: float, context: Context) -> Any:
    """The config of a training whose steps are short enough to take some here.

    Args:
        config: of the real training.
        per_pass: images of its forward pass in one process.
        operations: floating-point operations an image, forward and backward.
        context: says on which device.
    """
    images = (_STEPS + 1) * 1.5  # of a step, and half as many in the smaller one
    most = max(_FEWEST, int(_BUDGET_SECONDS * RATE[context.device] / (images * operations)))
    batch = per_pass if per_pass <= most else 1 << (most.bit_length() - 1)
    return config.model_copy(update={"batch_size": batch, "accumulation": 1, "warmup_epochs": 0.0, "compile": "off"})


class _Loading:
    """The loader of a training in one process, and its rate."""

    def __init__(
        self, config: TrainingConfig, views: Any, processes: int, repeats: int, fixed_views: int, context: Context
    ) -> None:
        self.per_pass = int(config.batch_size) // config.accumulation // processes
        self.loader: DataLoader[Any] = train_loader(
            views,
            batch_size=min(_LOADED, self.per_pass),
            seed=context.seed,
            workers=context.workers,
            repeats=repeats,
            fixed_views=fixed_views,
        )
        self.rate = measure_loading(self.loader, _LOADING_SECONDS)

    def batch(self, images: int) -> list[Tensor]:
        """Images and labels."""
        return first_images(self.loader, images)


class _Answered:
    """What a teacher says to a batch, as the cache would hand it out, and what saying it takes."""

    def __init__(self, teacher: FrozenTeacher, images: Tensor, layers: tuple[int, ...], context: Context) -> None:
        accelerator = make_accelerator(context.device)
        on_device = images.to(accelerator.device)
        with accelerator.autocast():
            logits, taps = teacher(on_device)
            self.parts: tuple[Part, ...] = parts_of(teacher, on_device[:1], layers)
        self.kept = [answer.float().cpu() for answer in ([] if logits is None else [logits]) + taps]
        self.seconds = measure_forward(teacher, images, accelerator)
        """An image."""


def _filling(
    config: DistillConfig,
    answered: _Answered,
    images: int,
    processes: int,
    loading: _Loading,
    root: Path,
    context: Context,
) -> Filling:
    """What the cache takes.

    Raises:
        UsageError: more than is allowed or there is room for; a shared folder, which may hold it already, is not asked.
    """
    own = config.cache.model_copy(update={"folder": None})
    store = Store(own, {}, answered.parts, images=images, views=config.views, run_folder=context.run.root / "cache")
    store.folder.mkdir(parents=True)
    if config.cache.folder is None:
        require_room(store, next(path for path in (root, *root.absolute().parents) if path.exists()))
    seconds = answered.seconds, 1 / loading.rate
    each = sum(seconds) if _shares_cores(context) else max(seconds)
    return Filling(
        views=config.views,
        rows=store.rows,
        seconds=store.rows * each / processes,
        bytes=store.dense_need(),
        max_bytes=config.cache.max_gb * 1e9,
        folder=config.cache.folder,
    )


def _shares_cores(context: Context) -> bool:
    return context.workers == 0 or context.device == "cpu"


def _training(
    name: str,
    config: TrainingConfig,
    epochs: int,
    data: DataRecord,
    processes: int,
    job: Job,
    small: TrainingConfig,
    batch: Sequence[Tensor],
    loading: _Loading,
    context: Context,
    beside: float = 0.0,
) -> Training:
    """Take the steps."""
    small = with_precision(job, small, context, batch)
    line = measure_line(job, small, context, batch, _STEPS)
    network = job.network(job.model).eval()
    accelerator = make_accelerator(context.device, precision=small.precision)
    evaluating = measure_forward(network, batch[0][: line.large.images], accelerator)
    return Training(
        name=name,
        config=config,
        images=data.train_images,
        epochs=epochs,
        processes=processes,
        line=line,
        loading=loading.rate,
        workers=context.workers,
        shares_cores=_shares_cores(context),
        held_out=data.val_images,
        evaluating=evaluating,
        precision=small.precision,
        beside=beside,
    )
