"""Load the teacher; fit it to the data's classes where its classifier does not; judge it on the held-out images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import Tensor, nn

from core.context import Context
from core.errors import ResultError, UsageError
from core.preprocess import PreprocessSpec
from core.records import DataRecord, ModelSpec, TeacherRecord
from stages.images.config import AugmentConfig
from stages.images.loaders import eval_loader, mix_of, train_loader, train_views
from stages.images.sources import Images, recorded_images
from stages.models.build import build_model, cost_of, preprocess_of, pretrained_model
from stages.models.geometry import shape_of
from stages.models.weights import all_finite, classifier_names, load_checkpoint, save_weights
from stages.teacher.config import TeacherConfig
from stages.training.chance import against_chance, chance_level
from stages.training.compilation import compile_in_place
from stages.training.device import make_accelerator
from stages.training.evaluate import predict_logits, top1
from stages.training.loop import Job, train


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord


def run(config: TeacherConfig, inputs: Inputs, context: Context) -> TeacherRecord:
    """The teacher, ready for the data's classes.

    Raises:
        UsageError: weights that do not fit, that can be had nowhere, or that, used as given, do no better than chance.
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request while fitting.
    """
    set_seed(context.seed)
    _, images = recorded_images(inputs.data)
    teacher = initial_teacher(config, inputs.data, context)
    model, preprocess = teacher.model, teacher.preprocess
    epochs = epochs_of(config, teacher.fits, len(images.classes))
    if epochs:
        context.say(f"fitting the teacher to {len(images.classes)} classes for {epochs} epochs")
        job = fitting_job(config, model, images, config.augmentation, preprocess, context)
        _, state, accuracy = train(job, config, epochs, context).chosen
        model.cpu().load_state_dict(state)
        labels = None
    else:
        accelerator = make_accelerator(context.device)
        loader = eval_loader(images.val, preprocess, batch_size=int(config.batch_size), workers=context.workers)
        network, loader = accelerator.prepare(model, loader)
        logits, labels = predict_logits(network, loader, accelerator)
        accuracy = top1(logits, labels)
        model = accelerator.unwrap_model(network).cpu()
    context.leave_to_main()
    if not all_finite(model.state_dict()):
        raise ResultError("the teacher has weights that are not finite; lower teacher.lr, or check its weights file.")
    if labels is not None:
        _better_than_chance(accuracy, labels, len(images.classes), context)
    return record_of(replace(teacher, model=model), epochs, accuracy, context)


@dataclass(frozen=True)
class InitialTeacher:
    """The teacher before it is fitted or judged."""

    model: nn.Module
    spec: ModelSpec
    preprocess: PreprocessSpec
    source: str
    """Where its weights came from, in words."""
    fits: bool
    """Whether its classifier is for the data's classes."""


def initial_teacher(config: TeacherConfig, data: DataRecord, context: Context) -> InitialTeacher:
    """The network with its first weights.

    Raises:
        UsageError: weights that do not fit, or that can be had nowhere.
    """
    model, spec, source, fits = _initial(config, len(data.classes), context)
    return InitialTeacher(model, spec, preprocess_of(model, spec.args, data.config["crop_pct"]), source, fits)


def epochs_of(config: TeacherConfig, fits: bool, classes: int) -> int:
    """Epochs of fitting.

    Raises:
        UsageError: none, and the classifier does not fit.
    """
    epochs = (0 if fits else int(config.tune_epochs)) if config.epochs == "auto" else config.epochs
    if epochs == 0 and not fits:
        raise UsageError(
            f"teacher.epochs is 0, but the teacher's classifier does not fit the data's {classes} classes; "
            "give weights that do, or let it be fitted with --set teacher.epochs=10."
        )
    return epochs


def record_of(teacher: InitialTeacher, epochs: int, val_top1: float, context: Context) -> TeacherRecord:
    """The record of a teacher, fitted for ``epochs``, of this top-1 (percent); its weights are written."""
    shape = shape_of(teacher.model, teacher.spec.arch)
    root = context.run.root
    return TeacherRecord(
        model=teacher.spec,
        weights=save_weights(teacher.model.state_dict(), root / "teacher" / "model.safetensors", root),
        preprocess=teacher.preprocess,
        source=teacher.source,
        epochs=epochs,
        cost=cost_of(teacher.model, teacher.preprocess.size),
        width=shape.width,
        depth=shape.depth,
        val_top1=val_top1,
    )


def _better_than_chance(accuracy: float, labels: NDArray[np.int64], classes: int, context: Context) -> None:
    """Refuse a teacher used as given that does not know the data's classes: what it teaches would be noise.

    Raises:
        UsageError: its top-1 (percent) on the held-out ``labels`` [N] is no better than chance.
    """
    count, chance = len(labels), chance_level(labels, classes)
    verdict = against_chance(round(accuracy / 100 * count), count, chance)
    found = f"{accuracy:.1f} % of {count:,} held-out images right, where chance is {100 * chance:.1f} %"
    if verdict == "undecided":
        context.say(f"note: too few held-out images to tell the teacher from chance ({found})")
    if verdict == "no better":
        raise UsageError(
            f"the teacher, used as given, is no better than chance ({found}): its classes are another dataset's or in "
            "another order, or the weights are the wrong ones. Check the weights and the names of the class folders "
            "(sorted, they give the order), or fit the teacher to this data with --set teacher.epochs=10."
        )


def _initial(config: TeacherConfig, classes: int, context: Context) -> tuple[nn.Module, ModelSpec, str, bool]:
    """The network with its first weights, where they came from, and whether its classifier fits the data."""
    arch, _, tag = config.model.partition(".")
    args = {} if config.args == "auto" else config.args
    spec = ModelSpec(arch=arch, args=args, num_classes=classes)
    if config.init == "scratch":
        return build_model(spec), spec, "trained here from random weights", False
    if config.init == "file" and config.weights:
        model = build_model(spec)
        fits = load_checkpoint(model, Path(config.weights), classifier_names(model))
        return model, spec, f"file {config.weights}", fits
    context.say(f"asking for timm's pretrained weights of {config.model} (offline, this takes up to a minute to fail)")
    try:
        model = pretrained_model(config.model, spec)
    except (OSError, RuntimeError) as error:
        raise no_weights(config.model, type(error).__name__) from error
    pretrained_classes = int((getattr(model, "pretrained_cfg", None) or {}).get("num_classes", -1))
    return model, spec, f"timm pretrained{f' ({tag})' if tag else ''}", pretrained_classes == classes


def no_weights(model: str, why: str) -> UsageError:
    """What to say where pretrained weights cannot be had."""
    return UsageError(
        f"pretrained weights of '{model}' can be had neither from the local cache nor from timm's hub "
        f"({why}). Three ways on: give a checkpoint with --teacher-weights FILE; run once where "
        "the hub can be reached and keep its cache (HF_HOME); or train the teacher here with "
        "--set teacher.init=scratch."
    )


def fitting_job(
    config: TeacherConfig,
    model: nn.Module,
    images: Images,
    augment: AugmentConfig,
    preprocess: PreprocessSpec,
    context: Context,
) -> Job:
    """The training of all of the teacher's weights with cross-entropy, in place, ready to begin."""

    def loss(network: nn.Module, batch: Tensor, labels: Tensor) -> dict[str, Tensor]:
        smoothing = 0.0 if labels.is_floating_point() else config.label_smoothing  # mixed labels are smoothed already
        return {"labels": F.cross_entropy(network(batch).float(), labels, label_smoothing=smoothing)}

    if config.compile == "on":
        compile_in_place(model)
    return Job(
        name="teacher",
        model=model,
        network=lambda trained: trained,
        loss=loss,
        train=train_loader(
            train_views(images.train, augment, preprocess, context.seed),
            batch_size=int(config.batch_size) // config.accumulation,
            seed=context.seed,
            workers=context.workers,
            repeats=augment.repeats,
        ),
        val=eval_loader(images.val, preprocess, batch_size=int(config.batch_size), workers=context.workers),
        folder=context.run.root / "checkpoints" / "teacher",
        fingerprint=context.fingerprint,
        mix=mix_of(augment, len(images.classes), config.label_smoothing),
    )
