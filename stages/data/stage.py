"""Look at the images before anything is computed from them: classes, counts, digest, and whether they decode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.core.images import READING, ImageError
from vitcompress.core.records import DataRecord
from vitcompress.core.words import counted
from vitcompress.stages.data.bad_images import LISTED, find_bad, refusal, write_list
from vitcompress.stages.data.duplicates import Duplicates, find_duplicates, pairs_in_words
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.sources import EMBEDDED, Images, ListedSplit, data_digest, open_images, source_of
from vitcompress.stages.images.sources.pack import Pack
from vitcompress.stages.images.splits import evenly_spread

_FULL_CHECK_LIMIT = 50_000
_MEASURED = 256
"""Training images whose mean and standard deviation are taken for all."""


@dataclass(frozen=True)
class Inputs:
    """This stage reads no record."""


def run(config: DataConfig, inputs: Inputs, context: Context) -> DataRecord:
    """Open the source, check its images, describe it.

    A DataError is raised if no image is usable, or images do not decode or stand in both splits, by their paths.
    """
    images = open_images(config)
    if images.read:
        context.say(f"note: {images.read}")
    checked, bad = _check(config, images, context)
    left_out, dropped = frozenset(bad), frozenset[str]()
    if left_out:
        images = open_images(config, left_out)
    found = _duplicates(config, images, context)
    if found and found.training and config.on_duplicates == "drop":
        dropped = frozenset(file.name for file, _ in found.training)
        images = open_images(config, left_out, dropped)
    write_list(bad, context.run.root)
    if not len(images.val):
        why = f"none of the held-out images can be used ({LISTED})" if bad else "there are no held-out images"
        raise DataError(f"{why}, so that nothing could be judged; bring others.")
    if config.task == "embedding" and (not hasattr(images.val, "__getitem__") or len(images.val) < 2):
        what = "one" if len(images.val) == 1 else "a stream of them, to be read in order alone"
        raise DataError(f"task embedding compares held-out images with each other; '{config.source}' has {what}.")
    if images.skipped:
        suffixes = ", ".join(sorted(suffix or "without suffix" for suffix in images.skipped))
        context.say(f"note: {sum(images.skipped.values()):,} files skipped, which are no images by suffix: {suffixes}")
    for split, kind in ((images.train, "training"), (images.val, "held-out")) if config.labelled else ():
        here = chain(*split.class_sets) if isinstance(split, ListedSplit) else range(len(images.classes))
        if absent := set(range(len(images.classes))).difference(here):
            context.say(f"note: {len(absent)} of {len(images.classes)} classes have no {kind} image")
    if not config.labelled and images.are_files and any("/" in key for key, _ in images.train.items):
        context.say("note: the folders that images are in are not read as classes (data.labelled=false)")
    if not config.pixel.plain:
        what = f"images of {config.pixel.words} are cropped, flipped and erased"
        context.say(f"note: {what}; auto_augment and colour jitter are for 8-bit grey and RGB alone")
    statistics = _statistics(config, images, context)
    return DataRecord(
        config=config.identity(),  # how the images were checked changes nothing for later stages
        source=config.source,
        classes=images.classes,
        train_images=len(images.train),
        val_images=len(images.val),
        split=images.split,
        read=images.read,
        task=config.task,
        unlabelled=images.unlabelled,
        labelled=config.labelled,
        digest=data_digest(config),
        checked=checked,
        pixels=READING,
        left_out=tuple(sorted(left_out)),
        dropped=tuple(sorted(dropped)),
        duplicates=len(found.held_out) if found else None,
        contradictory=len(found.contradictory) if found else None,
        mean=statistics[0],
        std=statistics[1],
    )


def _statistics(config: DataConfig, images: Images, context: Context) -> list[tuple[float, ...] | None]:
    """Return mean and standard deviation of each channel: given, or of training images of which networks know none."""
    if config.mean is not None or config.pixel.plain:
        return [config.mean, config.std]
    at = evenly_spread(len(images.train), _MEASURED)
    shares = (images.train[position][0] / np.float64(2**config.bits - 1) for position in at)
    mean, square = np.mean([(one.mean((0, 1)), (one**2).mean((0, 1))) for one in shares], axis=0)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    spread[spread < 1e-8] = 1  # a channel that never changes says nothing
    words = ", ".join(f"{one:.4g} +- {other:.4g}" for one, other in zip(mean, spread, strict=True))
    context.say(f"note: channels are normalised by {counted(len(at), 'training image')} (data.mean, data.std): {words}")
    return [tuple(float(f"{one:.6g}") for one in each) for each in (mean, spread)]


def check_of(config: DataConfig, count: int) -> Literal["full", "header", "skip"]:
    """Return how files are opened beforehand, ``auto`` decided from their number."""
    if config.check != "auto":
        return config.check
    # With skip, an image that is found later ends the run.
    return "full" if count <= _FULL_CHECK_LIMIT or config.on_bad_image == "skip" else "header"


def _check(config: DataConfig, images: Images, context: Context) -> tuple[str, Mapping[str, ImageError]]:
    """Open the images as ``config.check`` says; what was done, in words, and those that are to be left out."""
    if config.source == EMBEDDED:
        return "not needed: embedded", {}
    if not images.are_files:
        reader = source_of(config.source).name
        if reader == Pack.name:
            return "checked when they were packed, and by checksum whenever they are read", {}
        context.say(f"note: read through {reader}: images are neither opened beforehand nor searched for duplicates")
        return f"not opened beforehand: read through {reader}", {}
    count = len(images.train) + len(images.val)
    how = check_of(config, count)
    if how == "skip":
        if config.on_bad_image == "skip":
            context.say("note: data.on_bad_image=skip finds nothing while data.check=skip opens no image")
        return "not opened beforehand (data.check=skip)", {}
    bad = find_bad(images.files(), decode=how == "full", channels=config.pixel)
    if bad and config.on_bad_image == "error":
        raise refusal(bad, config.source, count)
    if bad:
        context.say(f"note: {counted(len(bad), 'image')} of {count:,} left out of both splits: {LISTED}")
    return f"all {count:,} {'decoded' if how == 'full' else 'headers read'}", bad


def _duplicates(config: DataConfig, images: Images, context: Context) -> Duplicates | None:
    """Find what stands in both splits or under two classes; None where nobody looks."""
    if not images.are_files or config.on_duplicates == "allow":
        return None
    found = find_duplicates(images.files())
    if found.held_out:
        shared = f"{len(found.held_out):,} of {len(images.val):,} held-out images"
        words = f"in training too, byte for byte ({pairs_in_words(found.held_out)})"
        if config.on_duplicates == "error":
            raise DataError(
                f"{shared} are {words}; remove one of each, or use data.on_duplicates=drop, which leaves them out of "
                "training, or warn or allow."
            )
        if config.on_duplicates == "drop":
            context.say(f"note: {counted(len(found.training), 'image')} left out of training: {shared} were {words}")
        else:
            context.say(
                f"warning: {shared} are {words}: scores come out too high; data.on_duplicates=drop leaves them out "
                "of training"
            )
    if found.contradictory:
        context.say(
            f"warning: {counted(len(found.contradictory), 'training image')} have a copy in another class, byte for "
            f"byte ({pairs_in_words(found.contradictory)}): one of the labels is wrong"
        )
    return found
