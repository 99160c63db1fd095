"""Fourth: settings that do not go with what is known of machine, networks and images; each check refuses one thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from vitcompress.core.errors import UsageError
from vitcompress.exporters.precision.modelopt import require_precision
from vitcompress.pipeline.config.contradictions import augmentation_of
from vitcompress.pipeline.config.facts import Facts
from vitcompress.pipeline.config.model import RunConfig

if TYPE_CHECKING:
    from vitcompress.stages.distill.pairs import Shape


def check_tools(config: RunConfig, facts: Facts) -> None:
    """Refuse precisions that nothing here can make, before hours of training.

    Raises:
        EnvironmentLacksError: what a precision is made with is not on this machine.
    """
    for precision in config.export.precisions:
        require_precision(precision)


def check_layers(config: RunConfig, facts: Facts) -> None:
    """Send one image of no content through both networks without weights, and see whether the taps can be compared.

    A strategy widens taps but leaves their grid, so the unchanged student stands for all of them.

    Raises:
        UsageError: taps that cannot be had or compared.
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
    """Return the shape of the tap of each layer; ``args`` are JSON.

    Raises:
        UsageError: the network does not take such an image, or not without its weights.
    """
    from vitcompress.stages.distill.model import tap_shapes
    from vitcompress.stages.models.build import input_size
    from vitcompress.stages.models.geometry import REFUSALS, meta_model

    own = json.loads(args)
    model = meta_model(arch, own)
    size = input_size(own, model)
    try:
        return tap_shapes(model, size, layers)
    except REFUSALS as error:
        raise UsageError(
            f"the taps of {arch} at {size} px cannot be found ({' '.join(str(error).split())[:120]}); give another "
            "--image-size or network."
        ) from error


def check_decidable(config: RunConfig, facts: Facts) -> None:
    """Refuse, before the teacher is trained, a strategy that could not be decided afterwards.

    Raises:
        UsageError: the strategy is ``auto``, and the analysis would have too few images.
    """
    if config.student.strategy != "auto" or facts.data is None:
        return
    from vitcompress.stages.analysis.statistics import MIN_IMAGES

    read = min(config.analysis.images, facts.data.train_images)
    if read < MIN_IMAGES:
        raise UsageError(
            f"student.strategy is 'auto', and the analysis that decides it would read {read} images "
            f"(analysis.images is {config.analysis.images}, and there are {facts.data.train_images} to train on); it "
            f"needs at least {MIN_IMAGES}. Give more, or a strategy by name."
        )


def check_batches(section: Literal["teacher", "distill"]) -> Callable[[RunConfig, Facts], None]:
    """Return the check that a batch can be shared and is no larger than the training set."""

    def check(config: RunConfig, facts: Facts) -> None:
        training, images = getattr(config, section), facts.data.train_images if facts.data else 0
        parts, batch = training.accumulation * facts.processes, int(training.batch_size)
        if batch % parts:
            raise UsageError(
                f"{section}.batch_size is {batch}, which {facts.processes} processes of {training.accumulation} "
                f"part(s) each cannot share evenly; give a multiple of {parts}."
            )
        if batch > images:
            raise UsageError(
                f"{section}.batch_size is {batch}, but there are {images} training images; give at most {images}."
            )

    return check


def check_pairs_to_mix(section: Literal["teacher", "distill"]) -> Callable[[RunConfig, Facts], None]:
    """Return the check that mixup finds an even number of images in a process's part of the batch."""

    def check(config: RunConfig, facts: Facts) -> None:
        training = getattr(config, section)
        (augment, where), parts = augmentation_of(config, training, section), training.accumulation * facts.processes
        if (augment.mixup or augment.cutmix) and int(training.batch_size) // parts % 2:
            raise UsageError(
                f"{where} mixes images in pairs, and {section}.batch_size {training.batch_size} in {parts} part(s) is "
                f"odd; give a multiple of {2 * parts}."
            )

    return check
