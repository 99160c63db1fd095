"""Look at the images before anything is computed from them: classes, counts, digest, and whether they decode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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

_FULL_CHECK_LIMIT = 50_000


@dataclass(frozen=True)
class Inputs:
    """This stage reads no record."""


def run(config: DataConfig, inputs: Inputs, context: Context) -> DataRecord:
    """Open the source, check its images, describe it.

    A DataError is raised if no image is usable, or images do not decode or stand in both splits, by their paths.
    """
    images = open_images(config)
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
    if images.skipped:
        suffixes = ", ".join(sorted(suffix or "without suffix" for suffix in images.skipped))
        context.say(f"note: {sum(images.skipped.values()):,} files skipped, which are no images by suffix: {suffixes}")
    absent = set(range(len(images.classes))) - set(images.val.labels) if isinstance(images.val, ListedSplit) else ()
    if absent and config.labelled:
        context.say(f"note: {len(absent)} of {len(images.classes)} classes have no held-out image")
    if not config.labelled and images.are_files and any("/" in key for key, _ in images.train.items):
        context.say("note: the folders that images are in are not read as classes (data.labelled=false)")
    return DataRecord(
        config=config.identity(),  # how the images were checked changes nothing for later stages
        source=config.source,
        classes=images.classes,
        train_images=len(images.train),
        val_images=len(images.val),
        split=images.split,
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
    )


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
    bad = find_bad(images.files(), decode=how == "full")
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
