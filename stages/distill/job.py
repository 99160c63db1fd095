"""What a distillation trains with, made from its records; and its training, of whatever networks and loaders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vitcompress.core.context import Context
from vitcompress.core.errors import UsageError
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import CacheSummary, DataRecord, StudentRecord, Task, TeacherRecord
from vitcompress.stages.distill.cache.fill import fill, parts_of
from vitcompress.stages.distill.cache.store import CachedViews, Store
from vitcompress.stages.distill.config import DistillConfig
from vitcompress.stages.distill.losses.terms import distillation_terms
from vitcompress.stages.distill.model import (
    TEACHER_VERSION,
    AdaptedTeacher,
    FrozenTeacher,
    TappedStudent,
    prepare_student,
    tap_shapes,
)
from vitcompress.stages.distill.pairs import (
    LayerPair,
    Shape,
    check_alignable,
    layer_pairs,
    student_layers,
    teacher_layers,
)
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.loaders import (
    VIEWS_VERSION,
    Mix,
    ViewKey,
    eval_loader,
    mix_of,
    train_loader,
    train_views,
)
from vitcompress.stages.images.normalize import normalized
from vitcompress.stages.images.sources import Images, StreamSplit, judged_images
from vitcompress.stages.judging.tasks import training_score
from vitcompress.stages.models.build import build_model
from vitcompress.stages.models.weights import load_own
from vitcompress.stages.training.class_weights import class_weights
from vitcompress.stages.training.compilation import compile_in_place
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.interrupt import stop_on_signal
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.labels import LabelLoss
from vitcompress.stages.training.terms import Compared


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord
    teacher: TeacherRecord
    student: StudentRecord


def networks_and_loaders(
    config: DistillConfig, inputs: Inputs, context: Context
) -> tuple[Networks, Loaders, CacheSummary | None]:
    """Return all that a distillation trains with from its records, and what the teacher's cache, if any, came to.

    With a cache, which is filled here, the teacher's answers come with the batches. A UsageError is raised if layers or
    taps do not fit or views cannot be kept, a RunInterrupted if it is stopped while filling the cache.
    """
    networks = networks_of(config, inputs, context)
    data_config, images = judged_images(inputs.data, inputs.teacher, context.run.root)
    if images.unlabelled and not config.asks_teacher:
        have, images = len(images.labelled().train), images.labelled(as_many=True)
        context.say(f"note: trained on the {have:,} images that have a class, for as many steps as with the others")
    if inputs.data.task == "embedding" and networks.teacher is not None:
        images = replace(images, val=_taught(networks.teacher, images.val, config, inputs, context))
    views: Any = train_views(images.train, config.augmentation, inputs.student.preprocess, context.seed)
    summary = None
    if config.views and networks.teacher is not None:
        require_random_access(config, data_config, images)
        store, summary = _filled_cache(config, networks.pairs, networks.teacher, views, images, inputs, context)
        views, networks = CachedViews(views, store), replace(networks, teacher=None)
    return networks, loaders_of(config, views, images, inputs.student.preprocess, context), summary


@dataclass(frozen=True)
class TaughtSplit:
    """Held-out images with the teacher's embeddings in place of their classes."""

    split: Any
    embeddings: NDArray[np.float32]
    """``[N, E]``."""

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, NDArray[np.float32]]:
        return self.split[index][0], self.embeddings[index]


def _taught(teacher: FrozenTeacher, split: Any, config: DistillConfig, inputs: Inputs, context: Context) -> TaughtSplit:
    """Ask the teacher for its embeddings of the held-out images, as the student gets them."""
    accelerator = make_accelerator(context.device)
    spec, batch = inputs.student.preprocess, int(config.batch_size)
    context.say(f"the teacher's embeddings of {len(split):,} held-out images")
    answers = [
        teacher(images.to(accelerator.device))[0]
        for images, _ in eval_loader(split, spec, batch_size=batch, workers=context.workers)
    ]
    return TaughtSplit(split, torch.cat([one.float().cpu() for one in answers if one is not None]).numpy())


@dataclass(frozen=True)
class Networks:
    """Both networks and what is compared between them."""

    pairs: tuple[LayerPair, ...]
    student: TappedStudent
    teacher: FrozenTeacher | None
    """On its device; None when nothing is asked of it, or its answers come with the batches."""


@dataclass(frozen=True)
class Loaders:
    """What a training reads."""

    train: DataLoader[Any]
    """Batches of images ``[B, 3, S, S]`` (or pixels, which ``mix`` normalises), labels int64 ``[B]``, and the teacher's
    answers where they are kept: logits (they may be missing when alpha is 0), then its taps in the order of
    ``teacher_layers(pairs)``."""
    val: DataLoader[Any]
    """Held-out images and labels; of embeddings the teacher's, float32 ``[B, E]``."""
    mix: Mix | None = None
    """Normalising, mixup or CutMix of each training batch, on the device."""
    class_weights: tuple[float, ...] | None = None
    """Of the classes in the loss by labels; None: all weigh alike."""
    unlabelled: bool = False
    """Whether training images may have no class."""


def networks_of(config: DistillConfig, inputs: Inputs, context: Context) -> Networks:
    """Return the networks of the records, compiled if they are to be; a UsageError is raised if taps do not fit."""
    pairs = layer_pairs(config, inputs.student.depth, inputs.teacher.depth)
    teacher = _frozen_teacher(config, pairs, inputs, context)
    network = load_own(build_model(inputs.student.model), inputs.student.weights, context.run.root)
    ours = _tap_shapes(inputs.student, student_layers(pairs))
    theirs = _tap_shapes(inputs.teacher, teacher_layers(pairs))
    spec = inputs.student.preprocess
    prepare_student(network, config, student_layers(pairs), spec.size, spec.channels)
    set_seed(context.seed)  # of the projectors' first weights
    student = with_taps(network, pairs, ours, theirs)
    if config.compiles:
        graphs = config.compile == "graphs"
        compile_in_place(student, *([teacher.teacher] if teacher else []), graphs=graphs)
        if graphs and teacher:
            teacher.beside = None  # both networks' graphs share one pool of memory, so they must run in turn
    return Networks(pairs, student, teacher)


def loaders_of(
    config: DistillConfig, views: Any, images: Images, preprocess: PreprocessSpec, context: Context
) -> Loaders:
    """Return the loaders of ``views`` (``train_views`` or ``CachedViews``) and of the held-out images."""
    batch = int(config.batch_size)
    return Loaders(
        train=train_loader(
            views,
            batch_size=batch // config.accumulation,
            seed=context.seed,
            workers=context.workers,
            repeats=config.augmentation.repeats,
            fixed_views=config.views,
        ),
        val=eval_loader(images.val, preprocess, batch_size=batch, workers=context.workers),
        mix=mix_of(config.augmentation, preprocess, len(images.classes), config.label_smoothing),
        class_weights=class_weights(config.class_weights, images),
        unlabelled=images.unlabelled > 0,
    )


def student_job(
    config: DistillConfig,
    networks: Networks,
    loaders: Loaders,
    context: Context,
    name: str = "student",
    fingerprint: str | None = None,
    task: Task = "classification",
) -> Job:
    """Return the training of these networks on these loaders, wherever they come from.

    The student is trained in place. ``name`` is the training's in messages and metrics, and of its folder of
    checkpoints; those of another ``fingerprint`` (None: the stage's) are not resumed.
    """
    label_loss = LabelLoss(task, config.label_smoothing, loaders.class_weights, loaders.unlabelled)
    return Job(
        name=name,
        model=networks.student,
        network=attrgetter("network"),
        loss=partial(_loss, config, label_loss, networks.pairs, networks.teacher),
        train=loaders.train,
        val=loaders.val,
        folder=context.run.root / "checkpoints" / name,
        fingerprint=context.fingerprint if fingerprint is None else fingerprint,
        mix=loaders.mix,
        score=training_score(task),
        compared=Compared(
            networks.student.meeting_parameters(),
            {pair.name: pair.weight for pair in networks.pairs} if config.balances else {},
        ),
    )


def _filled_cache(
    config: DistillConfig,
    pairs: tuple[LayerPair, ...],
    teacher: FrozenTeacher,
    views: Any,
    images: Images,
    inputs: Inputs,
    context: Context,
) -> tuple[Store, CacheSummary]:
    """Write the teacher's answers to every view to disk."""
    accelerator = make_accelerator(context.device)
    first = views[ViewKey(0, 0)][0][None].to(accelerator.device)

    def answers(images: Tensor) -> tuple[Tensor | None, list[Tensor]]:
        found: tuple[Tensor | None, list[Tensor]] = teacher(normalized(inputs.student.preprocess, images))
        return found

    key = {
        "teacher": inputs.teacher.model.identity(),
        "weights": inputs.teacher.weights.sha256,
        "teacher_preprocess": inputs.teacher.preprocess.identity(),
        "preprocess": inputs.student.preprocess.identity(),
        "augment": config.augmentation.identity(),
        "data": inputs.data.identity(),
        "seed": context.seed,
        "views": config.views,
        "precision": f"{accelerator.device.type} {teacher.teacher.precision}",
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "pillow")},
        "views_version": VIEWS_VERSION,
        "teacher_version": TEACHER_VERSION,
    }
    parts = parts_of(answers, first, teacher_layers(pairs))
    shared = config.cache.folder
    base = Path(shared) if shared else context.run.root / "cache"
    store = Store(base, key, parts, images=len(images.train), views=config.views, shared=bool(shared))
    size = max(1, int(config.batch_size) // config.accumulation // accelerator.num_processes)
    room = config.cache.max_gb
    with stop_on_signal() as stop:
        return store, fill(store, views, answers, context, batch_size=size, max_gb=room, stop=lambda: stop.requested)


def require_random_access(config: DistillConfig, data_config: DataConfig, images: Images) -> None:
    """Refuse to keep views of images that can only be read in order."""
    if isinstance(images.train, StreamSplit):
        raise UsageError(
            f"distill.views is {config.views}, but '{data_config.source}' can only be read in order, so no view of an "
            "image can be asked for again; use distill.views=0."
        )


def _loss(
    config: DistillConfig,
    label_loss: LabelLoss,
    pairs: tuple[LayerPair, ...],
    teacher: FrozenTeacher | None,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *cached: Tensor,
) -> dict[str, Tensor]:
    """Return the terms of one batch; its parts are those of ``Loaders.train``, labels also probabilities ``[B, K]``."""
    asked = None if cached or teacher is None else teacher.ask(images)
    logits, taps = student(images)
    layers = teacher_layers(pairs)
    teacher_logits, teacher_taps = None, list[Tensor]()
    if cached:
        first_tap = len(cached) - len(layers)
        teacher_logits, teacher_taps = cached[0] if first_tap else None, list(cached[first_tap:])
    elif asked is not None:
        teacher_logits, teacher_taps = asked()
    by_layer = dict(zip(layers, teacher_taps, strict=True))
    compared = [(pair, tap, by_layer[pair.teacher]) for pair, tap in zip(pairs, taps, strict=True)]
    return distillation_terms(config, label_loss, logits, teacher_logits, labels, compared)


def with_taps(
    network: nn.Module, pairs: tuple[LayerPair, ...], ours: dict[int, Shape], theirs: dict[int, Shape]
) -> TappedStudent:
    """Return a student that gives its taps, its projectors new; a UsageError is raised if two taps cannot be compared.

    ``ours`` and ``theirs`` are the shapes of the student's and the teacher's taps by layer.
    """
    check_alignable(pairs, ours, theirs)
    widths = {pair: (ours[pair.student][1], theirs[pair.teacher][1]) for pair in pairs if pair.match == "projector"}
    return TappedStudent(network, pairs, widths)


def _tap_shapes(network: StudentRecord | TeacherRecord, layers: tuple[int, ...]) -> dict[int, Shape]:
    if not layers:
        return {}
    with torch.device("meta"):
        model = build_model(network.model)
    return tap_shapes(model, network.preprocess.size, layers, network.preprocess.channels)


def _frozen_teacher(
    config: DistillConfig, pairs: tuple[LayerPair, ...], inputs: Inputs, context: Context
) -> FrozenTeacher | None:
    """Return the teacher on its device; None when neither its answers nor its taps are asked for."""
    if not config.asks_teacher:
        context.say("the student learns from the labels alone; the teacher is not run")
        return None
    own, student = inputs.teacher.preprocess, inputs.student.preprocess
    network = load_own(build_model(inputs.teacher.model), inputs.teacher.weights, context.run.root)
    precision = torch.bfloat16 if config.teacher_precision == "bfloat16" else torch.float32
    teacher = AdaptedTeacher(network, teacher_layers(pairs), own, student, config.alpha > 0, precision)
    if teacher.renormalises or teacher.resizes:
        context.say(f"the teacher sees the student's images at {own.size} pixels, mean {own.mean}, std {own.std}")
    return FrozenTeacher(teacher).to(make_accelerator(context.device).device)
