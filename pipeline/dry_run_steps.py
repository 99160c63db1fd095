"""What a training of a run would take: a few steps, over as much of its batch as a budget of arithmetic allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.records import StudentRecord, TeacherRecord
from vitcompress.pipeline.preview import Preview
from vitcompress.pipeline.teacher_cache import Kept, Pace, measure_reading
from vitcompress.stages.distill.cache.fill import parts_of
from vitcompress.stages.distill.cache.store import Store
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.job import Inputs, loaders_of, networks_of, require_random_access, student_job
from vitcompress.stages.distill.model import FrozenTeacher
from vitcompress.stages.distill.pairs import teacher_layers
from vitcompress.stages.distill.qat.fake import fake_quantise, quantised_layers
from vitcompress.stages.images.loaders import train_loader, train_views
from vitcompress.stages.images.normalize import normalized
from vitcompress.stages.images.sources import StreamSplit, recorded_images
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.stage import InitialTeacher, fitting_job
from vitcompress.stages.training.compilation import RATE
from vitcompress.stages.training.config import TrainingConfig
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.measure import StepLine, first_images, measure_forward, measure_line, measure_loading

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
class Training:
    """One training, counted and estimated; times are seconds."""

    name: str
    config: TrainingConfig
    """Resolved."""
    epochs: int
    images: int
    held_out: int
    processes: int
    line: StepLine
    """Forward and backward, measured: seconds and bytes by images."""
    loading: float
    """Images a second of the loader alone, in one process."""
    workers: int
    shares_cores: bool
    """Whether loading takes time from the networks: the same cores do both."""
    evaluating: float
    """Seconds an image of an evaluation of one network, without loading it."""
    precision: str = "float32"
    """What it was measured in, and would compute in."""
    reading: float = 0.0
    """Seconds in which one loader reads what was kept of the teacher's answers to an image; 0 where nothing is."""
    operators: int = 0
    """Operators that a forward and a backward pass start, for any number of images; views of tensors do not count."""
    in_order: bool = False
    """Whether its images are a stream, which one loader of one process reads."""

    @property
    def section(self) -> str:
        """Of the config that its settings are in."""
        return "distill" if self.name == "student" else self.name

    @property
    def per_pass(self) -> int:
        """Images of one forward pass of one process."""
        return int(self.config.batch_size) // self.config.accumulation // self.processes

    @property
    def passes_per_epoch(self) -> int:
        """Forward and backward passes; the last images that fill no batch are left out."""
        return self.images // (int(self.config.batch_size) // self.config.accumulation)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return -(-self.passes_per_epoch // self.config.accumulation)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def extrapolated(self) -> bool:
        """Whether a pass of the real size was too long to be measured."""
        return self.line.large.images < self.per_pass

    @property
    def pass_seconds(self) -> float:
        """A pass with its loading, and with reading what was kept of the teacher's answers."""
        reading = self.reading / max(1, self.workers)
        return self._with_loading(self.line.seconds(self.per_pass), self.per_pass, reading)

    @property
    def step_seconds(self) -> float:
        """An optimizer step with its loading."""
        return self.pass_seconds * self.config.accumulation

    @property
    def evaluations(self) -> int:
        """Passes over the held-out images, the last epoch's included."""
        return (self.epochs - 1) // int(self.config.eval_every) + 1

    @property
    def evaluation_seconds(self) -> float:
        """Of all of them: each judges the raw weights and, where there are any, the averaged ones, in one pass."""
        judged = 1 if self.config.ema_decay is None else 2
        images = self.evaluations * self.held_out / self.processes
        return self._with_loading(judged * images * self.evaluating, images)

    @property
    def seconds(self) -> float:
        """Of all passes and evaluations."""
        return self.epochs * self.passes_per_epoch * self.pass_seconds + self.evaluation_seconds

    def pace(self, kept: Kept, live: bool) -> Pace:
        """Return seconds of an epoch with the teacher live and with its answers kept, and of filling one view.

        The steps were measured with the teacher ``live`` or without it. The other follows from the teacher's share of a
        live step at the batch that both were measured at: a forward pass takes no more than its share of the
        operations, so that a disturbed measurement does not leave nothing for the student.
        """
        batch, measured = self.per_pass, self.line.large
        answers = kept.answering * measured.images
        share = min(answers / (measured.seconds if live else measured.seconds + answers), kept.operations_share)
        steps = self.line.seconds(batch)
        with_teacher, without = (steps, steps * (1 - share)) if live else (steps / (1 - share), steps)
        reading = (kept.reading or 0.0) / max(1, self.workers)
        each = self._with_loading((with_teacher - without) / batch, 1.0)
        return Pace(
            live=self.passes_per_epoch * self._with_loading(with_teacher, batch),
            cached=self.passes_per_epoch * self._with_loading(without, batch, reading),
            filling=kept.images / self.processes * each,
        )

    def _with_loading(self, computing: float, images: float, reading: float = 0.0) -> float:
        loading = images * (1 / self.loading + reading)
        return computing + loading if self.shares_cores else max(computing, loading)


def _per_pass(config: TrainingConfig, found: Preview) -> int:
    """Return the images of a forward pass of one process."""
    return int(config.batch_size) // config.accumulation // found.processes


def _loader(config: TrainingConfig, views: Any, found: Preview, fixed_views: int = 0) -> DataLoader[Any]:
    """Return the loader of one process, in small batches."""
    return train_loader(
        views,
        batch_size=min(_LOADED, _per_pass(config, found)),
        seed=found.context.seed,
        workers=found.context.workers,
        repeats=config.augmentation.repeats,
        fixed_views=fixed_views,
    )


def fitting(config: TeacherConfig, initial: InitialTeacher, teacher: TeacherRecord, found: Preview) -> Training:
    """Measure the teacher's fitting; its weights are changed."""
    context = found.context
    images = recorded_images(found.data)[1].labelled()
    views = train_views(images.train, config.augmentation, initial.preprocess, context.seed)
    loader = _loader(config, views, found)
    small = _for_measuring(config, 6.0 * teacher.cost.macs, found)
    job = fitting_job(small, initial.model, images, initial.preprocess, context)
    batch = first_images(loader, int(small.batch_size))
    measured = _measured(job, small, batch, loader, found)
    in_order = isinstance(images.train, StreamSplit)
    return Training("teacher", config, teacher.epochs, in_order=in_order, **measured)


def learning(
    config: DistillConfig, teacher: TeacherRecord, student: StudentRecord, found: Preview, *, rounded: bool = False
) -> tuple[Training, Kept | None]:
    """Measure the student's training, and what keeping its teacher's answers takes where they can be kept.

    ``rounded``: measure the one for int8-qat, with the rounding of int8 in the student (ranges do not change its time).
    A UsageError is raised as a run would.
    """
    context = found.context
    inputs = Inputs(found.data, teacher, student)
    data_config, images = recorded_images(inputs.data)
    small = _for_measuring(config, 2.0 * teacher.cost.macs + 6.0 * student.cost.macs, found)
    networks = networks_of(small, inputs, context)
    live = networks.teacher
    if rounded:
        network = networks.student.network
        fake_quantise(network, {name: 1.0 for name, _ in quantised_layers(network)})
    if config.views and live is not None:
        require_random_access(config, data_config, images)
    views = train_views(images.train, config.augmentation, student.preprocess, context.seed)
    loader = _loader(config, views, found, config.views)
    batch = first_images(loader, int(small.batch_size))
    given = normalized(student.preprocess, batch[0])
    in_order, kept = isinstance(images.train, StreamSplit), None
    if live is not None and not in_order and not (config.augmentation.mixup or config.augmentation.cutmix):
        ours, theirs = 3 * student.cost.macs, teacher.cost.macs
        share = theirs / (ours + theirs)
        kept = _kept(config, live, teacher_layers(networks.pairs), given, len(images.train), share, found)
    if live is not None and config.views:
        batch = [*batch, *_answers(live, given, context)]
        networks = replace(networks, teacher=None)
    loaders = loaders_of(small, views, images, student.preprocess, context)
    job = student_job(small, networks, loaders, context)
    measured = _measured(job, small, batch, loader, found)
    reading = (kept.reading or 0.0) if kept and config.views else 0.0
    return Training(
        "qat" if rounded else "student", config, int(config.epochs), reading=reading, in_order=in_order, **measured
    ), kept


def _for_measuring(config: Any, operations: float, found: Preview) -> Any:
    """Return the config of a training whose steps are short enough to take some here.

    ``operations`` are the floating-point operations an image, forward and backward.
    """
    per_pass = _per_pass(config, found)
    images = (_STEPS + 1) * 1.5  # of a step, and half as many in the smaller one
    most = max(_FEWEST, int(_BUDGET_SECONDS * RATE[found.context.device] / (images * operations)))
    batch = per_pass if per_pass <= most else 1 << (most.bit_length() - 1)
    return config.model_copy(update={"batch_size": batch, "accumulation": 1, "warmup_epochs": 0.0, "compile": "off"})


def _answers(teacher: FrozenTeacher, images: Tensor, context: Context) -> list[Tensor]:
    """Return what a teacher says to a batch, as the cache would hand it out."""
    accelerator = make_accelerator(context.device)
    with accelerator.autocast():
        logits, taps = teacher(images.to(accelerator.device))
    return [answer.float().cpu() for answer in ([] if logits is None else [logits]) + taps]


def _kept(
    config: DistillConfig,
    teacher: FrozenTeacher,
    layers: tuple[int, ...],
    batch: Tensor,
    images: int,
    share: float,
    found: Preview,
) -> Kept:
    """Return what keeping the teacher's answers takes; a UsageError is raised where views are asked for without room.

    Its time is measured on ``batch``, the disk's with a few files that are removed; ``share`` is ``operations_share``.
    """
    accelerator = make_accelerator(found.context.device)
    with accelerator.autocast(), _Operators() as operators:
        parts = parts_of(teacher, batch[:1].to(accelerator.device), layers)
    shared = config.cache.folder
    folder = Path(shared) if shared else found.output / "cache"
    if config.views and not shared:  # a shared one may hold it already
        Store(folder, {}, parts, images=images, views=config.views).require_room(config.cache.max_gb)
    return Kept(
        parts,
        images,
        folder,
        max_bytes=config.cache.max_gb * 1e9,
        operators=operators.count,
        operations_share=share,
        answering=measure_forward(teacher, batch, accelerator),
        reading=measure_reading(parts, images, folder),
    )


def _measured(
    job: Job, small: TrainingConfig, batch: Sequence[Tensor], loader: DataLoader[Any], found: Preview
) -> dict[str, Any]:
    """Take the steps of a training, and return what was measured as fields of ``Training``."""
    context, data = found.context, found.data
    line = measure_line(job, small, context, batch, _STEPS)
    accelerator = make_accelerator(context.device, precision=small.precision)
    images = normalized(job.mix.spec, batch[0]) if job.mix else batch[0]  # without mixing, which takes no time
    parts = [part[:2].to(accelerator.device) for part in (images, *batch[1:])]
    with accelerator.autocast(), _Operators() as operators:
        terms = job.loss(job.model, *parts)
        accelerator.backward(torch.stack(list(terms.values())).sum())
    return {
        "images": data.train_images,
        "held_out": data.val_images,
        "processes": found.processes,
        "line": line,
        "loading": measure_loading(loader, _LOADING_SECONDS),
        "workers": context.workers,
        "shares_cores": found.shares_cores,
        "evaluating": measure_forward(job.network(job.model).eval(), images[: line.large.images], accelerator),
        "precision": small.precision,
        "operators": operators.count,
    }


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators of a block, its backward passes' too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))
