"""Load the teacher; fit it to the data's classes where its classifier does not; judge it on the held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import set_seed
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from vitcompress.core.context import Context
from vitcompress.core.errors import ResultError, UsageError
from vitcompress.core.files import reference, write_atomic
from vitcompress.core.network_names import OVERLAY, is_own, split_tag
from vitcompress.core.preprocess import PreprocessSpec
from vitcompress.core.records import DataRecord, ModelSpec, Task, TeacherRecord
from vitcompress.stages.images.loaders import eval_loader, mix_of, train_loader, train_views
from vitcompress.stages.images.sources import Images, recorded_images
from vitcompress.stages.judging.accuracy import correct
from vitcompress.stages.judging.chance import against_chance, chance_of
from vitcompress.stages.judging.tasks import gain, training_score
from vitcompress.stages.models.build import build_model, cost_of, preprocess_of, pretrained_model, size_change
from vitcompress.stages.models.embedding import embedding_width, projection_of
from vitcompress.stages.models.families.registry import family_of
from vitcompress.stages.models.geometry import shape_of
from vitcompress.stages.models.own import words_of
from vitcompress.stages.models.trainable import prepare
from vitcompress.stages.models.weights import all_finite, load_checkpoint, save_weights
from vitcompress.stages.teacher.adapt import Surroundings, adapt
from vitcompress.stages.teacher.config import TeacherConfig
from vitcompress.stages.teacher.probing import answers
from vitcompress.stages.training.class_weights import class_weights
from vitcompress.stages.training.compilation import compile_in_place
from vitcompress.stages.training.device import make_accelerator
from vitcompress.stages.training.job import Job
from vitcompress.stages.training.labels import LabelLoss
from vitcompress.stages.training.loop import train


@dataclass(frozen=True)
class Inputs:
    """Records this stage reads."""

    data: DataRecord


def run(config: TeacherConfig, inputs: Inputs, context: Context) -> TeacherRecord:
    """Return the teacher, ready for the data's classes.

    A UsageError is raised if weights do not fit, can be had nowhere, or, used as given, do no better than chance; a
    ResultError if a loss, a gradient or a trained weight is not finite; RunInterrupted if it is stopped on request.
    """
    set_seed(context.seed)
    data_config, listed = recorded_images(inputs.data)
    images = listed.labelled()
    teacher = initial_teacher(config, inputs.data, context)
    if inputs.data.task == "embedding":
        context.leave_to_main()
        return record_of(teacher, 0, 100.0, context)  # of its own embedding
    model, preprocess = teacher.model, teacher.preprocess
    if inputs.data.judged_by_teacher:
        return _with_answers(config, teacher, images, context)
    epochs, classes = epochs_of(config, teacher.fits, len(images.classes)), len(images.classes)
    found = {"epochs": epochs, "precision": make_accelerator(context.device, precision=config.precision).precision}

    def job_of(parts: Images) -> Job:
        return fitting_job(config, model, parts, preprocess, context, inputs.data.task)

    adapted = config.init != "scratch" and (not teacher.fits or _asked_epochs(config, teacher.fits) > 0)
    if adapted:
        given = Surroundings(config, images, preprocess, data_config.split_seed, context, inputs.data.task, job_of)
        found |= adapt(model, epochs, given)
    elif epochs:
        context.say(f"fitting the teacher to {classes} classes for {epochs} epochs")
        trained = train(job_of(images), config, epochs, context)
        _, state, accuracy = trained.chosen
        found["precision"] = trained.progress.precision
        model.cpu().load_state_dict(state)
    if adapted or not epochs:
        logits, labels = answers(model, images.val, preprocess, config, context)
        accuracy = training_score(inputs.data.task)(logits, labels)
    context.leave_to_main()
    if not all_finite(model.state_dict()):
        raise ResultError("the teacher has weights that are not finite; lower teacher.lr, or check its weights file.")
    if not (adapted or epochs):
        _refuse_at_chance(logits, labels, inputs.data.task, context)
    return record_of(teacher, epochs, accuracy, context).model_copy(update=found)


def _with_answers(config: TeacherConfig, teacher: InitialTeacher, images: Images, context: Context) -> TeacherRecord:
    """Return the record of a teacher used as given, whose answers to held-out images, in float32, are their labels."""
    if not teacher.fits:
        raise UsageError(f"the teacher has no classifier of {len(images.classes)} classes, as data.classes says.")
    exact = config.model_copy(update={"precision": "float32"})  # as stages.verify asks it
    logits, _ = answers(teacher.model, images.val, teacher.preprocess, exact, context)
    context.leave_to_main()
    given, path = logits.argmax(axis=1), context.run.root / "teacher" / "answers.safetensors"
    write_atomic(path, save({"answers": given}))
    context.say(
        f"note: the teacher's answers to the {len(given):,} held-out images are their labels: scores are agreement "
        "with it, and it is not compared with chance"
    )
    shares = np.bincount(given) / len(given)
    if shares.max() >= 0.9:  # mostly the wrong weights, or the wrong images
        context.say(
            f"warning: {100 * shares.max():.1f} % of the teacher's answers are '{images.classes[shares.argmax()]}': "
            "see whether these are its weights, and images like those that it was trained on"
        )
    found = {"answers": reference(path, context.run.root), "precision": "float32"}
    return record_of(teacher, 0, 100.0, context).model_copy(update=found)


def _refuse_at_chance(logits: NDArray[np.float32], labels: NDArray[Any], task: Task, context: Context) -> None:
    """Refuse, by a UsageError, a teacher used as given that does not know the data's classes: it teaches noise."""
    count, score = len(labels), training_score(task)(logits, labels)
    if task == "multilabel":  # against its own answers to other images
        points, low, high, _ = gain(task, logits, np.random.default_rng(0).permutation(logits), labels)
        reaches = high > (100 - score + points) / 2  # half of chance's errors
        verdict = "better" if low > 0 else "undecided" if reaches else "no better"
        found = f"{score:.1f} % mAP on {count:,} held-out images, where chance is {score - points:.1f} %"
    else:
        chance = chance_of(np.bincount(labels).tolist(), logits.shape[1])
        verdict = against_chance(int(correct(logits, labels).sum()), count, chance)
        found = f"{score:.1f} % of {count:,} held-out images right, where chance is {100 * chance:.1f} %"
    if verdict == "undecided":
        context.say(f"note: too few held-out images to tell the teacher from chance ({found})")
    if verdict == "no better":
        raise UsageError(
            f"the teacher, used as given, is no better than chance ({found}): its classes are another dataset's or in "
            "another order, or the weights are the wrong ones. Check the weights and the names of the class folders "
            "(sorted, they give the order), or fit the teacher to this data with --set teacher.epochs=10."
        )


@dataclass(frozen=True)
class InitialTeacher:
    """The teacher before it is fitted or judged."""

    model: nn.Module
    spec: ModelSpec
    preprocess: PreprocessSpec
    source: str
    """Where its weights came from, in words."""
    fits: bool
    """Whether its classifier is for the data's classes; an embedding fits any."""


def initial_teacher(config: TeacherConfig, data: DataRecord, context: Context) -> InitialTeacher:
    """Return the network with its first weights; a UsageError is raised if they do not fit or can be had nowhere."""
    arch, tag = split_tag(config.model)
    args = {} if config.args == "auto" else config.args
    embeds = data.task == "embedding"
    classes = projection_of(config.model) if embeds else len(data.classes)
    spec = ModelSpec(arch=arch, args=args, num_classes=classes)
    if config.init == "scratch":
        model, fits = build_model(spec), False
        start = f"the weights of {words_of(arch, model)}" if is_own(arch) else "random weights"
        source = f"trained here from {start}"
    elif config.init == "file" and config.weights:
        model, loaded = build_model(spec), list[str]()
        fits = load_checkpoint(model, Path(config.weights), tell=loaded.append, key=config.weights_key)
        if embeds and not fits:  # the projection that it might have
            spec = spec.model_copy(update={"num_classes": 0})
            model, loaded = build_model(spec), []
            fits = load_checkpoint(model, Path(config.weights), tell=loaded.append, key=config.weights_key)
        context.say(f"teacher weights: {loaded[0]}")
        source = f"{config.weights_reason or f'file {config.weights}'}; {loaded[0]}"
        if fits and config.weights_reason and not embeds:  # else the names are of other weights
            source += _in_order(model, args.get(OVERLAY, {}).get("label_names", ()), data.classes)
    elif is_own(arch):
        model, fits = build_model(spec), True
        source = words_of(arch, model)
    else:
        context.say(f"note: asking for timm's weights of {config.model} (offline, this takes up to a minute to fail)")
        try:
            model = pretrained_model(config.model, spec)
        except (OSError, RuntimeError) as error:
            raise no_weights(config.model, type(error).__name__) from error
        fits = embeds or int((getattr(model, "pretrained_cfg", None) or {}).get("num_classes", -1)) == classes
        source = f"timm pretrained{f' ({tag})' if tag else ''}"
        if change := size_change(model, args):
            context.say(f"teacher weights: {change}")
            source += f", {change}"
    if is_own(arch):
        context.say(f"note: the teacher is {words_of(arch, model)}")
    preprocess = preprocess_of(model, args, data.config["crop_pct"], data)
    if embeds:
        spec = spec.model_copy(update={"embedding": embedding_width(model, preprocess.size, preprocess.channels)})
        source += "; its projection" if spec.num_classes else "; its pooled features, without a classifier"
    return InitialTeacher(model, spec, preprocess, source, fits)


def _in_order(model: nn.Module, names: Sequence[str], classes: Sequence[str]) -> str:
    """Bring the logits, in place, to the order of the data's classes where these are the same; say so."""
    if sorted(names) != sorted(classes) or list(names) == list(classes):
        return ""
    rows = [names.index(name) for name in classes]
    for part in family_of(model).classifier(model):
        for parameter in model.get_submodule(part).parameters():
            parameter.data = parameter.data[rows]
    return "; its classes brought to the order of the data's"


def epochs_of(config: TeacherConfig, fits: bool, classes: int) -> int:
    """Return the epochs of fitting all weights, at most; none for a linear probe.

    A UsageError is raised if there are none, and the classifier does not fit.
    """
    epochs, probed = _asked_epochs(config, fits), config.tune == "probe" and config.init != "scratch"
    if epochs == 0 and not fits and not probed:
        raise UsageError(
            f"teacher.epochs is 0, but the teacher's classifier does not fit the data's {classes} classes; "
            "give weights that do, or let it be fitted with --set teacher.epochs=10."
        )
    return 0 if probed else epochs


def _asked_epochs(config: TeacherConfig, fits: bool) -> int:
    return (0 if fits else int(config.tune_epochs)) if config.epochs == "auto" else config.epochs


def record_of(teacher: InitialTeacher, epochs: int, val_top1: float, context: Context) -> TeacherRecord:
    """Write the teacher's weights and return its record, fitted for ``epochs``, of this top-1 (percent)."""
    shape = shape_of(teacher.model, teacher.spec.arch)
    root = context.run.root
    return TeacherRecord(
        model=teacher.spec,
        weights=save_weights(teacher.model.state_dict(), root / "teacher" / "model.safetensors", root),
        preprocess=teacher.preprocess,
        source=teacher.source,
        epochs=epochs,
        cost=cost_of(teacher.model, teacher.preprocess.size, teacher.preprocess.channels),
        width=shape.width,
        depth=shape.depth,
        val_top1=val_top1,
    )


def no_weights(model: str, why: str) -> UsageError:
    """Return the error for pretrained weights that cannot be had."""
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
    preprocess: PreprocessSpec,
    context: Context,
    task: Task = "classification",
) -> Job:
    """Return the training of all of the teacher's weights that are not frozen, in place, by the labels."""
    augment, weights = config.augmentation, class_weights(config.class_weights, images)
    label_loss = LabelLoss(task, config.label_smoothing, weights=weights)

    def loss(network: nn.Module, batch: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"labels": label_loss(network(batch), labels)}

    prepare(model, config, "teacher")
    if config.compiles:
        compile_in_place(model, graphs=config.compile == "graphs")
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
        mix=mix_of(augment, preprocess, len(images.classes), config.label_smoothing),
        score=training_score(task),
    )
