"""Load the teacher; fit it to the data's classes where its classifier does not; judge it on the held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from accelerate.utils import set_seed
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
        UsageError: weights that do not fit, or that can be had nowhere.
        ResultError: a loss or gradient, or a trained weight, is not finite.
        RunInterrupted: stopped on request while fitting.
    """
    set_seed(context.seed)
    data_config, images = recorded_images(inputs.data)
    model, spec, source, fits = _initial(config, len(images.classes), context)
    preprocess = preprocess_of(model, spec.args, data_config.crop_pct)
    shape = shape_of(model, spec.arch)
    epochs = (0 if fits else config.tune_epochs) if config.epochs == "auto" else config.epochs
    if epochs == 0 and not fits:
        raise UsageError(
            f"teacher.epochs is 0, but the teacher's classifier does not fit the data's {len(images.classes)} classes; "
            "give weights that do, or let it be fitted with --set teacher.epochs=10."
        )
    if epochs:
        context.say(f"fitting the teacher to {len(images.classes)} classes for {epochs} epochs")
        accuracy = _fit(config, epochs, model, images, data_config.augment, preprocess, context)
    else:
        accelerator = make_accelerator(context.device)
        loader = eval_loader(images.val, preprocess, batch_size=int(config.batch_size), workers=context.workers)
        network, loader = accelerator.prepare(model, loader)
        accuracy = top1(*predict_logits(network, loader, accelerator))
        model = accelerator.unwrap_model(network).cpu()
    context.leave_to_main()
    if not all_finite(model.state_dict()):
        raise ResultError("the teacher has weights that are not finite; lower teacher.lr, or check its weights file.")
    return TeacherRecord(
        model=spec,
        weights=save_weights(model.state_dict(), context.run.root / "teacher" / "model.safetensors", context.run.root),
        preprocess=preprocess,
        source=source,
        epochs=epochs,
        cost=cost_of(model, preprocess.size),
        width=shape.width,
        depth=shape.depth,
        val_top1=accuracy,
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
        raise UsageError(
            f"pretrained weights of '{config.model}' can be had neither from the local cache nor from timm's hub "
            f"({type(error).__name__}). Three ways on: give a checkpoint with --teacher-weights FILE; run once where "
            "the hub can be reached and keep its cache (HF_HOME); or train the teacher here with "
            "--set teacher.init=scratch."
        ) from error
    pretrained_classes = int((getattr(model, "pretrained_cfg", None) or {}).get("num_classes", -1))
    return model, spec, f"timm pretrained{f' ({tag})' if tag else ''}", pretrained_classes == classes


def _fit(
    config: TeacherConfig,
    epochs: int,
    model: nn.Module,
    images: Images,
    augment: AugmentConfig,
    preprocess: PreprocessSpec,
    context: Context,
) -> float:
    """Train all of the teacher's weights with cross-entropy, in place; its top-1 on the held-out images."""

    def loss(network: nn.Module, batch: Tensor, labels: Tensor) -> dict[str, Tensor]:
        smoothing = 0.0 if labels.is_floating_point() else config.label_smoothing  # mixed labels are smoothed already
        return {"labels": F.cross_entropy(network(batch).float(), labels, label_smoothing=smoothing)}

    if config.compile == "on":
        compile_in_place(model)
    job = Job(
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
    _, state, accuracy = train(job, config, epochs, context).chosen
    model.cpu().load_state_dict(state)
    return accuracy
