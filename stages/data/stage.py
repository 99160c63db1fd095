"""Look at the images before anything is computed from them: classes, counts, digest, and whether they decode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitcompress.core.context import Context
from vitcompress.core.errors import DataError
from vitcompress.core.images import READING
from vitcompress.core.pillow import listening
from vitcompress.core.records import DataRecord
from vitcompress.core.words import counted
from vitcompress.stages.data.bad_images import LISTED, Bad, find_bad, refusal, write_list
from vitcompress.stages.data.duplicates import Duplicates, find_duplicates, pairs_in_words
from vitcompress.stages.images.config import DataConfig
from vitcompress.stages.images.left_out import LeftOut
from vitcompress.stages.images.listing import data_digest, kind_of, suffixes_in_words
from vitcompress.stages.images.sources import Images, StreamSplit, open_images

_FULL_CHECK_LIMIT = 50_000


@dataclass(frozen=True)
class Inputs:
    """This stage reads no record."""


def run(config: DataConfig, inputs: Inputs, context: Context) -> DataRecord:
    """Open the source, check its images, describe it.

    Raises:
        DataError: no usable images, or images that do not decode or stand in both splits, by their paths.
    """
    images = open_images(config)
    checked, bad = _check(config, images, context)
    left_out = LeftOut(frozenset(each.name for each in bad))
    if bad:
        images = open_images(config, left_out)
    found = _duplicates(config, images, context)
    if found and found.training and config.on_duplicates == "drop":
        left_out = LeftOut(left_out.unusable, frozenset(file.name for file, _ in found.training))
        images = open_images(config, left_out)
    write_list(bad, context.run.root)
    if not len(images.val):
        why = f"none of the held-out images can be used ({LISTED})" if bad else "there are no held-out images"
        raise DataError(f"{why}, so that nothing could be judged; bring others.")
    record = DataRecord(
        config=config.identity(),  # how the images were checked changes nothing for later stages
        source=config.source,
        classes=images.classes,
        train_images=len(images.train),
        val_images=len(images.val),
        split=images.split,
        digest=data_digest(config),
        checked=checked,
        pixels=READING,
        left_out=tuple(sorted(left_out.unusable)),
        dropped=tuple(sorted(left_out.from_training)),
        duplicates=len(found.held_out) if found else None,
        contradictory=len(found.contradictory) if found else None,
    )
    if images.skipped:
        context.say(
            "note: files in class folders skipped, not recognised as images: "
            f"{sum(images.skipped.values()):,} ({suffixes_in_words(images.skipped)})"
        )
    absent = len(images.classes) - _classes_seen(images.val)
    if absent > 0:
        context.say(f"note: {absent} of {len(images.classes)} classes have no held-out image")
    return record


def check_of(config: DataConfig, count: int) -> Literal["full", "header", "skip"]:
    """Return how images are opened beforehand, ``auto`` decided from their number."""
    if config.check != "auto":
        return config.check
    if kind_of(config.source) != "folder":
        return "skip"
    if config.on_bad_image == "skip":  # one that is found later ends the run
        return "full"
    return "full" if count <= _FULL_CHECK_LIMIT else "header"


def _check(config: DataConfig, images: Images, context: Context) -> tuple[str, tuple[Bad, ...]]:
    """Open the images as ``config.check`` says; what was done, in words, and those that are to be left out."""
    if kind_of(config.source) != "folder":
        if config.source == "digits":
            return "not needed: embedded", ()
        context.say("note: read through timm: images are neither opened beforehand nor searched for duplicates")
        return "not opened beforehand: read through timm", ()
    count = len(images.train) + len(images.val)
    how = check_of(config, count)
    if how == "skip":
        if config.on_bad_image == "skip":
            context.say("note: data.on_bad_image=skip finds nothing while data.check=skip opens no image")
        return "not opened beforehand (data.check=skip)", ()
    with listening() as heard:
        bad = find_bad(images.files(Path(config.source)), decode=how == "full")
    if bad and config.on_bad_image == "error":
        raise refusal(bad, config.source, count)
    for line in heard.lines():
        context.say(line)
    if bad:
        context.say(f"note: {counted(len(bad), 'image')} of {count:,} left out of both splits: {LISTED}")
    return f"all {count:,} {'decoded' if how == 'full' else 'headers read'}", bad


def _duplicates(config: DataConfig, images: Images, context: Context) -> Duplicates | None:
    """Find what stands in both splits or under two classes; None where nobody looks.

    Raises:
        DataError: the splits share files, and that is to be an error.
    """
    if kind_of(config.source) != "folder" or config.on_duplicates == "allow":
        return None
    found = find_duplicates(images.files(Path(config.source)))
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
                f"warning: {shared} are {words}: accuracy comes out too high; data.on_duplicates=drop leaves them out "
                "of training"
            )
    if found.contradictory:
        context.say(
            f"warning: {counted(len(found.contradictory), 'training image')} have a copy in another class, byte for "
            f"byte ({pairs_in_words(found.contradictory)}): one of the labels is wrong"
        )
    return found


def _classes_seen(split: Any) -> int:
    """Count the classes with a held-out image; 10^9 for streams and foreign datasets, which would be read whole."""
    items = getattr(split, "items", None)
    if isinstance(split, StreamSplit) or items is None:
        return 10**9
    return len({label for _, label in items})
