"""Fourth: settings that do not go with what is known of machine, networks and images; each check refuses one thing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from vitcompress.core.errors import UsageError
from vitcompress.core.records import DataRecord
from vitcompress.exporters.precision.modelopt import require_precision
from vitcompress.pipeline.config.contradictions import augmentation_of
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.model import RunConfig
from vitcompress.pipeline.tracking.config import require_trackers

if TYPE_CHECKING:
    from vitcompress.stages.distill.pairs import Shape


def check_tools(config: RunConfig, facts: Facts) -> None:
    """Refuse, before hours of training, what this machine cannot make or measure: an EnvironmentLacksError."""
    require_trackers(config.tracking)
    for precision in config.export.precisions:
        require_precision(precision)
    if config.verify.teacher_reference == "compiled":
        from vitcompress.stages.training.compilation import require_compiler

        require_compiler("verify.teacher_reference=compiled", config.device)


def check_layers(config: RunConfig, facts: Facts) -> None:
    """Refuse, by a UsageError, taps that cannot be had or compared, once an empty image went through both networks.

    A strategy widens taps but leaves their grid, so the unchanged student stands for all of them.
    """
    from vitcompress.stages.distill.pairs import check_alignable, layer_pairs, student_layers, teacher_layers

    student, teacher = facts.network("student", config), facts.network("teacher", config)
    pairs = layer_pairs(config.distill, student.shape.depth, teacher.shape.depth)
    if pairs:
        ours, theirs = (
            _tap_shapes(network.arch, json.dumps(network.args, default=str), layers)
            for network, layers in ((student, student_layers(pairs)), (teacher, teacher_layers(pairs)))
        )
        check_alignable(pairs, ours, theirs)


@lru_cache(maxsize=32)
def _tap_shapes(arch: str, args: str, layers: tuple[int, ...]) -> dict[int, Shape]:
    """Return the shape of the tap of each layer; ``args`` are JSON."""
    from vitcompress.stages.distill.model import tap_shapes
    from vitcompress.stages.models.build import input_size
    from vitcompress.stages.models.geometry import REFUSALS, meta_model

    own = json.loads(args)
    model = meta_model(arch, own)
    size = input_size(own, model)
    try:
        return tap_shapes(model, size, layers, own.get("in_chans", 3))
    except REFUSALS as error:
        raise UsageError(
            f"the taps of {arch} at {size} px cannot be found ({' '.join(str(error).split())[:120]}); give another "
            "--image-size or network."
        ) from error


def against_images(config: RunConfig, facts: Facts) -> Iterator[str]:
    """Yield what does not go with the listed images, one sentence each; nothing before they are listed."""
    if facts.data is None:
        return
    images, processes = facts.data.train_images, facts.processes
    if config.student.strategy == "auto":
        from vitcompress.stages.analysis.statistics import MIN_IMAGES

        read = min(config.analysis.images, images)
        if read < MIN_IMAGES:
            yield (
                f"student.strategy is 'auto', and the analysis that decides it would read {read} images "
                f"(analysis.images is {config.analysis.images}, and there are {images} to train on); it needs at least "
                f"{MIN_IMAGES}. Give more, or a strategy by name."
            )
    for section, training in (("teacher", config.teacher), ("distill", config.distill)):
        (augment, where), batch = augmentation_of(config, training, section), int(training.batch_size)
        parts = training.accumulation * processes
        if uneven := uneven_batch(section, batch, training.accumulation, processes, "processes"):
            yield uneven
        elif (augment.mixup or augment.cutmix) and batch // parts % 2:
            yield (
                f"{where} mixes images in pairs, and {section}.batch_size {batch} in {parts} part(s) is odd; give a "
                f"multiple of {2 * parts}."
            )
        most = facts.data.teacher_images if section == "teacher" else images
        if batch > most:
            yield f"{section}.batch_size is {batch}, but there are {most} training images; give at most {most}."
        if training.class_weights != "none":
            yield from _unweighable(facts.data, section, training.class_weights, config.distill.alpha)


def _unweighable(data: DataRecord, section: str, weights: str | Mapping[str, float], alpha: float) -> Iterator[str]:
    """Yield why the classes of a training cannot have these weights."""
    from vitcompress.stages.images.sources import recorded_images
    from vitcompress.stages.training.class_weights import class_weights

    if data.task == "embedding" or (section == "distill" and alpha == 1):
        why = f"(data.task is {data.task}, distill.alpha {alpha:g})"
        yield f"{section}.class_weights weighs the loss by labels, and this training has none {why}; leave it out."
        return
    try:
        class_weights(weights, recorded_images(data)[1])
    except UsageError as error:
        yield f"{section}.{error}"


def uneven_batch(section: str, batch: int, accumulation: int, count: int, who: str) -> str:
    """Return why ``count`` processes or cards (``who``) cannot share a batch evenly; empty where they can."""
    parts = accumulation * count
    if batch % parts == 0:
        return ""
    return (
        f"{section}.batch_size is {batch}, which {count} {who} of {accumulation} part(s) each cannot share evenly; "
        f"give a multiple of {parts}."
    )
