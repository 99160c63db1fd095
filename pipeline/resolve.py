"""Decide everything that was left to "auto", from facts, into a new config (never in place).

Two steps: names, geometry and layers before any data is read; batch sizes and rates once the data is known.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

from vitcompress.core.errors import EnvironmentLacksError, UsageError
from vitcompress.core.machine import usable_cores
from vitcompress.core.processes import world_size
from vitcompress.core.records import Cost, DataRecord
from vitcompress.exporters import targets
from vitcompress.exporters.precision.modelopt import require_precision
from vitcompress.exporters.tensorrt import choose_flavour
from vitcompress.pipeline.config import RunConfig
from vitcompress.pipeline.defaults import Choice, Facts, choose, choose_control, start_of
from vitcompress.pipeline.machine import has_amx
from vitcompress.pipeline.resolve_features import Network, resolve_features
from vitcompress.pipeline.resolve_init import with_init
from vitcompress.pipeline.resolve_network import resolve_network
from vitcompress.pipeline.resolve_size import sized_pair
from vitcompress.pipeline.resolve_speed import resolve_speed
from vitcompress.pipeline.resolve_strategy import check_decidable
from vitcompress.pipeline.resolve_student import resolve_student, resolve_width
from vitcompress.stages.export.config import ExportConfig
from vitcompress.stages.images.config import AugmentConfig, DataConfig
from vitcompress.stages.images.listing import EMBEDDED, kind_of
from vitcompress.stages.student.config import StudentConfig
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.training.config import TrainingConfig

Training = TypeVar("Training", bound=TrainingConfig)

_MAX_WORKERS = 8
_SNAPSHOTS = 10


def resolve_models(config: RunConfig, *, fetch: bool = True) -> RunConfig:
    """Names, geometry, device, engine and workers decided; strategy and layer pairs checked against both networks.

    Args:
        config: as requested.
        fetch: whether pretrained weights of the student may be fetched, to see whether they fit.

    Raises:
        UsageError: a name, an argument, a strategy or a layer that does not fit.
        EnvironmentLacksError: a device or an engine that is not here.
    """
    geometry = config.geometry
    if geometry == "auto":
        geometry = "reduced" if config.data.source == EMBEDDED else "full"

    teacher, teacher_args, teacher_shape = resolve_network(config.teacher.model, config.teacher.args, geometry)
    student, student_args, student_shape = resolve_network(config.student.model, config.student.args, geometry)
    student_args, teacher_args = sized_pair(config, (student, student_args), (teacher, teacher_args))
    device = resolve_device(config.device)
    _check_views(config)
    _check_schedule(config.teacher, "teacher", config.teacher.epochs)
    _check_schedule(config.distill, "distill", config.distill.epochs)
    first = with_init(config.student, (student, student_args), (teacher, teacher_args), geometry, fetch=fetch)
    student_config = resolve_student(first, student, student_args, teacher_shape.width, fetch=fetch)
    distill = resolve_features(
        config.distill,
        Network(student, student_args, student_shape.depth),
        Network(teacher, teacher_args, teacher_shape.depth),
    )
    return config.model_copy(
        update={
            "geometry": geometry,
            "data": _with_splits(config.data),
            "device": device,
            "workers": _workers(config),
            "threads": _threads(config, geometry),
            "teacher": config.teacher.model_copy(
                update={"model": teacher, "args": teacher_args, "init": _teacher_init(config, geometry)}
            ),
            "student": student_config,
            "distill": distill.model_copy(update={"teacher_precision": _precision(config, device, geometry)}),
            "export": resolve_export(config),
        }
    )


def _with_splits(data: DataConfig) -> DataConfig:
    """Names of the splits where there are any to choose.

    Raises:
        UsageError: one is given for images whose splits have no names.
    """
    if kind_of(data.source) == "timm":
        return data.model_copy(update=dict(zip(("train_split", "val_split"), data.splits, strict=True)))
    for name, usual in zip(("train_split", "val_split"), DataConfig().splits, strict=True):
        value = getattr(data, name)
        if value not in (None, usual):  # the usual names were written into settings of folders once
            raise UsageError(
                f"data.{name} is '{value}', and data.source '{data.source}' has no named splits: a folder's are its "
                "train/ and val/ (or validation/), and digits are split by the pipeline. Leave it out; it is for "
                "hfds/, torch/, wds/ and tfds/."
            )
    return data.model_copy(update={"train_split": None, "val_split": None})


def resolve_training(config: RunConfig, data: DataRecord, processes: int | None = None) -> RunConfig:
    """Batch sizes, learning rates and warm-up decided from the number of training images; a uniform student's width
    from the number of classes.

    Args:
        config: of ``resolve_models``.
        data: what the images are.
        processes: that train together; None for those that run now.

    Raises:
        UsageError: a batch larger than the training set, or a warm-up as long as the training.
    """
    from vitcompress.stages.data.stage import check_of

    check_decidable(config, data.train_images)
    processes = processes or world_size()
    config, _ = with_choices(config, data, processes)
    teacher, distill = config.teacher, config.distill
    if teacher.tune == "auto":  # from random weights, where there is nothing to choose
        teacher = teacher.model_copy(update={"tune": "better"})
    if teacher.epochs == "auto":
        teacher = teacher.model_copy(update={"epochs": _teacher_epochs(config, len(data.classes))})
    _check_training(teacher, "teacher", int(teacher.epochs), data.train_images, processes)
    _check_training(distill, "distill", int(distill.epochs), data.train_images, processes)
    if distill.keep_every == "auto":
        distill = distill.model_copy(update={"keep_every": -(-int(distill.epochs) // _SNAPSHOTS)})
    for section, training in (("teacher", teacher), ("distill", distill)):
        _check_mixing(config, section, training, processes)
    teacher_pass, student_pass = _operations(config.teacher), _operations(config.student)
    passes = data.train_images * 3.0  # backward costs twice what forward does
    teacher = _compilation(teacher, config.device, passes * teacher_pass * int(teacher.epochs))
    asked = (distill.views or int(distill.epochs)) if distill.asks_teacher else 0
    live = data.train_images * teacher_pass * asked
    distill = _compilation(distill, config.device, passes * student_pass * int(distill.epochs) + live)
    where = data, config.device, config.geometry
    beside = teacher_pass * asked / int(distill.epochs)  # a cached one answers once a view
    teacher = resolve_speed(teacher, *where, own=teacher_pass, teacher=0.0, epochs=int(teacher.epochs))
    distill = resolve_speed(distill, *where, own=student_pass, teacher=beside, epochs=int(distill.epochs))
    _check_views(config.model_copy(update={"distill": distill}))
    check = check_of(config.data, data.train_images + data.val_images)
    images = config.data.model_copy(update={"check": check, "augment": distill.augment})
    student = resolve_width(config.student, len(data.classes), config.teacher)
    return config.model_copy(update={"data": images, "teacher": teacher, "student": student, "distill": distill})


def with_choices(config: RunConfig, data: DataRecord, processes: int) -> tuple[RunConfig, list[Choice]]:
    """Both trainings with their ``auto`` decided for these images, and each choice with its reason.

    Args:
        config: of ``resolve_models``.
        data: what the images are.
        processes: that train together.
    """
    choices: list[Choice] = []
    for section, network in (("teacher", config.teacher), ("distill", config.student)):
        training = getattr(config, section)
        facts = Facts(
            section=section,  # type: ignore[arg-type]  # one of the two above
            images=data.train_images,
            parts=training.accumulation * processes,
            start=start_of(network.init),
            parameters=_cost(network).parameters,
        )
        decided, found = choose(training, config.data.augment, facts)
        config = config.model_copy(update={section: decided})
        choices += found
        if section == "distill":
            control, found = choose_control(config.control, training, decided, config.data.augment, facts)
            config = config.model_copy(update={"control": control})
            choices += found
    return config, choices


def _check_views(config: RunConfig) -> None:
    """Fixed views are as many as a pass draws of one image, no more than the training can use, and not mixed.

    Raises:
        UsageError: they are not.
    """
    views, epochs = config.distill.views, config.distill.epochs
    augment, where = _augmentation(config, config.distill, "distill")
    repeats = augment.repeats
    if views and (augment.mixup or augment.cutmix):
        raise UsageError(
            f"distill.views is {views}, and {where} mixes images (mixup {augment.mixup:g}, cutmix "
            f"{augment.cutmix:g}): answers to a mixture cannot be kept. Set both to 0, or distill.views=0."
        )
    if isinstance(epochs, str):
        return  # asked again once they are decided
    if 0 < views < repeats:
        raise UsageError(
            f"distill.views is {views}, and {where}.repeats draws {repeats} views of an image in one pass, which "
            f"would repeat; give at least {repeats} views, or repeats=1."
        )
    if views > epochs * repeats:
        raise UsageError(
            f"distill.views is {views}, but {epochs} epochs with repeats={repeats} use {epochs * repeats} views of an "
            f"image; give at most {epochs * repeats}, or 0 for the live teacher."
        )


def _augmentation(config: RunConfig, training: TrainingConfig, section: str) -> tuple[AugmentConfig, str]:
    """A training's augmentation as far as it is given, and the settings that give it."""
    asked = training.augment
    common = isinstance(asked, str) or all(
        getattr(asked, name) == getattr(config.data.augment, name) for name in ("mixup", "cutmix", "repeats")
    )
    return config.data.augment if isinstance(asked, str) else asked, "data.augment" if common else f"{section}.augment"


def _check_mixing(config: RunConfig, section: str, training: TrainingConfig, processes: int) -> None:
    """Mixup pairs the images of a batch.

    Raises:
        UsageError: a process's part of the batch is odd.
    """
    (augment, where), parts = _augmentation(config, training, section), training.accumulation * processes
    if (augment.mixup or augment.cutmix) and int(training.batch_size) // parts % 2:
        raise UsageError(
            f"{where} mixes images in pairs, and {section}.batch_size {training.batch_size} in {parts} part(s) is "
            f"odd; give a multiple of {2 * parts}."
        )


def _operations(network: TeacherConfig | StudentConfig) -> float:
    """Floating-point operations of one image forward."""
    return 2.0 * _cost(network).macs


def _cost(network: TeacherConfig | StudentConfig) -> Cost:
    """Parameters and MACs of the unchanged network."""
    args = network.args if isinstance(network.args, dict) else {}
    return _cost_by_name(network.model.partition(".")[0], json.dumps(args))


@lru_cache(maxsize=8)
def _cost_by_name(arch: str, args: str) -> Cost:
    """Counted without weights; ``args`` are JSON. Kept, since it takes a second and is asked for several times."""
    from vitcompress.stages.models.build import cost_of, input_size
    from vitcompress.stages.models.geometry import meta_model

    arguments = json.loads(args)
    model = meta_model(arch, arguments)
    return cost_of(model, input_size(arguments, model))


def _compilation(config: Training, device: str, operations: float) -> Training:
    """Whether to compile, decided; asking for it where there is no compiler fails."""
    from vitcompress.stages.training.compilation import decide

    if config.compile_reason:  # decided when the run began, perhaps on another machine; asked of a compiler when used
        return config
    compiled, why = decide(config.compile, device, operations)
    if config.compile != "auto":
        return config
    return config.model_copy(update={"compile": "on" if compiled else "off", "compile_reason": why})


def _teacher_epochs(config: RunConfig, classes: int) -> int:
    """No epochs when the weights come with a classifier for this many classes, else ``tune_epochs``.

    Raises:
        UsageError: the weights are a file that does not fit the model.
    """
    import timm

    from vitcompress.core.records import ModelSpec
    from vitcompress.stages.models.build import build_model
    from vitcompress.stages.models.weights import classifier_names, load_checkpoint

    teacher = config.teacher
    if teacher.init == "file" and teacher.weights and isinstance(teacher.args, dict):
        model = build_model(ModelSpec(arch=teacher.model.partition(".")[0], args=teacher.args, num_classes=classes))
        fits = load_checkpoint(model, Path(teacher.weights), classifier_names(model), key=teacher.weights_key)
    elif teacher.init == "pretrained":
        pretrained = timm.get_pretrained_cfg(teacher.model)
        fits = pretrained is not None and pretrained.num_classes == classes
    else:
        fits = False
    return 0 if fits else int(teacher.tune_epochs)


def _check_training(config: TrainingConfig, section: str, epochs: int, images: int, processes: int) -> None:
    """Refuse sizes and rates that do not go together.

    Raises:
        UsageError: a batch that processes cannot share or that is larger than the training set, a warm-up as long as
            the training, or a last learning rate above the first.
    """
    parts, batch = config.accumulation * processes, int(config.batch_size)
    if batch % parts:
        raise UsageError(
            f"{section}.batch_size is {batch}, which {processes} processes of {config.accumulation} part(s) each "
            f"cannot share evenly; give a multiple of {parts}."
        )
    if batch > images:
        raise UsageError(
            f"{section}.batch_size is {batch}, but there are {images} training images; give at most {images}."
        )
    _check_schedule(config, section, epochs)


def _check_schedule(config: TrainingConfig, section: str, epochs: int | Literal["auto"]) -> None:
    """Refuse epochs and rates that contradict each other, as far as they are decided.

    Raises:
        UsageError: a warm-up as long as the training, or a last learning rate above the first.
    """
    warmup, lr, least = config.warmup_epochs, config.lr, config.min_lr
    if epochs != "auto" and warmup != "auto" and 0 < epochs <= float(warmup):
        raise UsageError(
            f"{section}.warmup_epochs is {float(warmup):g}, but it trains for {epochs}; give less than {epochs}."
        )
    if isinstance(lr, float) and least != "auto" and float(least) > lr:
        raise UsageError(f"{section}.min_lr is {float(least):g}, above {section}.lr, {lr:g}; give at most that.")


def resolve_export(config: RunConfig) -> ExportConfig:
    """The targets decided, with the reason; asking by name for one that cannot be made here fails.

    Raises:
        EnvironmentLacksError: an engine's flavour, or what a precision is made with, is not on this machine.
    """
    export = config.export
    for precision in export.precisions:
        require_precision(precision)
    if export.target != "auto":
        for wanted in export.engines:
            targets.get(wanted).require()  # fails here, before hours of training, if it is not on this machine
        return export.model_copy(update={"target": _with_onnx(export.target), "target_reason": ""})
    chosen, why = choose_flavour("auto")
    engines = (chosen,) if chosen != "none" else ()
    return export.model_copy(update={"target": ("onnx", *engines, "triton"), "target_reason": why})


def _with_onnx(target: tuple[str, ...]) -> tuple[str, ...]:
    """onnx first: everything else is made of it."""
    return ("onnx", *(one for one in target if one != "onnx"))


def _teacher_init(config: RunConfig, geometry: str) -> str:
    init, weights = config.teacher.init, config.teacher.weights
    if init == "auto":
        init = "file" if weights else "scratch" if geometry == "reduced" else "pretrained"
    if (init == "file") != (weights is not None):
        raise UsageError(
            f"teacher.init is '{init}' and teacher.weights is {weights!r}; give both init=file and a file, or neither."
        )
    return init


def _precision(config: RunConfig, device: str, geometry: str) -> str:
    """What the teacher computes in beside the student; on tiny networks converting costs more than it saves."""
    if config.distill.teacher_precision != "auto":
        return config.distill.teacher_precision
    if geometry != "full":
        return "float32"
    if device == "cpu":
        return "bfloat16" if has_amx() else "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def resolve_device(device: str) -> str:
    """``cpu`` or ``cuda``.

    Raises:
        EnvironmentLacksError: a GPU was asked for, and there is none.
    """
    if device == "cpu":
        return device
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentLacksError(
            "device 'cuda' was asked for, and torch sees no GPU; use --set device=cpu (compress analyze: --device cpu)."
        )
    return "cuda" if torch.cuda.is_available() else "cpu"


def _threads(config: RunConfig, geometry: str) -> int:
    """CPU threads of torch, 0 for its own choice: one a core, whatever a container's quota leaves of them."""
    if config.threads != "auto":
        return config.threads
    if geometry == "reduced":
        return 1
    usable = usable_cores()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else usable
    return usable if usable < cores else 0


def _workers(config: RunConfig) -> int:
    if config.workers != "auto":
        if config.workers < 0:
            raise UsageError(f"workers is {config.workers}; give 0 or more.")
        return config.workers
    return 0 if config.data.source == EMBEDDED else min(_MAX_WORKERS, usable_cores())
